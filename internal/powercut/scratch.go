package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// memory is a file system without a disk, where there is one.
const memory = "/dev/shm"

// newScratch makes a folder for states, in memory if that is possible.
func newScratch() (string, error) {
	if dir, err := os.MkdirTemp(memory, "edged-powercut-"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "edged-powercut-")
}

// lay makes dir hold the state. What is there already is compared with it, and
// only pages that differ are written: one state and the next have most of them
// in common. old is room to read it into, for the next state too.
func (s *state) lay(dir string, old *[]byte) error {
	if err := s.layDir(0, dir, make(map[int]string), old); err != nil {
		return fmt.Errorf("lay out a state in %s: %w", dir, err)
	}
	return nil
}

func (s *state) layDir(n int, dir string, laid map[int]string, old *[]byte) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, wanted := s.dirs[n][e.Name()]
		_, isDir := s.dirs[number]
		_, linked := laid[number]
		if !wanted || isDir != e.IsDir() || linked {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for name, number := range s.dirs[n] {
		path := filepath.Join(dir, name)
		if _, isDir := s.dirs[number]; isDir {
			if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
			if err := s.layDir(number, path, laid, old); err != nil {
				return err
			}
			continue
		}
		if first, ok := laid[number]; ok {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			if err := os.Link(first, path); err != nil {
				return err
			}
			continue
		}
		laid[number] = path
		img := s.files[number]
		if err := img.lay(path, old); err != nil {
			return err
		}
	}
	return nil
}

var zeros page = make(page, pageSize)

// lay makes the file at path hold the image.
func (i *image) lay(path string, room *[]byte) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
		// Another name of it may have to hold something else.
		if err := os.Remove(path); err != nil {
			return err
		}
		return i.lay(path, room)
	}
	if info.Size() != i.size {
		if err := f.Truncate(i.size); err != nil {
			return err
		}
	}
	// What was there and is not in the image: beyond its last page, and in it.
	end := i.pages() * pageSize
	for at := int64(0); at < i.size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			data = at
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			hole = i.size
		}
		if hole = min(hole, i.size); hole > end {
			// Rare: the last state was a longer one.
			from := max(data, end)
			for p := from / pageSize; p*pageSize < hole; p++ {
				if err := i.layPage(f, p, nil); err != nil {
					return err
				}
			}
		}
		at = hole
	}
	if int64(len(*room)) < end {
		*room = make([]byte, 2*end)
	}
	old := (*room)[:end]
	if n, err := f.ReadAt(old, 0); err != nil && err != io.EOF {
		return err
	} else if n < len(old) {
		old = old[:n]
	}
	for p := range end / pageSize {
		if err := i.layPage(f, p, old); err != nil {
			return err
		}
	}
	return nil
}

// layPage writes page p unless old, the file from its beginning, has it.
func (i *image) layPage(f *os.File, p int64, old []byte) error {
	want := i.page(p)
	if want == nil {
		want = zeros
	}
	want = want[:min(pageSize, i.size-p*pageSize)]
	at := p * pageSize
	if end := at + int64(len(want)); end <= int64(len(old)) && bytes.Equal(old[at:end], want) {
		return nil
	}
	_, err := f.WriteAt(want, at)
	return err
}
