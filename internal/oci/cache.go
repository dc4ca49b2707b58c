package oci

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/internal/claims"
)

const (
	indexName   = "index.json"
	indexFormat = 1
	maxEntries  = 4096
	partMark    = ".part"
	damagedMark = ".damaged"
)

// entry is what a reference named last.
type entry struct {
	Ref      string `json:"ref"`
	Manifest string `json:"manifest,omitempty"` // digest of it, "" of a file
	Digest   string `json:"digest"`             // of the content
	Size     int64  `json:"size"`
}

type index struct {
	Format int     `json:"format"`
	Refs   []entry `json:"refs"` // in the order in which they were remembered
}

// cache is a folder with one file for each content, named by its digest, parts of downloads, and an index of references.
type cache struct {
	dir   string
	bound int64 // bytes
	room  int64 // bytes of the disk that stay free
	log   *slog.Logger

	mu    sync.Mutex // guards what follows, and changes of the folder but for parts
	refs  []entry
	taken map[string]bool  // digests that were checked and handed out since the start
	parts map[string]int64 // by path, of downloads under way: bytes that they will have
}

func openCache(opts Options) (*cache, error) {
	err := os.MkdirAll(opts.Dir, 0o700)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrExist) { // something else has the name
		err = errors.Join(os.Rename(opts.Dir, opts.Dir+damagedMark), os.MkdirAll(opts.Dir, 0o700))
		opts.Logger.Error("what is in the place of fetched code is no folder; it is set aside", "file", opts.Dir+damagedMark)
	}
	if err != nil {
		return nil, err
	}
	c := &cache{dir: opts.Dir, bound: opts.CacheBytes, room: opts.ReserveDisk, log: opts.Logger, taken: make(map[string]bool), parts: make(map[string]int64)}
	if err := c.removeCopies(); err != nil {
		return nil, err
	}
	path := filepath.Join(c.dir, indexName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	var ix index
	if err == nil {
		err = json.Unmarshal(data, &ix)
	}
	if err != nil || ix.Format != indexFormat {
		aside := path + damagedMark
		c.log.Error("index of fetched references can not be read; they are looked up again", "file", aside, "format", ix.Format, "err", err)
		return c, errors.Join(os.RemoveAll(aside), os.Rename(path, aside))
	}
	for _, e := range ix.Refs {
		if _, err := claims.ParseDigest(e.Digest); err == nil && len(c.refs) < maxEntries {
			c.refs = append(c.refs, e)
		}
	}
	return c, nil
}

// removeCopies removes what a power cut left of copies. Parts of downloads stay: they are gone on with.
func (c *cache) removeCopies() error {
	left, err := filepath.Glob(filepath.Join(c.dir, ".copy-*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// path is where the content is that has a digest.
func (c *cache) path(digest string) string {
	return filepath.Join(c.dir, strings.Replace(digest, ":", "-", 1))
}

// held returns what a reference named last, if its content is there.
func (c *cache) held(ref string) (entry, bool) {
	c.mu.Lock()
	i := slices.IndexFunc(c.refs, func(e entry) bool { return e.Ref == ref })
	var e entry
	if i >= 0 {
		e = c.refs[i]
	}
	c.mu.Unlock()
	return e, i >= 0 && c.take(e.Digest)
}

// byManifest returns the content that a manifest stood for, under whatever reference.
func (c *cache) byManifest(manifest string) (digest string, ok bool) {
	c.mu.Lock()
	i := slices.IndexFunc(c.refs, func(e entry) bool { return e.Manifest == manifest })
	if i >= 0 {
		digest = c.refs[i].Digest
	}
	c.mu.Unlock()
	return digest, i >= 0 && c.take(digest)
}

// take says whether content is there, and keeps it there. The first time it is read and compared with its digest: what the disk has
// damaged is removed.
func (c *cache) take(digest string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	path := c.path(digest)
	if c.taken[digest] {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
		delete(c.taken, digest)
	}
	got, err := digestOfFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil || got != digest {
		c.log.Error("content in the cache is damaged; it is fetched again", "file", path, "is", got, "err", err, "removed", os.Remove(path))
		return false
	}
	c.taken[digest] = true
	return true
}

// add copies content into the cache. It fails if the content has another digest or size.
func (c *cache) add(digest string, size int64, in io.Reader) error {
	if err := c.makeRoom("", size); err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, ".copy-*")
	if err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(in, size+1))
	if err == nil && (n != size || claims.Digest([sha256.Size]byte(sum.Sum(nil))) != digest) {
		err = fmt.Errorf("it changed while it was read: %w", ErrContent)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return c.adopt(f, digest)
}

// adopt makes an open file, which is closed, the content with a digest that it is known to have.
func (c *cache) adopt(f *os.File, digest string) error {
	err := errors.Join(f.Chmod(0o444), f.Sync(), f.Close())
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err = os.Rename(f.Name(), c.path(digest))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	c.taken[digest] = true
	return atomicfile.SyncDir(c.dir)
}

// remember notes what a reference named last. Its content is on disk by then.
func (c *cache) remember(e entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.refs, e) {
		return nil
	}
	c.refs = append(slices.DeleteFunc(c.refs, func(o entry) bool { return o.Ref == e.Ref }), e)
	if n := len(c.refs) - maxEntries; n > 0 {
		c.refs = slices.Delete(c.refs, 0, n)
	}
	return c.save()
}

func (c *cache) save() error {
	data, err := json.MarshalIndent(index{Format: indexFormat, Refs: c.refs}, "", "\t")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(c.dir, indexName), append(data, '\n'), 0o600)
}

// makeRoom lets the cache hold size more bytes, or as many as make the part at a path that large. It removes what is left of downloads that are
// not under way, and then what was fetched longest ago and not handed out since the start. It refuses where that is not enough, and what would
// leave the messages of the box without space.
func (c *cache) makeRoom(part string, size int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	held, old, err := c.inventory(part)
	if err != nil {
		return err
	}
	need := size
	if info, err := os.Lstat(part); err == nil {
		need -= info.Size()
	}
	for ; len(old) > 0 && held+size > c.bound; old = old[1:] {
		if err := os.Remove(old[0].path); err != nil {
			return err
		}
		c.log.Info("removed from the cache what was not used since the start", "file", old[0].path, "bytes", old[0].size)
		held -= old[0].size
	}
	if held+size > c.bound {
		return fmt.Errorf("%d bytes do not fit into the cache: %d of %d are in use", size, held, c.bound)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(c.dir, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", c.dir, err)
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free-need < c.room {
		return fmt.Errorf("%d bytes do not fit: %d are free, and %d of them are for messages", need, free, c.room)
	}
	if part != "" {
		c.parts[part] = size
	}
	return nil
}

// file is one of the cache that may be removed.
type file struct {
	path string
	size int64
	age  int // the lower, the sooner it goes
}

// inventory returns how many bytes the cache holds, or will when its downloads are done, but for one part, and what may be removed, in order.
func (c *cache) inventory(without string) (held int64, old []file, err error) {
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return 0, nil, err
	}
	age := make(map[string]int) // 0 for content without a reference
	for i, e := range c.refs {
		age[c.path(e.Digest)] = i + 1
	}
	for _, f := range files {
		info, err := f.Info()
		path := filepath.Join(c.dir, f.Name())
		if err != nil || path == without {
			continue
		}
		want, underWay := c.parts[path]
		size := max(info.Size(), want)
		held += size
		digest := strings.Replace(f.Name(), "-", ":", 1)
		switch {
		case !strings.HasPrefix(digest, "sha256:") || c.taken[digest] || underWay:
		case strings.Contains(path, partMark):
			old = append(old, file{path, size, -1})
		default:
			old = append(old, file{path, size, age[path]})
		}
	}
	slices.SortFunc(old, func(a, b file) int {
		return cmp.Or(cmp.Compare(a.age, b.age), strings.Compare(a.path, b.path))
	})
	return held, old, nil
}

// leave says that the download of a part is not under way any more.
func (c *cache) leave(part string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.parts, part)
}

func digestOfFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	digest, err := digestOf(f)
	return digest, errors.Join(err, f.Close())
}

func digestOf(in io.Reader) (string, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, in); err != nil {
		return "", err
	}
	return claims.Digest([sha256.Size]byte(sum.Sum(nil))), nil
}
