package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// downMessages is how many messages wait for a box that was away: 10,000 in make
// crash.
func downMessages(t *testing.T) int {
	s := os.Getenv("EDGED_DOWN_MESSAGES")
	if s == "" {
		return 1200
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1000 {
		t.Fatalf("EDGED_DOWN_MESSAGES %q: must be a number from 1000 on", s)
	}
	return n
}

// Messages wait for a box that is away. It comes back and is killed again and again
// while it takes them, and in the middle of that another, empty hub takes the place of
// the first: each message is handled once, in order per subject.
func TestDownlink_killsAndAnotherHub(t *testing.T) {
	t.Run("copied", func(t *testing.T) { downlinkDrill(t, true) })
	t.Run("empty", func(t *testing.T) { downlinkDrill(t, false) })
}

// downlinkDrill is the test; copied says that somebody publishes on the second hub
// what the first one had, all of it, with the header that says so.
func downlinkDrill(t *testing.T, copied bool) {
	d := &downDrill{t: t, r: seeded(t), h: newHub(t), next: make(map[string]int)}
	d.line = newProxy(t, d.h.leafAddr())
	d.b = newBox(t, "press-7", d.line.addr()).warm()
	d.b.install(app{version: "1", module: built.counter1})
	const first = 60
	n := downMessages(t)
	d.b.up()
	d.send(first)
	d.b.drained("telemetry")
	d.b.kill() // it is away
	d.send(n)
	for range max(1, n/3000) {
		d.lives("downlink-before-ack:2", "store-before-sync:9", "deliver-before-commit:40", "store-after-sync:25")
	}
	d.line.aim("")
	d.b.up()
	taken := d.b.status().stream("telemetry").Last
	d.b.kill()
	t.Logf("the box has %d of %d when the hub is replaced", taken, len(d.sent))
	if taken <= first || taken >= len(d.sent) {
		t.Errorf("the hub was not replaced in the middle")
	}
	d.replaceHub(taken, copied)
	d.send(n / 4)
	d.lives("deliver-after-commit:30", "downlink-before-ack:1")
	d.b.up()
	d.handled()
	d.h.proves(d.b, uplinked...)
	d.b.kill()
}

// downDrill is what takes part, and what was sent for the box so far.
type downDrill struct {
	t    *testing.T
	r    *rand.Rand
	h    *hub
	line *proxy
	b    *box
	sent []reading
	next map[string]int // sensor → number of its last message
}

// send has the hub keep n messages for the box.
func (d *downDrill) send(n int) {
	d.t.Helper()
	js := d.h.js()
	var acks []jetstream.PubAckFuture
	for range n {
		s := fmt.Sprintf("s%d", d.r.IntN(sensors))
		d.next[s]++
		body := fmt.Sprintf(`{"n":%d}`, d.next[s])
		d.sent = append(d.sent, reading{s, fmt.Sprintf("%s-%d", s, d.next[s]), "sensors/" + s + "/temperature", body})
		ack, err := js.PublishAsync("edge.down.device.press-7.sensors."+s+".temperature", []byte(body))
		if err != nil {
			d.t.Fatal(err)
		}
		acks = append(acks, ack)
	}
	for _, a := range acks {
		select {
		case <-a.Ok():
		case err := <-a.Err():
			d.t.Fatal(err)
		case <-time.After(patience):
			d.t.Fatal("the hub does not acknowledge what is for the box")
		}
	}
}

// lives starts the box once for each point, where it kills itself.
func (d *downDrill) lives(points ...string) {
	d.t.Helper()
	for _, point := range points {
		p := d.b.start("EDGED_FAILPOINT=" + point)
		eventually(d.t, "the box comes to "+point, func() (bool, string) {
			select {
			case <-p.exited:
				return true, ""
			default:
				return false, "it runs on"
			}
		})
		d.b.wasKilled(p)
	}
}

// replaceHub puts an empty hub in the place of the first.
func (d *downDrill) replaceHub(taken int, copied bool) {
	d.t.Helper()
	ctx := d.t.Context()
	js := d.h.js()
	stream, err := js.Stream(ctx, "EDGE_DOWN")
	if err != nil {
		d.t.Fatal(err)
	}
	info := stream.CachedInfo()
	if !copied {
		d.h.replace()
		// What the box had not taken is gone with the hub.
		d.sent = d.sent[:taken]
		d.next = make(map[string]int)
		for _, m := range d.sent {
			d.next[m.sensor]++
		}
		d.line.aim(d.h.leafAddr())
		return
	}
	var old []*nats.Msg
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if err != nil {
			d.t.Fatal(err)
		}
		origin := info.Created.UTC().Format(time.RFC3339Nano) + "/" + strconv.FormatUint(seq, 10)
		old = append(old, &nats.Msg{Subject: m.Subject, Header: nats.Header{"Edged-Origin": {origin}}, Data: m.Data})
	}
	d.h.replace()
	js = d.h.js()
	for _, m := range old {
		if _, err := js.PublishMsgAsync(m); err != nil {
			d.t.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(patience):
		d.t.Fatal("the hub does not acknowledge the copies")
	}
	d.line.aim(d.h.leafAddr())
}

// handled waits until the actor has all, and compares what it noted.
func (d *downDrill) handled() {
	d.t.Helper()
	d.b.drained("telemetry")
	var keys []string
	for s := range d.next {
		keys = append(keys, "sensor:"+s)
	}
	var got map[string]string
	came, _ := comes(func() (bool, string) {
		got = d.b.report(keys...)
		for s, n := range d.next {
			if got["sensor:"+s] != fmt.Sprintf("%d %d", n, n) {
				return false, ""
			}
		}
		return true, ""
	})
	if !came {
		for s, n := range d.next {
			if state := got["sensor:"+s]; state != fmt.Sprintf("%d %d", n, n) {
				d.t.Errorf("sensor %s: the actor counted %q, want %d and nothing odd", s, state, n)
			}
		}
	}
	if last := d.b.status().stream("telemetry").Last; last != len(d.sent) {
		d.t.Errorf("the box stored %d messages, %d were sent", last, len(d.sent))
	}
}
