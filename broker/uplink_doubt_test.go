package broker

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/logbuffer"
)

// safeLog is a log that many write to and a test reads.
type safeLog struct{ logbuffer.Buffer }

func (l *safeLog) count(text string) int { return strings.Count(l.String(), text) }

func (l *safeLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestUplink_Foreign_crash has somebody else write to the lane after a batch whose
// acknowledgement the box forgot in a crash.
func TestUplink_Foreign_crash(t *testing.T) {
	for _, before := range []int{0, 100} {
		t.Run(fmt.Sprint(before), func(t *testing.T) {
			h := newTestHub(t, nil)
			h.init()
			var c crashPoint
			o := telemetry
			o.fail = c.hit
			b := startBox(t, h, "a", t.TempDir(), o)
			if before > 0 {
				b.putMany("telemetry", "s.x", "m", before)
				b.drained("telemetry")
			} else {
				waitFor(t, "the lane to have asked", func() (bool, string) {
					s := b.lane("telemetry")
					return s.Synced, fmt.Sprintf("%+v", s)
				})
			}
			c.armed.Store(true)
			b.putMany("telemetry", "s.x", "n", 10)
			waitFor(t, "the crash", func() (bool, string) { return !c.armed.Load(), "" })
			b.rest()
			nc := h.client()
			for i := range 5 {
				if _, err := nc.Request("edge.up.a.telemetry.s.x", fmt.Appendf(nil, "foreign-%d", i), time.Minute); err != nil {
					t.Fatal(err)
				}
			}
			b.pump(o)
			b.put("telemetry", "s.x", "last")
			b.drained("telemetry")
			var own []laneMessage
			for _, m := range h.rawLane("a", "telemetry") {
				if m.epoch != "" {
					own = append(own, m)
				}
			}
			checkEpochs(t, own, append(append(run("m", 1, before), run("n", before+1, 10)...), fmt.Sprintf("%d:last", before+11)))
		})
	}
}

// TestUplink_Foreign_notAllowed has a hub whose permissions are of before the box
// could look into its lane. It goes on; what it does not know is sent again.
func TestUplink_Foreign_notAllowed(t *testing.T) {
	p, err := HubPermissions("a", nil, "hub", "default")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(p.Text(), "publish: {", `publish: { deny: ["$JS.hub.API.CONSUMER.*.EDGE_UP.>"],`, 1)
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
	var log safeLog
	o := telemetry
	o.user, o.log = url.UserPassword("a", "x"), log.logger()
	o.timing = pumpTiming{Request: 200 * time.Millisecond, Least: 5 * time.Millisecond, Most: 50 * time.Millisecond, Settle: 20 * time.Millisecond, Pull: time.Second}
	b := startBox(t, h, "a", t.TempDir(), o)
	b.putMany("telemetry", "s.x", "m", 20)
	b.drained("telemetry")
	nc := h.client(admin)
	if _, err := nc.Request("edge.up.a.telemetry.s.x", []byte("foreign"), time.Minute); err != nil {
		t.Fatal(err)
	}
	b.put("telemetry", "s.x", "last")
	b.drained("telemetry")
	if log.count("does not let this box look into its own lane") != 1 {
		t.Error("it is not told that the permissions are too narrow")
	}
}

// TestUplink_AnotherHub_crash lets a box die again and again while it sends again to
// another hub what the first one had: nothing of that is a loss.
func TestUplink_AnotherHub_crash(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	var c crashPoint
	var log safeLog
	o := telemetry
	o.fail, o.log = c.hit, log.logger()
	b := startBox(t, h, "a", t.TempDir(), o)
	b.keep("telemetry")
	b.putMany("telemetry", "s.x", "m", 700)
	b.drained("telemetry")
	b.rest()
	h.stop()
	h.dir = t.TempDir()
	h.start()
	h.init()
	for range 4 {
		c.armed.Store(true)
		b.pump(o)
		waitFor(t, "the crash", func() (bool, string) { return !c.armed.Load(), "" })
		b.rest()
	}
	b.pump(o)
	b.put("telemetry", "s.x", "last")
	b.drained("telemetry")
	waitFor(t, "the hub to have all", func() (bool, string) { n := len(h.lane("a", "telemetry")); return n >= 701, fmt.Sprint(n) })
	checkEpochs(t, h.lane("a", "telemetry"), append(run("m", 1, 700), "701:last"))
	if n := log.count(whatLost); n != 0 {
		t.Errorf("it was said %d times that the hub lost messages", n)
	}
	if s := b.lane("telemetry"); s.Lost != 0 {
		t.Errorf("lost: got %d, want 0", s.Lost)
	}
}

// TestUplink_Collect_gaps has a batch refused whose messages are far apart in the
// stream: the next ones must become smaller all the same.
func TestUplink_Collect_gaps(t *testing.T) {
	h := newTestHub(t, nil)
	h.init()
	h.gate.aim("")
	b := startBox(t, h, "a", t.TempDir(), telemetry)
	b.putMany("telemetry", "s.x", "m", 10)
	b.rest()
	l := newLane(b.pumps, "telemetry")
	if err := l.load(); err != nil {
		t.Fatal(err)
	}
	l.next, l.size = 1, 64
	// Ten messages were refused, the last of which has a far higher sequence.
	l.badEnd, l.badMost = 1<<40, 5
	for _, want := range []int{5, 2, 1, 1} {
		batch, err := l.collect(maxBatchBytes)
		if err != nil || len(batch) != want {
			t.Fatalf("got %d messages, %v, want %d", len(batch), err, want)
		}
		l.badMost = max(1, l.badMost/2)
	}
}
