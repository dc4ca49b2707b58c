package metadata

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/logbuffer"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/store"
)

// patience is how long a test waits for what has to come.
const patience = 60 * time.Second

// hub is a NATS server with JetStream that can be stopped and started again.
type hub struct {
	t    testing.TB
	opts server.Options
	ns   *server.Server
}

func newHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{t: t, opts: server.Options{
		ServerName: "hub", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(),
	}}
	h.start()
	t.Cleanup(h.stop)
	return h
}

func (h *hub) start() {
	h.t.Helper()
	o := h.opts
	ns, err := server.NewServer(&o)
	if err != nil {
		h.t.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(patience) {
		h.t.Fatal("the hub is not ready")
	}
	h.ns, h.opts.Port, h.opts.LeafNode.Port = ns, o.Port, o.LeafNode.Port
}

func (h *hub) stop() {
	if h.ns != nil {
		h.ns.Shutdown()
		h.ns.WaitForShutdown()
		h.ns = nil
	}
}

func (h *hub) connect() *nats.Conn {
	h.t.Helper()
	nc, err := nats.Connect(h.ns.ClientURL(), nats.Timeout(patience), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(nc.Close)
	return nc
}

// bucket is that of lattice "home", which is there once somebody made it.
func (h *hub) bucket() jetstream.KeyValue {
	h.t.Helper()
	js, err := jetstream.New(h.connect(), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		h.t.Fatal(err)
	}
	var kv jetstream.KeyValue
	eventually(h.t, "the bucket is not there", func() bool {
		kv, err = js.KeyValue(h.t.Context(), "LATTICEDATA_home")
		return err == nil
	})
	return kv
}

// raw puts what another host would.
func (h *hub) raw(key, value string) {
	h.t.Helper()
	if _, err := h.bucket().Put(h.t.Context(), key, []byte(value)); err != nil {
		h.t.Fatal(err)
	}
}

// line is a connection to the hub that can be cut.
type line struct {
	mu      sync.Mutex
	up      bool
	changed chan struct{}
}

func newLine() *line { return &line{up: true, changed: make(chan struct{})} }

func (l *line) state() (bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up, l.changed
}

func (l *line) set(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = up
	close(l.changed)
	l.changed = make(chan struct{})
}

// box is a host of the lattice.
type box struct {
	*Metadata
	t    testing.TB
	dir  string
	line *line
	log  *logbuffer.Buffer
	tell chan struct{} // holds one: something changed elsewhere
	stop func()
}

// startBox runs a host. conn may be nil for one that never had a hub; change may be nil.
func startBox(t testing.TB, conn *nats.Conn, dir string, change func(*Options)) *box {
	t.Helper()
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, dir: dir, line: newLine(), log: &logbuffer.Buffer{}, tell: make(chan struct{}, 1)}
	if conn == nil {
		conn = &nats.Conn{}
		b.line.set(false)
	}
	o := Options{
		Conn: conn, Lattice: "home", Store: db, Link: b.line.state, Changed: func() { signal(b.tell) }, Logger: slog.New(slog.NewTextHandler(b.log, nil)),
		retryMin: 20 * time.Millisecond, retryMax: 200 * time.Millisecond, timeout: 2 * time.Second,
	}
	if change != nil {
		change(&o)
	}
	b.Metadata, err = New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

func newBox(t testing.TB, h *hub) *box {
	t.Helper()
	return startBox(t, h.connect(), t.TempDir(), nil)
}

func (b *box) put(l lattice.Link) {
	b.t.Helper()
	if err := b.PutLink(l); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) delete(l lattice.Link) {
	b.t.Helper()
	if err := b.DeleteLink(l); err != nil {
		b.t.Fatal(err)
	}
}

// synced waits until the hub has all.
func (b *box) synced() {
	b.t.Helper()
	eventually(b.t, "the box does not join the lattice", func() bool { return b.Status().Synced })
}

// providers are those of the links, in order of the links' names.
func (b *box) providers() string {
	var all []string
	for _, l := range b.Links() {
		all = append(all, l.Name+"="+l.Provider+values(l))
	}
	return strings.Join(all, " ")
}

func values(l lattice.Link) string {
	if len(l.Values) == 0 {
		return ""
	}
	return fmt.Sprint(l.Values)
}

// has waits until the links are as providers writes them.
func (b *box) has(want string) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("links are not %q", want), func() bool { return b.providers() == want })
}

// Keys of PROTOCOL 2.1.
const (
	actor    = "MCATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZJPUL"
	provider = "VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS"
	account  = "ACFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYYOU"
)

// link is one of actor, under a name of its own.
func link(name, provider string) lattice.Link {
	return lattice.Link{Actor: actor, Contract: "wasmcloud:keyvalue", Name: name, Provider: provider}
}

func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !done(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(what)
		}
	}
}
