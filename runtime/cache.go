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
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/edged-io/edged/internal/atomicfile"
)

// sumFile lists the files of an entry with their checksums. The engine checks
// a part of what it reads only, and what it reads is executed.
const sumFile = "sum"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A codeCache keeps compiled code on disk: a directory for each module, named by
// the digest of its bytes, in which the engine keeps its files. It is for one
// goroutine at a time.
type codeCache struct {
	dir      string // "" for none
	maxBytes int64
	log      *slog.Logger
}

func newCodeCache(dir string, maxBytes int64, log *slog.Logger) (*codeCache, error) {
	if dir == "" || interpreted {
		return &codeCache{log: log}, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("compilation cache: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("compilation cache: %w", err)
	}
	// Whoever can write here runs code with our rights.
	info, err := os.Stat(dir)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("compilation cache: %w", err)
	}
	return &codeCache{dir, maxBytes, log}, nil
}

// compile makes code of wasm. Nothing that is wrong with the cache, be it
// damaged, full or read-only, keeps a good module from running.
func (c *codeCache) compile(ctx context.Context, digest string, wasm []byte) (*module, error) {
	if c.dir == "" {
		return newModule(ctx, digest, wasm, nil)
	}
	entry := filepath.Join(c.dir, digest)
	m, err := c.compileIn(ctx, entry, digest, wasm)
	if err == nil {
		c.prune(entry)
		return m, nil
	}
	// Where even this fails, the next load will say so again.
	_ = os.RemoveAll(entry)
	var fault *moduleFault
	if errors.As(err, &fault) {
		return nil, err
	}
	m, plain := newModule(ctx, digest, wasm, nil)
	if plain == nil {
		c.log.Warn("compilation cache not used", "entry", entry, "err", err)
	}
	return m, plain
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
	cache, err := wazero.NewCompilationCacheWithDir(entry)
	if err != nil {
		return nil, err
	}
	m, err := newModule(ctx, digest, wasm, cache)
	if err != nil {
		return nil, err
	}
	if err := sealEntry(entry, before); err != nil {
		return nil, errors.Join(err, m.close(ctx))
	}
	return m, nil
}

// verifyEntry returns the files of an entry that is whole: those that its sum
// lists, byte for byte. An entry that is not there is whole and empty.
func verifyEntry(entry string) (files []string, err error) {
	want, err := os.ReadFile(filepath.Join(entry, sumFile))
	if errors.Is(err, fs.ErrNotExist) {
		want, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	files, err = entryFiles(entry)
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
// from before are of another version of it and go.
func sealEntry(entry string, before []string) error {
	files, err := entryFiles(entry)
	if err != nil {
		return err
	}
	now := time.Now()
	if err := os.Chtimes(entry, now, now); err != nil { // prune goes by it
		return err
	}
	if slices.Equal(files, before) {
		return nil
	}
	for _, old := range before {
		if err := os.Remove(filepath.Join(entry, old)); err != nil {
			return err
		}
	}
	files = slices.DeleteFunc(files, func(f string) bool { return slices.Contains(before, f) })
	sum, err := sumOf(entry, files)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(entry, sumFile), []byte(sum), 0o600)
}

// entryFiles lists the files below an entry, without its sum, in order.
func entryFiles(entry string) (files []string, err error) {
	err = filepath.WalkDir(entry, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == entry {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
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

// prune removes the entries that were not loaded for the longest time until the
// rest fits. The one in use stays.
func (c *codeCache) prune(inUse string) {
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
		if total <= c.maxBytes {
			break
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
