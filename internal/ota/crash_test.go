package ota_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/ota"
)

// Environment of the child process: where it is to die, and for whom it works.
const (
	envPoint = "EDGED_OTA_DIE_AT"
	envHub   = "EDGED_OTA_HUB"
	envDir   = "EDGED_OTA_DIR"
)

func TestMain(m *testing.M) {
	if point := os.Getenv(envPoint); point != "" {
		fmt.Fprintln(os.Stderr, dieAt(point))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// dieAt runs an agent in this process and kills it at the named point.
func dieAt(point string) error {
	nc, err := nats.Connect(os.Getenv(envHub), nats.Timeout(time.Minute))
	if err != nil {
		return err
	}
	var h host
	a, err := ota.New(options(nc, os.Getenv(envDir), &h))
	if err != nil {
		return err
	}
	a.OnReach(func(at string) {
		if at == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	})
	return a.Run(context.Background())
}

// killAt runs an agent in a child process until it dies at the named point.
func killAt(t *testing.T, conn *nats.Conn, dir, point string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), nats.DefaultDrainTimeout*2)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), envPoint+"="+point, envHub+"="+conn.ConnectedUrl(), envDir+"="+dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	state := cmd.ProcessState
	if ws, ok := state.Sys().(syscall.WaitStatus); ctx.Err() != nil || !ok || !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("child did not die at %q: %v, %v: %s", point, err, ctx.Err(), out.String())
	}
}

// points are all places that a good update passes, in order.
var points = []string{
	"fetching saved", "part saved", "artifact fetched", "folder staged", "staged saved", "trial saved",
	"applied", "rollback written", "current written", "committed saved",
}

// large is more than a download keeps back before it saves how far it is.
func large(c string) string { return strings.Repeat(c, 5<<20) }

func TestAgent_killedAtEveryPoint(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn := startBox(t, h.leaf)
	for _, point := range points {
		t.Run(strings.ReplaceAll(point, " ", "-"), func(t *testing.T) {
			dir := t.TempDir()
			b := startAgent(t, conn, dir, nil)
			wantCommitted(t, h, push(t, h, app(t, "app.toml", "v1", "x.wasm", "old"), "1"))
			b.stop()
			d := push(t, h, app(t, "app.toml", "v2", "x.wasm", large("n")), "2")
			killAt(t, conn, dir, point)

			// Without any hub the box has the old or the new, whole.
			cold, err := ota.New(options(nil, dir, &host{}))
			if err != nil {
				t.Fatal(err)
			}
			want := "1"
			if slices.Index(points, point) >= slices.Index(points, "current written") {
				want = "2"
			}
			wantCurrent(t, cold, want)

			b = startAgent(t, conn, dir, nil)
			wantCommitted(t, h, d)
			wantCurrent(t, b.Agent, "2")
			tried, _ := b.state()
			if n := len(tried); want == "1" && n != 1 || want == "2" && n != 0 {
				t.Errorf("tried %v after the restart", tried)
			}
			b.stop()
			if rest := slices.Concat(glob(t, dir, "artifacts", "*.part*"), glob(t, dir, "apps", "greenhouse", ".*")); len(rest) != 0 {
				t.Errorf("left over: %v", rest)
			}
		})
	}
}

func TestAgent_killedAfterRollBack(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn, dir := startBox(t, h.leaf), t.TempDir()
	b := startAgent(t, conn, dir, nil)
	wantCommitted(t, h, push(t, h, app(t, "app.toml", "v1"), "1"))
	b.stop()
	d := push(t, h, app(t, "app.toml", "broken"), "2")
	killAt(t, conn, dir, "rolled-back saved")
	b = startAgent(t, conn, dir, nil)
	if _, err := wait(t, h, d); err == nil {
		t.Error("it was committed")
	}
	wantCurrent(t, b.Agent, "1")
	if tried, _ := b.state(); len(tried) != 0 {
		t.Errorf("tried %v again", tried)
	}
}

// A release that takes the whole box down is tried three times and no more.
func TestAgent_trialThatKillsTheBox(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn, dir := startBox(t, h.leaf), t.TempDir()
	b := startAgent(t, conn, dir, nil)
	wantCommitted(t, h, push(t, h, app(t, "app.toml", "v1"), "1"))
	b.stop()
	d := push(t, h, app(t, "app.toml", "v2"), "2")
	for range 3 {
		killAt(t, conn, dir, "trial saved")
	}
	b = startAgent(t, conn, dir, nil)
	r, err := wait(t, h, d)
	if err == nil || !strings.Contains(r.Error, "did not survive 3 trials") {
		t.Errorf("got %+v, %v", r, err)
	}
	wantCurrent(t, b.Agent, "1")
	if tried, _ := b.state(); len(tried) != 0 {
		t.Errorf("tried %v", tried)
	}
}

// What ends the box while a release is checked and compiled does not count as a trial.
func TestAgent_killedWhileItIsAdmitted(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn, dir := startBox(t, h.leaf), t.TempDir()
	d := push(t, h, app(t, "app.toml", "v1"), "1")
	for range 4 {
		killAt(t, conn, dir, "staged saved")
	}
	startAgent(t, conn, dir, nil)
	wantCommitted(t, h, d)
}

// What was staged is tried after a restart without a hub.
func TestAgent_finishesWithoutHub(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn, dir := startBox(t, h.leaf), t.TempDir()
	push(t, h, app(t, "app.toml", "v1", "x.wasm", "x"), "1")
	killAt(t, conn, dir, "staged saved")
	b := startAgent(t, nil, dir, nil)
	eventually(t, "it is committed", func() bool { return b.Status().Reported.State == ota.Committed })
	wantCurrent(t, b.Agent, "1")
}

// Behind the point that was saved nothing is fetched twice: the chunks before it are
// gone from the hub here.
func TestAgent_fetchResumes(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn, dir := startBox(t, h.leaf), t.TempDir()
	d := push(t, h, app(t, "app.toml", "v1", "x.wasm", large("n")), "1")
	killAt(t, conn, dir, "part saved")
	var part struct{ Seq uint64 }
	parts := glob(t, dir, "artifacts", "*.part.json")
	if len(parts) != 1 {
		t.Fatalf("parts: %v", parts)
	}
	readJSON(t, parts[0], &part)
	info, err := objectInfo(t, h, d.Files["x.wasm"])
	if err != nil {
		t.Fatal(err)
	}
	stream, err := h.js.Stream(t.Context(), "OBJ_"+ota.ArtifactsBucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("$O."+ota.ArtifactsBucket+".C."+info.NUID), jetstream.WithPurgeSequence(part.Seq)); err != nil {
		t.Fatal(err)
	}
	// And a power cut left rubbish behind what was synced.
	f, err := os.OpenFile(strings.TrimSuffix(parts[0], ".json"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("rubbish"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	startAgent(t, conn, dir, nil)
	wantCommitted(t, h, d)
}

func objectInfo(t *testing.T, h *testHub, name string) (*jetstream.ObjectInfo, error) {
	t.Helper()
	objects, err := h.js.ObjectStore(t.Context(), ota.ArtifactsBucket)
	if err != nil {
		return nil, err
	}
	return objects.GetInfo(t.Context(), name)
}

func TestAgent_uploadedAgainBeginsAnew(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn, dir := startBox(t, h.leaf), t.TempDir()
	d := push(t, h, app(t, "app.toml", "v1", "x.wasm", large("n")), "1")
	killAt(t, conn, dir, "part saved")
	objects, err := h.js.ObjectStore(t.Context(), ota.ArtifactsBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Put(t.Context(), jetstream.ObjectMeta{Name: d.Files["x.wasm"], Opts: &jetstream.ObjectMetaOptions{ChunkSize: 100_000}}, strings.NewReader(large("n"))); err != nil {
		t.Fatal(err)
	}
	startAgent(t, conn, dir, nil)
	wantCommitted(t, h, d)
}

func TestNew_damagedFiles(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn := startBox(t, h.leaf)
	for name, c := range map[string]struct {
		damage func(dir string, cur ota.Staged) error
		want   []string // versions at boot
		tries  bool     // whether the newest is tried again
	}{
		"state": {func(dir string, _ ota.Staged) error {
			return os.WriteFile(filepath.Join(dir, "apps", "state.json"), []byte("{"), 0o600)
		}, []string{"2"}, false},
		"state of a later format": {func(dir string, _ ota.Staged) error {
			return os.WriteFile(filepath.Join(dir, "apps", "state.json"), []byte(`{"format":9}`), 0o600)
		}, []string{"2"}, false},
		"current": {func(dir string, _ ota.Staged) error {
			return os.WriteFile(filepath.Join(dir, "apps", "greenhouse", "current"), nil, 0o600)
		}, []string{"1"}, true},
		"module": {func(_ string, cur ota.Staged) error {
			if err := os.Chmod(filepath.Join(cur.Dir, "x.wasm"), 0o600); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(cur.Dir, "x.wasm"), []byte("mod?le 2"), 0o600)
		}, []string{"1"}, true},
		"folder": {func(_ string, cur ota.Staged) error { return os.RemoveAll(cur.Dir) }, []string{"1"}, true},
		"both": {func(dir string, cur ota.Staged) error {
			return os.RemoveAll(filepath.Dir(cur.Dir))
		}, nil, true},
	} {
		dir := t.TempDir()
		b := startAgent(t, conn, dir, nil)
		wantCommitted(t, h, push(t, h, app(t, "app.toml", "v1", "x.wasm", "module 1"), "1"))
		d := push(t, h, app(t, "app.toml", "v2", "x.wasm", "module 2"), "2")
		wantCommitted(t, h, d)
		b.stop()
		if err := c.damage(dir, b.Current()[0]); err != nil {
			t.Fatal(err)
		}
		b = startAgent(t, conn, dir, func(o *ota.Options) {
			cold, err := ota.New(*o)
			if err != nil {
				t.Fatal(err)
			}
			wantCurrent(t, cold, c.want...)
		})
		eventually(t, name+": the newest runs again", func() bool {
			cur := b.Current()
			return len(cur) == 1 && cur[0].Version == "2" && b.Status().Reported.State == ota.Committed
		})
		if tried, _ := b.state(); (len(tried) == 1) != c.tries {
			t.Errorf("%s: tried %v", name, tried)
		}
		if got, err := os.ReadFile(filepath.Join(b.Current()[0].Dir, "x.wasm")); err != nil || string(got) != "module 2" {
			t.Errorf("%s: module is %q, %v", name, got, err)
		}
		b.stop()
	}
}

// A state that cannot be written is not entered: the release waits.
func TestAgent_stateComesFirst(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	dir := t.TempDir()
	block := filepath.Join(dir, "apps", "state.json")
	b := &box{dir: dir}
	a, err := ota.New(options(startBox(t, h.leaf), dir, &b.host))
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	a.OnReach(func(at string) {
		if at == "staged saved" { // from now on the file cannot be replaced
			once.Do(func() {
				if err := errors.Join(os.Remove(block), os.MkdirAll(filepath.Join(block, "in the way"), 0o755)); err != nil {
					t.Error(err)
				}
			})
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	d := push(t, h, app(t, "app.toml", "v1"), "1")
	eventually(t, "the box says what is wrong", func() bool { return strings.Contains(a.Status().Reported.Error, "state.json") })
	if tried, _ := b.state(); len(tried) != 0 {
		t.Errorf("tried %v before it was written", tried)
	}
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	wantCommitted(t, h, d)
	if tried, _ := b.state(); len(tried) != 1 {
		t.Errorf("tried %v, want one", tried)
	}
}

// What failed is not tried again only because that could not be written.
func TestAgent_failureCountsUnwritten(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn, dir := startBox(t, h.leaf), t.TempDir()
	block := filepath.Join(dir, "apps", "state.json")
	b := startAgent(t, conn, dir, nil)
	wantCommitted(t, h, push(t, h, app(t, "app.toml", "v1"), "1"))
	b.stop()
	var count atomic.Int32
	b = startAgent(t, conn, dir, func(o *ota.Options) {
		o.Apply = func(context.Context, ota.Staged) error {
			count.Add(1)
			return errors.Join(errors.New("trapped"), os.Remove(block), os.MkdirAll(filepath.Join(block, "in the way"), 0o755))
		}
	})
	d := push(t, h, app(t, "app.toml", "v2"), "2")
	if r, err := wait(t, h, d); !errors.Is(err, ota.ErrRolledBack) || !strings.Contains(r.Error, "trapped") {
		t.Errorf("got %+v, %v", r, err)
	}
	b.Poke()
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is written", func() bool {
		body, err := os.ReadFile(block)
		return err == nil && strings.Contains(string(body), "trapped")
	})
	if n := count.Load(); n != 1 {
		t.Errorf("tried %d times, want once", n)
	}
}

// A daemon that ends during a trial does not hold it against the release.
func TestAgent_stoppedDuringTrial(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn, dir := startBox(t, h.leaf), t.TempDir()
	d := push(t, h, app(t, "app.toml", "v1"), "1")
	for range 4 { // more often than trials are counted
		began := make(chan struct{})
		b := startAgent(t, conn, dir, func(o *ota.Options) {
			o.Apply = func(ctx context.Context, _ ota.Staged) error {
				close(began)
				<-ctx.Done()
				return ctx.Err()
			}
		})
		<-began
		b.stop()
	}
	startAgent(t, conn, dir, nil)
	wantCommitted(t, h, d)
}
