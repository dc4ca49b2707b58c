package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// unusedFor is how long an entry that no load asked for is kept.
const unusedFor = 90 * 24 * time.Hour

// A codeCache keeps compiled code on disk: an entry for each module, named by the
// digest of its bytes; see entry.go.
//
// What is in it gets executed. So it is used only where nobody but its owner,
// which is who we run as, can write. A codeCache is for one goroutine at a time;
// several may have one folder, in several processes, and change it one at a time.
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
	var fault *moduleFault
	if errors.As(err, &fault) || ctx.Err() != nil {
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

// has says that an entry was made by this program, and so holds the code that it
// would make again.
func (c *codeCache) has(digest string) bool {
	if c.dir == "" || program() == "" {
		return false
	}
	sum, err := os.ReadFile(filepath.Join(c.dir, digest, sumFile))
	return err == nil && strings.Contains(string(sum), outlineOfProgram()+"\n")
}

// lock keeps others from changing what is in the folder, until unlock is called or the
// process ends.
func (c *codeCache) lock(ctx context.Context) (unlock func(), err error) {
	for {
		unlock, ok, err := tryLock(c.dir)
		if ok || err != nil {
			return unlock, err
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// lockPause is how often who waits for the folder looks whether it is free.
const lockPause = 20 * time.Millisecond

// prune removes what compilers left that did not come to an end, the entries that were
// not loaded for long, and then those that were not for the longest time until the rest
// fits. The one in use stays. Where another process fills an entry, prune is its own.
func (c *codeCache) prune(inUse string) {
	if c.keep {
		return
	}
	unlock, ok, err := tryLock(c.dir)
	if !ok {
		if err != nil {
			c.log.Warn("prune compilation cache", "err", err)
		}
		return
	}
	defer unlock()
	type entry struct {
		path  string
		used  time.Time
		bytes int64
	}
	var entries []entry
	var total int64
	list, err := os.ReadDir(c.dir)
	for _, d := range list {
		if strings.HasPrefix(d.Name(), unfinished) { // who fills one holds the lock
			err = errors.Join(err, os.RemoveAll(filepath.Join(c.dir, d.Name())))
			continue
		}
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
