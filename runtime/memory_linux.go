package runtime

import "golang.org/x/sys/unix"

// mapped reserves addresses for all that a memory may grow to: growing never
// copies, pages cost nothing until they are touched, and the garbage collector
// knows nothing of them.
type mapped struct{ all []byte }

// newRegion makes the first capacity bytes usable. Where the kernel gives no
// mapping (a limit on address space), the memory comes from the heap.
func newRegion(capacity, most uint64) region {
	size := max(capacity, most, 1)
	if size > 1<<46 || uint64(int(size)) != size {
		return &heapRegion{}
	}
	all, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return &heapRegion{}
	}
	m := &mapped{all}
	if m.resize(capacity) == nil {
		m.free()
		return &heapRegion{}
	}
	return m
}

func (m *mapped) resize(n uint64) []byte {
	if n > uint64(len(m.all)) {
		return nil
	}
	if n > 0 {
		if err := unix.Mprotect(m.all[:n], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return nil
		}
	}
	return m.all[:n:n]
}

// free gives the addresses back. An error could only mean that they were not
// ours.
func (m *mapped) free() { _ = unix.Munmap(m.all) }
