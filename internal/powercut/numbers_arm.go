package powercut

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_ARM

var numbersHere = map[uint64]call{
	unix.SYS_FTRUNCATE64: callFtruncate, unix.SYS_TRUNCATE64: callTruncate, unix.SYS_FCNTL64: callFcntl, unix.SYS_MMAP2: callMmap,
	unix.SYS_DUP2: callDupTo,
	unix.SYS_OPEN: callForeign, unix.SYS_CREAT: callForeign, unix.SYS_RENAME: callForeign, unix.SYS_LINK: callForeign, unix.SYS_UNLINK: callForeign,
	unix.SYS_MKDIR: callForeign, unix.SYS_RMDIR: callForeign,
}

// Where the calls have their 64-bit numbers: two registers, the first one even.

func pwriteOff(a *[6]uint64) int64    { return int64(a[4] | a[5]<<32) }
func pwritevOff(a *[6]uint64) int64   { return int64(a[3] | a[4]<<32) }
func truncateSize(a *[6]uint64) int64 { return int64(a[2] | a[3]<<32) }
func fallocateEnd(a *[6]uint64) int64 { return int64(a[2]|a[3]<<32) + int64(a[4]|a[5]<<32) }
