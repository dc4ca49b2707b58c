package runtime

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/edged-io/edged/internal/atomicfile"
)

// An entry of the cache is a directory with three files: the outline of the
// rewritten module, its code where the engine looks for that of the outline, and
// their sum. The engine names the code by its own version and by the processor, so
// that what another engine made is not found.

// sumFile lists the files of an entry with their checksums. The engine checks
// a part of what it reads only, and what it reads is executed.
const sumFile = "sum"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// compileIn takes the module from its entry. An entry that is not there, or not
// whole, or that this program would fill otherwise, is filled first. While another
// process fills one only whole entries can be had, and then perhaps this one.
func (c *codeCache) compileIn(ctx context.Context, entry, digest string, wasm []byte) (*module, error) {
	unlock, ok, err := tryLock(c.dir)
	if err == nil && !ok {
		if m, _ := c.load(ctx, entry, digest, wasm); m != nil { // what is wrong with it is told below
			return m, nil
		}
		unlock, err = c.lock(ctx)
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	m, err := c.load(ctx, entry, digest, wasm)
	if err != nil {
		c.log.Warn("damaged entry in the compilation cache removed", "entry", entry, "err", err)
	}
	if m != nil {
		return m, nil
	}
	if err = c.fill(ctx, entry, digest, wasm); err == nil {
		m, err = c.load(ctx, entry, digest, wasm)
	}
	if m == nil && err == nil {
		err = errors.New("an entry that was just written is not found")
	}
	if err != nil {
		_ = os.RemoveAll(entry) // where even this fails, the next load will say so again
		return nil, err
	}
	m.fromCache = false
	return m, nil
}

// load makes a module of what an entry has: nil where that is nothing, or not
// what this program would put there.
func (c *codeCache) load(ctx context.Context, entry, digest string, wasm []byte) (*module, error) {
	is, err := verifyEntry(entry)
	if err != nil {
		return nil, err
	}
	return is.load(ctx, digest, wasm)
}

// load is what follows. Another process may change the entry at any time.
func (e *wholeEntry) load(ctx context.Context, digest string, wasm []byte) (*module, error) {
	outline, err := e.outline(wasm)
	if err != nil || outline == nil {
		return nil, err
	}
	cache, err := wazero.NewCompilationCacheWithDir(e.dir)
	if err != nil {
		return nil, err
	}
	m, err := newModule(ctx, digest, outline, cache)
	if err != nil {
		return nil, err
	}
	m.fromCache = true
	now := time.Now()
	_ = os.Chtimes(e.dir, now, now) // prune goes by the time; where none can be set, it removes nothing either
	// An engine that did not find its code, since it is of another version or on
	// another processor, has compiled the outline. That must not run.
	same, err := e.unchanged()
	if err != nil || !same {
		return nil, errors.Join(err, m.close(ctx))
	}
	return m, nil
}

// unchanged says whether the files are still those whose sums were right.
func (e *wholeEntry) unchanged() (bool, error) {
	files, err := entryFiles(e.dir)
	if err != nil || !slices.Equal(files, e.files) {
		return false, err
	}
	now, err := statFiles(e.dir, files)
	return slices.EqualFunc(now, e.infos, func(a, b fs.FileInfo) bool {
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	}), err
}

func statFiles(entry string, files []string) (all []fs.FileInfo, err error) {
	for _, name := range files {
		info, err := os.Lstat(filepath.Join(entry, name))
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	return all, nil
}

// unfinished begins the names of entries that are being made.
const unfinished = "new-"

// fill compiles a module and puts its outline and its code in the place of an
// entry, all at once.
func (c *codeCache) fill(ctx context.Context, entry, digest string, wasm []byte) (err error) {
	metered, err := rewrite(wasm)
	if err != nil {
		return err
	}
	made, err := os.MkdirTemp(c.dir, unfinished+"*") // what a power cut leaves of it, prune finds
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(made)) }()
	code, err := compileInto(ctx, filepath.Join(made, "whole"), digest, metered)
	if err != nil {
		return err
	}
	outline := outlineOf(metered)
	name, err := compileInto(ctx, made, digest, outline)
	if err != nil {
		return err
	}
	// The engine finds code by the module that it is of. It is to find this one
	// with the outline.
	if err := errors.Join(os.Rename(code, name), os.RemoveAll(filepath.Join(made, "whole"))); err != nil {
		return err
	}
	if err := atomicfile.WriteFile(filepath.Join(made, outlineFile(metered)), outline, 0o600); err != nil {
		return err
	}
	if err := seal(made); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(entry), os.Rename(made, entry))
}

// compileInto has the engine keep the code of a module in dir, and returns the
// file that it made.
func compileInto(ctx context.Context, dir, digest string, wasm []byte) (file string, err error) {
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return "", err
	}
	m, err := newModule(ctx, digest, wasm, cache)
	if err != nil {
		return "", err
	}
	if err := m.close(ctx); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("the engine left %d files with code, not one", len(files))
	}
	if err != nil {
		return "", err
	}
	return files[0], nil
}

// A wholeEntry has the files that its sum lists, byte for byte.
type wholeEntry struct {
	dir   string
	files []string
	infos []fs.FileInfo // of the files, from before their sums were taken
	sum   string
}

// verifyEntry returns an entry if it is whole. One that is not there is whole and
// empty.
func verifyEntry(dir string) (*wholeEntry, error) {
	files, err := entryFiles(dir)
	if err != nil {
		return nil, err
	}
	infos, err := statFiles(dir, files)
	if err != nil {
		return nil, err
	}
	want, err := os.ReadFile(filepath.Join(dir, sumFile))
	if errors.Is(err, fs.ErrNotExist) {
		want, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	have, err := sumOf(dir, files)
	if err != nil {
		return nil, err
	}
	if have != string(want) {
		return nil, errors.New("its files are not those that were written")
	}
	return &wholeEntry{dir, files, infos, have}, nil
}

// seal writes the sum of an entry.
func seal(entry string) error {
	files, err := entryFiles(entry)
	if err != nil {
		return err
	}
	sum, err := sumOf(entry, files)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(entry, sumFile), []byte(sum), 0o600)
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
