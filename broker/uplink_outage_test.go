package broker

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edged-io/edged/store"
)

// seed returns the seed of a random test, which EDGED_SEED may give.
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := rand.Uint64()
	if s := os.Getenv("EDGED_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("EDGED_SEED=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

// crashPoint lets a pump vanish at a failpoint, with what it has not told the
// store.
type crashPoint struct{ armed atomic.Bool }

func (c *crashPoint) hit(name string) {
	if name == "uplink-after-hub-ack" && c.armed.CompareAndSwap(true, false) {
		runtime.Goexit()
	}
}

// outage is one thing that can go wrong between a box and its hub.
type outage struct {
	name string
	do   func()
}

// outages are all of them; each leaves the way open again.
func outages(h *testHub, b *testBox, o boxOptions, c *crashPoint, r *rand.Rand) []outage {
	down := func() bool { up, _ := b.link.LinkState(); return !up }
	pause := func() { <-time.After(time.Duration(r.IntN(30)) * time.Millisecond) }
	return []outage{
		{"reset", h.gate.reset},
		{"cut inside a batch", func() { h.gate.cutAfter(int64(r.IntN(100_000))); pause() }},
		{"black hole", func() {
			h.gate.blackHole(true)
			waitFor(b.t, "the pings to go unanswered", func() (bool, string) { return down(), h.gate.String() })
			h.gate.blackHole(false)
		}},
		{"hub restart", func() { h.stop(); pause(); h.start() }},
		{"pump restart", func() { b.rest(); b.pump(o) }},
		{"crash after the hub's ack", func() {
			c.armed.Store(true)
			pause()
			b.rest()
			c.armed.Store(false)
			b.pump(o)
		}},
	}
}

func TestUplink_Outages_laneIsExact(t *testing.T) {
	r := seed(t)
	h := newTestHub(t, nil)
	h.init()
	var c crashPoint
	o := boxOptions{streams: map[string]string{"telemetry": "s.>", "other": "o.>"}, fail: c.hit}
	b := startBox(t, h, "a", t.TempDir(), o)
	all := outages(h, b, o, &c, r)
	want := make(map[string][]string)
	rounds := 24
	if testing.Short() {
		rounds = 8
	}
	for i := range rounds {
		for _, stream := range []string{"telemetry", "other"} {
			for range r.IntN(800) {
				body := fmt.Sprintf("%d-%s", len(want[stream]), strings.Repeat("x", r.IntN(300)))
				want[stream] = append(want[stream], body)
				b.putAsync(stream, stream[:1]+".x", body)
			}
		}
		b.flush()
		what := all[(i+r.IntN(2))%len(all)]
		t.Log(what.name)
		what.do()
	}
	want["other"] = append(want["other"], "last")
	b.put("other", "o.x", "last")
	want["telemetry"] = append(want["telemetry"], "last")
	b.put("telemetry", "t.x", "last")
	for stream, bodies := range want {
		b.drained(stream)
		got := h.lane("a", stream)
		if len(got) != len(bodies) {
			t.Errorf("stream %s: got %d messages, want %d", stream, len(got), len(bodies))
		}
		for i, m := range got {
			if m.seq != uint64(i+1) || i >= len(bodies) || m.data != bodies[i] {
				t.Fatalf("stream %s, message %d: got sequence %d, %.40q", stream, i+1, m.seq, m.data)
			}
		}
		if s := b.lane(stream); s.Lost != 0 || s.Refused != 0 {
			t.Errorf("stream %s: got %+v, want nothing lost or refused", stream, s)
		}
	}
	if n := b.db.DeadLetterCount(); n != 0 {
		t.Errorf("got %d dead letters, want none", n)
	}
}

// putAsync stores a message without waiting; flush waits for all.
func (b *testBox) putAsync(stream, subject, body string) {
	b.t.Helper()
	t := b.db.Begin()
	if _, err := t.Publish(stream, store.Message{Subject: subject, Data: []byte(body)}); err != nil {
		b.t.Fatal(err)
	}
	t.Submit(func(err error) {
		if err != nil {
			b.t.Error(err)
		}
	})
}

func (b *testBox) flush() {
	b.t.Helper()
	t := b.db.Begin()
	if err := t.Put("test", "flush", nil); err != nil {
		b.t.Fatal(err)
	}
	if err := t.Commit(); err != nil {
		b.t.Fatal(err)
	}
}

// TestUplink_Batches_manyLanes lets several lanes meet a hub that takes two open
// batches at a time.
func TestUplink_Batches_manyLanes(t *testing.T) {
	h := newTestHub(t, limitBatches)
	h.init()
	o := boxOptions{streams: make(map[string]string)}
	for i := range 8 {
		o.streams[fmt.Sprintf("s%d", i)] = fmt.Sprintf("s%d.>", i)
	}
	b := startBox(t, h, "a", t.TempDir(), o)
	for name := range o.streams {
		b.putMany(name, name+".x", name, 2000)
	}
	for name := range o.streams {
		b.drained(name)
		checkLane(t, h.lane("a", name), name, 2000)
	}
}

func limitBatches(o *server.Options) {
	o.JetStreamLimits.MaxBatchInflightPerStream = 2
	o.JetStreamLimits.MaxBatchSize = 100
}
