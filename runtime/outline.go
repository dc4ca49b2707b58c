package runtime

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/edged-io/edged/internal/atomicfile"
)

// outlineOf is a rewritten module without its code: each function traps at once.
// To run code that is compiled already the engine needs no more of the module,
// but it would check every instruction, and keep them all.
func outlineOf(metered []byte) []byte {
	const codeSection = 10
	out := append([]byte{}, metered[:8]...)
	in := wasmReader{metered[8:]}
	for len(in.buf) > 0 {
		id := in.byte()
		body := in.bytes(in.uint())
		if id == codeSection {
			code := wasmReader{body}
			n := code.uint()
			body = binary.AppendUvarint(nil, n)
			for range n {
				body = append(body, 3, 0, 0x00, 0x0b) // three bytes: no locals, unreachable, end
			}
		}
		out = binary.AppendUvarint(append(out, id), uint64(len(body)))
		out = append(out, body...)
	}
	return out
}

// program is what this program is told from others by. It is "" where that
// cannot be said.
var program = sync.OnceValue(func() string {
	name, err := programFile("/proc/self/exe") // this program, also after an update of the file
	if err == nil {
		return name
	}
	path, err := os.Executable()
	if err == nil {
		name, err = programFile(path)
	}
	if err != nil {
		return ""
	}
	return name
})

// programFile tells a program by its size, its time and the identity of the build,
// which is in its beginning: images give all their files one time, and sizes are
// rounded.
func programFile(path string) (name string, err error) {
	const beginning = 64 << 10
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	hash := crc32.New(castagnoli)
	if _, err := io.Copy(hash, io.LimitReader(f, beginning)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x-%x%08x", info.Size(), info.ModTime().UnixNano(), hash.Sum32()), nil
}

// outlinePrefix begins the name of the file with an outline: what it was made of
// and the program that made it follow.
const outlinePrefix = "outline-"

func outlineFile(metered []byte) string {
	return fmt.Sprintf("%s%x%s", outlinePrefix, sha256.Sum256(metered), outlineOfProgram())
}

func outlineOfProgram() string { return "-" + program() + ".wasm" }

// outline reads the outline in an entry, if it is of what this program's rewriter
// makes of wasm; else it returns nil. It is if this program made it, and nothing
// has to be rewritten to know. One that another program made of the same is taken
// over, with its new name in the sum.
func (e *wholeEntry) outline(wasm []byte) ([]byte, error) {
	if len(e.files) != 2 || !strings.HasPrefix(e.files[0], outlinePrefix) {
		return nil, nil
	}
	name := e.files[0]
	if program() == "" || !strings.HasSuffix(name, outlineOfProgram()) {
		metered, err := rewrite(wasm)
		if err != nil {
			return nil, err
		}
		ours := outlineFile(metered)
		if !strings.HasPrefix(name, strings.TrimSuffix(ours, outlineOfProgram())+"-") {
			return nil, nil
		}
		if name != ours {
			if err := e.rename(ours); err != nil {
				return nil, err
			}
		}
	}
	return os.ReadFile(filepath.Join(e.dir, e.files[0]))
}

// rename gives the outline another name. The sum is still of what was verified,
// and not of what somebody may have put there since.
func (e *wholeEntry) rename(name string) error {
	if err := os.Rename(filepath.Join(e.dir, e.files[0]), filepath.Join(e.dir, name)); err != nil {
		return err
	}
	e.sum = strings.Replace(e.sum, " "+e.files[0]+"\n", " "+name+"\n", 1)
	e.files[0] = name
	return atomicfile.WriteFile(filepath.Join(e.dir, sumFile), []byte(e.sum), 0o600)
}
