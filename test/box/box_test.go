package box

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/goguest"
	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/internal/node"
)

// patience is how long a test waits for what must happen. Beside other work a module takes a minute to compile.
const patience = 3 * time.Minute

// What TestMain built, and the code that compiling the module left.
var edged, thermostat, codeCache string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "edged-box")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	edged, thermostat, codeCache = filepath.Join(dir, "edged"), filepath.Join(dir, "thermostat.wasm"), filepath.Join(dir, "cache")
	// The go command keeps the result of a test until a file changes that the
	// test looked at; it does not see what its compilers look at.
	for _, pattern := range []string{"../../cmd/edged/*.go", "../../examples/thermostat/*.go"} {
		files, err := filepath.Glob(pattern)
		for _, f := range files {
			_, statErr := os.Stat(f)
			err = errors.Join(err, statErr)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if err := goguest.Build(thermostat, "../../examples/thermostat"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	program := exec.Command("go", "build", "-o", edged, "../../cmd/edged")
	if out, err := program.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %v\n%s", program, err, out)
		return 1
	}
	if err := os.Mkdir(codeCache, 0o700); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// box is a box whose files outlive its processes.
type box struct {
	t   *testing.T
	dir string
	// in comes before each command: what puts it into a namespace.
	in  []string
	env []string

	cmd   *exec.Cmd
	ended chan error
	log   *logbuffer.Buffer // of the process that runs, or ran last
}

const unsigned = "[trust]\nallow_unsigned = true\n"

// newBox makes a box that does not run yet; more is the rest of its device file.
func newBox(t *testing.T, more string) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir()}
	b.write("edged.toml", `[device]
id = "press-7"
[nats]
listen = "127.0.0.1:0"
[mqtt]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
`+more)
	b.must(os.MkdirAll(b.path("state"), 0o700))
	b.must(os.Symlink(codeCache, b.path("state", "cache")))
	t.Cleanup(func() {
		b.kill()
		if t.Failed() && b.log != nil {
			t.Logf("log of the box:\n%s", b.log)
		}
	})
	return b
}

func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) path(elem ...string) string { return filepath.Join(append([]string{b.dir}, elem...)...) }

func (b *box) write(name, text string) {
	b.t.Helper()
	path := b.path(filepath.FromSlash(name))
	b.must(os.MkdirAll(filepath.Dir(path), 0o755))
	b.must(os.WriteFile(path, []byte(text), 0o600))
}

// app writes an app with the thermostat, and streams "greenhouse", "alarms" and
// "kept", which nobody reads.
func (b *box) app(name, version string) {
	b.t.Helper()
	b.write(name+"/app.toml", fmt.Sprintf(`specversion = "0.2"
name = "greenhouse"
version = %q
[[actor]]
name = "thermostat"
module = "thermostat.wasm"
limits = { memory = "64MiB", time = "30s" }
[[stream]]
name = "greenhouse"
subjects = ["greenhouse.>"]
[[stream]]
name = "alarms"
subjects = ["alarms.>"]
uplink = true
[[stream]]
name = "kept"
subjects = ["kept.>"]
[[capability]]
name = "keyvalue"
[[capability]]
name = "pubsub.local"
[[capability.config]]
topic = "greenhouse/+/temperature"
delivery = "push"
[[capability]]
name = "gpio"
[[capability.config]]
chip = "sim0"
line = 4
direction = "out"
`, version))
	wasm, err := os.ReadFile(thermostat)
	b.must(err)
	b.write(name+"/thermostat.wasm", string(wasm))
}

// command is a command in the namespaces of the box.
func (b *box) command(args ...string) *exec.Cmd {
	args = append(append([]string{}, b.in...), args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), b.env...)
	return cmd
}

// start runs the box and returns when it is ready. What is in wrap comes before
// the program.
func (b *box) start(wrap ...string) {
	b.t.Helper()
	b.cmd = b.command(append(wrap, edged, "run", "--config", "edged.toml")...)
	b.log, b.ended = new(logbuffer.Buffer), make(chan error, 1)
	b.cmd.Stderr = b.log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the wrappers end with it
	b.must(b.cmd.Start())
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(b.cmd, b.ended) // kill and term wait
	b.eventually("the box is ready", func() bool {
		select {
		case err := <-b.ended:
			b.ended <- err
			b.t.Fatalf("the box ended: %v", err)
		default:
		}
		return strings.Contains(b.log.String(), "msg=ready ")
	})
}

// compiled waits until the actors that were not in the cache have their code.
func (b *box) compiled() {
	b.t.Helper()
	b.eventually("all is compiled", func() bool {
		return !slices.ContainsFunc(b.status().Apps, func(a node.AppStatus) bool { return len(a.Compiling) > 0 })
	})
}

// kill ends the box at once.
func (b *box) kill() {
	if b.cmd != nil {
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		<-b.ended
		b.cmd = nil
	}
}

// term ends the box as systemd does.
func (b *box) term() {
	b.t.Helper()
	b.must(syscall.Kill(-b.cmd.Process.Pid, syscall.SIGTERM))
	select {
	case err := <-b.ended:
		b.cmd = nil
		b.must(err)
	case <-time.After(patience):
		b.t.Fatal("SIGTERM does not end the box")
	}
}

func (b *box) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			b.t.Fatalf("in vain: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// logged waits for a line of the log, which may come a moment after what it is about.
func (b *box) logged(line string) {
	b.t.Helper()
	b.eventually("the log has "+line, func() bool { return strings.Contains(b.log.String(), line) })
}

var address = regexp.MustCompile(`(nats|mqtt|admin)=(127\.0\.0\.1:\d+)`)

// addr returns what the box bound, from the line that says it is ready.
func (b *box) addr(listener string) string {
	b.t.Helper()
	_, line, _ := strings.Cut(b.log.String(), "msg=ready ")
	for _, m := range address.FindAllStringSubmatch(line, -1) {
		if m[1] == listener {
			return m[2]
		}
	}
	b.t.Fatalf("no address of %s", listener)
	return ""
}

// edged runs a verb and returns its exit code and what it printed.
func (b *box) edged(args ...string) (code int, out, errOut string) {
	b.t.Helper()
	cmd := b.command(append([]string{edged}, args...)...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

func (b *box) status() (s node.Status) {
	b.t.Helper()
	code, out, errOut := b.edged("status", "--json", "--config", "edged.toml")
	if code != 0 {
		b.t.Fatalf("status: %d %s", code, errOut)
	}
	b.must(json.Unmarshal([]byte(out), &s))
	return s
}

func (b *box) stream(name string) node.StreamStatus {
	b.t.Helper()
	for _, s := range b.status().Streams {
		if s.Name == name {
			return s
		}
	}
	b.t.Fatalf("no stream %s", name)
	return node.StreamStatus{}
}

// health returns what /healthz says.
func (b *box) health() string { return b.get("/healthz") }

func (b *box) get(path string) string {
	b.t.Helper()
	resp, err := http.Get("http://" + b.addr("admin") + path)
	b.must(err)
	defer resp.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(resp.Body)
	b.must(err)
	return text.String()
}

// turns returns how many turns actors had since the box started.
func (b *box) turns() (n uint64) {
	b.t.Helper()
	for _, t := range b.status().Turns {
		n += t.Turns
	}
	return n
}

func (b *box) handled(n uint64) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("%d turns", n), func() bool { return b.turns() == n })
}

func (b *box) nats() *nats.Conn {
	b.t.Helper()
	nc, err := nats.Connect("nats://"+b.addr("nats"), nats.Timeout(patience))
	b.must(err)
	b.t.Cleanup(nc.Close)
	return nc
}

// answer is what a publisher gets.
type answer struct {
	Stream string
	Seq    uint64
	Error  *struct {
		Code        int
		Description string
	}
}

func (b *box) publish(nc *nats.Conn, subject string, data []byte) (a answer) {
	b.t.Helper()
	m, err := nc.Request(subject, data, patience)
	b.must(err)
	b.must(json.Unmarshal(m.Data, &a))
	return a
}

// store publishes n messages to kept.a, which have to be acknowledged. Their
// bodies are numbers, from first.
func (b *box) store(first, n int) {
	b.t.Helper()
	nc := b.nats()
	for i := range n {
		if a := b.publish(nc, "kept.a", []byte(fmt.Sprintf("message %d", first+i))); a.Error != nil {
			b.t.Fatalf("message %d: %+v", first+i, *a.Error)
		}
	}
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

// may says whether a command can be run here; what makes a namespace needs root.
func may(name string, args ...string) bool { return exec.Command(name, args...).Run() == nil }
