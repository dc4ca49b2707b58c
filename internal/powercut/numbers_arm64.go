package powercut

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

var numbersHere = map[uint64]call{
	unix.SYS_FTRUNCATE: callFtruncate, unix.SYS_TRUNCATE: callTruncate, unix.SYS_FCNTL: callFcntl, unix.SYS_MMAP: callMmap,
}

// Where the calls have their 64-bit numbers.

func pwriteOff(a *[6]uint64) int64    { return int64(a[3]) }
func pwritevOff(a *[6]uint64) int64   { return int64(a[3]) }
func truncateSize(a *[6]uint64) int64 { return int64(a[1]) }
func fallocateEnd(a *[6]uint64) int64 { return int64(a[2] + a[3]) }
