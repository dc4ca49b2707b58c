package blobstore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

// nameBytes is how many random bytes are in the name of a file.
const nameBytes = 12

func newName() string {
	var b [nameBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// files are those in the folder: who refers to them, and what they take. What counts
// is what is on the disk, so a file counts from its first byte until it is removed.
type files struct {
	dir      string
	maxBytes int64
	minFree  int64
	wake     func() // somebody is to call clean

	mu    sync.Mutex // guards what follows, and the files
	all   map[string]*file
	used  map[string]*usage // by bucket
	total usage
	gone  []*file // to be removed

	refused prometheus.Counter
}

type usage struct{ bytes, files int64 }

type file struct {
	name   string
	bucket string
	size   int64       // bytes that it may have
	refs   int         // records on disk that refer to it
	turn   *store.Turn // the one that writes to it; nil for none
}

func newFiles(o Options, wake func()) *files {
	return &files{
		dir: o.Dir, maxBytes: o.MaxBytes, minFree: o.MinFree, wake: wake, all: make(map[string]*file), used: make(map[string]*usage),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edged_blobstore_refused_total", Help: "Parts of objects for which there was no room.",
		}),
	}
}

func (s *files) register(r prometheus.Registerer) error {
	gauge := func(name, help string, of func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(of())
		})
	}
	for _, c := range []prometheus.Collector{
		gauge("edged_blobstore_bytes", "What the files of objects take.", func() int64 { return s.total.bytes }),
		gauge("edged_blobstore_files", "How many files there are.", func() int64 { return s.total.files }),
		s.refused,
	} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (s *files) path(name string) string { return filepath.Join(s.dir, name) }

// of returns what a bucket takes. s.mu is held.
func (s *files) of(bucket string) *usage {
	if s.used[bucket] == nil {
		s.used[bucket] = &usage{}
	}
	return s.used[bucket]
}

// count adds to what a bucket takes. s.mu is held.
func (s *files) count(bucket string, bytes, files int64) {
	u := s.of(bucket)
	u.bytes, u.files = u.bytes+bytes, u.files+files
	s.total.bytes, s.total.files = s.total.bytes+bytes, s.total.files+files
	if *u == (usage{}) {
		delete(s.used, bucket)
	}
}

// found takes a file that a record refers to, when the box starts.
func (s *files) found(name, bucket string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.all[name]
	if f == nil {
		f = &file{name: name, bucket: bucket}
		s.all[name] = f
	}
	f.refs++
}

// create makes room for a file of a bucket, written by t. It is on disk with its first
// part.
func (s *files) create(b bucket, t *store.Turn) (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.of(b.name).files; n >= b.maxObjects {
		s.refused.Inc()
		return nil, because(providers.ErrUnavailable, "bucket %s has %d objects and uploads, and may have %d: %w", b.name, n, b.maxObjects, ErrBucketFull)
	}
	f := &file{name: newName(), bucket: b.name, turn: t}
	s.all[f.name] = f
	s.count(b.name, 0, 1)
	return f, nil
}

// claim lets t write to a file, and nobody else until it has ended.
func (s *files) claim(name string, t *store.Turn) (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.all[name]
	switch {
	case f == nil:
		return nil, fmt.Errorf("file %s of the upload is gone: begin it again", name)
	case f.turn != nil && f.turn != t:
		return nil, because(providers.ErrUnavailable, "another call writes to this upload now")
	}
	f.turn = t
	return f, nil
}

// reserve takes room for a file to grow to size.
func (s *files) reserve(f *file, b bucket, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	more := size - f.size
	if more <= 0 {
		return nil
	}
	used := s.of(b.name).bytes
	free, err := freeBytes(s.dir)
	switch {
	case err != nil:
		return err
	case used+more > b.maxBytes:
		err = because(providers.ErrUnavailable, "bucket %s holds %d bytes, and may hold %d: %w", b.name, used, b.maxBytes, ErrBucketFull)
	case s.maxBytes > 0 && s.total.bytes+more > s.maxBytes:
		err = because(providers.ErrUnavailable, "all buckets hold %d bytes, and may hold %d: %w", s.total.bytes, s.maxBytes, ErrFull)
	case free-more < s.minFree:
		err = because(providers.ErrUnavailable, "%d bytes are free on the disk, of which %d stay free: %w", free, s.minFree, ErrFull)
	}
	if err != nil {
		s.refused.Inc()
		return err
	}
	f.size = size
	s.count(f.bucket, more, 0)
	return nil
}

func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("room on the disk: %w", err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// settle ends what t does to a file: refs is how many more records refer to it. Nobody
// refers to a file without a record any more.
func (s *files) settle(name string, t *store.Turn, refs int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.all[name]
	if f == nil {
		return
	}
	if f.turn == t {
		f.turn = nil
	}
	if f.refs += refs; f.refs <= 0 && f.turn == nil {
		delete(s.all, name)
		s.gone = append(s.gone, f)
		s.wake()
	}
}

// clean removes files that nobody refers to.
func (s *files) clean() error {
	s.mu.Lock()
	gone := s.gone
	s.gone = nil
	s.mu.Unlock()
	var errs []error
	for _, f := range gone {
		err := os.Remove(s.path(f.name))
		s.mu.Lock()
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			s.count(f.bucket, -f.size, -1)
		} else {
			s.gone = append(s.gone, f) // tried again with the next one
			errs = append(errs, err)
		}
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// read returns n bytes of a file.
func (s *files) read(name string, offset int64, n int) ([]byte, error) {
	f, err := os.Open(s.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from
	b := make([]byte, n)
	if _, err := f.ReadAt(b, offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("file %s is shorter than its record says", name)
		}
		return nil, err
	}
	return b, nil
}

// maxOpen is how many files a turn has open: a process may have so many, and turns run
// side by side. What is more is synced before the turn ends.
const maxOpen = 16

// work is what a turn does to files. It is used by the goroutine of the turn, and then
// by the one that ends it.
type work struct {
	p    *Provider
	turn *store.Turn
	open map[string]*os.File // written and not yet synced
	new  bool                // one of them has been made
	refs map[string]int      // records that refer to a file, more or fewer
}

// work returns that of a turn.
func (p *Provider) work(t *store.Turn) *work {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.works[t]
	if w == nil {
		w = &work{p: p, turn: t, open: make(map[string]*os.File), refs: make(map[string]int)}
		p.works[t] = w
		t.BeforeCommit(w.sync)
		t.AfterEnd(w.end)
	}
	return w
}

// refer counts a record that refers to a file, or one less.
func (w *work) refer(file string, n int) {
	if file != "" {
		w.refs[file] += n
	}
}

// write puts a part at its place in a file.
func (w *work) write(f *file, b bucket, offset int64, part []byte) error {
	w.refer(f.name, 0) // whatever becomes of it, its end is looked at
	if err := w.p.files.reserve(f, b, offset+int64(len(part))); err != nil {
		return err
	}
	h := w.open[f.name]
	if h == nil {
		if len(w.open) >= maxOpen {
			if err := w.sync(); err != nil {
				return err
			}
		}
		path := w.p.files.path(f.name)
		var err error
		if h, err = os.OpenFile(path, os.O_WRONLY, 0); errors.Is(err, fs.ErrNotExist) && offset == 0 {
			h, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			w.new = true
		}
		if err != nil {
			return err
		}
		w.open[f.name] = h
	}
	if _, err := h.WriteAt(part, offset); err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return because(providers.ErrUnavailable, "%w: %w", ErrFull, err)
		}
		return err
	}
	return nil
}

// sync has on disk what was written, before the records that refer to it are: a power
// cut in between leaves files without a record, which the next start removes.
func (w *work) sync() error {
	var errs []error
	for _, h := range w.open {
		errs = append(errs, h.Sync(), h.Close())
	}
	clear(w.open)
	if w.new {
		w.new = false
		errs = append(errs, atomicfile.SyncDir(w.p.files.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("blobstore: %w", err)
	}
	return nil
}

// end counts what the turn did, once its fate is known.
func (w *work) end(committed bool) {
	w.p.mu.Lock()
	delete(w.p.works, w.turn)
	w.p.mu.Unlock()
	for _, h := range w.open { // of a turn that was discarded
		_ = h.Close()
	}
	for name, n := range w.refs {
		if !committed {
			n = 0
		}
		w.p.files.settle(name, w.turn, n)
	}
}
