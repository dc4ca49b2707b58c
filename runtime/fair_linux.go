package runtime

import "syscall"

// osYield lets another thread have this core, if one wants it. To the kernel a
// guest that computes without end is as good as anybody else: without this, who
// wakes up on a busy core waits for some milliseconds. Go's scheduler is told, and
// the garbage collector with it: on a busy machine it may be long until this
// thread has the core again.
func osYield() {
	_, _, _ = syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
}
