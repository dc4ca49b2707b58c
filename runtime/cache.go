package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/edged-io/edged/internal/atomicfile"
)

// sumFile lists the files of an entry with their checksums. The engine checks
// a part of what it reads only, and what it reads is executed.
const sumFile = "sum"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// unusedFor is how long an entry that no load asked for is kept.
const unusedFor = 90 * 24 * time.Hour

// A codeCache keeps compiled code on disk: a directory for each module, named by
// the digest of its bytes, in which the engine keeps its files. The engine names
// them by its own version, by the processor, and by the bytes that it compiled,
// so that what another rewriter or engine has made is not found, and goes when
// the new code is there.
//
// What is in it gets executed. So it is used only where nobody but its owner,
// which is who we run as, can write. A codeCache is for one goroutine at a time.
type codeCache struct {
	dir      string // "" for none
	maxBytes int64
	log      *slog.Logger
	fault    error           // why there is none, if there was to be one
	keep     bool            // another process prunes
	loaded   map[string]bool // entries of this process; they are not too old, whatever the clock says
}

// newCodeCache opens a cache in dir. Whatever is wrong with it, the modules run
// without one.
func newCodeCache(dir string, maxBytes int64, log *slog.Logger) *codeCache {
	c := &codeCache{maxBytes: maxBytes, log: log, loaded: map[string]bool{}}
	if dir == "" || interpreted {
		return c
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = prepareCache(dir)
	}
	if err != nil {
		c.fault = fmt.Errorf("compilation cache not used, each start compiles: %w", err)
		log.Warn(c.fault.Error())
		return c
	}
	c.dir = dir
	return c
}

// prepareCache makes dir, and checks that it is ours alone. It may be a link of
// ours, to another disk.
func prepareCache(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	link, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory; remove it", dir)
	}
	if link.Mode()&fs.ModeSymlink != 0 {
		err = owned(link)
	}
	if err == nil {
		err = onlyOurs(info)
	}
	if err != nil {
		return fmt.Errorf("%s %w, and what is in it gets executed; remove it", dir, err)
	}
	if info.Mode().Perm()&0o077 != 0 { // others could read: nothing has happened
		return os.Chmod(dir, 0o700)
	}
	return nil
}

// onlyOurs says who else can write a file.
func onlyOurs(info fs.FileInfo) error {
	if err := owned(info); err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("has mode %#o: others can write", info.Mode().Perm())
	}
	return nil
}

// owned says who else owns a file or a link.
func owned(info fs.FileInfo) error {
	if owner, ok := ownerOf(info); ok && owner != os.Geteuid() {
		return fmt.Errorf("belongs to user %d", owner)
	}
	return nil
}

// compile makes code of wasm, a module as it came. Nothing that is wrong with the
// cache, be it damaged, full or read-only, keeps a good module from running.
func (c *codeCache) compile(ctx context.Context, digest string, wasm []byte) (*module, error) {
	if c.dir == "" {
		return c.compileAnew(ctx, digest, wasm)
	}
	entry := filepath.Join(c.dir, digest)
	m, err := c.compileIn(ctx, entry, digest, wasm)
	if err == nil {
		c.loaded[entry] = true
		if !m.fromCache {
			c.prune(entry)
		}
		return m, nil
	}
	// Where even this fails, the next load will say so again.
	_ = os.RemoveAll(entry)
	var fault *moduleFault
	if errors.As(err, &fault) {
		return nil, err
	}
	m, plain := c.compileAnew(ctx, digest, wasm)
	if plain == nil {
		c.log.Warn("compilation cache not used", "entry", entry, "err", err)
	}
	return m, plain
}

func (c *codeCache) compileAnew(ctx context.Context, digest string, wasm []byte) (*module, error) {
	metered, err := rewrite(wasm)
	if err != nil {
		return nil, err
	}
	return newModule(ctx, digest, metered, nil)
}

func (c *codeCache) compileIn(ctx context.Context, entry, digest string, wasm []byte) (*module, error) {
	before, err := verifyEntry(entry)
	if err != nil {
		c.log.Warn("damaged entry in the compilation cache removed", "entry", entry, "err", err)
		if err := os.RemoveAll(entry); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(entry, 0o700); err != nil {
		return nil, err
	}
	metered, err := meteredIn(entry, before, wasm)
	if err != nil {
		return nil, err
	}
	cache, err := wazero.NewCompilationCacheWithDir(entry)
	if err != nil {
		return nil, err
	}
	m, err := newModule(ctx, digest, metered, cache)
	if err != nil {
		return nil, err
	}
	if m.fromCache, err = sealEntry(entry, before); err != nil {
		return nil, errors.Join(err, m.close(ctx))
	}
	return m, nil
}

// has says that an entry was made by this program, and so holds the code that it
// would make again.
func (c *codeCache) has(digest string) bool {
	if c.dir == "" {
		return false
	}
	sum, err := os.ReadFile(filepath.Join(c.dir, digest, sumFile))
	return err == nil && meteredFile() != "" && strings.Contains(string(sum), " "+meteredFile()+"\n")
}

// meteredPrefix begins the name of the file with the rewritten module.
const meteredPrefix = "metered-"

// meteredFile is the name of the module as this program's rewriter makes it,
// which spares a third of the time of a load. It is "" where the program cannot
// tell itself from another: an older rewriter's modules must not be taken.
var meteredFile = sync.OnceValue(func() string {
	info, err := os.Stat("/proc/self/exe") // this program, also after an update of the file
	if err != nil {
		name, noName := os.Executable()
		if noName != nil {
			return ""
		}
		if info, err = os.Stat(name); err != nil {
			return ""
		}
	}
	return fmt.Sprintf("%s%x-%x.wasm", meteredPrefix, info.Size(), info.ModTime().UnixNano())
})

// meteredIn returns the rewritten module, and leaves it in the entry.
func meteredIn(entry string, files []string, wasm []byte) ([]byte, error) {
	name := meteredFile()
	if slices.Contains(files, name) {
		return os.ReadFile(filepath.Join(entry, name))
	}
	metered, err := rewrite(wasm)
	if err != nil || name == "" {
		return metered, err
	}
	return metered, os.WriteFile(filepath.Join(entry, name), metered, 0o600)
}

// verifyEntry returns the files of an entry that is whole: those that its sum
// lists, byte for byte. An entry that is not there is whole and empty.
func verifyEntry(entry string) (files []string, err error) {
	files, err = entryFiles(entry)
	if err != nil {
		return nil, err
	}
	want, err := os.ReadFile(filepath.Join(entry, sumFile))
	if errors.Is(err, fs.ErrNotExist) {
		want, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	have, err := sumOf(entry, files)
	if err != nil {
		return nil, err
	}
	if have != string(want) {
		return nil, errors.New("its files are not those that were written")
	}
	return files, nil
}

// sealEntry writes the sum of an entry. When the engine has added a file, those
// from before are of another version of it, or of the rewriter, and go; else the
// code came from the entry.
func sealEntry(entry string, before []string) (hit bool, err error) {
	files, err := entryFiles(entry)
	if err != nil {
		return false, err
	}
	now := time.Now()
	if err := os.Chtimes(entry, now, now); err != nil { // prune goes by it
		return false, err
	}
	isCode := func(f string) bool { return !strings.HasPrefix(f, meteredPrefix) }
	compiled := slices.ContainsFunc(files, func(f string) bool { return isCode(f) && !slices.Contains(before, f) })
	hit = !compiled && slices.ContainsFunc(files, isCode)
	var kept []string
	for _, f := range files {
		if isCode(f) && compiled && slices.Contains(before, f) || !isCode(f) && f != meteredFile() {
			if err := os.Remove(filepath.Join(entry, f)); err != nil {
				return false, err
			}
			continue
		}
		kept = append(kept, f)
	}
	if slices.Equal(kept, before) {
		return hit, nil
	}
	sum, err := sumOf(entry, kept)
	if err != nil {
		return false, err
	}
	return hit, atomicfile.WriteFile(filepath.Join(entry, sumFile), []byte(sum), 0o600)
}

// entryFiles lists the files below an entry, without its sum, in order. There is
// nothing but files and directories, which are ours alone.
func entryFiles(entry string) (files []string, err error) {
	err = filepath.WalkDir(entry, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == entry {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.IsDir() && !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no file", path)
		}
		if err := onlyOurs(info); err != nil {
			return fmt.Errorf("%s %w", path, err)
		}
		if info.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(entry, path)
		if err == nil && rel != sumFile {
			files = append(files, rel)
		}
		return err
	})
	return files, err
}

func sumOf(entry string, files []string) (string, error) {
	var b strings.Builder
	for _, name := range files {
		f, err := os.Open(filepath.Join(entry, name))
		if err != nil {
			return "", err
		}
		hash := crc32.New(castagnoli)
		n, err := io.Copy(hash, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%08x %d %s\n", hash.Sum32(), n, name)
	}
	return b.String(), nil
}

// prune removes the entries that were not loaded for long, and then those that
// were not for the longest time until the rest fits. The one in use stays.
func (c *codeCache) prune(inUse string) {
	if c.keep {
		return
	}
	type entry struct {
		path  string
		used  time.Time
		bytes int64
	}
	var entries []entry
	var total int64
	list, err := os.ReadDir(c.dir)
	for _, d := range list {
		info, infoErr := d.Info()
		if infoErr != nil {
			continue // gone meanwhile
		}
		e := entry{filepath.Join(c.dir, d.Name()), info.ModTime(), bytesBelow(filepath.Join(c.dir, d.Name()))}
		total += e.bytes
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path)) })
	for _, e := range entries {
		old := !c.loaded[e.path] && time.Since(e.used) > unusedFor
		if !old && total <= c.maxBytes {
			continue
		}
		if e.path != inUse {
			err = errors.Join(err, os.RemoveAll(e.path))
			total -= e.bytes
		}
	}
	if err != nil {
		c.log.Warn("prune compilation cache", "err", err)
	}
}

func bytesBelow(dir string) (total int64) {
	// What cannot be read counts as nothing; removing it will say why.
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil && !d.IsDir() {
			total += info.Size()
		}
		return nil
	})
	return total
}
