package runtime

import "github.com/tetratelabs/wazero/experimental"

// guestMemory gives one instance its linear memory and holds it to its limit.
// The limit is kept here and not by the engine, so that a refusal is seen: a
// guest that dies of one is reported as out of memory and not as "unreachable".
type guestMemory struct {
	limit  uint64 // bytes
	region region
	denied bool // a growth was refused
}

// A region is where the bytes are.
type region interface {
	// resize makes the first n bytes usable and returns them, or nil.
	resize(n uint64) []byte
	free()
}

// Allocate implements experimental.MemoryAllocator for one memory.
func (g *guestMemory) Allocate(capacity, most uint64) experimental.LinearMemory {
	g.region = newRegion(min(capacity, g.limit), min(most, g.limit))
	return g
}

// Reallocate implements experimental.LinearMemory.
func (g *guestMemory) Reallocate(n uint64) []byte {
	if n > g.limit {
		g.denied = true
		return nil
	}
	b := g.region.resize(n)
	if b == nil {
		g.denied = true
	}
	return b
}

// Free implements experimental.LinearMemory. The engine does not call it on
// every way out (a failed instantiation, a deadline that fires as the call
// ends), so the instance calls it as well, and twice is fine.
func (g *guestMemory) Free() {
	if g.region != nil {
		g.region.free()
		g.region = nil
	}
}

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
