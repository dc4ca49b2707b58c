package powercut

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stopOnlyAt asks the kernel to stop this process for its tracer at the calls
// that the tracer knows, and at no others. Without it the tracer sees all, and
// everything takes longer.
func stopOnlyAt(calls map[uint64]call) error {
	const nr, arch = 0, 4 // in struct seccomp_data
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	equal := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: skip}
	}
	answer := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	program := []unix.SockFilter{load(arch), equal(auditArch, 1), load(nr)}
	for n := range calls {
		program = append(program, equal(uint32(n), 1), answer(unix.SECCOMP_RET_TRACE))
	}
	program = append(program, answer(unix.SECCOMP_RET_ALLOW))
	// Without the right to do more, a process may filter its calls if it gives
	// up ever getting any.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}
