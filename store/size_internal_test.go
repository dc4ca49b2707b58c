package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// On a 32-bit box neither the file nor what is mapped of it, nor two of them
// while one is compacted, is more than there are addresses for.
func TestFileBound(t *testing.T) {
	const mib, gib, tib = 1 << 20, 1 << 30, 1 << 40
	for _, c := range []struct {
		maxBytes    int64
		bits        int
		bound, maps int64
	}{
		{1 * mib, 32, 66 * mib, 128 * mib},
		{32 * mib, 32, 128 * mib, 128 * mib},
		{33 * mib, 32, 130 * mib, 256 * mib},
		{224 * mib, 32, 512 * mib, 512 * mib},
		{1 * gib, 32, 512 * mib, 512 * mib},
		{16 * tib, 32, 512 * mib, 512 * mib},
		{1 * mib, 64, 66 * mib, 128 * mib},
		{256 * mib, 64, 576 * mib, 1 * gib},
		{1 * gib, 64, 2*gib + 64*mib, 2*gib + 64*mib},
		{16 * tib, 64, 32*tib + 64*mib, 32*tib + 64*mib},
		{1 << 62, 64, 1 << 46, 1 << 46},
	} {
		bound := fileBound(c.maxBytes, c.bits)
		if bound != c.bound || mapSize(bound) != c.maps {
			t.Errorf("max_bytes %d, %d bits: a file of at most %d, mapped %d; want %d, %d", c.maxBytes, c.bits, bound, mapSize(bound), c.bound, c.maps)
		}
		if mapSize(bound) < bound {
			t.Errorf("max_bytes %d, %d bits: the file could outgrow its map", c.maxBytes, c.bits)
		}
	}
	if got := maxHeld(32); got != 224*mib {
		t.Errorf("a 32-bit box holds %d bytes", got)
	}
	for size, ok := range map[int64]bool{1 * gib: true, 1*gib + 1: false} {
		if err := fitsIn(size, 32); (err == nil) != ok || err != nil && !errors.Is(err, ErrUnusable) {
			t.Errorf("a file of %d bytes on 32 bits: %v", size, err)
		}
		if err := fitsIn(size, 64); err != nil {
			t.Errorf("a file of %d bytes on 64 bits: %v", size, err)
		}
	}
}

// Where addresses are short, less is mapped, and the file can not outgrow it.
func TestTryMaps(t *testing.T) {
	path := filepath.Join(t.TempDir(), fileName)
	for _, c := range []struct{ left, want int }{{1 << 30, 512 << 20}, {300 << 20, 256 << 20}, {128 << 20, 128 << 20}, {1 << 20, 0}} {
		o := boltOptions(Options{MaxBytes: 224 << 20})
		o.InitialMmapSize, o.MaxSize = 512<<20, 512<<20
		b, err := tryMaps(path, o, func(path string, mode os.FileMode, o *bolt.Options) (*bolt.DB, error) {
			if o.InitialMmapSize > c.left {
				return nil, fmt.Errorf("map: %w", syscall.ENOMEM)
			}
			return bolt.Open(path, mode, o)
		})
		if c.want == 0 {
			if !errors.Is(err, ErrUnusable) {
				t.Errorf("%d left: got %v", c.left, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if o.InitialMmapSize != c.want || b.MaxSize != c.want {
			t.Errorf("%d left: mapped %d, at most %d; want %d", c.left, o.InitialMmapSize, b.MaxSize, c.want)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A compacted file has the options of any other.
func TestDB_Compact_keepsOptions(t *testing.T) {
	db, err := Open(Options{Dir: t.TempDir(), MaxBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	maxSize := db.bolt.MaxSize
	for range 2 {
		if _, err := db.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	now := db.bolt
	if now.NoSync || !now.NoFreelistSync || now.MaxSize != maxSize || now.AllocSize != growStep || now.FreelistType != bolt.FreelistMapType {
		t.Errorf("sync off %t, freelist %s synced %t, at most %d in steps of %d", now.NoSync, now.FreelistType, !now.NoFreelistSync, now.MaxSize, now.AllocSize)
	}
	if err := db.EnsureStream(StreamConfig{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	// It is bounded as it was, too.
	full := false
	for range 40 {
		turn := db.Begin()
		for k := range 3 {
			if err := turn.Put("space", fmt.Sprint(turn.ID(), k), make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		if err := turn.Commit(); errors.Is(err, ErrFull) {
			full = true
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if size, err := fileSize(filepath.Join(db.o.Dir, fileName)); err != nil || size > fileBound(8<<20, 64) {
		t.Errorf("%d bytes, %v", size, err)
	}
	if !full {
		t.Error("a file of 80 MiB took 120 MiB")
	}
}
