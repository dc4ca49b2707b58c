package runtime

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"
)

func TestRegion_growsZeroedAndKeepsItsBytes(t *testing.T) {
	const page = 64 << 10
	for name, r := range map[string]region{"heap": &heapRegion{}, "platform": newRegion()} {
		b := r.resize(page)
		if len(b) != page || cap(b) != page {
			t.Fatalf("%s: got %d of %d bytes", name, len(b), cap(b))
		}
		copy(b, "kept")
		b = r.resize(3 * page)
		if len(b) != 3*page || !bytes.HasPrefix(b, []byte("kept\x00")) || bytes.Count(b[4:], []byte{0}) != 3*page-4 {
			t.Errorf("%s: the bytes changed", name)
		}
		r.free()
	}
}

func TestGuestMemory_limit(t *testing.T) {
	g := &guestMemory{limit: 1 << 20, budget: &budget{}, actor: new(atomic.Int64)}
	if err := g.open(1 << 16); err != nil {
		t.Fatal(err)
	}
	m := g.Allocate(1<<16, 1<<32)
	if m.Reallocate(1<<20) == nil || g.denied != nil {
		t.Error("refused at the limit")
	}
	if m.Reallocate(1<<20+1) != nil || !errors.Is(g.denied, ErrMemory) {
		t.Error("not refused beyond the limit")
	}
	m.Free()
	g.Free()
	if used := g.budget.used.Load(); used != 0 {
		t.Errorf("%d bytes were not given back", used)
	}
}

// What an instance has already is never refused, however much others ask for, and
// what is not an actor's only instance leaves a quarter.
func TestBudget_take(t *testing.T) {
	reclaimed := int64(0)
	b := budget{limit: 100, reclaim: func(n int64, only bool) {
		if !only {
			reclaimed += n
		}
	}}
	if !b.take(75, false) || b.take(1, false) || reclaimed != 1 {
		t.Errorf("used %d, reclaimed %d, want 75 and 1", b.used.Load(), reclaimed)
	}
	if !b.take(25, true) || b.take(1, true) {
		t.Errorf("used %d, want all", b.used.Load())
	}
	b.used.Store(120)
	if !b.take(0, false) || !b.take(-30, false) || b.used.Load() != 90 || b.take(11, true) || b.used.Load() != 90 || !b.take(10, true) {
		t.Errorf("used %d", b.used.Load())
	}
}
