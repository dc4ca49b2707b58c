package store_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/edged-io/edged/store"
)

// stageAll stages values of 64 KiB until one is refused.
func stageAll(turn *store.Turn, space string) (n int, err error) {
	for ; ; n++ {
		if err = turn.Put(space, fmt.Sprint(n), make([]byte, 64<<10)); err != nil {
			return n, err
		}
	}
}

func TestTurn_Bound_oneAndAll(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxStaged: 8 << 20})
	a, b := db.Begin(), db.Begin()
	a.Bound()
	b.Bound()
	if n, err := stageAll(a, "a"); !errors.Is(err, store.ErrTooLarge) || n < 112 || n > 128 {
		t.Errorf("one turn staged %d values, then %v; want about 8 MiB and ErrTooLarge", n, err)
	}
	n, err := stageAll(b, "b")
	if !errors.Is(err, store.ErrFull) || n < 3 {
		t.Errorf("beside it another one staged %d values, then %v; want 256 KiB and ErrFull", n, err)
	}
	// A small change of what is there already is none.
	if err := b.Put("b", "0", make([]byte, 64<<10)); err != nil {
		t.Errorf("overwrite: %v", err)
	}
	a.Discard()
	if err := b.Put("b", "more", make([]byte, 64<<10)); err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	c := db.Begin()
	defer c.Discard()
	c.Bound()
	if n, err := stageAll(c, "c"); n < 112 {
		t.Errorf("after both have ended: %d values, then %v", n, err)
	}
}

// Where all turns may hold little, each may hold less of it in any case.
func TestTurn_Bound_freeShare(t *testing.T) {
	const most = 2 << 20
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxStaged: most})
	a, b := db.Begin(), db.Begin()
	defer a.Discard()
	defer b.Discard()
	a.Bound()
	b.Bound()
	if _, err := stageAll(a, "a"); !errors.Is(err, store.ErrBound) {
		t.Fatal(err)
	}
	n, err := 0, error(nil)
	for ; err == nil; n++ {
		err = b.Put("b", fmt.Sprint(n), make([]byte, 1<<10))
	}
	// A step that the first did not take may be left for the other.
	if held := n << 10; !errors.Is(err, store.ErrFull) || held < most/32*3/4 || held > most/32*3 {
		t.Errorf("beside one that has it all another one held %d bytes, then %v; want about %d", held, err, most/32)
	}
}

func TestTurn_Bound_reads(t *testing.T) {
	db := open(t, t.TempDir())
	turn := db.Begin()
	defer turn.Discard()
	turn.Bound()
	n, err := 0, error(nil)
	for ; err == nil; n++ {
		_, _, err = turn.Get("s", fmt.Sprint(n))
	}
	if !errors.Is(err, store.ErrTooLarge) || n != 1<<14+1 {
		t.Errorf("read %d keys, then %v", n, err)
	}
	if _, _, err := turn.Get("s", "0"); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// Messages without a byte take memory too, and so does what others keep for a
// turn. Deletes are never refused.
func TestTurn_Bound_small(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxStaged: 1 << 20})
	ensure(t, db, store.StreamConfig{Name: "s"})
	turn := db.Begin()
	turn.Bound()
	n, err := 0, error(nil)
	for ; err == nil; n++ {
		_, err = turn.Publish("s", store.Message{Subject: "s"})
	}
	if !errors.Is(err, store.ErrTooLarge) || n > 2048 {
		t.Errorf("%d empty messages, then %v", n, err)
	}
	if err := turn.Keep(1 << 16); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("keep: %v", err)
	}
	for i := range 2048 {
		if err := turn.Delete("x", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	turn.Discard()
	other := db.Begin()
	defer other.Discard()
	other.Bound()
	if err := other.Keep(1 << 19); err != nil {
		t.Error(err)
	}
}

// A turn of our own has no such bounds.
func TestTurn_unbounded(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxStaged: 1 << 20})
	turn := db.Begin()
	defer turn.Discard()
	for i := range 64 {
		if err := turn.Put("s", fmt.Sprint(i), make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
}

// Small values take more than their bytes, and that counts.
func TestTurn_Bound_countsWhatItTakes(t *testing.T) {
	const most = 16 << 20
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxStaged: most})
	for _, size := range []int{0, 100, 1000} {
		turn := db.Begin()
		turn.Bound()
		before, n, err := heap(), 0, error(nil)
		for ; err == nil; n++ {
			err = turn.Put("s", fmt.Sprint(n), make([]byte, size))
		}
		if took := heap() - before; !errors.Is(err, store.ErrTooLarge) || took > most*5/4 {
			t.Errorf("%d values of %d bytes, then %v: they take %d bytes, and count as %d", n, size, err, took, most)
		}
		turn.Discard()
	}
}

// heap is how many bytes are in use, with nothing that could be freed.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
