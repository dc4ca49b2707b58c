package store

import (
	"errors"
	"os"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// A write without room leaves the file as it was, a sync without room does not.
func TestDB_update_noRoom(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	_, write := full.WriteAt([]byte("x"), 0)
	sync := error(syscall.ENOSPC) // as bbolt returns it from fdatasync
	db, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, c := range []struct {
		name  string
		err   error
		fatal bool
	}{{"write", write, false}, {"sync", sync, true}} {
		err := db.update(func(*bolt.Tx) error { return c.err })
		if errors.Is(err, ErrFull) == c.fatal || fatal(err) != c.fatal {
			t.Errorf("%s: got %v, fatal %t, want fatal %t", c.name, err, fatal(err), c.fatal)
		}
	}
}
