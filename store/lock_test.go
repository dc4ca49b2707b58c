package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edged-io/edged/store"
)

// A file that another process writes to looks damaged to whoever reads it
// meanwhile. It must not be set aside, nor another one put in its place.
func TestOpen_damagedButLocked(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	roots := make([]byte, 2*4096)
	if _, err := f.ReadAt(roots, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, len(roots)), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(store.Options{Dir: dir}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("second Open: got %v, want ErrLocked", err)
	}
	if _, err := f.WriteAt(roots, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, store.QuarantineDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("quarantine: got %v, want none", err)
	}
	ours, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if there, err := os.Stat(path); err != nil || !os.SameFile(ours, there) {
		t.Errorf("the file of the store was replaced (%v)", err)
	}
}
