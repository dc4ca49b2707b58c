package powercut

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoTrace: this machine does not let one process watch the calls of another.
var ErrNoTrace = errors.New("tracing is refused")

// markFile is the file number on which the workload says what it has been told.
const markFile = 3

// Command is how to start the workload: a program, the same one as a rule, that
// calls Workload with spec.
type Command func(spec string) (path string, args, env []string)

// record runs the workload and writes down what it asks of the disk in dir,
// which must be empty. It returns when the workload has ended.
func record(ctx context.Context, dir, path string, args, env []string) (*Record, error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	said, err := os.CreateTemp("", "edged-workload-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(said.Name())
	defer said.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()

	t := newTracer(root)
	done := make(chan error, 1)
	go func() { // ends with the workload; the select below waits
		// The kernel knows a tracer by its thread. This one is not to be used again.
		runtime.LockOSThread()
		done <- t.run(ctx, path, args, env, []uintptr{null.Fd(), said.Fd(), said.Fd(), null.Fd()})
	}()
	if err = <-done; err != nil {
		if b, _ := os.ReadFile(said.Name()); len(b) > 0 {
			err = fmt.Errorf("%w: %s", err, b[:min(len(b), 4096)])
		}
		return nil, err
	}
	return t.finish(), nil
}

// tracer follows the calls of one process with all its threads.
type tracer struct {
	root    string
	rec     Record
	threads map[int]*thread
	nothing bool           // the kernel stops the process at the calls that matter only
	begun   bool           // the workload has said something
	names   map[string]int // path below root → number
	dirs    map[int]bool
	files   map[int]handle // open files of the process
	next    int
	err     error
}

// handle is an open file of the workload.
type handle struct {
	file   int  // its number
	append bool // each write goes to the end of the file
}

// thread is a thread of the workload and the call it is in.
type thread struct {
	started bool
	call    *inCall
}

// inCall is a call that has begun.
type inCall struct {
	kind   call
	args   [6]uint64
	op     int // of the record, or none
	moment int // where it began, if it may turn out to be an op
}

func newTracer(root string) *tracer {
	return &tracer{
		root: root, threads: make(map[int]*thread),
		names: map[string]int{".": 0}, dirs: map[int]bool{0: true}, files: make(map[int]handle), next: 1,
	}
}

// none marks a moment that turned out to be none of the record's.
const none = -1

// finish returns the record without the calls that did not matter.
func (t *tracer) finish() *Record {
	r := &Record{Ops: t.rec.Ops}
	for _, m := range t.rec.Moments {
		if m.Op != none {
			r.Moments = append(r.Moments, m)
		}
	}
	return r
}

func (t *tracer) run(ctx context.Context, path string, args, env []string, files []uintptr) error {
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("%w: %w", ErrNoTrace, err)
		}
		return fmt.Errorf("start %s: %w", path, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(pid, unix.SIGKILL) })
	defer stop()
	status, err := t.follow(pid)
	if err != nil {
		t.killAll(pid)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case !status.Exited() || status.ExitStatus() != 0:
		return fmt.Errorf("the workload ended with %s", describe(status))
	}
	return nil
}

// killAll ends the process and what it may have started, and waits for that.
func (t *tracer) killAll(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	for tid := range t.threads {
		_ = unix.Kill(tid, unix.SIGKILL)
	}
	for {
		var ws unix.WaitStatus
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case err == unix.EINTR:
		case err != nil: // there is none left
			return
		case ws.Stopped():
			_ = unix.Kill(tid, unix.SIGKILL)
		}
	}
}

func describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return "signal " + s.Signal().String()
	}
	return fmt.Sprintf("exit code %d", s.ExitStatus())
}

// follow returns how the process ended.
func (t *tracer) follow(pid int) (status unix.WaitStatus, err error) {
	set := false
	for t.err == nil {
		var ws unix.WaitStatus
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return ws, fmt.Errorf("wait for the workload: %w", err)
		case ws.Exited() || ws.Signaled():
			delete(t.threads, tid)
			if tid == pid {
				return ws, nil
			}
			continue
		}
		if !set {
			const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
				unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_EXITKILL
			if err := unix.PtraceSetOptions(pid, options); err != nil {
				return ws, fmt.Errorf("%w: %w", ErrNoTrace, err)
			}
			set = true
		}
		th := t.threads[tid]
		if th == nil {
			th = &thread{}
			t.threads[tid] = th
		}
		if err := t.resume(tid, th, t.stopped(tid, th, ws)); err != nil {
			return ws, err
		}
	}
	return 0, t.err
}

// stopped looks at why a thread stopped, and returns the signal to let through.
func (t *tracer) stopped(tid int, th *thread, ws unix.WaitStatus) int {
	first := !th.started
	th.started = true
	switch sig, event := ws.StopSignal(), int(ws)>>16; {
	case sig == unix.SIGTRAP|0x80, sig == unix.SIGTRAP && event == unix.PTRACE_EVENT_SECCOMP:
		t.nothing = t.nothing || event == unix.PTRACE_EVENT_SECCOMP
		t.atCall(tid, th)
		return 0
	case sig == unix.SIGTRAP && (event == unix.PTRACE_EVENT_FORK || event == unix.PTRACE_EVENT_VFORK):
		t.fail("the workload started a process, which is not followed")
		return 0
	case sig == unix.SIGTRAP, first && sig == unix.SIGSTOP:
		return 0
	default:
		return int(sig)
	}
}

func (t *tracer) resume(tid int, th *thread, sig int) error {
	request := unix.PTRACE_SYSCALL
	if t.nothing && th.call == nil {
		request = unix.PTRACE_CONT
	}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), 0, uintptr(sig), 0, 0)
	if errno != 0 && errno != unix.ESRCH { // ESRCH: it was killed meanwhile
		return fmt.Errorf("let the workload go on: %w", errno)
	}
	return nil
}

// callInfo is struct ptrace_syscall_info.
type callInfo struct {
	op     uint8
	nr     uint64
	args   [6]uint64
	result int64
}

const (
	infoEntry   = 1
	infoExit    = 2
	infoSeccomp = 3
)

func getCallInfo(tid int) (c callInfo, err error) {
	var b [88]byte
	n, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), uintptr(len(b)), uintptr(unsafe.Pointer(&b)), 0, 0)
	switch {
	case errno == unix.ESRCH: // it was killed meanwhile
		return c, nil
	case errno != 0 || n < 33:
		return c, fmt.Errorf("%w: this needs Linux 5.3 or later: %w", ErrNoTrace, errno)
	}
	c.op = b[0]
	c.result = int64(binary.NativeEndian.Uint64(b[24:]))
	c.nr = uint64(c.result)
	for i := range c.args {
		c.args[i] = binary.NativeEndian.Uint64(b[32+8*i:])
	}
	return c, nil
}

// atCall handles the beginning or the end of a call.
func (t *tracer) atCall(tid int, th *thread) {
	info, err := getCallInfo(tid)
	if err != nil {
		t.err = errors.Join(t.err, err)
		return
	}
	switch {
	case info.op == infoExit:
		if c := th.call; c != nil {
			th.call = nil
			t.ended(tid, c, info.result)
		}
	case info.op != infoEntry && info.op != infoSeccomp || th.call != nil:
	default:
		if kind, ok := calls[info.nr]; ok {
			th.call = &inCall{kind: kind, args: info.args, op: none, moment: none}
			t.began(tid, th.call)
		}
	}
}

func (t *tracer) fail(format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf(format, args...)
	}
}
