package broker

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/store"
)

// testBox is a box with as little of a server as the pumps need.
type testBox struct {
	t      testing.TB
	device string
	dir    string
	db     *store.DB
	ns     *server.Server
	nc     *nats.Conn
	link   *testLink
	pumps  *pumps
	gate   *testGate
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// testLink follows the leaf connection of a plain server.
type testLink struct{ *linkState }

func (l testLink) LinkState() (bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id != 0, l.changed
}

type boxOptions struct {
	user      *url.Userinfo
	groups    []string
	machine   string
	server    string // name of the server; "" is the device id
	fail      func(string)
	streams   map[string]string // uplinked: name → filter
	local     map[string]string // not uplinked, and kept
	priority  map[string]int    // of uplinked ones
	durable   store.Durability  // of uplinked ones
	maxRate   int
	ping      time.Duration // 0 is 200 ms
	timing    pumpTiming
	log       *slog.Logger
	storeOpts store.Options
}

func openTestStore(t testing.TB, o store.Options) *store.DB {
	t.Helper()
	db, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// startBox starts a box over the store in dir.
func startBox(t testing.TB, h *testHub, device, dir string, o boxOptions) *testBox {
	t.Helper()
	o.storeOpts.Dir = dir
	b := &testBox{t: t, device: device, dir: dir, db: openTestStore(t, o.storeOpts)}
	for name := range o.streams {
		c := store.StreamConfig{Name: name, Priority: o.priority[name], Durability: o.durable}
		if o.durable == store.Batch {
			c.BatchFor = time.Hour
		}
		if err := b.db.EnsureStream(c); err != nil {
			t.Fatal(err)
		}
		if err := ensureUplink(b.db, name); err != nil {
			t.Fatal(err)
		}
	}
	for name := range o.local {
		if err := b.db.EnsureStream(store.StreamConfig{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	b.serve(h, o)
	b.pump(o)
	t.Cleanup(b.stop)
	return b
}

func (b *testBox) serve(h *testHub, o boxOptions) {
	b.t.Helper()
	link := server.NewAccount(AccountLink)
	so := &server.Options{
		ServerName: cmp.Or(o.server, b.device), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		MaxPayload: 8 << 20, DontListen: true, MaxControlLine: maxControlLine,
		Accounts: []*server.Account{link}, Users: []*server.User{{Username: "link", Password: "x", Account: link}},
		PingInterval: cmp.Or(o.ping, 200*time.Millisecond), MaxPingsOut: 2, DisableShortFirstPing: true,
	}
	u := &url.URL{Scheme: "nats-leaf", Host: h.gate.addr(), User: o.user}
	r := &server.RemoteLeafOpts{URLs: []*url.URL{u}, LocalAccount: AccountLink, IgnoreDiscoveredServers: true}
	r.Compression.Mode = server.CompressionOff // see leafRemote
	so.LeafNode.Remotes = []*server.RemoteLeafOpts{r}
	so.LeafNode.ReconnectInterval = 50 * time.Millisecond
	ns, err := server.NewServer(so)
	if err != nil {
		b.t.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(time.Minute) {
		b.t.Fatal("the box is not ready")
	}
	b.ns = ns
	b.nc, err = nats.Connect("", nats.InProcessServer(ns), nats.UserInfo("link", "x"), nats.CustomInboxPrefix(hubInbox(b.device)), nats.Timeout(time.Minute))
	if err != nil {
		b.t.Fatal(err)
	}
	b.gate = h.gate
	b.link = &testLink{newLinkState(time.Now())}
}

// pump starts the pumps over the open store.
func (b *testBox) pump(o boxOptions) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	b.wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			b.link.set((&embedded{ns: b.ns}).leafID(), time.Now())
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	t := o.timing
	if t == (pumpTiming{}) {
		t = pumpTiming{Request: 2 * time.Second, Least: 5 * time.Millisecond, Most: 100 * time.Millisecond, Settle: 20 * time.Millisecond, Pull: time.Second}
	}
	place := make(testPlace)
	maps.Copy(place, o.streams)
	maps.Copy(place, o.local)
	log := o.log
	if log == nil {
		log = testLogger(b.t)
	}
	p, err := newPumps(ctx, pumpOptions{
		Store: b.db, Conn: func() *nats.Conn { return b.nc }, Link: b.link, Device: b.device, Groups: o.groups,
		Domain: "hub", Place: place, Log: log.With("box", b.device), MachineID: func() (string, error) { return o.machine, nil },
		Failpoint: o.fail, Timing: t, MaxRate: o.maxRate,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.pumps = p
	for name := range o.streams {
		b.wg.Go(func() { p.up(ctx, name) })
	}
	b.wg.Go(func() { p.down(ctx) })
}

// rest ends the pumps and leaves the rest as it is.
func (b *testBox) rest() {
	b.cancel()
	b.wg.Wait()
}

func (b *testBox) stop() {
	if b.ns == nil {
		return
	}
	b.rest()
	b.nc.Close()
	b.ns.Shutdown()
	b.ns.WaitForShutdown()
	b.ns = nil
	b.db.Close()
}

// put stores messages 1, 2, … of a stream as they would come in.
func (b *testBox) put(stream, subject string, bodies ...string) {
	b.t.Helper()
	for _, body := range bodies {
		b.putMessage(stream, store.Message{Subject: subject, Data: []byte(body)})
	}
}

func (b *testBox) putMessage(stream string, m store.Message) {
	b.t.Helper()
	t := b.db.Begin()
	if _, err := t.Publish(stream, m); err != nil {
		b.t.Fatal(err)
	}
	if err := t.Commit(); err != nil {
		b.t.Fatal(err)
	}
}

// putMany stores n messages with bodies prefix-1, prefix-2, … in large turns.
func (b *testBox) putMany(stream, subject, prefix string, n int) {
	b.t.Helper()
	for i := 0; i < n; {
		t := b.db.Begin()
		for j := 0; j < 500 && i < n; j++ {
			i++
			if _, err := t.Publish(stream, store.Message{Subject: subject, Data: fmt.Appendf(nil, "%s-%d", prefix, i)}); err != nil {
				b.t.Fatal(err)
			}
		}
		if err := t.Commit(); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *testBox) lane(stream string) LaneStatus {
	for _, s := range b.pumps.Lanes() {
		if s.Stream == stream {
			return s
		}
	}
	return LaneStatus{}
}

// drained waits until the hub has acknowledged all of a stream.
func (b *testBox) drained(stream string) {
	b.t.Helper()
	waitFor(b.t, "the lane to drain", func() (bool, string) {
		s := b.lane(stream)
		up, _ := b.link.LinkState()
		return s.Synced && s.Acked == s.Last && s.Last > 0, fmt.Sprintf("%+v, link up %t, gate %s", s, up, b.gate)
	})
}

// testPlace puts messages into streams by filter.
type testPlace map[string]string

func (p testPlace) Covers(subject string) (string, bool) {
	var all []Stream
	for name, filter := range p {
		all = append(all, Stream{Name: name, Subjects: []string{filter}})
	}
	return newRoutes(all).stream(subject)
}

func (p testPlace) Stage(t *store.Turn, m Message) error {
	stream, _ := p.Covers(m.Subject)
	_, err := t.Publish(stream, m)
	return err
}

func waitFor(t testing.TB, what string, ok func() (bool, string)) {
	t.Helper()
	// Longer than the 30 s that nats-server keeps a leaf off which it takes for a loop.
	deadline := time.Now().Add(2 * time.Minute)
	for {
		done, state := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s: %s", what, state)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func testLogger(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// copyStore copies the store in dir, which nobody has open.
func copyStore(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	from, err := os.Open(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	f, err := os.Create(filepath.Join(to, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, from); err != nil {
		t.Fatal(err)
	}
	return to
}
