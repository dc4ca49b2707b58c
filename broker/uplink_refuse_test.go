package broker

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/store"
)

// checkStone fails unless the lane holds m-1 … m-n, once and in order, with a
// tombstone in place of number bad, and the box has that one as a dead letter.
func checkStone(t *testing.T, b *testBox, got []laneMessage, n, bad int, reason string) {
	t.Helper()
	if len(got) != n {
		t.Errorf("got %d messages in the lane, want %d", len(got), n)
	}
	for i, m := range got {
		if m.seq != uint64(i+1) {
			t.Fatalf("message %d of the lane has sequence %d", i+1, m.seq)
		}
		stone := m.header.Get(headerTombstone)
		switch {
		case i+1 == bad && (stone != reason || m.data != ""):
			t.Errorf("message %d: got %.40q with tombstone %q, want tombstone %q", i+1, m.data, stone, reason)
		case i+1 != bad && (stone != "" || m.data != fmt.Sprintf("m-%d", i+1)):
			t.Errorf("message %d: got %.40q with tombstone %q", i+1, m.data, stone)
		}
	}
	var dead []store.DeadLetter
	if err := b.db.DeadLetters(func(d store.DeadLetter) error { dead = append(dead, d); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(dead) != 1 || dead[0].Seq != uint64(bad) || dead[0].Reason != "uplink-refused" || dead[0].Stream != "telemetry" || dead[0].Error == "" {
		t.Errorf("dead letters: got %+v, want one of message %d", dead, bad)
	}
	if s := b.lane("telemetry"); s.Refused != 1 {
		t.Errorf("refused: got %d, want 1", s.Refused)
	}
}

// startWithBad starts a box that is offline, with n messages of which number bad
// is another one, and then lets it to the hub.
func startWithBad(t *testing.T, h *testHub, n, bad int, m store.Message, o boxOptions) *testBox {
	t.Helper()
	h.gate.aim("")
	o.streams = map[string]string{"telemetry": "s.>"}
	b := startBox(t, h, "a", t.TempDir(), o)
	for i := 1; i <= n; i++ {
		if i == bad {
			b.putMessage("telemetry", m)
			continue
		}
		b.put("telemetry", "s.x", fmt.Sprintf("m-%d", i))
	}
	h.gate.aim(h.leaf)
	return b
}

func TestUplink_Refused_knownBefore(t *testing.T) {
	big := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	header := []byte("NATS/1.0\r\nA: " + strings.Repeat("y", 65_000) + "\r\nB: " + strings.Repeat("z", 470) + "\r\n\r\n")
	for name, m := range map[string]store.Message{
		"body":    {Subject: "s.x", Data: big(70_000)},
		"headers": {Subject: "s.x", Header: header},
		"subject": {Subject: "s." + strings.Repeat("x", 5000), Data: big(10)},
		"limit":   {Subject: "s.x", Data: big(64<<10 - 100)}, // fits alone, but not with the headers of a lane
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHub(t, func(o *server.Options) { o.MaxPayload = 64 << 10 })
			if name == "headers" {
				h = newTestHub(t, nil)
			}
			h.init()
			b := startWithBad(t, h, 150, 77, m, boxOptions{})
			b.drained("telemetry")
			checkStone(t, b, h.lane("a", "telemetry"), 150, 77, stoneTooLarge)
			if got := h.lane("a", "telemetry")[76]; name == "subject" {
				if got.subject != "$tombstone" || got.header.Get(headerSubject) != m.Subject {
					t.Errorf("tombstone: got subject %q, %s %.20q", got.subject, headerSubject, got.header.Get(headerSubject))
				}
			} else if got.subject != "s.x" {
				t.Errorf("tombstone: got subject %q, want s.x", got.subject)
			}
		})
	}
}

func TestUplink_Refused_byTheHub(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	js := h.js()
	o := boxOptions{streams: map[string]string{"telemetry": "s.>"}}
	b := startBox(t, h, "a", t.TempDir(), o)
	b.put("telemetry", "s.x", "m-1")
	b.drained("telemetry")
	s, err := js.Stream(t.Context(), streamUp)
	if err != nil {
		t.Fatal(err)
	}
	c := s.CachedInfo().Config
	c.MaxMsgSize = 2000 // the pump was told of more
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	turn := b.db.Begin()
	for i := 2; i <= 300; i++ {
		data := fmt.Appendf(nil, "m-%d", i)
		if i == 200 {
			data = bytes.Repeat([]byte("x"), 3000)
		}
		if _, err := turn.Publish("telemetry", store.Message{Subject: "s.x", Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	if err := turn.Commit(); err != nil {
		t.Fatal(err)
	}
	b.drained("telemetry")
	checkStone(t, b, h.lane("a", "telemetry"), 300, 200, stoneTooLarge)
}

// TestUplink_Refused_silently has a hub whose permissions take a lane but not all
// of its subjects: it passes over those without a word, tombstones included.
func TestUplink_Refused_silently(t *testing.T) {
	for name, size := range map[string]int{"message": 2, "tombstone": 1 << 20} {
		t.Run(name, func(t *testing.T) { refuseSilently(t, bytes.Repeat([]byte("x"), size)) })
	}
}

func refuseSilently(t *testing.T, body []byte) {
	t.Helper()
	p, err := HubPermissions("a", nil, "hub", "default")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(p.Text(), "publish: {", `publish: { deny: ["edge.up.a.telemetry.s.secret"],`, 1)
	conf := "accounts { FLEET { jetstream: enabled, users: [\n{ user: admin, password: x }\n{ user: a, password: x\n" + text + "}\n] } }\n"
	file := filepath.Join(t.TempDir(), "hub.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newTestHub(t, func(o *server.Options) {
		if err := o.ProcessConfigFile(file); err != nil {
			t.Fatal(err)
		}
	})
	admin := nats.UserInfo("admin", "x")
	h.init(admin)
	b := startWithBad(t, h, 100, 60, store.Message{Subject: "s.secret", Data: body}, boxOptions{user: url.UserPassword("a", "x")})
	b.drained("telemetry")
	got := h.lane("a", "telemetry", admin)
	checkStone(t, b, got, 100, 60, stoneRefused)
	if m := got[59]; m.subject != "$tombstone" || m.header.Get(headerSubject) != "s.secret" {
		t.Errorf("tombstone: got subject %q for %q", m.subject, m.header.Get(headerSubject))
	}
}

// TestUplink_Refused_linkCloses has a hub that takes less than its stream says,
// and closes the link for more.
func TestUplink_Refused_linkCloses(t *testing.T) {
	h := newTestHub(t, func(o *server.Options) { o.MaxPayload = 16 << 10 })
	_, err := h.js().CreateStream(t.Context(), jetstream.StreamConfig{
		Name: streamUp, Subjects: []string{"edge.up.>"}, AllowAtomicPublish: true, // no direct gets either
	})
	if err != nil {
		t.Fatal(err)
	}
	b := startWithBad(t, h, 40, 23, store.Message{Subject: "s.x", Data: bytes.Repeat([]byte("x"), 20_000)}, boxOptions{})
	b.drained("telemetry")
	checkStone(t, b, h.lane("a", "telemetry"), 40, 23, stoneRefused)
}

// TestUplink_Refused_crash has a box that dies between the dead letter and its
// tombstone.
func TestUplink_Refused_crash(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	h.gate.aim("")
	o := boxOptions{streams: map[string]string{"telemetry": "s.>"}}
	b := startBox(t, h, "a", t.TempDir(), o)
	b.put("telemetry", "s.x", "m-1", "m-2", "m-3")
	b.rest()
	l := newLane(b.pumps, "telemetry")
	if err := l.load(); err != nil {
		t.Fatal(err)
	}
	if err := l.refuseSeq(2, stoneTooLarge, "why", 1); err != nil {
		t.Fatal(err)
	}
	b.pump(o)
	h.gate.aim(h.leaf)
	b.drained("telemetry")
	b.lanesShown("telemetry", func(s *LaneStatus) { s.Refused++ }) // counted by the one that died
	checkStone(t, b, h.lane("a", "telemetry"), 3, 2, stoneTooLarge)
	waitFor(t, "the note of the tombstone to go", func() (bool, string) {
		n := 0
		err := b.db.List(spaceHub, "stone/", func(string, []byte) error { n++; return nil })
		return err == nil && n == 0, fmt.Sprint(n, err)
	})
}

// lanesShown changes what a lane shows.
func (b *testBox) lanesShown(stream string, change func(*LaneStatus)) {
	b.pumps.mu.Lock()
	defer b.pumps.mu.Unlock()
	b.pumps.lanes[stream].show(change)
}
