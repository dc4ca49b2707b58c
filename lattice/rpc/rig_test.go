package rpc_test

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/rpc"
	"github.com/edged-io/edged/lattice/wire"
)

// patience is how long a test waits for what has to come.
const patience = 60 * time.Second

// startServer runs a NATS server in this process.
func startServer(t testing.TB, change func(*server.Options)) string {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir()}
	if change != nil {
		change(o)
	}
	return newServer(t, o).ClientURL()
}

func newServer(t testing.TB, o *server.Options) *server.Server {
	t.Helper()
	ns, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(patience) {
		t.Fatal("server is not ready")
	}
	return ns
}

func connect(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func seed(t testing.TB, kind claims.Kind) claims.Seed {
	t.Helper()
	s, err := claims.Generate(kind)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newKey(t testing.TB, kind claims.Kind) string { return seed(t, kind).Key().String() }

// box is a host of the lattice.
type box struct {
	*rpc.Lattice
	bus     *lattice.Bus
	conn    *nats.Conn
	cluster claims.Seed
	host    string
	stop    func()
}

// startBox runs a host; change may be nil.
func startBox(t testing.TB, url string, change func(*rpc.Options)) *box {
	t.Helper()
	host := seed(t, claims.Server)
	o := rpc.Options{
		Conn: connect(t, url), Lattice: "home", Host: host.Key(), Cluster: seed(t, claims.Cluster), Bus: lattice.NewBus(),
		Timeout: patience, Now: time.Now,
	}
	if change != nil {
		change(&o)
	}
	l, err := rpc.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	b := &box{Lattice: l, bus: o.Bus, conn: o.Conn, cluster: o.Cluster, host: host.Key().String()}
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
	})
	t.Cleanup(b.stop)
	b.settle(t)
	return b
}

// settle returns when Run has begun, and the server knows what is served.
func (b *box) settle(t testing.TB) {
	t.Helper()
	key := newKey(t, claims.Module)
	b.bus.Replace(lattice.Entity{Key: key}, echo)
	for deadline := time.Now().Add(patience); ; {
		_, err := b.conn.Request(wire.ActorSubject("home", key), nil, patience)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("actor is not served: %v", err)
		}
	}
	b.bus.Remove(lattice.Entity{Key: key})
}

// serve lets the box serve an actor, and returns its key.
func (b *box) serve(t testing.TB, h lattice.Handler) string {
	t.Helper()
	key := newKey(t, claims.Module)
	b.serveAs(t, key, h)
	return key
}

func (b *box) serveAs(t testing.TB, key string, h lattice.Handler) {
	t.Helper()
	b.bus.SetGrant(key, lattice.Grant{Signed: true, Contracts: []string{"wasmcloud:httpserver"}})
	b.bus.Replace(lattice.Entity{Key: key}, h)
	if err := b.conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func echo(_ context.Context, inv lattice.Invocation) ([]byte, error) {
	return append([]byte(inv.Operation+" "), inv.Payload...), nil
}

// signed is an invocation of an actor, as its cluster signs it.
func (b *box) signed(t testing.TB, actor string, payload []byte, change func(*wire.Invocation)) wire.Invocation {
	t.Helper()
	i := wire.Invocation{
		Origin: wire.Entity{Key: newKey(t, claims.Module)}, Target: wire.Entity{Key: actor}, Operation: "A.B",
		Payload: payload, Length: uint64(len(payload)), ID: rand.Text(), Host: newKey(t, claims.Server),
	}
	if change != nil {
		change(&i)
	}
	if err := wire.Sign(&i, payload, b.cluster); err != nil {
		t.Fatal(err)
	}
	return i
}

// ask sends an envelope to an actor and returns the answer.
func (b *box) ask(t testing.TB, actor string, envelope []byte) wire.Response {
	t.Helper()
	m, err := b.conn.Request(wire.ActorSubject("home", actor), envelope, patience)
	if err != nil {
		t.Fatal(err)
	}
	r, err := wire.DecodeResponse(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
