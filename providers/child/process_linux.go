package child

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that runs, with all that it started in its process group.
type process struct {
	cmd    *exec.Cmd
	group  *group        // nil where there are no cgroups for it
	exited chan struct{} // closed when it has ended and so has its group
	err    error         // why it ended; nil for status 0. Set before exited is closed.

	reading chan struct{}  // closed when streams has begun
	streams sync.WaitGroup // its stdin and output

	mu     sync.Mutex // guards reaped
	reaped bool       // its number may be another's
}

// start starts a program in a folder, with line as all that is on its stdin. Its
// output goes to out, by a goroutine for each stream that ends with the process or at
// most a second later.
func (in *instance) start(dir string, line []byte, out *output) (*process, error) {
	cmd := exec.Command(in.program)
	cmd.Dir, cmd.Env = dir, in.environment(dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := in.setUser(cmd.SysProcAttr, dir); err != nil {
		return nil, err
	}
	var pipes, theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close() // the process has its own
		}
	}()
	pipe := func(read bool) (ours, their *os.File, err error) {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		if ours, their = r, w; !read {
			ours, their = w, r
		}
		pipes, theirs = append(pipes, ours), append(theirs, their)
		return ours, their, nil
	}
	stdin, in0, err := pipe(false)
	stdout, out1, err1 := pipe(true)
	stderr, out2, err2 := pipe(true)
	p := &process{cmd: cmd, exited: make(chan struct{}), reading: make(chan struct{})}
	if err = errors.Join(err, err1, err2); err == nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in0, out1, out2
		p.group = in.newGroup()
		p.group.admit(cmd.SysProcAttr)
		err = p.launch(func() {
			if err := confine(in.m.o.Private, []string{in.program, dir}); err != nil && len(in.m.o.Private) > 0 {
				in.unconfined.Do(func() {
					in.m.log.Warn("provider can read the files of the box", "provider", in.title(), "link", in.id.link, "err", err)
				})
			}
		}, func(err error) {
			p.err = err
			p.settle(stdin, pipes)
		})
	}
	if err != nil {
		for _, f := range pipes {
			_ = f.Close() // nothing was written
		}
		p.group.remove()
		return nil, startFault(err)
	}
	p.streams.Go(func() { // one that does not read keeps this until it ends
		_, _ = io.Copy(stdin, bytes.NewReader(line)) // it ended, or closed its stdin; how it does is its own affair
		_ = stdin.Close()
	})
	p.streams.Go(func() { out.read(stdout, "stdout") })
	p.streams.Go(func() { out.read(stderr, "stderr") })
	close(p.reading)
	return p, nil
}

// launch starts the process in a thread of its own, for which begin is called before,
// and ended when the process has ended. The thread stays that long: the process ends
// when it does (Pdeathsig in prctl(2)), as with the box.
func (p *process) launch(begin func(), ended func(error)) error {
	started := make(chan error, 1)
	onThread(func() { // whoever started the process waits for exited
		begin()
		err := p.cmd.Start()
		// Another process that is being started may hold what was just written open.
		for try := 0; errors.Is(err, syscall.ETXTBSY) && try < 20; try++ {
			time.Sleep(10 * time.Millisecond)
			c := p.cmd
			p.cmd = &exec.Cmd{Path: c.Path, Args: c.Args, Dir: c.Dir, Env: c.Env, SysProcAttr: c.SysProcAttr, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr}
			err = p.cmd.Start()
		}
		started <- err
		if err == nil {
			ended(p.wait())
		}
	})
	return <-started
}

// onThread runs fn in a goroutine and a thread of its own, which ends with it: nobody
// else gets one that is confined. It is not the main thread, by which the kernel judges
// what may be done to the process.
func onThread(fn func()) {
	go func() {
		goruntime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn()
			return
		}
		// While this holds the main thread, another goroutine has to get another one.
		has := make(chan struct{})
		go func() {
			goruntime.LockOSThread()
			close(has)
			fn()
		}()
		<-has
		goruntime.UnlockOSThread()
	}()
}

// settle waits for the output of a process that has ended.
func (p *process) settle(stdin io.Closer, pipes []*os.File) {
	<-p.reading
	// Something it started may have left the group, and hold the pipes.
	late := time.AfterFunc(time.Second, func() {
		for _, f := range pipes {
			_ = f.Close()
		}
	})
	_ = stdin.Close()
	p.streams.Wait()
	late.Stop()
	for _, f := range pipes {
		_ = f.Close()
	}
	close(p.exited)
}

// startFault says what to do about a program that does not start.
func startFault(err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w: it is for another kind of machine, or a script without a first line like #!/bin/sh: %w", ErrProgram, err)
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%w: it, or what its first line or its linker asks for, is not there: %w", ErrProgram, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: it may not be executed here; chmod +x, and a file system without noexec: %w", ErrProgram, err)
	}
	return err
}

// wait waits for the process, ends what is left of its group, and returns why it
// ended.
func (p *process) wait() error {
	for { // the number stays taken until Wait, so that the signal meets nobody else
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.signal(syscall.SIGKILL)
	p.group.kill()
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	err := p.cmd.Wait()
	p.group.remove()
	return err
}

// signal sends a signal to the whole group.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = syscall.Kill(-p.cmd.Process.Pid, s) // all of it has ended by itself
	}
}
