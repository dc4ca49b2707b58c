package node

// Where the kernel bounds the memory of the process, actors and what their turns
// stage are held to a part of it, together, so that none of them, and not all of
// them, can have the process killed. The rest is the Go heap (HeapShare), the
// program itself and compiled modules. docs/limits.md tells the figures.
const (
	turnShare  = 8 // what turns of actors stage, on the Go heap
	actorShare = 3 // memory of actors, beside it
	// HeapShare is the part of the limit that the Go heap should keep to: what
	// GOMEMLIMIT is set to.
	HeapShare = 2
)
