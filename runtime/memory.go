package runtime

import (
	"fmt"
	"sync/atomic"

	"github.com/tetratelabs/wazero/experimental"
)

// guestMemory gives one instance its linear memory and holds it to its limit.
// The limit is kept here and not by the engine, so that a refusal is seen: a
// guest that dies of one is reported as out of memory and not as "unreachable".
type guestMemory struct {
	limit  uint64 // bytes
	tables uint64 // bytes that the engine may use for tables, which count in the limit
	budget *budget
	actor  *atomic.Int64 // what all instances of the actor hold
	region region
	held   atomic.Int64 // bytes taken from the budget
	denied error        // why a growth was refused; nil if none was
}

// A region is where the bytes are.
type region interface {
	// resize makes the first n bytes usable, wherever they are then, and
	// returns them, or nil. New ones are zero.
	resize(n uint64) []byte
	free()
}

// open takes hold of the first n bytes, before the engine asks for them: it
// cannot be refused.
func (g *guestMemory) open(n uint64) error {
	g.region = newRegion()
	if g.Reallocate(n) == nil {
		return g.denied
	}
	return nil
}

// Allocate implements experimental.MemoryAllocator for one memory.
func (g *guestMemory) Allocate(_, _ uint64) experimental.LinearMemory { return g }

// Reallocate implements experimental.LinearMemory.
func (g *guestMemory) Reallocate(n uint64) []byte {
	more := int64(n+g.tables) - g.held.Load()
	switch {
	case n+g.tables > g.limit:
		g.denied = fmt.Errorf("%w (%d bytes)", ErrMemory, g.limit)
		return nil
	case !g.take(more):
		g.denied = fmt.Errorf("%w: %w (%d bytes)", ErrMemory, ErrHostMemory, g.budget.limit)
		return nil
	}
	b := g.region.resize(n)
	if b == nil {
		g.give(more)
		g.denied = fmt.Errorf("%w: %w: the system has no more", ErrMemory, ErrHostMemory)
		return nil
	}
	g.held.Add(more)
	return b
}

// Free implements experimental.LinearMemory. The engine does not call it on
// every way out (a failed instantiation), so the instance calls it as well, and
// twice is fine.
func (g *guestMemory) Free() {
	if g.region != nil {
		g.region.free()
		g.region = nil
		g.give(g.held.Swap(0))
	}
}

func (g *guestMemory) take(n int64) bool {
	if !g.budget.take(n, g.actor.Load() == g.held.Load()) {
		return false
	}
	g.actor.Add(n)
	return true
}

func (g *guestMemory) give(n int64) {
	g.budget.give(n)
	g.actor.Add(-n)
}

// A budget is for the memory of all instances of a host. The only instance of an
// actor may have all of it; a further one leaves a quarter for others, and the
// last instance of each of them alone.
type budget struct {
	limit   int64 // 0 for none
	reclaim func(n int64, only bool)
	used    atomic.Int64
}

// take takes n bytes, from idle instances if it must. Nothing, or less, there is
// always: the engine asks again for what an instance has.
func (b *budget) take(n int64, only bool) bool {
	limit := b.limit
	if !only {
		limit = limit / 4 * 3
	}
	for reclaimed := false; ; {
		used := b.used.Load()
		switch {
		case n <= 0 || b.limit == 0 || used+n <= limit:
			if b.used.CompareAndSwap(used, used+n) {
				return true
			}
		case reclaimed:
			return false
		default:
			b.reclaim(used+n-limit, only)
			reclaimed = true
		}
	}
}

// hasRoom says whether there is room for another instance of n bytes, of an actor
// that has one of that size. Where there is not it would begin all the same, since
// it is small then, and die of the first growth that is refused.
func (b *budget) hasRoom(n int64) error {
	if !b.take(n, false) {
		return fmt.Errorf("%w (%d bytes)", ErrHostMemory, b.limit)
	}
	b.give(n)
	return nil
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// heapRegion keeps the bytes on the Go heap; growing copies.
type heapRegion struct{ buf []byte }

func (h *heapRegion) resize(n uint64) []byte {
	if n > uint64(cap(h.buf)) {
		buf := make([]byte, n)
		copy(buf, h.buf)
		h.buf = buf
	}
	h.buf = h.buf[:n]
	return h.buf
}

func (h *heapRegion) free() { h.buf = nil }
