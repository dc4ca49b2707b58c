package child_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/providers/child"
)

// elsewhere starts a provider by hand, with that line.
func elsewhere(t *testing.T, line []byte) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program(t, "good"))
	cmd.Stdin = bytes.NewReader(line)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	return cmd
}

func (b *box) attach(key string, change func(*child.Remote)) []byte {
	b.t.Helper()
	r := child.Remote{Key: key, Contract: "acme:test", Name: "afar"}
	if change != nil {
		change(&r)
	}
	line, err := b.Attach(b.t.Context(), r)
	if err != nil {
		b.t.Fatal(err)
	}
	return line
}

// A provider that somebody else starts serves, is noticed when it goes, and told of
// links when it is there again; the box never stops it.
func TestManager_Attach(t *testing.T) {
	b := startBox(t, nil)
	key := newKey(t, claims.Service)
	l := b.link(key, map[string]string{"n": "1"})
	line := b.attach(key, nil)
	if s := b.status(); s.State != child.Away || !s.Remote || s.Name != "afar" {
		t.Errorf("status %+v", s)
	}
	if _, err := b.call(l, "Test.Echo", ""); !errors.Is(err, lattice.ErrNoEntity) {
		t.Errorf("before it is there: %v", err)
	}
	cmd := elsewhere(t, line)
	there := func() bool { s := b.status(); return s.State == child.Running && s.Health == child.Healthy }
	b.until("there", there)
	if got := b.ask(l, "Test.CallActor", key); got != "actor got hello" {
		t.Errorf("got %q", got)
	}
	if err := b.Stop(t.Context(), key, ""); !errors.Is(err, child.ErrNotHere) {
		t.Errorf("stopped: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	b.until("gone", func() bool { return b.status().State == child.Away })
	if !strings.Contains(b.log.String(), "attached provider does not answer") {
		t.Error("that it went is not told")
	}
	l.Values = map[string]string{"n": "2"}
	b.put(l)
	elsewhere(t, line) // its line has the link of before
	b.until("there again", there)
	b.until("told", func() bool { return b.values(l)[l.Actor] == "2" })
	if err := b.Detach(t.Context(), key, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.Detach(t.Context(), key, ""); !errors.Is(err, child.ErrUnknown) {
		t.Errorf("detached twice: %v", err)
	}
	if len(b.users.names()) != 0 {
		t.Errorf("users left: %v", b.users.names())
	}
}

// What was attached stays so when the box starts again, with the line it has.
func TestManager_Attach_lasts(t *testing.T) {
	b := startBox(t, nil)
	key := newKey(t, claims.Service)
	line := b.attach(key, func(r *child.Remote) { r.LinkName = "far" })
	if _, err := b.Attach(t.Context(), child.Remote{Key: b.start("good", nil), Contract: "acme:test"}); !errors.Is(err, child.ErrRunning) {
		t.Errorf("attached what runs here: %v", err)
	}
	b.stop()
	again := startBox(t, func(o *child.Options) { o.Dir = b.dir })
	h, err := wire.ParseHostData(line)
	if err != nil {
		t.Fatal(err)
	}
	if s := again.status(); s.Key != key || s.LinkName != "far" || !s.Remote || s.Contract != "acme:test" {
		t.Errorf("status %+v", s)
	}
	again.users.mu.Lock()
	known := again.users.known[again.users.namesLocked()[0]]
	again.users.mu.Unlock()
	if !strings.Contains(h.URL, known.Username+":"+known.Password+"@") {
		t.Error("it has another login now")
	}
	file, err := filepath.Glob(filepath.Join(b.dir, "attached", "*"))
	if err != nil || len(file) != 1 {
		t.Fatalf("files %v, %v", file, err)
	}
	if info, err := os.Stat(file[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file %v, %v", info.Mode(), err)
	}
	second := again.attach(key, func(r *child.Remote) { r.LinkName = "far" })
	if bytes.Equal(line, second) || len(again.Running()) != 1 {
		t.Error("attached again, it got the line of before")
	}
	again.stop()
	if err := os.WriteFile(file[0], []byte(`{"version":9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := newBox(t, func(o *child.Options) { o.Dir = b.dir })
	if len(bad.Running()) != 0 || !strings.Contains(bad.log.String(), "moved aside") {
		t.Errorf("providers %+v\n%s", bad.Running(), bad.log)
	}
}

// A provider that reaches the lattice by another server logs in there as it is told.
func TestManager_Attach_otherServer(t *testing.T) {
	b := startBox(t, nil)
	line := b.attach(newKey(t, claims.Service), func(r *child.Remote) {
		r.URL, r.JWT, r.Seed, r.ClusterSeed = "nats://hub.example.com:4222", "eyJ0", "SUASECRET", true
	})
	h, err := wire.ParseHostData(line)
	if err != nil || h.URL != "nats://hub.example.com:4222" || h.UserJWT != "eyJ0" || h.UserSeed != "SUASECRET" || h.Seed != b.cluster.Reveal() {
		t.Errorf("host data of another")
	}
	files, err := filepath.Glob(filepath.Join(b.dir, "attached", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	kept, err := os.ReadFile(files[0])
	if err != nil || strings.Contains(string(kept), "SUASECRET") || strings.Contains(string(kept), b.cluster.Reveal()) {
		t.Errorf("the box keeps secrets that are not its own to keep: %v", err)
	}
	for _, bad := range []child.Remote{
		{Key: newKey(t, claims.Service), Contract: "c:d", URL: "hub"}, {Key: newKey(t, claims.Service)}, {Key: "VX", Contract: "c:d"},
		{Key: newKey(t, claims.Service), Contract: "c:d", LinkName: "../x"},
		{Key: newKey(t, claims.Service), Contract: "c:d", URL: "nats://hub:4222", OwnInbox: true},
	} {
		if _, err := b.Attach(t.Context(), bad); err == nil {
			t.Errorf("attached %+v", bad)
		}
	}
	if len(b.Running()) != 1 {
		t.Errorf("providers %+v", b.Running())
	}
}
