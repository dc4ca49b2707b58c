package node

// Where the kernel bounds the memory of the process, actors and what their turns
// stage are held to a part of it, together, so that none of them, and not all of
// them, can have the process killed. The rest is the Go heap (HeapLimit), the
// program itself and compiled modules, which take more than one would think: with
// 43 small actors and one in Go, 24 MiB. docs/limits.md tells the figures.
const (
	turnShare  = 32 // what turns of actors stage, on the Go heap
	bodyShare  = 16 // bodies of HTTP requests and their answers, there too
	actorShare = 5  // memory of actors, beside it
)

// HeapLimit is what the Go heap should keep to, where the process has a memory
// limit: what GOMEMLIMIT is set to. The garbage collector may exceed it for a
// moment.
func HeapLimit(limit int64) int64 { return limit / 2 }

// defaultStaged is what turns of actors may stage where nothing is said of it.
const defaultStaged = 64 << 20

// staged is what turns of actors may hold together.
func (n *Node) staged() int64 {
	switch d := int64(n.o.Device.Limits.Staged); {
	case d > 0:
		return d
	case n.o.MemoryLimit > 0:
		return n.o.MemoryLimit / turnShare
	}
	return defaultStaged
}

// guestMemory is what instances of actors may have together, 0 for no bound.
func (n *Node) guestMemory() int64 {
	if d := int64(n.o.Device.Limits.Memory); d > 0 {
		return d
	}
	return n.o.MemoryLimit / actorShare
}
