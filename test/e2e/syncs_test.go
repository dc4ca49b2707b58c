package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
)

// Turns that come together share their syncs. A stream that nobody reads shows
// what publishing alone costs.
func TestTurns_syncs(t *testing.T) {
	b := newBox(t, "press-7", "").warm()
	b.install(app{version: "1"})
	trace := filepath.Join(b.dir, "trace")
	// The tracer is a grandchild, so that the box is ours to kill, and it stops the
	// box at nothing but syncs.
	b.wrap = []string{program(t, "strace"), "-D", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e", "trace=" + strings.Join(syncs, ","), "-o", trace}
	b.up()

	const turns = 2000
	n := b.syncsOf(trace, func() { b.request(256, turns) })
	t.Logf("2,000 turns of 256 publishers: %d syncs", n)
	if n > 100 {
		t.Errorf("%d syncs for %d turns of 256 publishers, at most 100", n, turns)
	}

	n = b.syncsOf(trace, func() { b.request(1, 500) })
	t.Logf("500 turns of one publisher: %d syncs, %.2f each", n, float64(n)/500)
	if n > 500*21/10 {
		t.Errorf("%d syncs for 500 turns of one publisher, at most 2.1 each", n)
	}

	all := readings(seeded(t), turns)
	s := newPublisher(t, func() string { return b.addresses().MQTT }, all, 64)
	s.run()
	feed(t, s, 1) // with its session
	n = b.syncsOf(trace, func() { feed(t, s, turns) })
	t.Logf("2,000 messages of an MQTT client with 64 in flight: %d syncs", n)
	if n > turns/8 {
		t.Errorf("%d syncs for %d messages of an MQTT client with 64 in flight, at most %d", n, turns, turns/8)
	}
	if last, want := b.status().stream("telemetry").Last, turns+500+turns; last != want {
		t.Errorf("%d messages stored, want %d", last, want)
	}
	b.kill()
}

// request publishes n messages from so many publishers, each of which waits for
// its answer before it goes on.
func (b *box) request(publishers, n int) {
	b.t.Helper()
	var conns []*nats.Conn // a reader for each publisher would only measure the test
	for range min(publishers, 8) {
		conns = append(conns, b.nats())
	}
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := p; i < n; i += publishers {
				m, err := conns[p%len(conns)].Request("sensors.x.temperature", fmt.Appendf(nil, `{"n":%d}`, i), patience)
				if err != nil || !strings.HasPrefix(string(m.Data), `{"stream":"telemetry","seq":`) {
					b.t.Errorf("message %d: answer %v, %v", i, m, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// syncs are the system calls that bring bytes to disk.
var syncs = []string{"fsync", "fdatasync", "sync_file_range", "msync", "sync", "syncfs"}

var syncLine = regexp.MustCompile(`(?m)^\d+ +(` + strings.Join(syncs, "|") + `)\(`)

// syncsOf returns how many syncs the box has begun meanwhile.
func (b *box) syncsOf(trace string, do func()) int {
	b.t.Helper()
	count := func() int {
		text, err := os.ReadFile(trace)
		if err != nil {
			b.t.Fatal(err)
		}
		return len(syncLine.FindAll(text, -1))
	}
	before := count()
	do()
	n := count() - before
	if n == 0 {
		b.t.Error("no sync at all: is it traced?")
	}
	return n
}
