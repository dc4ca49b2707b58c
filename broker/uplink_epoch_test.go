package broker

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/store"
)

// bodies returns the lane as "seq:body" by epoch, epochs in order of appearance.
func byEpoch(lane []laneMessage) (epochs []string, bodies map[string][]string) {
	bodies = make(map[string][]string)
	for _, m := range lane {
		if len(bodies[m.epoch]) == 0 {
			epochs = append(epochs, m.epoch)
		}
		bodies[m.epoch] = append(bodies[m.epoch], fmt.Sprintf("%d:%s", m.seq, m.data))
	}
	return epochs, bodies
}

// run is prefix-1 … as messages from first on.
func run(prefix string, first, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%d:%s-%d", first+i, prefix, i+1))
	}
	return all
}

func checkEpochs(t *testing.T, lane []laneMessage, want ...[]string) {
	t.Helper()
	epochs, bodies := byEpoch(lane)
	if len(epochs) != len(want) {
		t.Fatalf("got %d epochs, want %d: %v", len(epochs), len(want), bodies)
	}
	for i, e := range epochs {
		if fmt.Sprint(bodies[e]) != fmt.Sprint(want[i]) {
			t.Errorf("epoch %d: got %v, want %v", i+1, bodies[e], want[i])
		}
	}
}

func copyDir(t *testing.T, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

var telemetry = boxOptions{streams: map[string]string{"telemetry": "s.>"}}

func TestEpoch_Restored_beyond(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "m", 100)
	b.drained("telemetry")
	b.stop()
	backup := copyStore(t, b.dir)
	b = startBox(t, h, "a", b.dir, telemetry)
	b.putMany("telemetry", "s.x", "n", 50)
	b.drained("telemetry")
	b.stop()
	b = startBox(t, h, "a", backup, telemetry)
	b.putMany("telemetry", "s.x", "o", 20)
	b.drained("telemetry")
	checkEpochs(t, h.lane("a", "telemetry"), append(run("m", 1, 100), run("n", 101, 50)...), run("o", 101, 20))
	b.stop()
	b = startBox(t, h, "a", backup, telemetry) // the new epoch lasts
	b.putMany("telemetry", "s.x", "p", 5)
	b.drained("telemetry")
	checkEpochs(t, h.lane("a", "telemetry"), append(run("m", 1, 100), run("n", 101, 50)...), append(run("o", 101, 20), run("p", 121, 5)...))
}

// TestEpoch_Restored_overtaken has a restored store that has more messages than
// the hub when they meet again, but not the same.
func TestEpoch_Restored_overtaken(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "m", 100)
	b.drained("telemetry")
	b.stop()
	backup := copyStore(t, b.dir)
	b = startBox(t, h, "a", b.dir, telemetry)
	b.putMany("telemetry", "s.x", "same", 50)
	b.drained("telemetry")
	b.stop()
	h.gate.aim("")
	b = startBox(t, h, "a", backup, telemetry)
	b.putMany("telemetry", "s.x", "same", 80) // equal bodies, stored at another time
	h.gate.aim(h.leaf)
	b.drained("telemetry")
	checkEpochs(t, h.lane("a", "telemetry"), append(run("m", 1, 100), run("same", 101, 50)...), run("same", 101, 80))
}

func TestEpoch_Moved_goesOn(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	var c crashPoint
	o := telemetry
	o.machine, o.fail = "one", c.hit
	b := startBox(t, h, "a", t.TempDir(), o)
	b.putMany("telemetry", "s.x", "m", 100)
	b.drained("telemetry")
	c.armed.Store(true)
	b.put("telemetry", "s.x", "101") // the hub has it, the store does not know
	waitFor(t, "the crash", func() (bool, string) { return !c.armed.Load(), "" })
	b.stop()
	o.machine = "two"
	b = startBox(t, h, "a", b.dir, o)
	b.putMany("telemetry", "s.x", "n", 10)
	b.drained("telemetry")
	checkEpochs(t, h.lane("a", "telemetry"), append(run("m", 1, 100), "101:101"), run("n", 102, 10))
	b.stop()
	b = startBox(t, h, "a", b.dir, o)
	b.put("telemetry", "s.x", "last")
	b.drained("telemetry")
	checkEpochs(t, h.lane("a", "telemetry"), append(run("m", 1, 100), "101:101"), append(run("n", 102, 10), "112:last"))
}

// TestEpoch_Copies_loseNothing has two copies of a store that both go on, one of
// them on another machine.
func TestEpoch_Copies_loseNothing(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	o := telemetry
	o.machine = "one"
	b := startBox(t, h, "a", t.TempDir(), o)
	b.putMany("telemetry", "s.x", "m", 10)
	b.drained("telemetry")
	b.stop()
	other := copyStore(t, b.dir)
	one := startBox(t, h, "a", b.dir, o)
	o.machine = "two"
	two := startBox(t, h, "a", other, o)
	for i := range 20 {
		one.put("telemetry", "s.x", fmt.Sprintf("one-%d", i+1))
		two.put("telemetry", "s.x", fmt.Sprintf("two-%d", i+1))
	}
	one.drained("telemetry")
	two.drained("telemetry")
	epochs, bodies := byEpoch(h.lane("a", "telemetry"))
	if len(epochs) != 2 {
		t.Fatalf("got %d epochs, want 2: %v", len(epochs), bodies)
	}
	// The hub ends the link of the one when the other comes, since they have one
	// name, and so batches of unknown fate are sent again behind the other's.
	want := fmt.Sprint(append(run("m", 1, 10), run("one", 11, 20)...))
	if got := fmt.Sprint(firsts(bodies[epochs[0]])); got != want {
		t.Errorf("first epoch: got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(firsts(bodies[epochs[1]])), fmt.Sprint(run("two", 11, 20)); got != want {
		t.Errorf("second epoch: got %s, want %s", got, want)
	}
}

// TestEpoch_Copies_atOnce has two copies of a store on the same machine that both
// asked the hub before either sent. The batch that comes second must not land.
func TestEpoch_Copies_atOnce(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	o := telemetry
	b := startBox(t, h, "a", t.TempDir(), o)
	b.putMany("telemetry", "s.x", "m", 10)
	b.drained("telemetry")
	b.stop()
	other := copyStore(t, b.dir)
	asked, sent := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o.server = "two"
	o.fail = func(name string) {
		if name == "uplink-before-batch" {
			once.Do(func() { close(asked) })
			<-sent
		}
	}
	two := startBox(t, h, "a", other, o)
	two.putMany("telemetry", "s.x", "two", 20)
	<-asked
	o.server, o.fail = "one", nil
	one := startBox(t, h, "a", b.dir, o)
	one.putMany("telemetry", "s.x", "one", 15)
	one.drained("telemetry")
	close(sent)
	two.drained("telemetry")
	checkEpochs(t, h.lane("a", "telemetry"), append(run("m", 1, 10), run("one", 11, 15)...), run("two", 11, 20))
}

// firsts returns each of all once, where it came first.
func firsts(all []string) []string {
	var once []string
	for _, s := range all {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}

func TestEpoch_Wiped_beginsBehind(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "m", 30)
	b.drained("telemetry")
	b.stop()
	b = startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "n", 20)
	b.drained("telemetry")
	checkEpochs(t, h.lane("a", "telemetry"), run("m", 1, 30), run("n", 1, 20))
}

// keep lets a box hold its messages beyond the hub's acknowledgement.
func (b *testBox) keep(stream string) {
	b.t.Helper()
	if err := b.db.EnsureSubscription(store.SubscriptionConfig{Name: "keeper", Stream: stream}); err != nil {
		b.t.Fatal(err)
	}
}

func TestUplink_AnotherHub_getsWhatIsHeld(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "m", 30)
	b.drained("telemetry")
	waitFor(t, "the store to let go", func() (bool, string) {
		info, err := b.db.Stream("telemetry")
		return err == nil && info.Msgs == 0, fmt.Sprintf("%+v %v", info, err)
	})
	b.keep("telemetry")
	b.putMany("telemetry", "s.x", "n", 20)
	b.drained("telemetry")
	h.stop()
	h.dir = t.TempDir()
	h.start()
	h.init()
	b.putMany("telemetry", "s.x", "o", 5)
	b.drained("telemetry")
	waitFor(t, "the new hub to have all", func() (bool, string) {
		return len(h.lane("a", "telemetry")) == 25, ""
	})
	checkEpochs(t, h.lane("a", "telemetry"), append(run("n", 31, 20), run("o", 51, 5)...))
}

func TestUplink_HubLost_isReportedAndSentAgain(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "m", 40)
	b.drained("telemetry")
	b.rest()
	h.stop()
	before := copyDir(t, h.dir)
	h.start()
	b.pump(telemetry)
	b.putMany("telemetry", "s.x", "gone", 10)
	b.drained("telemetry")
	waitFor(t, "the store to let go", func() (bool, string) {
		info, err := b.db.Stream("telemetry")
		return err == nil && info.Msgs == 0, fmt.Sprintf("%+v %v", info, err)
	})
	b.keep("telemetry")
	b.putMany("telemetry", "s.x", "held", 10)
	b.drained("telemetry")
	h.stop()
	h.dir = before // as if a power cut took what was not synced
	h.start()
	waitFor(t, "the loss to be found", func() (bool, string) {
		s := b.lane("telemetry")
		return s.Lost == 10 && s.Synced, fmt.Sprintf("%+v", s)
	})
	b.putMany("telemetry", "s.x", "o", 5)
	waitFor(t, "the hub to have what was held", func() (bool, string) {
		got := len(h.lane("a", "telemetry"))
		return got == 55, fmt.Sprint(got)
	})
	want := append(append(run("m", 1, 40), run("held", 51, 10)...), run("o", 61, 5)...)
	checkEpochs(t, h.lane("a", "telemetry"), want)
	h.gate.reset() // it is not reported again
	b.put("telemetry", "s.x", "p-1")
	waitFor(t, "the next message", func() (bool, string) { return len(h.lane("a", "telemetry")) == 56, "" })
	checkEpochs(t, h.lane("a", "telemetry"), append(want, "66:p-1"))
	if s := b.lane("telemetry"); s.Lost != 10 {
		t.Errorf("lost: got %d, want 10", s.Lost)
	}
}

// TestUplink_HubRemoves has a hub whose own limits took what it got.
func TestUplink_HubRemoves_isNoLoss(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "m", 40)
	b.drained("telemetry")
	s, err := h.js().Stream(t.Context(), streamUp)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.gate.reset()
	b.putMany("telemetry", "s.x", "n", 10)
	b.drained("telemetry")
	checkEpochs(t, h.lane("a", "telemetry"), run("n", 41, 10))
	if s := b.lane("telemetry"); s.Lost != 0 {
		t.Errorf("lost: got %d, want 0", s.Lost)
	}
	// Between two sends without a reconnect, too.
	if err := s.Purge(t.Context(), jetstream.WithPurgeSubject("edge.up.a.>")); err != nil {
		t.Fatal(err)
	}
	b.putMany("telemetry", "s.x", "o", 10)
	b.drained("telemetry")
	checkEpochs(t, h.lane("a", "telemetry"), run("o", 51, 10))
}

func TestEpoch_Open_machines(t *testing.T) {
	dir := t.TempDir()
	open := func(machine string) (string, *epochs) {
		t.Helper()
		db := openTestStore(t, store.Options{Dir: dir})
		defer db.Close()
		e, err := openEpochs(t.Context(), db, machine, testLogger(t), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return e.current(), e
	}
	first, _ := open("")
	if again, _ := open("one"); again != first || first == "" {
		t.Errorf("machine becomes known: got epoch %q, want %q", again, first)
	}
	if again, _ := open(""); again != first {
		t.Errorf("machine not known: got epoch %q, want %q", again, first)
	}
	second, e := open("two")
	if f, ok := e.find(first); second == first || !ok || f.Ended != epochMoved {
		t.Errorf("another machine: got epoch %q, former %+v, want a new one", second, f)
	}
	if again, _ := open("two"); again != second {
		t.Errorf("the same machine: got epoch %q, want %q", again, second)
	}
	for i := range maxFormer + 5 {
		_, e = open(fmt.Sprint(i))
	}
	if n := len(e.rec.Former); n != maxFormer {
		t.Errorf("got %d former epochs, want %d", n, maxFormer)
	}
}
