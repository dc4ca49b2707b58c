package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// failpoint makes the process kill itself the n-th time it comes to a point:
// "name:n" in EDGED_FAILPOINT. Crash tests use it to hit a window of a few
// microseconds; a signal from outside would rarely do.
func failpoint(spec string) func(string) {
	name, count, ok := strings.Cut(spec, ":")
	n, err := strconv.ParseInt(count, 10, 64)
	if !ok || err != nil || n < 1 {
		return func(string) {}
	}
	var passed atomic.Int64
	return func(point string) {
		if point == name && passed.Add(1) == n {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way; nothing after the point may happen
		}
	}
}

// hubPing is EDGED_HUB_PING, a duration between pings on the link to the hub, so
// that tests of dead links need not wait for long. Nothing, or nonsense, leaves
// the default.
func hubPing(spec string) time.Duration {
	d, err := time.ParseDuration(spec)
	if err != nil {
		return 0
	}
	return max(d, 0)
}
