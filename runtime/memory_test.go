package runtime

import (
	"bytes"
	"errors"
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
	g := &guestMemory{limit: 1 << 20, budget: &budget{}}
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

// What an instance has already is never refused, however much others ask for.
func TestBudget_take(t *testing.T) {
	reclaimed := int64(0)
	b := budget{limit: 100, reclaim: func(n int64) { reclaimed += n }}
	if !b.take(100) || b.take(1) || reclaimed != 1 {
		t.Errorf("reclaimed %d, want 1", reclaimed)
	}
	b.used.Store(120)
	if !b.take(0) || !b.take(-30) || b.used.Load() != 90 || b.take(11) || b.used.Load() != 90 || !b.take(10) {
		t.Errorf("used %d", b.used.Load())
	}
}
