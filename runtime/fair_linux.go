package runtime

import "syscall"

// osYield lets another thread have this core, if one wants it. To the kernel a
// guest that computes without end is as good as anybody else: without this, who
// wakes up on a busy core waits for some milliseconds.
func osYield() { syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }
