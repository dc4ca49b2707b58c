package claims

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
)

// Limits of reading a WebAssembly binary.
const (
	MaxModule   = 64 << 20 // bytes of the whole binary
	maxSections = 20_000   // at all levels together
	maxDepth    = 16       // of components in components
)

// Names of the custom section that carries the token. Signing tools before wascap
// 0.9 wrote the old one; readers accept either.
const (
	SectionName    = "wasmcloud_jwt"
	OldSectionName = "jwt"
)

const (
	wasmMagic     = "\x00asm"
	wasmHeaderLen = 8

	sectionCustom = 0
	// Sections of a component whose body is a binary of its own.
	sectionCoreModule = 1
	sectionComponent  = 4
)

// section is one section of a binary at one level.
type section struct {
	id    byte
	whole []byte // with its id and its length as they are in the file
	body  []byte
	name  string // of a custom section that may be a token, else ""
	data  []byte // body after the name, of such a section
}

func (s section) token() bool {
	return s.id == sectionCustom && (s.name == SectionName || s.name == OldSectionName)
}

// walker goes through a binary and counts what it meets at all levels.
type walker struct{ sections int }

// walk calls fn for each section of bin at its outermost level, in order.
func (w *walker) walk(bin []byte, fn func(section) error) error {
	if len(bin) > MaxModule {
		return fmt.Errorf("%d bytes, limit %d: %w", len(bin), MaxModule, ErrTooLarge)
	}
	if len(bin) < wasmHeaderLen || string(bin[:4]) != wasmMagic {
		return fmt.Errorf("not a WebAssembly binary: %w", ErrMalformed)
	}
	layer := binary.LittleEndian.Uint16(bin[6:])
	if layer > 1 {
		return fmt.Errorf("WebAssembly layer %d is unknown: %w", layer, ErrMalformed)
	}
	for at := wasmHeaderLen; at < len(bin); {
		if w.sections++; w.sections > maxSections {
			return fmt.Errorf("more than %d sections: %w", maxSections, ErrTooLarge)
		}
		s, err := readSection(bin[at:])
		if err != nil {
			return fmt.Errorf("section at byte %d: %w", at, err)
		}
		at += len(s.whole)
		if err := fn(s); err != nil {
			return err
		}
	}
	return nil
}

func readSection(b []byte) (section, error) {
	size, n := readLEB(b[1:])
	if n == 0 {
		return section{}, fmt.Errorf("length is not an unsigned LEB128 of 32 bits: %w", ErrMalformed)
	}
	start := 1 + n
	if uint64(size) > uint64(len(b)-start) {
		return section{}, fmt.Errorf("%d bytes long, %d are left: %w", size, len(b)-start, ErrMalformed)
	}
	end := start + int(size)
	s := section{id: b[0], whole: b[:end], body: b[start:end]}
	if s.id != sectionCustom {
		return s, nil
	}
	length, n := readLEB(s.body)
	if n == 0 || uint64(length) > uint64(len(s.body)-n) {
		return section{}, fmt.Errorf("custom section without a name: %w", ErrMalformed)
	}
	if length <= uint32(len(SectionName)) { // a longer one is not a token
		s.name = string(s.body[n : n+int(length)])
		s.data = s.body[n+int(length):]
	}
	return s, nil
}

// readLEB reads an unsigned LEB128 of 32 bits, which may be padded to five bytes.
// n is its length in bytes, 0 if there is none.
func readLEB(b []byte) (v uint32, n int) {
	var sum uint64
	for n < 5 && n < len(b) {
		c := b[n]
		sum |= uint64(c&0x7f) << (7 * n)
		n++
		if c&0x80 == 0 {
			if sum > math.MaxUint32 {
				return 0, 0
			}
			return uint32(sum), n
		}
	}
	return 0, 0
}

// strip returns bin without its token sections, with the length of every other
// section as a LEB128 of minimal length. In a component this goes for the binaries
// inside it too. It is what the hash of a token is over.
func (w *walker) strip(bin []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("components nested deeper than %d: %w", maxDepth, ErrTooLarge)
	}
	if len(bin) < wasmHeaderLen {
		return nil, fmt.Errorf("not a WebAssembly binary: %w", ErrMalformed)
	}
	component := binary.LittleEndian.Uint16(bin[6:]) == 1
	out := append(make([]byte, 0, len(bin)), bin[:wasmHeaderLen]...)
	err := w.walk(bin, func(s section) error {
		if s.token() {
			return nil
		}
		body := s.body
		if component && (s.id == sectionCoreModule || s.id == sectionComponent) {
			var err error
			if body, err = w.strip(body, depth+1); err != nil {
				return fmt.Errorf("nested binary: %w", err)
			}
		}
		out = appendSection(out, s.id, body)
		return nil
	})
	return out, err
}

func appendSection(out []byte, id byte, body []byte) []byte {
	out = append(out, id)
	out = binary.AppendUvarint(out, uint64(len(body)))
	return append(out, body...)
}

// Extract returns the token of a binary, without checking it. The error wraps
// ErrUnsigned if there is none, and ErrMalformed if there are two.
func Extract(bin []byte) (string, error) {
	_, token, err := extract(bin)
	return token, err
}

// extract is Extract, with the name of the section.
func extract(bin []byte) (name, token string, err error) {
	var found *section
	w := walker{}
	err = w.walk(bin, func(s section) error {
		if !s.token() {
			return nil
		}
		if found != nil {
			return fmt.Errorf("two tokens in one module: %w: %w", ErrToken, ErrMalformed)
		}
		if len(s.data) > MaxToken {
			return fmt.Errorf("%d bytes, limit %d: %w: %w", len(s.data), MaxToken, ErrToken, ErrTooLarge)
		}
		found = &s
		return nil
	})
	if err != nil {
		return "", "", err
	}
	if found == nil {
		return "", "", fmt.Errorf("module: %w", ErrUnsigned)
	}
	return found.name, string(found.data), nil
}

// Embed returns bin without the tokens it had, with lengths re-encoded as Hash
// sees them, and with token in a custom section of the given name (SectionName,
// or OldSectionName for old readers) at its end.
func Embed(bin []byte, name, token string) ([]byte, error) {
	if name != SectionName && name != OldSectionName {
		return nil, fmt.Errorf("embed token: section name %.20q: %w", name, ErrMalformed)
	}
	if len(token) > MaxToken {
		return nil, fmt.Errorf("embed token: %d bytes, limit %d: %w", len(token), MaxToken, ErrTooLarge)
	}
	w := walker{}
	out, err := w.strip(bin, 0)
	if err != nil {
		return nil, fmt.Errorf("embed token: %w", err)
	}
	body := binary.AppendUvarint(nil, uint64(len(name)))
	body = append(append(body, name...), token...)
	return appendSection(out, sectionCustom, body), nil
}

// Hash is the hash that a token of revision 3 carries: 64 upper-case hex digits of
// the SHA-256 of bin without its token sections and with the length of each other
// section re-encoded at minimal length.
func Hash(bin []byte) (string, error) {
	w := walker{}
	stripped, err := w.strip(bin, 0)
	if err != nil {
		return "", err
	}
	return upperHex(sha256.Sum256(stripped)), nil
}

// literalHash is over bin with its token sections cut out and nothing else changed;
// some modules of older signing tools match only this one.
func literalHash(bin []byte) (string, error) {
	h := sha256.New()
	h.Write(bin[:min(len(bin), wasmHeaderLen)])
	w := walker{}
	err := w.walk(bin, func(s section) error {
		if !s.token() {
			h.Write(s.whole)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return upperHex([32]byte(h.Sum(nil))), nil
}

func upperHex(sum [32]byte) string { return fmt.Sprintf("%X", sum) }
