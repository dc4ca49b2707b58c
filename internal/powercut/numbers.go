//go:build amd64 || arm64 || arm

package powercut

import "golang.org/x/sys/unix"

// call is what a system call does, as far as the tracer has to know.
type call uint8

const (
	callOpen call = iota + 1
	callClose
	callWrite
	callPwrite
	callWritev
	callPwritev
	callFtruncate
	callTruncate
	callFallocate
	callSync
	callRename
	callLink
	callUnlink
	callMkdir
	callDup
	callDupTo
	callFcntl
	callMmap
	callUnknown // what it does to a file of the store would not be seen
	callForeign // what it does to any file would not be seen
)

// calls are the system calls that the tracer stops at. Go's library makes none
// of the older ones that take no folder.
var calls = merge(map[uint64]call{
	unix.SYS_OPENAT: callOpen, unix.SYS_CLOSE: callClose,
	unix.SYS_WRITE: callWrite, unix.SYS_PWRITE64: callPwrite, unix.SYS_WRITEV: callWritev, unix.SYS_PWRITEV: callPwritev,
	unix.SYS_FALLOCATE: callFallocate,
	unix.SYS_FSYNC:     callSync, unix.SYS_FDATASYNC: callSync,
	unix.SYS_RENAMEAT: callRename, unix.SYS_RENAMEAT2: callRename, unix.SYS_LINKAT: callLink, unix.SYS_UNLINKAT: callUnlink,
	unix.SYS_MKDIRAT: callMkdir,
	unix.SYS_DUP:     callDup, unix.SYS_DUP3: callDupTo,
	unix.SYS_PWRITEV2: callUnknown, unix.SYS_COPY_FILE_RANGE: callUnknown, unix.SYS_SENDFILE: callUnknown,
	unix.SYS_SPLICE: callUnknown, unix.SYS_IO_URING_SETUP: callForeign, unix.SYS_OPENAT2: callForeign,
}, numbersHere)

func merge(a, b map[uint64]call) map[uint64]call {
	for k, v := range b {
		a[k] = v
	}
	return a
}
