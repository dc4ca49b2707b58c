package providertest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// How hosts hand over the line on standard input.
const (
	openLine   = "\n"   // and leave it open
	closedLine = "\r\n" // and close it
)

// searchPath is all that a program gets of an environment, so that a script finds its
// interpreter. Some hosts hand over all of theirs, and some nothing.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// program is a provider that runs as a process group of its own.
type program struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	exited chan struct{} // closed when it has ended
	err    error         // how; read it after exited
}

// startProgram starts a program and writes the line to it. env is put behind the search path.
func startProgram(ctx context.Context, command []string, line, ending string, out io.Writer) (*program, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = []string{searchPath}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // for what its children keep open
	p := &program{cmd: cmd, exited: make(chan struct{})}
	cmd.Cancel = func() error { p.kill(); return nil }
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start provider: %w", err)
	}
	p.stdin = stdin
	go func() { // ends with the program
		p.err = cmd.Wait()
		close(p.exited)
	}()
	// A program that does not read its input has not more than a pipe's worth of time.
	go func() { // ends when the line was read, or with the program
		_, _ = io.WriteString(stdin, line+ending)
		if ending == closedLine {
			_ = stdin.Close()
		}
	}()
	return p, nil
}

// kill ends the whole group.
func (p *program) kill() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// stop kills what is left, and returns when the program has ended.
func (p *program) stop() {
	p.kill()
	<-p.exited
}

// tail keeps the end of what is written to it, and passes it on.
type tail struct {
	to io.Writer

	mu   sync.Mutex // guards last
	last []byte
}

// maxTail is how much of the output of a program is kept for a report.
const maxTail = 2 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	t.last = append(t.last, b...)
	t.last = bytes.Clone(t.last[max(0, len(t.last)-maxTail):])
	t.mu.Unlock()
	return t.to.Write(b)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.last))
}
