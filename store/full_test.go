package store_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/edged-io/edged/store"
)

// smallDisk makes a disk of so many bytes, where the system lets us.
func smallDisk(t *testing.T, size int64) (dir string, ok bool) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("edged-test", dir, "tmpfs", 0, "size="+itoa(size)); err != nil {
		t.Logf("no small disk: %v", err)
		return "", false
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, true
}

// publishBytes publishes so many bytes.
func publishBytes(db *store.DB, stream string, n int) (seq uint64, err error) {
	turn := db.Begin()
	r, err := turn.Publish(stream, store.Message{Subject: "x", Data: make([]byte, n)})
	if err != nil {
		turn.Discard()
		return 0, err
	}
	err = turn.Commit()
	return r.Seq, err
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// A disk that is full to the last byte: reading, acknowledging and alarms go on,
// all else is refused, and nothing that was told is lost. The bound of the
// store's own file is as full to the store, but for the ballast.
func TestDB_fullDisk(t *testing.T) {
	t.Run("file", func(t *testing.T) { testFullDisk(t, t.TempDir(), false) })
	if dir, ok := smallDisk(t, 24<<20); ok {
		t.Run("disk", func(t *testing.T) { testFullDisk(t, dir, true) })
	}
}

func testFullDisk(t *testing.T, dir string, real bool) {
	var log bytes.Buffer
	o := store.Options{Dir: dir, MaxBytes: 8 << 20, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	if real {
		o.MaxBytes = 1 << 30
	}
	db := openWith(t, o)
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	ensure(t, db, store.StreamConfig{Name: "batch", Durability: store.Batch, BatchFor: never}, "batch-sub")
	ensure(t, db, store.StreamConfig{Name: "alarms", Priority: store.MaxPriority}, "alarms")
	publish(t, db, "batch", "1", "")
	last := uint64(0)
	for range 40 {
		commit(t, db, func(turn *store.Turn) {
			for range 10 {
				if _, err := turn.Publish("a", store.Message{Subject: "x", Data: make([]byte, 10_000)}); err != nil {
					t.Fatal(err)
				}
			}
		})
		last += 10
	}
	told := publish(t, db, "batch", "told", "")

	// State fills what is left, since it is not bounded by max_bytes.
	var full error
	for i := 0; full == nil; i++ {
		if i > 100_000 {
			t.Fatal("the disk takes everything")
		}
		turn := db.Begin()
		turn.Put("s", string(rune('a'+i%26))+itoa(int64(i+1)), make([]byte, 256<<10))
		full = turn.Commit()
	}
	if !errors.Is(full, store.ErrFull) {
		t.Fatalf("got %v, want ErrFull", full)
	}
	if real {
		// Whatever is left in pages that were freed.
		for range 5 {
			if _, err := publishBytes(db, "a", 100_000); !errors.Is(err, store.ErrFull) {
				t.Fatalf("got %v, want ErrFull", err)
			}
		}
		if !db.Stats().DiskFull {
			t.Error("nothing says that the disk is full")
		}
		if n := strings.Count(log.String(), "disk is full"); n != 1 {
			t.Errorf("the log says %d times that the disk is full", n)
		}
	}
	wantRead(t, db, "batch", "1:1", "2:told")
	if n := len(read(t, db, "a")); n < int(last) {
		t.Fatalf("%d messages are read, want %d", n, last)
	}
	for i := range 20 {
		publish(t, db, "alarms", "fire "+itoa(int64(i+1)), "")
	}
	if _, err := os.Stat(filepath.Join(dir, "store.ballast")); real && err == nil {
		t.Log("alarms and acknowledgements did not need the ballast")
	}
	for seq := uint64(4); seq <= last; seq += 4 {
		commit(t, db, func(turn *store.Turn) {
			turn.AckUpTo("sub", seq)
			turn.Put("s", "how-far", []byte(itoa(int64(seq))))
		})
	}
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("batch-sub", told.Seq) })
	waitFor(t, "room for everybody", func() bool {
		_, err := publishBytes(db, "a", 10_000)
		return err == nil
	})
	flush(t, db)
	if db.Stats().DiskFull || db.Err() != nil {
		t.Errorf("still full: %t, %v", db.Stats().DiskFull, db.Err())
	}
	if r := info(t, db, "batch").Risk; r.Msgs != 0 {
		t.Errorf("at risk: %+v", r)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = openWith(t, o)
	if n := info(t, db, "alarms").Msgs; n != 20 {
		t.Errorf("%d alarms, want 20", n)
	}
	if v := value(t, db, "s", "how-far"); v != itoa(int64(last)) {
		t.Errorf("acknowledged up to %s, want %d", v, last)
	}
	if real {
		testOpenFull(t, db, o)
	}
}

// testOpenFull opens a store on a disk that is full already. It goes on where
// it was.
func testOpenFull(t *testing.T, db *store.DB, o store.Options) {
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(o.Dir, "store.ballast")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(o.Dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	f.Close()
	db = openWith(t, o)
	if !db.Stats().DiskFull {
		t.Error("opened on a full disk, and nothing says so")
	}
	publish(t, db, "alarms", "fire", "")
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "room for everybody", func() bool { return !db.Stats().DiskFull })
	if _, err := publishBytes(db, "a", 1000); err != nil {
		t.Error(err)
	}
}
