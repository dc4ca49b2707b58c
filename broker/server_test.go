package broker_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/store"
)

const patience = 60 * time.Second

func openStore(t testing.TB, dir string) *store.DB {
	t.Helper()
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// box is a server that runs.
type box struct {
	*broker.Server
	db   *store.DB
	stop func() // waits for Run, once
}

// newBox makes a server on a new store, without starting it.
func newBox(t testing.TB, o broker.Options) *box {
	t.Helper()
	if o.Store == nil {
		o.Store = openStore(t, t.TempDir())
	}
	if o.Device == "" {
		o.Device = "press-7"
	}
	s, err := broker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return &box{Server: s, db: o.Store}
}

func (b *box) run(t testing.TB) *box {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }() // stop waits
	once := false
	b.stop = func() {
		if once {
			return
		}
		once = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	}
	t.Cleanup(b.stop)
	select {
	case <-b.Ready():
	case err := <-ended:
		t.Fatalf("Run ended: %v", err)
	case <-time.After(patience):
		t.Fatal("not ready")
	}
	return b
}

func startBox(t testing.TB, o broker.Options, streams ...broker.Stream) *box {
	t.Helper()
	b := newBox(t, o)
	b.configure(t, streams)
	return b.run(t)
}

func (b *box) configure(t testing.TB, streams []broker.Stream, subs ...broker.Subscription) {
	t.Helper()
	if err := b.Configure(t.Context(), streams, subs); err != nil {
		t.Fatal(err)
	}
}

func (b *box) client(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return dial(t, "nats://"+b.Addr(), opts...)
}

func dial(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, append(opts, nats.Timeout(patience))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-look.C:
		case <-end:
			t.Fatalf("in vain: %s", what)
		}
	}
}

const anyPort = "127.0.0.1:0"

func TestServer_Accounts(t *testing.T) {
	b := startBox(t, broker.Options{Listen: anyPort})
	app := b.client(t)
	login := b.LinkLogin()
	link := b.client(t, nats.UserInfo(login.User, login.Password))
	inApp, err := app.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	inLink, err := link.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	for _, nc := range []*nats.Conn{app, link} {
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for subject, nc := range map[string]*nats.Conn{"from.app": app, "from.link": link} {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for sub, want := range map[*nats.Subscription]string{inApp: "from.app", inLink: "from.link"} {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != want {
			t.Errorf("got %s, want %s", m.Subject, want)
		}
		if m, err := sub.NextMsg(50 * time.Millisecond); err == nil {
			t.Errorf("%s crossed the accounts", m.Subject)
		}
	}
	if _, err := nats.Connect("nats://"+b.Addr(), nats.UserInfo("link", "wrong"), nats.Timeout(patience)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("wrong password: got %v, want %v", err, nats.ErrAuthorization)
	}
}

func TestServer_NoListener(t *testing.T) {
	b := startBox(t, broker.Options{})
	if b.Addr() != "" {
		t.Errorf("got address %s, want none", b.Addr())
	}
	nc, err := b.ConnectApp()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("x")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("x", []byte("in process")); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(patience); err != nil {
		t.Fatal(err)
	}
}

func TestServer_Run_portTaken(t *testing.T) {
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := newBox(t, broker.Options{Listen: l.Addr().String()})
	err = b.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v, want address already in use", err)
	}
}

func TestServer_New_badOptions(t *testing.T) {
	_, err := broker.New(broker.Options{
		Device: "a b", Listen: "nowhere",
		Hub: broker.HubOptions{URL: "http://hub", Share: []string{"a.>", "a.b", ">", "x y"}},
	})
	if err == nil {
		t.Fatal("got nil")
	}
	for _, want := range []string{"no store", `device id "a b"`, `"nowhere"`, "http://hub", `"a.b" overlaps`, `share ">"`, `share "x y"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not tell %s: %v", want, err)
		}
	}
}

// startHub runs a NATS server with a leaf node port.
func startHub(t testing.TB, port int) *server.Server {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true}
	o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", port
	ns, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	if !ns.ReadyForConnections(patience) {
		t.Fatal("hub not ready")
	}
	return ns
}

// freePort returns a port that nobody listens on.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
