package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/store"
)

// digest answers what Server.Digest does.
func (b *testBox) digest(_ context.Context, stream string) (DeviceDigest, error) {
	d := DeviceDigest{Device: b.device, Epoch: b.pumps.epochs.current(), Streams: []string{"telemetry"}}
	if stream == "" {
		return d, nil
	}
	t := b.db.Begin()
	defer t.Discard()
	now, former, err := readDigests(t, stream)
	if now != nil {
		d.Lanes = append(d.Lanes, *now)
	}
	for _, f := range former {
		d.Lanes = append(d.Lanes, *f)
	}
	return d, err
}

// verify compares the one lane of a box.
func (b *testBox) verify(h *testHub) LaneReport {
	b.t.Helper()
	all, err := Verify(b.t.Context(), h.client(), VerifyOptions{Device: b.device, Ask: b.digest})
	if err != nil || len(all) != 1 {
		b.t.Fatal(all, err)
	}
	return all[0]
}

// proves fails unless the hub is found to hold n messages, all of them proven.
func (b *testBox) proves(h *testHub, n uint64) {
	b.t.Helper()
	if r := b.verify(h); r.Result != ResultSame || r.Proven != n || r.Read != n || len(r.Unproven) > 0 {
		b.t.Errorf("got %+v, want %d messages proven", r, n)
	}
}

func TestVerify_Outages_same(t *testing.T) {
	r := seed(t)
	h := newTestHub(t, nil)
	h.init()
	var c crashPoint
	o := telemetry
	o.fail = c.hit
	b := startBox(t, h, "a", t.TempDir(), o)
	n := 0
	for _, what := range outages(h, b, o, &c, r) {
		for range 300 {
			m := store.Message{Subject: "s.x", Header: headerBlock(randomHeader(r)), Data: fmt.Appendf(nil, "m-%d", n)}
			turn := b.db.Begin()
			if _, err := turn.Publish("telemetry", m); err != nil {
				t.Fatal(err)
			}
			turn.Submit(func(error) {})
			n++
		}
		b.flush()
		what.do()
	}
	b.putMessage("telemetry", store.Message{Subject: "s.x", Data: make([]byte, 2<<20)}) // it becomes a tombstone
	b.put("telemetry", "s.x", "last")
	b.settled(h, uint64(n+2))
	b.proves(h, uint64(n+2))
}

// laneMessages returns what a hub holds of all lanes, as it can be published once more.
func laneMessages(t *testing.T, h *testHub) (all []*nats.Msg) {
	t.Helper()
	for _, m := range h.rawLane("a", "telemetry") {
		out := &nats.Msg{Subject: "edge.up.a.telemetry." + m.subject, Header: m.header, Data: []byte(m.data)}
		for name := range out.Header {
			if strings.HasPrefix(name, "Nats-") {
				delete(out.Header, name)
			}
		}
		all = append(all, out)
	}
	return all
}

// tamper returns another hub that holds of the messages what change makes of each.
func tamper(t *testing.T, all []*nats.Msg, change func(m *nats.Msg, seq uint64) []*nats.Msg) (other *testHub) {
	t.Helper()
	other = newTestHub(t, nil)
	other.init()
	to := other.js()
	for i, m := range all {
		for _, m := range change(m, uint64(i+1)) {
			if _, err := to.PublishMsgAsync(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case <-to.PublishAsyncComplete():
	case <-time.After(2 * time.Minute):
		t.Fatal("the hub does not answer")
	}
	return other
}

func TestVerify_Tampered_isFound(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "m", 1500)
	b.settled(h, 1500)
	b.proves(h, 1500)
	all := laneMessages(t, h)
	copied := func(m *nats.Msg) *nats.Msg {
		c := nats.NewMsg(m.Subject)
		for name, values := range m.Header {
			c.Header[name] = slices.Clone(values)
		}
		c.Data = m.Data
		return c
	}
	for name, c := range map[string]struct {
		at     uint64
		change func(m *nats.Msg) []*nats.Msg
		want   string // kind and sequences of the findings
	}{
		"nothing":           {1234, func(m *nats.Msg) []*nats.Msg { return []*nats.Msg{m} }, ""},
		"deleted":           {1234, func(*nats.Msg) []*nats.Msg { return nil }, "missing 1234-1234"},
		"first deleted":     {1, func(*nats.Msg) []*nats.Msg { return nil }, "missing 1-1"},
		"last deleted":      {1500, func(*nats.Msg) []*nats.Msg { return nil }, "missing 1500-1500"},
		"altered":           {777, func(m *nats.Msg) []*nats.Msg { m.Data = []byte("M-777"); return []*nats.Msg{m} }, "altered 777-777"},
		"a header altered":  {1100, func(m *nats.Msg) []*nats.Msg { m.Header.Set("A", "b"); return []*nats.Msg{m} }, "altered 1100-1100"},
		"a subject altered": {5, func(m *nats.Msg) []*nats.Msg { m.Subject += "y"; return []*nats.Msg{m} }, "altered 5-5"},
		"twice":             {1200, func(m *nats.Msg) []*nats.Msg { return []*nats.Msg{m, m} }, "repeated 1200-1200, added 1200-1200"},
		"added": {1200, func(m *nats.Msg) []*nats.Msg {
			more := nats.NewMsg(m.Subject)
			more.Data = []byte("more")
			return []*nats.Msg{more, m}
		}, "foreign 0-0"},
		"added in our name": {1500, func(m *nats.Msg) []*nats.Msg {
			more := copied(m)
			more.Header.Set(headerSeq, "1600")
			return []*nats.Msg{m, more}
		}, "added 1600-1600"},
	} {
		t.Run(name, func(t *testing.T) {
			other := tamper(t, all, func(m *nats.Msg, seq uint64) []*nats.Msg {
				if seq == c.at {
					return c.change(copied(m))
				}
				return []*nats.Msg{m}
			})
			r := b.compareWith(other)
			got := ""
			for _, f := range r.Findings {
				if got != "" {
					got += ", "
				}
				got += fmt.Sprintf("%s %d-%d", f.Kind, f.From, f.To)
			}
			result := ResultDiffers
			if c.want == "" {
				result = ResultSame
			}
			if got != c.want || r.Result != result {
				t.Errorf("got %s: %s, want %s", r.Result, got, c.want)
			}
		})
	}
	t.Run("several deleted", func(t *testing.T) {
		other := tamper(t, all, func(m *nats.Msg, seq uint64) []*nats.Msg {
			if seq == 100 || seq == 200 || seq == 201 {
				return nil
			}
			return []*nats.Msg{m}
		})
		r := b.compareWith(other)
		got := fmt.Sprintf("%+v", r.Findings)
		if len(r.Findings) != 3 || r.Findings[0].Kind != "range" || r.Findings[0].Box-r.Findings[0].Hub != 3 || r.Findings[1].From != 100 || r.Findings[2].From != 200 || r.Findings[2].To != 201 {
			t.Errorf("got %s, want a range and 100, 200 to 201 missing", got)
		}
	})
}

// compareWith compares a box with a hub that pretends to be the one that it knows.
func (b *testBox) compareWith(other *testHub) LaneReport {
	b.t.Helper()
	up, err := other.js().Stream(b.t.Context(), streamUp)
	if err != nil {
		b.t.Fatal(err)
	}
	ask := func(ctx context.Context, stream string) (DeviceDigest, error) {
		d, err := b.digest(ctx, stream)
		for i := range d.Lanes {
			d.Lanes[i].Created = up.CachedInfo().Created
		}
		return d, err
	}
	all, err := Verify(b.t.Context(), other.client(), VerifyOptions{Device: b.device, Ask: ask, newerWait: time.Second})
	if err != nil || len(all) != 1 {
		b.t.Fatal(all, err)
	}
	return all[0]
}

func TestVerify_Hubs(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.keep("telemetry")
	b.putMany("telemetry", "s.x", "m", 150)
	b.settled(h, 150)
	b.proves(h, 150)
	first := h.dir
	h.stop()
	h.dir = t.TempDir()
	h.start()
	h.init()
	b.put("telemetry", "s.x", "last")
	b.settled(h, 151)
	b.proves(h, 151)
	h.stop()
	h.dir = first
	h.start()
	b.settled(h, 151)
	b.proves(h, 151)
}

// settled waits until the store knows that the hub has all of the lane up to seq.
func (b *testBox) settled(h *testHub, seq uint64) {
	b.t.Helper()
	up, err := h.js().Stream(b.t.Context(), streamUp)
	if err != nil {
		b.t.Fatal(err)
	}
	waitFor(b.t, "the digest to be kept", func() (bool, string) {
		d, err := b.digest(b.t.Context(), "telemetry")
		ok := err == nil && len(d.Lanes) > 0 && d.Lanes[0].to() == seq && d.Lanes[0].Created.Equal(up.CachedInfo().Created)
		return ok, fmt.Sprintf("%+v %v", d, err)
	})
}

// TestVerify_HubLost_isNotProven has a hub that lost what it acknowledged, some of which
// the box still holds.
func TestVerify_HubLost_isNotProven(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "m", 1100)
	b.drained("telemetry")
	b.rest()
	h.stop()
	before := copyDir(t, h.dir)
	h.start()
	b.pump(telemetry)
	b.putMany("telemetry", "s.x", "gone", 10)
	b.drained("telemetry")
	b.settled(h, 1110)
	b.keep("telemetry")
	b.putMany("telemetry", "s.x", "held", 10)
	b.drained("telemetry")
	h.stop()
	h.dir = before
	h.start()
	waitFor(t, "the loss to be found", func() (bool, string) { s := b.lane("telemetry"); return s.Lost == 10, fmt.Sprintf("%+v", s) })
	b.settled(h, 1120)
	r := b.verify(h)
	got := ""
	for _, u := range r.Unproven {
		got += fmt.Sprintf("%d-%d: %s; ", u.From, u.To, u.Why)
	}
	want := fmt.Sprintf("1025-1110: %s; ", whyLost)
	if r.Result != ResultSame || r.Proven != 1034 || got != want {
		t.Errorf("got %+v, not proven %q, want %q", r, got, want)
	}
}

// TestVerify_Limits_areNoFault has a hub whose own limits take the oldest messages.
func TestVerify_Limits_areNoFault(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "m", 3000)
	b.drained("telemetry")
	b.settled(h, 3000)
	s, err := h.js().Stream(t.Context(), streamUp)
	if err != nil {
		t.Fatal(err)
	}
	c := s.CachedInfo().Config
	c.MaxMsgs = 1500
	if _, err := h.js().UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	r := b.verify(h)
	if r.Result != ResultSame || r.Read != 1500 || len(r.Unproven) != 2 || r.Proven != 3000-2*firstRange {
		t.Errorf("got %+v, want two ranges not proven and nothing found", r)
	}
}

// TestVerify_NotHeld_isNotProven has a crash after which the box does not hold any more
// what it finds on the hub.
func TestVerify_NotHeld_isNotProven(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	var c crashPoint
	o := telemetry
	o.fail = c.hit
	b := startBox(t, h, "a", t.TempDir(), o)
	b.putMany("telemetry", "s.x", "m", 20)
	b.drained("telemetry")
	b.settled(h, 20)
	c.armed.Store(true)
	b.putMany("telemetry", "s.x", "n", 10)
	waitFor(t, "the crash", func() (bool, string) { return !c.armed.Load(), "" })
	b.rest()
	if err := b.db.EnsureStream(store.StreamConfig{Name: "telemetry", MaxMsgs: 5, OnFull: store.DropOldest}); err != nil {
		t.Fatal(err)
	}
	b.putMany("telemetry", "s.x", "o", 5)
	b.pump(o)
	b.drained("telemetry")
	b.settled(h, 35)
	r := b.verify(h)
	if r.Result != ResultSame || len(r.Unproven) != 1 || r.Unproven[0].From != 21 || r.Unproven[0].To != 30 || r.Unproven[0].Count != 10 || r.Proven != 25 {
		t.Errorf("got %+v, want 21 to 30 not proven", r)
	}
}
