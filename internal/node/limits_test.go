package node

import (
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
)

// limited is an app with the probe, held to limits.
func (r *rig) limited(limits string) {
	r.t.Helper()
	r.write("apps/lab/app.toml", `specversion = "0.2"
name = "lab"
version = "1"
[[actor]]
name = "probe"
module = "probe.wasm"
limits = { time = "30s", memory = "64MiB", `+limits+` }
[[stream]]
name = "in"
subjects = ["in.>"]
[[stream]]
name = "out"
subjects = ["out.>"]
[[capability]]
name = "keyvalue"
[[capability]]
name = "pubsub.local"
[[capability.config]]
topic = "in.>"
`)
	path := r.path("apps", "lab", "probe.wasm")
	_ = os.Remove(path)
	if err := os.Link(probe, path); err != nil {
		r.t.Fatal(err)
	}
}

// met is how often the probe met a limit.
func (r *rig) met(name string) uint64 {
	for _, a := range r.actors() {
		for _, l := range a.Limits {
			if l.Name == name {
				return l.Met
			}
		}
	}
	r.t.Fatalf("there is no limit %s", name)
	return 0
}

func (r *rig) bucket() BucketStatus {
	for _, b := range r.buckets() {
		if b.Bucket == "lab" {
			return b
		}
	}
	return BucketStatus{}
}

func TestNode_limits_state(t *testing.T) {
	r := newRig(t, unsigned)
	r.limited(`state = "1KiB"`)
	r.start()
	for range 4 {
		r.tell("in.a", strings.Repeat("x", 300))
	}
	// Turns side by side may be refused for what another one may add; they come again.
	r.eventually("three notes are taken, and the fourth is refused", func() bool { return r.turns("lab") == 3 && r.met("state") > 0 })
	if b := r.bucket(); b.Bytes > 1024 || b.Bytes < 900 || b.Keys != 1 || b.Limit != 1024 {
		t.Errorf("bucket %+v", b)
	}
	var names []string
	for _, l := range r.actors()[0].Limits {
		names = append(names, l.Name)
	}
	if !slices.Equal(names, limitNames[:]) {
		t.Errorf("edged actor ls has the limits %q, want %q", names, limitNames)
	}
	// With a higher limit it goes on, over a restart.
	r.stop()
	r.limited(`state = "64KiB"`)
	r.start()
	r.eventually("the fourth note is taken", func() bool { return r.bucket().Bytes > 1200 })
	// A bucket whose app is gone stays until it is removed.
	remove := func(query string) error {
		req := httptest.NewRequest("DELETE", "/state/lab"+query, nil)
		req.SetPathValue("bucket", "lab")
		_, err := r.removeBucket(req)
		return err
	}
	if err := remove("?force=true"); err == nil || !strings.Contains(err.Error(), "in use by actor lab/probe") {
		t.Errorf("got %v", err)
	}
	r.write("apps/lab/app.toml", "specversion = \"0.2\"\nname = \"lab\"\nversion = \"2\"\n")
	r.reload()
	if b := r.bucket(); b.Keys != 1 || len(b.Actors) > 0 {
		t.Errorf("bucket %+v", b)
	}
	if err := remove(""); err == nil || !strings.Contains(err.Error(), "holds 1 keys, which --force removes with it") {
		t.Errorf("got %v", err)
	}
	if err := remove("?force=true"); err != nil {
		t.Fatal(err)
	}
	if b := r.bucket(); b.Keys != 0 {
		t.Errorf("bucket %+v", b)
	}
}

// An actor that publishes too fast is slowed down, and loses nothing.
func TestNode_limits_publishRate(t *testing.T) {
	r := newRig(t, unsigned)
	r.limited(`publish_rate = 20`)
	r.start()
	const n = 60
	for range n {
		r.tell("in.a", "!publish out.b hello")
	}
	r.eventually("all are published", func() bool { return r.turns("lab") == n })
	if r.met("publish_rate") == 0 {
		t.Error("the rate was not met")
	}
	if s := r.stream("out"); s.Last != 1 { // repeats of one event
		t.Errorf("stream %+v", s)
	}
	if d := r.Status().Dead; d != 0 {
		t.Errorf("%d dead letters", d)
	}
}

func TestNode_limits_steps(t *testing.T) {
	r := newRig(t, unsigned)
	r.limited(`steps = 20000000`)
	r.start()
	r.tell("in.a", strings.Repeat("x", 10))
	r.eventually("a short one is handled", func() bool { return r.turns("lab") == 1 })
	r.tell("in.a", "!burn 1000000000 x")
	r.eventually("a long one is ended", func() bool { return r.met("steps") > 0 })
}

func TestNode_limits_turn(t *testing.T) {
	r := newRig(t, unsigned+"[limits]\nstaged = \"1MiB\"\n")
	r.limited(`publish_rate = 100000`)
	r.start()
	r.tell("in.a", "!storm out.b 10000")
	r.eventually("the storm is refused", func() bool { return r.met("turn") > 0 })
	if s := r.stream("out"); s.Last != 0 {
		t.Errorf("something of it is there: %+v", s)
	}
	// On core NATS too, where no stream keeps the messages.
	before := r.met("turn")
	r.tell("in.a", "!storm elsewhere 10000")
	r.eventually("the storm is refused", func() bool { return r.met("turn") > before })
}
