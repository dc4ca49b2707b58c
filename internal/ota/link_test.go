package ota_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/ota"
)

func TestAgent_hubComesLater(t *testing.T) {
	first := startHub(t, t.TempDir(), 0)
	port := first.port
	first.stop()
	conn := startBox(t, first.leaf)
	b := startAgent(t, conn, t.TempDir(), nil)
	wantCurrent(t, b.Agent)
	h := startHub(t, t.TempDir(), port) // and it has no buckets yet
	wantCommitted(t, h, push(t, h, app(t, "app.toml", "v1"), "1.0.0"))
}

func TestAgent_hubRestartedAndReplaced(t *testing.T) {
	dir := t.TempDir()
	h := startHub(t, dir, 0)
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), nil)
	one := push(t, h, app(t, "app.toml", "v1"), "1")
	wantCommitted(t, h, one)

	h.stop()
	h = startHub(t, dir, h.port)
	wantCommitted(t, h, push(t, h, app(t, "app.toml", "v2"), "2"))

	// Another, empty hub: nothing is desired there, so nothing changes; it hears of the box all the same.
	h.stop()
	h = startHub(t, t.TempDir(), h.port)
	if err := ota.EnsureHub(t.Context(), h.conn, "", 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new hub knows what the box runs", func() bool {
		s, err := ota.StatusOf(t.Context(), h.conn, "", device)
		return err == nil && s.Reported != nil && s.Reported.State == ota.Committed && s.Reported.Version == "2"
	})
	wantCurrent(t, b.Agent, "2")
	wantCommitted(t, h, push(t, h, app(t, "app.toml", "v3"), "3"))
	wantCurrent(t, b.Agent, "3")
	if tried, _ := b.state(); strings.Join(tried, " ") != "1 2 3" {
		t.Errorf("tried %v", tried)
	}
}

func TestAgent_missingArtifactIsWaitedForAndSuperseded(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), nil)
	missing := ota.Desired{App: "greenhouse", Version: "1", Manifest: digestOf("v1")}
	putDesired(t, h, missing)
	eventually(t, "the box reports what it lacks", func() bool {
		s, err := ota.StatusOf(t.Context(), h.conn, "", device)
		return err == nil && s.Reported != nil && s.Reported.State == ota.Fetching && strings.Contains(s.Reported.Error, digestOf("v1"))
	})
	two := push(t, h, app(t, "app.toml", "v2"), "2")
	wantCommitted(t, h, two)
	// What was missing is uploaded, and desired again: it was given up for something newer, not refused.
	push(t, h, app(t, "app.toml", "v1"), "1")
	putDesired(t, h, missing)
	wantCommitted(t, h, missing)
	wantCurrent(t, b.Agent, "1")
}

func TestAgent_replacesAWrongObject(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	if err := ota.EnsureHub(t.Context(), h.conn, "", 1); err != nil {
		t.Fatal(err)
	}
	objects, err := h.js.ObjectStore(t.Context(), ota.ArtifactsBucket)
	if err != nil {
		t.Fatal(err)
	}
	name := digestOf("v1")
	if _, err := objects.PutString(t.Context(), name, "not v1"); err != nil {
		t.Fatal(err)
	}
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), nil)
	putDesired(t, h, ota.Desired{App: "greenhouse", Version: "1", Manifest: name})
	eventually(t, "the box sees that it is another", func() bool {
		return strings.Contains(b.Status().Reported.Error, "object has digest")
	})
	wantCommitted(t, h, push(t, h, app(t, "app.toml", "v1"), "1"))
}

// The object's own description is right here, but its bytes are not.
func TestAgent_givesUpOnWrongBytes(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	push(t, h, app(t, "app.toml", "v1"), "1")
	objects, err := h.js.ObjectStore(t.Context(), ota.ArtifactsBucket)
	if err != nil {
		t.Fatal(err)
	}
	info, err := objects.GetInfo(t.Context(), digestOf("v1"))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := h.js.Stream(t.Context(), "OBJ_"+ota.ArtifactsBucket)
	if err != nil {
		t.Fatal(err)
	}
	subject := "$O." + ota.ArtifactsBucket + ".C." + info.NUID
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(subject)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.js.Publish(t.Context(), subject, []byte("x1")); err != nil {
		t.Fatal(err)
	}
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), nil)
	eventually(t, "it is given up", func() bool { return b.Status().Reported.State == ota.RolledBack })
	if e := b.Status().Reported.Error; !strings.Contains(e, "another content") && !strings.Contains(e, "is not what its name") {
		t.Errorf("error is %q", e)
	}
	if tried, _ := b.state(); len(tried) != 0 {
		t.Errorf("tried %v", tried)
	}
}

func TestAgent_unreadableDesired(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), nil)
	one := push(t, h, app(t, "app.toml", "v1"), "1")
	wantCommitted(t, h, one)
	putDesired(t, h, map[string]string{"app": "../evil"})
	eventually(t, "it is refused", func() bool {
		s, err := ota.StatusOf(t.Context(), h.conn, "", device)
		return errors.Is(err, ota.ErrDesired) && s.Reported != nil && s.Reported.State == ota.RolledBack && strings.Contains(s.Reported.Error, "evil")
	})
	wantCurrent(t, b.Agent, "1")
	putDesired(t, h, one)
	wantCommitted(t, h, one)
}

func TestAgent_twoApps(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), nil)
	wantCommitted(t, h, push(t, h, app(t, "app.toml", "v1"), "1"))
	o := pushOptions(app(t, "app.toml", "another"), "7")
	o.App = "another"
	d, err := ota.Push(t.Context(), h.conn, o)
	if err != nil {
		t.Fatal(err)
	}
	wantCommitted(t, h, d)
	wantCurrent(t, b.Agent, "7", "1")
}

func TestAgent_withoutHub(t *testing.T) {
	b := startAgent(t, nil, t.TempDir(), nil)
	b.Poke()
	if s := b.Status(); s.Desired != nil || s.Reported.State != ota.Idle {
		t.Errorf("got %+v", s)
	}
	wantCurrent(t, b.Agent)
}

func TestPush_refuses(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	for name, change := range map[string]func(*ota.PushOptions){
		"device":      func(o *ota.PushOptions) { o.Device = "a b" },
		"app":         func(o *ota.PushOptions) { o.App = "a/b" },
		"no manifest": func(o *ota.PushOptions) { o.Dir = app(t, "x.wasm", "x") },
		"other bytes": func(o *ota.PushOptions) {
			seed, err := claims.Generate(claims.Account)
			if err != nil {
				t.Fatal(err)
			}
			sign(t, o.Dir, seed, "1")
			write(t, o.Dir, "app.toml", "changed")
		},
		"other version": func(o *ota.PushOptions) {
			seed, err := claims.Generate(claims.Account)
			if err != nil {
				t.Fatal(err)
			}
			sign(t, o.Dir, seed, "2")
		},
	} {
		o := pushOptions(app(t, "app.toml", "v1"), "1")
		change(&o)
		if _, err := ota.Push(t.Context(), h.conn, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if s, err := ota.StatusOf(t.Context(), h.conn, "", device); err == nil && s.Desired != nil {
		t.Errorf("something is desired: %+v", s.Desired)
	}
}

func TestAgent_leavesRoomForMessages(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	conn, dir := startBox(t, h.leaf), t.TempDir()
	d := push(t, h, app(t, "app.toml", "v1"), "1")
	b := startAgent(t, conn, dir, func(o *ota.Options) { o.ReserveBytes = 1 << 60 })
	eventually(t, "the box says why it waits", func() bool { return strings.Contains(b.Status().Reported.Error, "do not fit") })
	if s := b.Status().Reported.State; s != ota.Fetching {
		t.Errorf("state is %s", s)
	}
	b.stop()
	startAgent(t, conn, dir, nil)
	wantCommitted(t, h, d)
}
