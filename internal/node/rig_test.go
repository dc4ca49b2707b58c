package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/goguest"
	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/store"
)

const patience = 60 * time.Second

// thermostat is the module of the example, probe that of testdata, and codeCache
// what compiling them once left for all tests.
var thermostat, probe, codeCache string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "provider" {
		os.Exit(provide())
	}
	if len(os.Args) > 3 && os.Args[1] == "compile" {
		os.Exit(compileAsTold(os.Args[2], os.Args[len(os.Args)-1]))
	}
	os.Exit(build(m))
}

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "edged-node")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	thermostat, probe, codeCache = filepath.Join(dir, "thermostat.wasm"), filepath.Join(dir, "probe.wasm"), filepath.Join(dir, "cache")
	for module, source := range map[string]string{thermostat: "../../examples/thermostat", probe: "./testdata/probe"} {
		if err := goguest.Build(module, source); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// rig is a box whose files outlive its starts.
type rig struct {
	*Node
	t    *testing.T
	dir  string
	file string // the device file
	log  logbuffer.Buffer
	now  func() time.Time
	end  func()

	beforeReady func()   // called by start, if not nil
	compiler    []string // of the box
}

const unsigned = "[trust]\nallow_unsigned = true\n"

// newRig makes a box that does not run yet; more is the rest of its device file.
func newRig(t *testing.T, more string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), end: func() {}}
	r.file = r.write("edged.toml", "[device]\nid = \"press-7\"\n[nats]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"\"\n"+more)
	for _, dir := range []string{r.path("state"), codeCache} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(codeCache, r.path("state", "cache")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.end() })
	return r
}

func (r *rig) path(elem ...string) string { return filepath.Join(append([]string{r.dir}, elem...)...) }

func (r *rig) write(name, text string) string {
	r.t.Helper()
	path := r.path(filepath.FromSlash(name))
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return path
}

// start runs the box, and returns when it is ready. The box ends with stop, or
// with the test.
func (r *rig) start() {
	r.t.Helper()
	d, err := config.LoadDevice(r.file)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Node, err = New(Options{
		Device: d, Version: "test", Now: r.now, Logger: slog.New(slog.NewTextHandler(&r.log, nil)), Encode: os.Getenv("EDGED_ENCODE") != "", Compiler: r.compiler,
		MachineID: func() (string, error) { return "machine", nil },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() { // r.end waits
		ended <- r.Run(ctx, func(Addresses) {
			if r.beforeReady != nil {
				r.beforeReady()
			}
			close(ready)
		})
	}()
	r.end = func() {
		r.end = func() {}
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("the box ended with %v\n%s", err, r.log.String())
		}
	}
	select {
	case <-ready:
	case err := <-ended:
		r.end = func() {}
		r.t.Fatalf("the box did not start: %v\n%s", err, r.log.String())
	}
}

func (r *rig) stop() { r.end() }

// reload fails the test if the apps folder is refused.
func (r *rig) reload() {
	r.t.Helper()
	if err := r.Reload(r.t.Context()); err != nil {
		r.t.Fatalf("reload: %v", err)
	}
}

// greenhouse is an app with the thermostat that keeps SUBJECT.> in a stream, and
// the alarms.
func greenhouse(name, version, subject, more string) string {
	return fmt.Sprintf(`specversion = "0.2"
name = %[1]q
version = %[2]q
[[actor]]
name = "thermostat"
module = "thermostat.wasm"
limits = { memory = "64MiB", time = "30s" }
[[stream]]
name = "%[1]s"
subjects = ["%[3]s.>"]
uplink = true
[[capability]]
name = "keyvalue"
[[capability]]
name = "pubsub.local"
[[capability.config]]
topic = "%[3]s.*.temperature"
delivery = "push"
%[4]s`, name, version, subject, more)
}

// app writes an app with the thermostat into the apps folder.
func (r *rig) app(name, version, subject, more string) {
	r.t.Helper()
	r.write("apps/"+name+"/app.toml", greenhouse(name, version, subject, more))
	r.module(name)
}

// module puts the thermostat beside the manifest of an app.
func (r *rig) module(app string) {
	r.t.Helper()
	path := r.path("apps", app, "thermostat.wasm")
	_ = os.Remove(path) // a link: what is written to it would change all
	if err := os.Link(thermostat, path); err != nil {
		r.t.Fatal(err)
	}
}

// publish stores a reading and returns its sequence.
func (r *rig) publish(subject string, n int) uint64 {
	r.t.Helper()
	type answer struct {
		ack broker.Ack
		err error
	}
	done := make(chan answer, 1)
	r.broker.Publish(store.Message{Subject: subject, Data: fmt.Appendf(nil, `{"value":%d}`, n)}, func(a broker.Ack, err error) {
		done <- answer{a, err}
	})
	a := <-done
	if a.err != nil {
		r.t.Fatalf("publish %s: %v", subject, a.err)
	}
	return a.ack.Seq
}

// eventually waits until ok.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			r.t.Fatalf("in vain: %s\n%s", what, r.log.String())
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-r.t.Context().Done():
		}
	}
}

// turns returns how many turns an app's actor had since the box started.
func (r *rig) turns(app string) (n uint64) {
	for _, t := range r.Status().Turns {
		if t.App == app {
			n += t.Turns
		}
	}
	return n
}

func (r *rig) handled(app string, n uint64) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%s has %d turns", app, n), func() bool { return r.turns(app) == n })
}

func (r *rig) stream(name string) StreamStatus {
	for _, s := range r.Status().Streams {
		if s.Name == name {
			return s
		}
	}
	return StreamStatus{}
}

// running returns the names and versions of the apps that run.
func (r *rig) running() string {
	var all []string
	for _, a := range r.Status().Apps {
		all = append(all, a.Name+" "+a.Version)
	}
	return strings.Join(all, ", ")
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}
