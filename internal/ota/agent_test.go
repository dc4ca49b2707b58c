package ota_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/ota"
)

func itoa(i int) string { return strconv.Itoa(i) }

// host plays the part of the node: it "runs" a release by reading its manifest. A
// manifest that contains "broken" does not start.
type host struct {
	mu    sync.Mutex
	tried []string // versions
	run   string   // version
}

func (h *host) apply(_ context.Context, s ota.Staged) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tried = append(h.tried, s.Version)
	if _, err := claims.DigestApp(s.Dir); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(s.Dir, "app.toml"))
	if err != nil {
		return err
	}
	if strings.Contains(string(b), "broken") {
		return errors.New("actor trapped at start")
	}
	h.run = s.Version
	return nil
}

func (h *host) state() (tried []string, run string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.tried), h.run
}

// box is an agent under test with its host.
type box struct {
	*ota.Agent
	host
	dir  string
	stop func()
}

func options(conn *nats.Conn, dir string, h *host) ota.Options {
	return ota.Options{
		Conn: conn, Domain: domain, Device: device, StateDir: dir, AllowUnsigned: true,
		Apply: h.apply, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		RetryMin: 20 * time.Millisecond, RetryMax: 200 * time.Millisecond, Poll: 500 * time.Millisecond,
	}
}

// startAgent runs an agent on dir until the end of the test or stop.
func startAgent(t *testing.T, conn *nats.Conn, dir string, change func(*ota.Options)) *box {
	t.Helper()
	b := &box{dir: dir}
	o := options(conn, dir, &b.host)
	if change != nil {
		change(&o)
	}
	a, err := ota.New(o)
	if err != nil {
		t.Fatal(err)
	}
	b.Agent = a
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }() // stop waits for it
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// app writes a folder of files, given as name and content in turn.
func app(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		p := filepath.Join(dir, filepath.FromSlash(files[i]))
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(files[i+1]), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func push(t *testing.T, h *testHub, dir, version string) ota.Desired {
	t.Helper()
	d, err := ota.Push(t.Context(), h.conn, pushOptions(dir, version))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func pushOptions(dir, version string) ota.PushOptions {
	return ota.PushOptions{Device: device, Dir: dir, App: "greenhouse", Version: version}
}

// wait is Wait with a deadline.
func wait(t *testing.T, h *testHub, d ota.Desired) (ota.Reported, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	return ota.Wait(ctx, h.conn, pushOptions("", ""), d)
}

func wantCommitted(t *testing.T, h *testHub, d ota.Desired) ota.Reported {
	t.Helper()
	r, err := wait(t, h, d)
	if err != nil || r.State != ota.Committed || r.Version != d.Version || r.Digest != d.Manifest || r.Error != "" {
		t.Fatalf("got %+v, %v, want %s committed", r, err, d.Version)
	}
	return r
}

func wantCurrent(t *testing.T, a *ota.Agent, versions ...string) {
	t.Helper()
	var got []string
	for _, s := range a.Current() {
		got = append(got, s.Version)
	}
	if !slices.Equal(got, versions) {
		t.Errorf("current is %v, want %v", got, versions)
	}
}

func TestAgent_pushThroughTheLeaf(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), nil)
	var steps []string
	o := pushOptions(app(t, "app.toml", "v1", "x.wasm", "module", "data/t.csv", "1,2", "empty", ""), "1.0.0")
	o.Progress = func(p ota.Progress) {
		switch {
		case p.Uploaded != "":
			steps = append(steps, "up "+p.Uploaded)
		case p.Present != "":
			steps = append(steps, "has "+p.Present)
		case p.Desired != nil:
			steps = append(steps, "desired "+p.Desired.Version)
		}
	}
	d, err := ota.Push(t.Context(), h.conn, o)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"up app.toml", "up data/t.csv", "up empty", "up x.wasm", "desired 1.0.0"}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
	r := wantCommitted(t, h, d)
	if r.App != "greenhouse" || r.Running == nil || r.Running.Version != "1.0.0" || r.Release != d.Release() {
		t.Errorf("reported %+v", r)
	}
	if tried, run := b.state(); !slices.Equal(tried, []string{"1.0.0"}) || run != "1.0.0" {
		t.Errorf("tried %v, runs %q", tried, run)
	}
	cur := b.Current()
	if len(cur) != 1 || cur[0].App != "greenhouse" || cur[0].Manifest != d.Manifest || cur[0].Release != d.Release() {
		t.Fatalf("current %+v", cur)
	}
	if got, err := os.ReadFile(filepath.Join(cur[0].Dir, "data", "t.csv")); err != nil || string(got) != "1,2" {
		t.Errorf("staged file: %q, %v", got, err)
	}
	s, err := ota.StatusOf(t.Context(), h.conn, "", device)
	if err != nil || s.Desired == nil || s.Desired.Version != "1.0.0" || s.Reported == nil || s.Reported.State != ota.Committed {
		t.Errorf("status of the hub: %+v, %v", s, err)
	}
	if s := b.Status(); s.Desired.Version != "1.0.0" || s.Reported.State != ota.Committed {
		t.Errorf("status of the box: %+v", s)
	}
	// One file changes, so one file is sent; the manifest is the same.
	steps = nil
	o.Dir = app(t, "app.toml", "v1", "x.wasm", "other module", "data/t.csv", "1,2", "empty", "")
	d, err = ota.Push(t.Context(), h.conn, o)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"has app.toml", "has data/t.csv", "has empty", "up x.wasm", "desired 1.0.0"}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
	wantCommitted(t, h, d)
	if got, err := os.ReadFile(filepath.Join(b.Current()[0].Dir, "x.wasm")); err != nil || string(got) != "other module" {
		t.Errorf("runs %q, %v", got, err)
	}
}

func TestAgent_brokenIsRolledBack(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn := startBox(t, h.leaf)
	b := startAgent(t, conn, t.TempDir(), nil)
	good := push(t, h, app(t, "app.toml", "v1", "x.wasm", "one"), "1.0.0")
	wantCommitted(t, h, good)
	broken := push(t, h, app(t, "app.toml", "broken", "x.wasm", "two"), "2.0.0")
	r, err := wait(t, h, broken)
	if !errors.Is(err, ota.ErrRolledBack) || r.State != ota.RolledBack || r.Version != "2.0.0" || !strings.Contains(r.Error, "trapped") {
		t.Errorf("got %+v, %v", r, err)
	}
	if r.Running == nil || r.Running.Version != "1.0.0" || r.Running.Release != good.Release() {
		t.Errorf("running: %+v", r.Running)
	}
	wantCurrent(t, b.Agent, "1.0.0")
	// The same again is not tried again, not even after a restart.
	push(t, h, app(t, "app.toml", "broken", "x.wasm", "two"), "2.0.0")
	b.Poke()
	b.stop()
	b = startAgent(t, conn, b.dir, nil)
	if r, err := wait(t, h, broken); !errors.Is(err, ota.ErrRolledBack) {
		t.Errorf("got %+v, %v", r, err)
	}
	third := push(t, h, app(t, "app.toml", "v3", "x.wasm", "two"), "3.0.0")
	wantCommitted(t, h, third)
	if tried, run := b.state(); !slices.Equal(tried, []string{"3.0.0"}) || run != "3.0.0" {
		t.Errorf("tried %v, runs %q", tried, run)
	}
}

func TestAgent_admitRefuses(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), func(o *ota.Options) {
		o.Admit = func(_ context.Context, s ota.Staged) error {
			return errors.New(s.Dir + "/app.toml:1: name: missing")
		}
	})
	r, err := wait(t, h, push(t, h, app(t, "app.toml", "v1"), "1.0.0"))
	if !errors.Is(err, ota.ErrRolledBack) || !strings.Contains(r.Error, "name: missing") || r.Running != nil {
		t.Errorf("got %+v, %v", r, err)
	}
	if tried, _ := b.state(); len(tried) != 0 {
		t.Errorf("tried %v", tried)
	}
}

// What a release needs from elsewhere may come later, or something newer instead.
func TestAgent_admitWaits(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	asked := make(chan error)
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), func(o *ota.Options) {
		o.Admit = func(ctx context.Context, s ota.Staged) error {
			if s.Version == "2" {
				asked <- nil
				<-ctx.Done()
				return ctx.Err()
			}
			return <-asked
		}
	})
	d := push(t, h, app(t, "app.toml", "v1"), "1")
	for range 3 {
		asked <- fmt.Errorf("registry is away: %w", ota.ErrLater)
	}
	asked <- nil
	wantCommitted(t, h, d)
	push(t, h, app(t, "app.toml", "v2"), "2")
	<-asked
	d = push(t, h, app(t, "app.toml", "v3"), "3")
	asked <- nil
	wantCommitted(t, h, d)
	if tried, _ := b.state(); !slices.Equal(tried, []string{"1", "3"}) {
		t.Errorf("tried %v", tried)
	}
}

func TestAgent_Artifact(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), nil)
	wantCommitted(t, h, push(t, h, app(t, "app.toml", "v1"), "1"))
	objects, err := h.js.ObjectStore(t.Context(), ota.ArtifactsBucket)
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789", 50_000)
	if _, err := objects.PutString(t.Context(), digestOf(big), big); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"v1", big} { // one is on the box, the other on the hub
		path := filepath.Join(b.dir, "got")
		if err := b.Artifact(t.Context(), digestOf(content), path); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(b.dir, "none")
	if err := b.Artifact(t.Context(), digestOf("none"), path); !errors.Is(err, ota.ErrNoArtifact) {
		t.Errorf("got %v", err)
	}
	alone := startAgent(t, nil, t.TempDir(), nil)
	if err := alone.Artifact(t.Context(), digestOf("v1"), path); !errors.Is(err, ota.ErrNoArtifact) {
		t.Errorf("got %v", err)
	}
}

func TestAgent_prunesAndGoesBack(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn := startBox(t, h.leaf)
	b := startAgent(t, conn, t.TempDir(), nil)
	for _, v := range []string{"1", "2", "3", "broken", "4"} {
		d := push(t, h, app(t, "app.toml", v, "x.wasm", "module "+v, "same", "same"), v)
		if r, err := wait(t, h, d); (err != nil) != (v == "broken") {
			t.Fatalf("%s: got %+v, %v", v, r, err)
		}
	}
	b.stop()
	hex := strings.Repeat("[0-9a-f]", 64)
	if dirs := glob(t, b.dir, "apps", "greenhouse", hex); len(dirs) != 2 {
		t.Errorf("release folders: %v", dirs)
	}
	if files := glob(t, b.dir, "artifacts", "*"); len(files) != 5 { // two manifests, two modules, what they share
		t.Errorf("artifacts: %v", files)
	}
	// The release before is still whole: going back to it needs nothing from the hub.
	if err := h.js.DeleteObjectStore(t.Context(), ota.ArtifactsBucket); err != nil {
		t.Fatal(err)
	}
	var rec struct{ Desired ota.Desired }
	readJSON(t, filepath.Join(b.dir, "apps", "greenhouse", "rollback"), &rec)
	back := rec.Desired
	if back.Version != "3" {
		t.Fatalf("rollback is %+v", back)
	}
	putDesired(t, h, back)
	b = startAgent(t, conn, b.dir, nil)
	wantCommitted(t, h, back)
	wantCurrent(t, b.Agent, "3")
}

func TestNew_refuses(t *testing.T) {
	h := &host{}
	for name, change := range map[string]func(*ota.Options){
		"no device":    func(o *ota.Options) { o.Device = "" },
		"device":       func(o *ota.Options) { o.Device = "a.b" },
		"no Apply":     func(o *ota.Options) { o.Apply = nil },
		"no logger":    func(o *ota.Options) { o.Logger = nil },
		"no folder":    func(o *ota.Options) { o.StateDir = "" },
		"state a file": func(o *ota.Options) { o.StateDir = filepath.Join(app(t, "f", ""), "f") },
	} {
		o := options(nil, t.TempDir(), h)
		change(&o)
		if _, err := ota.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
