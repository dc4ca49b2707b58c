package broker

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/store"
)

// wholeBox is a box with all of its server.
type wholeBox struct {
	*Server
	db *store.DB

	mu  sync.Mutex
	got []string // handled, as "subject=body"
}

func startWholeBox(t *testing.T, h *testHub, device string) *wholeBox {
	t.Helper()
	b := &wholeBox{db: openTestStore(t, store.Options{Dir: t.TempDir()})}
	s, err := New(Options{
		Store: b.db, Device: device, Logger: testLogger(t).With("box", device),
		Hub: HubOptions{URL: "nats-leaf://" + h.gate.addr(), Domain: "hub", Reconnect: 20 * time.Millisecond, Ping: 200 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Server = s
	streams := []Stream{{Name: "telemetry", Subjects: []string{"sensors.>"}, Uplink: true}, {Name: "cmd", Subjects: []string{"cmd"}}}
	handle := func(_ context.Context, m Message, _ int) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.got = append(b.got, m.Subject+"="+string(m.Data))
		return nil
	}
	subs := []Subscription{{Name: "commands", Stream: "cmd", Deliver: handle}, {Name: "watch", Stream: "telemetry", Deliver: handle}}
	if err := s.Configure(t.Context(), streams, subs); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case <-time.After(time.Minute):
		t.Fatal("the box is not ready")
	}
	return b
}

func (b *wholeBox) handled() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

// TestHub_TwoBoxes_sameStream has two boxes with one stream each, of the same name
// and subjects, in one account of the hub.
func TestHub_TwoBoxes_sameStream(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	a, b := startWholeBox(t, h, "a"), startWholeBox(t, h, "b")
	for _, box := range []*wholeBox{a, b} {
		waitFor(t, "the link", func() (bool, string) { return box.LinkUp(), "" })
	}
	nc, err := a.ConnectApp()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 50 {
		body := fmt.Sprint(i)
		want = append(want, "sensors.x="+body)
		ack, err := js.Publish(t.Context(), "sensors.x", []byte(body))
		if err != nil || ack.Stream != "telemetry" || ack.Sequence != uint64(i+1) {
			t.Fatalf("publish %d: got %+v, %v", i, ack, err)
		}
	}
	publishDown(t, h.js(), "edge.down.device.a.cmd", "for a")
	waitFor(t, "the hub to have all", func() (bool, string) {
		return len(h.lane("a", "telemetry")) == 50, fmt.Sprintf("%+v", a.Lanes())
	})
	waitFor(t, "the box to handle all", func() (bool, string) { return len(a.handled()) == 51, fmt.Sprint(a.handled()) })
	for i, m := range h.lane("a", "telemetry") {
		if "sensors.x="+m.data != want[i] || m.seq != uint64(i+1) || m.epoch != a.Epoch() {
			t.Fatalf("message %d of the lane: got %+v", i+1, m)
		}
	}
	if !slices.Contains(a.handled(), "cmd=for a") {
		t.Errorf("box a: got %v, want its command", a.handled())
	}
	// Box b has had as much time as box a needed for all of this.
	if got := b.handled(); len(got) != 0 {
		t.Errorf("box b: got %v, want nothing", got)
	}
	if info, err := b.db.Stream("telemetry"); err != nil || info.Last != 0 {
		t.Errorf("box b: got stream %+v, %v, want it empty", info, err)
	}
	if got := h.lane("b", "telemetry"); len(got) != 0 {
		t.Errorf("lane of b: got %v, want nothing", got)
	}
	// The hub's own clients get no answer from the streams of boxes either.
	if m, err := h.client().Request("sensors.x", []byte("from the cloud"), 200*time.Millisecond); err == nil {
		t.Errorf("publish at the hub: got answer %q, want none", m.Data)
	}
}

// TestHub_Reset_inHandshake has a hub that goes away as soon as it has greeted. The
// box must come back each time.
func TestHub_Reset_inHandshake(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	leaf := h.leaf
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	greeting := greetingOf(t, leaf)
	var greeted int
	var mu sync.Mutex
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write(greeting) // a failed one counts as well
			// Before, while and after the box answers.
			<-time.After(time.Duration(greeted%50) * 20 * time.Microsecond)
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
			mu.Lock()
			greeted++
			mu.Unlock()
		}
	})
	defer wg.Wait()
	defer l.Close()
	h.gate.aim("")
	h.leaf = l.Addr().String()
	b := startWholeBox(t, h, "a")
	direct := h.gate
	direct.aim(h.leaf)
	waitFor(t, "the box to call again and again", func() (bool, string) {
		mu.Lock()
		defer mu.Unlock()
		return greeted >= 100, fmt.Sprint(greeted)
	})
	direct.aim(leaf)
	waitFor(t, "the link", func() (bool, string) { return b.LinkUp(), "" })
}

// greetingOf returns what a leaf node port says first.
func greetingOf(t *testing.T, addr string) []byte {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 8192)
	n, err := c.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "INFO ") {
		t.Fatalf("greeting: got %.40q, %v", buf[:n], err)
	}
	return buf[:n]
}

func TestHubLanes_Known(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), boxOptions{streams: map[string]string{"one": "o.>", "two": "t.>"}})
	b.putMany("one", "o.x", "m", 7)
	b.putMany("two", "t.x", "m", 3)
	b.drained("one")
	b.drained("two")
	nc := h.client(nats.Name("operator"))
	lanes, err := HubLanes(t.Context(), nc, "", "a")
	epoch := b.pumps.epochs.current()
	want := []HubLane{{"one", epoch, 7, 7}, {"two", epoch, 3, 3}}
	if err != nil || !slices.Equal(lanes, want) {
		t.Errorf("lanes: got %+v, %v, want %+v", lanes, err, want)
	}
}
