package node

// Where the kernel bounds the memory of the process, actors and what their turns
// stage are held to a part of it, together, so that none of them, and not all of
// them, can have the process killed. The rest is the Go heap (HeapShare), the
// program itself and compiled modules. docs/limits.md tells the figures.
const (
	turnShare  = 8 // what turns of actors stage, on the Go heap
	bodyShare  = 8 // bodies of HTTP requests and their answers, there too
	actorShare = 3 // memory of actors, beside it
	// HeapShare is the part of the limit that the Go heap should keep to: what
	// GOMEMLIMIT is set to.
	HeapShare = 2
)

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
