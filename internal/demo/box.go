package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"

	"github.com/edged-io/edged/internal/node"
)

const (
	boxStartTimeout = time.Minute // more than a box takes beside other work
	boxStopTimeout  = 30 * time.Second
	askTimeout      = 5 * time.Second
	lookInterval    = 20 * time.Millisecond
)

// box is the box: a child process that is started, killed and started again
// over the same state. Its methods are for one goroutine.
type box struct {
	command func(deviceFile string) *exec.Cmd
	file    string // device file
	state   string // state directory
	logFile string
	client  *http.Client // to its socket

	cmd   *exec.Cmd  // nil while it is down
	ended chan error // takes the end of cmd, once
	lives int
}

// newBox lays out a box in dir: a device file with nothing but free ports, and
// the app.
func newBox(dir, app, leafAddr string, command func(string) *exec.Cmd) (*box, error) {
	b := &box{
		command: command, file: filepath.Join(dir, "edged.toml"),
		state: filepath.Join(dir, "state"), logFile: filepath.Join(dir, "box.log"),
	}
	if err := os.CopyFS(filepath.Join(dir, "apps", "greenhouse"), os.DirFS(app)); err != nil {
		return nil, fmt.Errorf("copy the app: %w", err)
	}
	text := fmt.Sprintf(`[device]
id = %q

[nats]
listen = "127.0.0.1:0"

[mqtt]
listen = "127.0.0.1:0"

[hub]
url = "nats-leaf://%s"
jetstream_domain = %q

[trust]
allow_unsigned = true

[admin]
listen = "127.0.0.1:0"
`, device, leafAddr, hubDomain)
	if err := os.WriteFile(b.file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("device file: %w", err)
	}
	b.client = &http.Client{Timeout: askTimeout, Transport: &http.Transport{
		DisableKeepAlives: true, // it may be another process the next time
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return node.DialSocket(ctx, node.SocketPath(b.state))
		},
	}}
	return b, nil
}

func (b *box) up() bool { return b.cmd != nil }

// start starts the box and returns its addresses when it is ready.
func (b *box) start(ctx context.Context) (node.Addresses, error) {
	addresses := filepath.Join(b.state, "addresses.json")
	if err := os.Remove(addresses); err != nil && !errors.Is(err, os.ErrNotExist) {
		return node.Addresses{}, fmt.Errorf("start the box: %w", err)
	}
	if err := b.launch(); err != nil {
		return node.Addresses{}, fmt.Errorf("start the box: %w", err)
	}
	timeout := time.After(boxStartTimeout)
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		// The file is written whole, as the last thing before it is ready.
		if text, err := os.ReadFile(addresses); err == nil {
			var a node.Addresses
			if err := json.Unmarshal(text, &a); err != nil {
				return a, fmt.Errorf("addresses of the box: %w", err)
			}
			return a, nil
		}
		select {
		case err := <-b.ended:
			b.cmd = nil
			return node.Addresses{}, b.endedByItself(err)
		case <-timeout:
			return node.Addresses{}, fmt.Errorf("the box was not ready within %s; its log is in %s", boxStartTimeout, b.logFile)
		case <-ctx.Done():
			return node.Addresses{}, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// launch starts the process. It has a process group of its own, so that Ctrl-C
// in the terminal is for the demo alone.
func (b *box) launch() error {
	log, err := os.OpenFile(b.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	cmd := b.command(b.file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownGroup()
	cmd.Env = withoutSystemd(cmd.Environ())
	started, ended := make(chan error), make(chan error, 1)
	go func() { // ends with the process, which stop and kill wait for
		// The kernel takes the end of the thread that started a child for the
		// end of its parent.
		goruntime.LockOSThread()
		defer goruntime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	b.cmd, b.ended = cmd, ended
	b.lives++
	return nil
}

// withoutSystemd leaves out what systemd tells the process that it started,
// should that be the demo.
func withoutSystemd(env []string) []string {
	var kept []string
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "NOTIFY_SOCKET", "JOURNAL_STREAM", "WATCHDOG_USEC", "WATCHDOG_PID":
		default:
			kept = append(kept, v)
		}
	}
	return kept
}

// kill ends the box as a power cut ends a process: it does not get to do
// anything more.
func (b *box) kill() error {
	if err := b.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the box: %w", err)
	}
	<-b.ended
	b.cmd = nil
	return nil
}

// stop ends the box in order. It does nothing if it is down.
func (b *box) stop() error {
	if b.cmd == nil {
		return nil
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(fmt.Errorf("stop the box: %w", err), b.kill())
	}
	select {
	case err := <-b.ended:
		b.cmd = nil
		if err != nil {
			return fmt.Errorf("stop the box: %w; its log is in %s", err, b.logFile)
		}
		return nil
	case <-time.After(boxStopTimeout):
		return errors.Join(fmt.Errorf("the box did not end within %s", boxStopTimeout), b.kill())
	}
}

// check says whether the box has ended though nobody asked it to.
func (b *box) check() error {
	if b.cmd == nil {
		return nil
	}
	select {
	case err := <-b.ended:
		b.cmd = nil
		return b.endedByItself(err)
	default:
		return nil
	}
}

func (b *box) endedByItself(err error) error {
	if err == nil {
		err = errors.New("exit code 0")
	}
	return fmt.Errorf("the box ended by itself: %w; the last line of %s is: %s", err, b.logFile, lastLine(b.logFile))
}

func lastLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	text = bytes.TrimSpace(text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}

// boxState is what a box says of itself.
type boxState struct {
	turns     uint64 // of this life
	waiting   uint64 // messages on disk that the hub has not
	empty     bool   // nothing is left to do for the actor and the hub
	link      bool
	relay     bool
	compiling bool // an actor has no code yet
}

// ask asks the box.
func (b *box) ask(ctx context.Context) (s boxState, err error) {
	var status node.Status
	if err := b.get(ctx, "/status", &status); err != nil {
		return s, err
	}
	var lines struct{ Items []node.Line }
	if err := b.get(ctx, "/gpio", &lines); err != nil {
		return s, err
	}
	s.link, s.empty = status.Link == "up", true
	for _, a := range status.Apps {
		s.compiling = s.compiling || len(a.Compiling) > 0
	}
	for _, t := range status.Turns {
		s.turns += t.Turns
	}
	for _, st := range status.Streams {
		if st.Name == streamReadings || st.Name == streamAlarms {
			s.waiting += st.Lag
			s.empty = s.empty && st.Bytes == 0
		}
	}
	for _, l := range lines.Items {
		s.relay = s.relay || l.Direction == "out" && l.Level
	}
	return s, nil
}

func (b *box) get(ctx context.Context, path string, reply any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://box"+path, nil)
	if err != nil {
		return err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the box: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the box for %s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(reply); err != nil {
		return fmt.Errorf("answer of the box: %w", err)
	}
	return nil
}
