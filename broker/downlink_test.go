package broker

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/store"
)

// received returns what a stream of the box holds, as "subject=body".
func (b *testBox) received(stream string) []string {
	b.t.Helper()
	var all []string
	err := b.db.Read(stream, 1, 1<<20, 1<<30, func(m store.Message) error {
		all = append(all, m.Subject+"="+string(m.Data))
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

func (b *testBox) waitReceived(stream string, want ...string) {
	b.t.Helper()
	waitFor(b.t, fmt.Sprintf("%q", want), func() (bool, string) {
		got := b.received(stream)
		return fmt.Sprint(got) == fmt.Sprint(want), fmt.Sprintf("%q", got)
	})
}

func publishDown(t *testing.T, js jetstream.JetStream, subject string, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if _, err := js.Publish(t.Context(), subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDownlink_Take_addresses(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	js := h.js()
	publishDown(t, js, "edge.down.device.a.cmd", "1") // before the box was ever there
	b := startBox(t, h, "a", t.TempDir(), boxOptions{groups: []string{"red"}, local: map[string]string{"cmd": "cmd", "full": "edge.down.all.>"}})
	b.waitReceived("cmd", "cmd=1")
	publishDown(t, js, "edge.down.group.red.cmd", "2")
	b.waitReceived("cmd", "cmd=1", "cmd=2")
	publishDown(t, js, "edge.down.group.blue.cmd", "not ours")
	publishDown(t, js, "edge.down.device.b.cmd", "not ours")
	publishDown(t, js, "edge.down.all.cmd", "3")
	b.waitReceived("full", "edge.down.all.cmd=3")
	publishDown(t, js, "edge.down.device.a.nobody", "4")
	publishDown(t, js, "edge.down.device.a.cmd", "5")
	b.waitReceived("cmd", "cmd=1", "cmd=2", "cmd=5")
	var dead []string
	err := b.db.DeadLetters(func(d store.DeadLetter) error {
		dead = append(dead, fmt.Sprintf("%s %s %s %q %s", d.Stream, d.Subject, d.Reason, d.Error, d.Data))
		return nil
	})
	want := `[EDGE_DOWN edge.down.device.a.nobody rejected "no stream takes subject nobody" 4]`
	if got := fmt.Sprint(dead); err != nil || got != want {
		t.Errorf("dead letters: got %s, %v, want %s", got, err, want)
	}
}

// deadLetters returns all as "reason: subject".
func (b *testBox) deadLetters() []string {
	b.t.Helper()
	var dead []string
	err := b.db.DeadLetters(func(d store.DeadLetter) error {
		dead = append(dead, d.Reason+": "+d.Subject)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return dead
}

var commands = boxOptions{local: map[string]string{"cmd": "cmd.>"}}

// numbers returns cmd.x=prefix1 … as received.
func numbers(prefix string, from, to int) []string {
	var all []string
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprintf("cmd.x=%s%d", prefix, i))
	}
	return all
}

func publishMany(t *testing.T, js jetstream.JetStream, subject, prefix string, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		publishDown(t, js, subject, fmt.Sprintf("%s%d", prefix, i))
	}
}

func TestDownlink_Crash_takesOnce(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	js := h.js()
	publishMany(t, js, "edge.down.device.a.cmd.x", "m", 1, 20)
	o := commands
	var died atomic.Bool
	o.fail = func(name string) {
		if name == "downlink-before-ack" && died.CompareAndSwap(false, true) {
			runtime.Goexit()
		}
	}
	b := startBox(t, h, "a", t.TempDir(), o)
	waitFor(t, "the crash", func() (bool, string) { return died.Load(), "" })
	b.rest()
	b.pump(o)
	publishMany(t, js, "edge.down.device.a.cmd.x", "m", 21, 40)
	b.waitReceived("cmd", numbers("m", 1, 40)...)
	waitFor(t, "the hub to know", func() (bool, string) {
		c, err := js.Consumer(t.Context(), streamDown, "edged-a")
		if err != nil {
			return false, err.Error()
		}
		i := c.CachedInfo()
		return i.NumAckPending == 0 && i.NumPending == 0, fmt.Sprintf("%+v", i)
	})
}

func TestDownlink_Outages_takesOnceInOrder(t *testing.T) {
	r := seed(t)
	h := newTestHub(t, nil)
	h.init()
	var c crashPoint
	o := commands
	o.fail = c.hit
	b := startBox(t, h, "a", t.TempDir(), o)
	all := outages(h, b, o, &c, r)
	var want []string
	rounds := 15
	if testing.Short() {
		rounds = 6
	}
	for range rounds {
		n := len(want)
		more := r.IntN(100)
		publishMany(t, h.js(), "edge.down.device.a.cmd.x", "m", n+1, n+more)
		want = append(want, numbers("m", n+1, n+more)...)
		what := all[r.IntN(len(all))]
		t.Log(what.name)
		what.do()
	}
	b.waitReceived("cmd", want...)
	if dead := b.deadLetters(); len(dead) != 0 {
		t.Errorf("dead letters: got %v, want none", dead)
	}
}

func TestDownlink_Full_waitsInOrder(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	js := h.js()
	o := commands
	b := startBox(t, h, "a", t.TempDir(), o)
	if err := b.db.EnsureStream(store.StreamConfig{Name: "cmd", MaxMsgs: 10}); err != nil {
		t.Fatal(err)
	}
	publishMany(t, js, "edge.down.device.a.cmd.x", "m", 1, 30)
	waitFor(t, "the stream to be full", func() (bool, string) {
		got := b.received("cmd")
		return len(got) == 10 && b.pumps.Inlets()[0].Err != "", fmt.Sprintf("%v %+v", got, b.pumps.Inlets())
	})
	if err := b.db.EnsureStream(store.StreamConfig{Name: "cmd"}); err != nil {
		t.Fatal(err)
	}
	b.waitReceived("cmd", numbers("m", 1, 30)...)
}

func TestDownlink_AnotherHub_beginsAnew(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), commands)
	publishMany(t, h.js(), "edge.down.device.a.cmd.x", "m", 1, 5)
	b.waitReceived("cmd", numbers("m", 1, 5)...)
	h.stop()
	h.dir = t.TempDir()
	h.start()
	h.init()
	publishMany(t, h.js(), "edge.down.device.a.cmd.x", "n", 1, 3)
	b.waitReceived("cmd", append(numbers("m", 1, 5), numbers("n", 1, 3)...)...)
}

// TestDownlink_HubLost_takesWhatReplaces has a hub that lost what the box has,
// and gave the same sequences to other messages.
func TestDownlink_HubLost_takesWhatReplaces(t *testing.T) {
	for _, replaced := range []int{2, 5, 9} {
		t.Run(fmt.Sprint(replaced), func(t *testing.T) {
			h := newTestHub(t, nil)
			h.init()
			b := startBox(t, h, "a", t.TempDir(), commands)
			publishMany(t, h.js(), "edge.down.device.a.cmd.x", "m", 1, 5)
			b.waitReceived("cmd", numbers("m", 1, 5)...)
			b.rest()
			h.stop()
			before := copyDir(t, h.dir)
			h.start()
			b.pump(commands)
			publishMany(t, h.js(), "edge.down.device.a.cmd.x", "gone", 1, 5)
			b.waitReceived("cmd", append(numbers("m", 1, 5), numbers("gone", 1, 5)...)...)
			h.stop()
			h.dir = before
			h.gate.aim("")
			target := h.gate
			h.gate = newTestGate(t) // the box stays away while others publish
			h.start()
			publishMany(t, h.js(), "edge.down.device.a.cmd.x", "n", 1, replaced)
			h.gate = target
			h.gate.aim(h.leaf)
			b.waitReceived("cmd", append(append(numbers("m", 1, 5), numbers("gone", 1, 5)...), numbers("n", 1, replaced)...)...)
		})
	}
}

func TestDownlink_Wiped_goesOnBehind(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), commands)
	publishMany(t, h.js(), "edge.down.device.a.cmd.x", "m", 1, 5)
	b.waitReceived("cmd", numbers("m", 1, 5)...)
	waitFor(t, "the hub to know", func() (bool, string) {
		c, err := h.js().Consumer(t.Context(), streamDown, "edged-a")
		return err == nil && c.CachedInfo().AckFloor.Stream == 5, fmt.Sprint(err)
	})
	b.stop()
	publishMany(t, h.js(), "edge.down.device.a.cmd.x", "m", 6, 8)
	b = startBox(t, h, "a", t.TempDir(), commands)
	b.waitReceived("cmd", numbers("m", 6, 8)...)
}

func TestDownlink_Rejected(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	js := h.js()
	o := commands
	o.storeOpts.MaxMessage = 1000
	b := startBox(t, h, "a", t.TempDir(), o)
	publishDown(t, js, "edge.down.device.a.cmd.x", "m1")
	publishDown(t, js, "edge.down.device.a.cmd.big", string(make([]byte, 2000)))
	publishDown(t, js, "edge.down.device.a.other", "nobody takes it")
	copied := nats.NewMsg("edge.down.device.a.cmd.x")
	copied.Header.Set("Nats-Stream", "EDGE_UP")
	if _, err := js.PublishMsg(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	publishDown(t, js, "edge.down.device.a.cmd.x", "m2")
	b.waitReceived("cmd", numbers("m", 1, 2)...)
	want := "[too-large: edge.down.device.a.cmd.big rejected: edge.down.device.a.other rejected: edge.down.device.a.cmd.x]"
	if got := fmt.Sprint(b.deadLetters()); got != want {
		t.Errorf("dead letters: got %s, want %s", got, want)
	}
	waitFor(t, "2 received and 3 rejected", func() (bool, string) {
		s := b.pumps.Inlets()[0]
		return s.Received == 2 && s.Rejected == 3, fmt.Sprintf("%+v", s)
	})
}

func TestDownlink_Headers_keep(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), commands)
	m := nats.NewMsg("edge.down.device.a.cmd.x")
	m.Header = nats.Header{"B": {"1", "2"}, "A": {"x y"}}
	m.Data = []byte("body")
	if _, err := h.js().PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	b.waitReceived("cmd", "cmd.x=body")
	var header []byte
	if err := b.db.Read("cmd", 1, 1, 1, func(m store.Message) error { header = m.Header; return nil }); err != nil {
		t.Fatal(err)
	}
	if want := "NATS/1.0\r\nA: x y\r\nB: 1\r\nB: 2\r\n\r\n"; string(header) != want {
		t.Errorf("header: got %q, want %q", header, want)
	}
}

// TestDownlink_Stolen_isMissed has somebody else take a message from the box's
// consumer: the box must notice that its deliveries have a gap.
func TestDownlink_Stolen_isMissed(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	js := h.js()
	b := startBox(t, h, "a", t.TempDir(), commands)
	publishMany(t, js, "edge.down.device.a.cmd.x", "m", 1, 1)
	b.waitReceived("cmd", numbers("m", 1, 1)...)
	stolen := 0
	for n := 1; stolen < 3; n += 10 {
		cons, err := js.Consumer(t.Context(), streamDown, "edged-a")
		if err != nil {
			t.Fatal(err)
		}
		thief, err := cons.Fetch(1, jetstream.FetchMaxWait(200*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		publishMany(t, js, "edge.down.device.a.cmd.x", "m", n+1, n+10)
		for range thief.Messages() {
			stolen++
		}
		b.waitReceived("cmd", numbers("m", 1, n+10)...)
	}
}
