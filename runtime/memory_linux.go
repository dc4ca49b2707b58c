package runtime

import "golang.org/x/sys/unix"

// mapped has its bytes in a mapping of its own: growing moves page tables and
// never copies, pages cost nothing until they are touched, and the garbage
// collector knows nothing of them. No addresses are held in reserve, of which a
// 32-bit system has few.
type mapped struct{ all []byte }

func newRegion() region { return &mapped{} }

func (m *mapped) resize(n uint64) []byte {
	size := int(max(n, 1))
	if uint64(size) < n || size < 0 {
		return nil
	}
	var all []byte
	var err error
	if m.all == nil {
		all, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err == nil {
			// A page of 2 MiB for a guest that touches 40 KiB is a bad trade on a
			// small box. An error means that there are no such pages.
			_ = unix.Madvise(all, unix.MADV_NOHUGEPAGE)
		}
	} else {
		all, err = unix.Mremap(m.all, size, unix.MREMAP_MAYMOVE)
	}
	if err != nil {
		return nil
	}
	m.all = all
	return all[:n:n]
}

// free gives the addresses back. An error could only mean that they were not
// ours.
func (m *mapped) free() {
	if m.all != nil {
		_ = unix.Munmap(m.all)
	}
}
