package powercut

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// compare holds the record against the folder that the run has left: what was
// written down has to lead to what is there, or the tracer has missed something.
func (r *Record) compare(dir string) error {
	o := r.optionsAt(len(r.Moments))
	return o.state(len(r.Moments), o.newest()).compare(0, dir)
}

func (s *state) compare(n int, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) != len(s.dirs[n]) {
		return fmt.Errorf("the tracer has missed something: %s has %d names, by the record %d", dir, len(entries), len(s.dirs[n]))
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		number, ok := s.dirs[n][e.Name()]
		if !ok {
			return fmt.Errorf("the tracer has missed something: %s is not in the record", path)
		}
		if _, isDir := s.dirs[number]; isDir != e.IsDir() {
			return fmt.Errorf("the tracer has missed something: what %s is", path)
		} else if isDir {
			err = s.compare(number, path)
		} else {
			img := s.files[number]
			err = img.compare(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (i *image) compare(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if int64(len(b)) != i.size {
		return fmt.Errorf("the tracer has missed something: %s has %d bytes, by the record %d", path, len(b), i.size)
	}
	for p := int64(0); p*pageSize < i.size; p++ {
		want := i.page(p)
		if want == nil {
			want = zeros
		}
		got := b[p*pageSize : min((p+1)*pageSize, i.size)]
		if !bytes.Equal(got, want[:len(got)]) {
			return fmt.Errorf("the tracer has missed something: page %d of %s", p, path)
		}
	}
	return nil
}
