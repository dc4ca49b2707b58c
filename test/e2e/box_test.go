package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// edged runs a verb and returns what it printed.
func edged(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	b, err := exec.Command(built.edged, args...).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); ok {
		return string(b), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b), 0
}

// box is edged as a process, which can be killed and started again.
type box struct {
	t      *testing.T
	dir    string
	device string
	net    *netns // nil for that of the tests
	log    *log

	mu   sync.Mutex // guards run
	run  *process
	wrap []string // a program that starts edged, with its arguments
}

// process is one life of a box.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// newBox writes a device file. hubAddr is the hub's leaf port, or "" for a box without one.
func newBox(t *testing.T, device, hubAddr string) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir(), device: device, log: &log{}}
	b.configure(hubAddr)
	t.Cleanup(func() {
		if p := b.process(); p != nil {
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
		if t.Failed() {
			t.Logf("the log of %s ends with:\n%s", device, b.log.tail(80))
		}
	})
	return b
}

func (b *box) configure(hubAddr string) {
	b.t.Helper()
	text := fmt.Sprintf("[device]\nid = %q\n[nats]\nlisten = \"127.0.0.1:0\"\n[mqtt]\nlisten = \"127.0.0.1:0\"\n"+
		"[admin]\nlisten = \"127.0.0.1:0\"\n[trust]\nallow_unsigned = true\n", b.device)
	if hubAddr != "" {
		text += fmt.Sprintf("[hub]\nurl = \"nats-leaf://%s\"\njetstream_domain = \"hub\"\n", hubAddr)
	}
	if err := os.WriteFile(b.config(), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// warm spares the box the compiling of modules that another has compiled.
func (b *box) warm() *box {
	b.t.Helper()
	state := filepath.Join(b.dir, "state")
	if err := errors.Join(os.Mkdir(state, 0o700), os.Symlink(built.cache, filepath.Join(state, "cache"))); err != nil {
		b.t.Fatal(err)
	}
	return b
}

func (b *box) config() string { return filepath.Join(b.dir, "edged.toml") }

// install puts an app into the apps folder.
func (b *box) install(a app) { a.write(b.t, filepath.Join(b.dir, "apps", "counter")) }

// start starts the process and does not wait for it.
func (b *box) start(env ...string) *process {
	b.t.Helper()
	args := append(append([]string(nil), b.wrap...), built.box, "run", "--config", b.config())
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = b.dir
	cmd.Env = append(append(os.Environ(), "EDGED_HUB_PING=1s", "GORACE=halt_on_error=1"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	b.log.mark(fmt.Sprintf("--- start %s", strings.Join(env, " ")))
	cmd.Stderr, cmd.WaitDelay = b.log, 10*time.Second // a tracer may hold it for longer
	if err := b.net.startIn(cmd); err != nil {
		b.t.Fatal(err)
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() { // ends with the process, which a cleanup kills
		_ = cmd.Wait()
		close(p.exited)
	}()
	b.mu.Lock()
	b.run = p
	b.mu.Unlock()
	return p
}

func (b *box) process() *process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.run
}

// up starts the process and waits until it answers.
func (b *box) up(env ...string) *process {
	b.t.Helper()
	p := b.start(env...)
	b.serves(p)
	return p
}

// serves waits until the process is ready and its actors have their code: a call that waits for a slow compiler is refused.
func (b *box) serves(p *process) {
	b.t.Helper()
	if !b.ready(p) {
		b.t.Fatalf("%s ended before it was ready: %v", b.device, p.cmd.ProcessState)
	}
	eventually(b.t, b.device+" has compiled its actors", func() (bool, string) {
		var late []string
		for _, a := range b.status().Apps {
			late = append(late, a.Compiling...)
		}
		return len(late) == 0, strings.Join(late, ", ")
	})
}

// ready waits until the process has said so; false says that it ended before.
func (b *box) ready(p *process) bool {
	b.t.Helper()
	return b.says(p, "msg=ready ")
}

// says waits until the process has logged a line with text in it; false says
// that it ended before.
func (b *box) says(p *process, text string) (said bool) {
	b.t.Helper()
	eventually(b.t, b.device+" logs "+text, func() (bool, string) {
		if said = b.log.has(text); said {
			return true, ""
		}
		select {
		case <-p.exited:
			return true, ""
		default:
			return false, "it runs on"
		}
	})
	return said
}

// kill ends the process with SIGKILL. One that has ended otherwise is a fault.
func (b *box) kill() {
	b.t.Helper()
	p := b.process()
	_ = p.cmd.Process.Kill()
	<-p.exited
	b.wasKilled(p)
}

// stop ends the process as systemd does.
func (b *box) stop() {
	b.t.Helper()
	p := b.process()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		b.t.Fatalf("%s ended with %d", b.device, code)
	}
	b.mu.Lock()
	b.run = nil
	b.mu.Unlock()
}

func (b *box) wasKilled(p *process) {
	b.t.Helper()
	<-p.exited
	if s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		b.t.Fatalf("%s ended by itself: %v", b.device, p.cmd.ProcessState)
	}
	b.mu.Lock()
	b.run = nil
	b.mu.Unlock()
}

// addresses returns what the running process has bound; empty while it is not ready.
func (b *box) addresses() (a struct {
	NATS, MQTT, Admin string
	HTTP              map[string]string
}) {
	if b.process() == nil || !b.log.has("msg=ready ") {
		return a
	}
	text, err := os.ReadFile(filepath.Join(b.dir, "state", "addresses.json"))
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil {
		b.log.mark("--- addresses: " + err.Error())
	}
	return a
}

// nats connects to the box as a local client does.
func (b *box) nats() *nats.Conn {
	b.t.Helper()
	nc, err := nats.Connect("nats://"+b.addresses().NATS, nats.Timeout(time.Minute), nats.SetCustomDialer(b.net))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(nc.Close)
	return nc
}

// status is what edged status --json prints.
type status struct {
	Epoch    string
	Link     string
	Desired  struct{ Version string }
	Reported struct {
		State, Version, Error string
		Running               struct{ Version string }
	}
	Streams []streamStatus
	Apps    []struct{ Compiling []string }
	Turns   []struct {
		Actor, Version string
		Turns          int
	}
	Dead     int `json:"dead_letters"`
	Problems []string
}

type streamStatus struct {
	Name                           string
	First, Last, Acked, Lag, Bytes int
}

func (s status) stream(name string) streamStatus {
	for _, st := range s.Streams {
		if st.Name == name {
			return st
		}
	}
	return streamStatus{}
}

// status asks the box, as its owner does.
func (b *box) status() status {
	b.t.Helper()
	out, code := edged(b.t, "status", "--config", b.config(), "--json")
	if code != 0 {
		b.t.Fatalf("edged status: exit code %d\n%s", code, out)
	}
	return parseStatus(b.t, out)
}

func parseStatus(t *testing.T, out string) (s status) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
	return s
}

func (b *box) linkIs(want string) {
	b.t.Helper()
	eventually(b.t, "the link of "+b.device+" is "+want, func() (bool, string) {
		s := b.status()
		return s.Link == want, s.Link
	})
}

// drained waits until hub and actors have all that the streams held. If that does
// not come, the test goes on to show what is missing.
func (b *box) drained(streams ...string) {
	b.t.Helper()
	came, state := comes(func() (bool, string) {
		s := b.status()
		for _, name := range streams {
			if st := s.stream(name); st.Lag > 0 || st.Bytes > 0 || st.Name == "" {
				return false, fmt.Sprintf("link %s, streams %+v", s.Link, s.Streams)
			}
		}
		return true, ""
	})
	if !came {
		b.t.Errorf("not in time: %v of %s are drained; last: %s", streams, b.device, state)
	}
	if s := b.status(); s.Dead != 0 || len(s.Problems) != 0 {
		out, _ := edged(b.t, "dlq", "ls", "--config", b.config())
		b.t.Errorf("%d dead letters, problems %q\n%s", s.Dead, s.Problems, out)
	}
}

// report asks the actor for values of its state.
func (b *box) report(keys ...string) map[string]string {
	b.t.Helper()
	nc := b.nats()
	defer nc.Close()
	sub, err := nc.SubscribeSync("reports")
	if err != nil {
		b.t.Fatal(err)
	}
	id := nats.NewInbox()
	m := &nats.Msg{Subject: "report", Header: nats.Header{"Nats-Msg-Id": {id}}, Data: []byte(strings.Join(keys, " "))}
	if _, err := nc.RequestMsg(m, patience); err != nil {
		b.t.Fatalf("ask for a report: %v", err)
	}
	for {
		r, err := sub.NextMsg(patience)
		if err != nil {
			b.t.Fatalf("no report: %v", err)
		}
		lines := strings.Split(string(r.Data), "\n")
		if lines[0] != id {
			continue
		}
		values := make(map[string]string)
		for _, line := range lines[1:] {
			key, value, _ := strings.Cut(line, "=")
			values[key] = value
		}
		return values
	}
}

// log takes what processes of a box write.
type log struct {
	mu    sync.Mutex // guards all below
	lines []string   // of all processes
	life  int        // index of the first line of the last process
	part  []byte
}

const keptLines = 20_000

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(b)
	for {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		l.part = append(l.part, line...)
		if !whole {
			return n, nil
		}
		if l.lines = append(l.lines, string(l.part)); len(l.lines) > keptLines {
			l.lines, l.life = l.lines[1:], max(0, l.life-1)
		}
		l.part, b = nil, rest
	}
}

// mark begins the log of another process.
func (l *log) mark(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	l.life, l.part = len(l.lines), nil
}

// has says whether the last process has written text.
func (l *log) has(text string) bool { return l.count(text) > 0 }

func (l *log) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines[l.life:] {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

func (l *log) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-n):], "\n")
}
