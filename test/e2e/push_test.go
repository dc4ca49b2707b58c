package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const pushes = 3

// A good version, a broken one and a good one again are pushed while messages are
// in flight. The hub has in the end what it has without a push.
func TestPush_goodBrokenGood(t *testing.T) {
	r := seeded(t)
	all := readings(r, messages)
	plain, turns := pushedRun(t, all, nil)
	if !maps.Equal(turns, map[string]int{"1": messages}) {
		t.Errorf("turns by version %v, want %d by version 1", turns, messages)
	}
	pushed, turns := pushedRun(t, all, func(b *box, h *hub) {
		pushTo(t, b, h, app{version: "2", module: built.counter2}, "committed", "2")
		pushTo(t, b, h, app{version: "3-broken", module: built.broken}, "rolled-back", "2")
		pushTo(t, b, h, app{version: "4", module: built.counter1}, "committed", "4")
	})
	t.Logf("turns by version: %v", turns)
	sum := -pushes // each asked the actor for a report
	for version, n := range turns {
		sum += n
		if version == "3-broken" {
			t.Errorf("the broken version took part in %d turns", n)
		}
	}
	for _, version := range []string{"1", "2", "4"} {
		if turns[version] == 0 {
			t.Errorf("version %s had no turn: %v", version, turns)
		}
	}
	if sum != messages {
		t.Errorf("%d turns of all versions together for %d readings: %v", sum, messages, turns)
	}
	for i := range max(len(plain), len(pushed)) {
		if i >= len(plain) || i >= len(pushed) || plain[i] != pushed[i] {
			t.Fatalf("message %d on the hub: %s with pushes, %s without", i+1, at(pushed, i), at(plain, i))
		}
	}
}

func at(all []string, i int) string {
	if i < len(all) {
		return all[i]
	}
	return "nothing"
}

// pushedRun lets one sensor send through one box, during which meanwhile is done, and
// returns what the hub holds and the turns by version of the app.
func pushedRun(t *testing.T, all []reading, meanwhile func(*box, *hub)) (lane []string, turns map[string]int) {
	h := newHub(t)
	b := newBox(t, "press-7", newProxy(t, h.leafAddr()).addr()).warm()
	b.install(app{version: "1", module: built.counter1})
	b.up()
	s := newPublisher(t, func() string { return b.addresses().MQTT }, all, 64)
	s.run()
	s.allow(500)
	if meanwhile != nil {
		b.linkIs("up")
		end := trickle(s)
		meanwhile(b, h)
		end()
	}
	s.allow(messages)
	eventually(t, "the sensor is rid of its messages", s.caughtUp)
	b.drained(uplinked...)
	turns = make(map[string]int)
	for _, v := range b.status().Turns {
		turns[v.Version] = v.Turns
	}
	got := h.lane(b.device, "telemetry")
	sameLane(t, got, all)
	alarms := h.lane(b.device, "alarms")
	sameCounts(t, b, alarms, all)
	b.kill()
	for _, m := range got {
		lane = append(lane, fmt.Sprintf("%d %s %s", m.seq, m.subject, m.body))
	}
	return lane, turns
}

// trickle keeps messages coming until end is called.
func trickle(s *publisher) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // waited for by end
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if left := messages - s.sent(); left > 500 {
					s.allow(2)
				}
			case <-stop:
				return
			}
		}
	}()
	return func() { close(stop); <-done }
}

// pushTo pushes an app, waits for the answer of the box, and looks at what is reported.
func pushTo(t *testing.T, b *box, h *hub, a app, state, running string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "counter")
	a.write(t, dir)
	out, code := edged(t, "push", "--server", h.url(), "--device", b.device, "--wait", patience.String(), dir)
	if committed := state == "committed"; committed != (code == 0) || !strings.Contains(out, state) {
		t.Fatalf("push of version %s: exit code %d, want it %s\n%s", a.version, code, state, out)
	}
	shown, code := edged(t, "status", "--server", h.url(), "--device", b.device, "--json")
	if code != 0 {
		t.Fatalf("edged status: exit code %d\n%s", code, shown)
	}
	for _, s := range []status{b.status(), parseStatus(t, shown)} {
		r := s.Reported
		if r.State != state || r.Version != a.version || r.Running.Version != running || s.Desired.Version != a.version {
			t.Errorf("after the push of version %s: desired %+v, reported %+v, want %s, running %s", a.version, s.Desired, r, state, running)
		}
		if state == "rolled-back" && !strings.Contains(r.Error, "broken by design") && !strings.Contains(r.Error, "trap") {
			t.Errorf("why version %s was rolled back: %q", a.version, r.Error)
		}
	}
	if got := b.report()["version"]; (got == "2") != (running == "2") { // the module says it by itself
		t.Errorf("after the push of version %s the actor is of module %s", a.version, got)
	}
}
