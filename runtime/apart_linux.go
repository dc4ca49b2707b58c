package runtime

import (
	"os"
	"os/exec"
	"syscall"
)

// apart starts a process in a session of its own. A key at the terminal that ends
// this one does not end it in the middle, and where the kernel shares the
// processor out among sessions, its work is not put down to this one.
func apart(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// yieldMemory has this process ended first when somebody has to be because memory
// is short. Where that is not allowed, it is not needed either.
func yieldMemory() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o644)
}

// yieldProcessor lets all others go first. It leaves a tenth of a core that has
// other work: compiling has to come to an end, too.
func yieldProcessor() {
	_ = syscall.Setpriority(syscall.PRIO_PGRP, 0, 10)
	_ = os.WriteFile("/proc/self/autogroup", []byte("10"), 0o644)
}
