package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// downMessages returns what EDGE_DOWN holds, ready to be published on another hub.
func (h *testHub) downMessages() []*nats.Msg {
	h.t.Helper()
	js := h.js()
	stream, err := js.Stream(h.t.Context(), streamDown)
	if err != nil {
		h.t.Fatal(err)
	}
	info := stream.CachedInfo()
	var all []*nats.Msg
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(h.t.Context(), seq)
		if err != nil {
			h.t.Fatal(err)
		}
		out := &nats.Msg{Subject: m.Subject, Header: make(nats.Header), Data: m.Data}
		out.Header.Set(headerOrigin, origin{info.Created, seq}.String())
		all = append(all, out)
	}
	return all
}

func publishAll(t *testing.T, js jetstream.JetStream, all []*nats.Msg) {
	t.Helper()
	for _, m := range all {
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDownlink_AnotherHub_copied has a hub in whose place another comes, on which
// somebody published once more, and then again, what the first one had.
func TestDownlink_AnotherHub_copied(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	b := startBox(t, h, "a", t.TempDir(), commands)
	publishMany(t, h.js(), "edge.down.device.a.cmd.x", "m", 1, 5)
	publishMany(t, h.js(), "edge.down.all.cmd.x", "all", 1, 2)
	want := []string{"cmd.x=all1", "cmd.x=all2"}
	waitFor(t, "7 messages", func() (bool, string) { got := b.received("cmd"); return len(got) == 7, fmt.Sprint(got) })
	h.gate.aim("")
	h.gate.reset()
	publishMany(t, h.js(), "edge.down.device.a.cmd.x", "m", 6, 9)
	old, first := h.downMessages(), h.dir
	away := h.gate
	h.stop()
	h.dir, h.gate = t.TempDir(), newTestGate(t)
	h.start()
	h.init()
	publishAll(t, h.js(), old)
	publishAll(t, h.js(), old)
	publishMany(t, h.js(), "edge.down.device.a.cmd.x", "n", 1, 3)
	h.gate = away
	h.gate.aim(h.leaf)
	waitFor(t, "all messages", func() (bool, string) { got := b.received("cmd"); return len(got) >= 14, fmt.Sprint(got) })
	// And then the first hub is there again.
	h.stop()
	h.dir = first
	h.start()
	publishMany(t, h.js(), "edge.down.device.a.cmd.x", "o", 1, 2)
	waitFor(t, "all messages", func() (bool, string) { got := b.received("cmd"); return len(got) >= 20, fmt.Sprint(got) })
	var device, all []string
	for _, m := range b.received("cmd") {
		if strings.HasPrefix(m, "cmd.x=all") {
			all = append(all, m)
		} else {
			device = append(device, m)
		}
	}
	if fmt.Sprint(all) != fmt.Sprint(want) {
		t.Errorf("for all: got %v, want %v", all, want)
	}
	// The first hub has 6 to 9 still; they say of themselves no more than that.
	wantDevice := append(append(numbers("m", 1, 9), numbers("n", 1, 3)...), append(numbers("m", 6, 9), numbers("o", 1, 2)...)...)
	if fmt.Sprint(device) != fmt.Sprint(wantDevice) {
		t.Errorf("for the device:\n got %v\nwant %v", device, wantDevice)
	}
}

func FuzzParseOrigin(f *testing.F) {
	f.Add("2026-01-02T03:04:05.000000006Z/7")
	f.Add("2026-01-02T03:04:05+02:00/0")
	f.Add("/")
	f.Fuzz(func(t *testing.T, s string) {
		o := parseOrigin(s)
		if o.seq == 0 {
			if o != (origin{}) {
				t.Errorf("%q: got %v, want nothing", s, o)
			}
			return
		}
		if again := parseOrigin(o.String()); o.created.Year() <= 9999 && (again.seq != o.seq || !again.created.Equal(o.created.Truncate(time.Nanosecond))) {
			t.Errorf("%q: got %v, and %v when written and read", s, o, again)
		}
	})
}
