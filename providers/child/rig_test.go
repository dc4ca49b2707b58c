package child_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/rpc"
	"github.com/edged-io/edged/providers/child"
)

// patience is how long a test waits for what has to come.
const patience = 60 * time.Second

// users are those of the server in the tests. The box comes without a login.
type users struct {
	mu    sync.Mutex
	known map[string]*server.User
}

func (u *users) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	u.mu.Lock()
	known := u.known[o.Username]
	u.mu.Unlock()
	if o.Username == "" || known != nil && known.Password == o.Password {
		if known == nil {
			known = &server.User{}
		}
		c.RegisterUser(known)
		return true
	}
	return false
}

func (u *users) PutUser(name, password string, publish, subscribe []string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.known[name] = &server.User{Username: name, Password: password, Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe},
		Response: &server.ResponsePermission{MaxMsgs: 64, Expires: time.Minute},
	}}
	return nil
}

func (u *users) RemoveUser(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.known, name)
}

func (u *users) names() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.namesLocked()
}

func (u *users) namesLocked() []string { return slices.Sorted(maps.Keys(u.known)) }

// logged is a log that a test reads.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// box is a host with providers.
type box struct {
	*child.Manager
	t       testing.TB
	bus     *lattice.Bus
	users   *users
	cluster claims.Seed
	dir     string
	log     *logged
	conn    *nats.Conn
	stop    func()
	account claims.Seed // that signs archives which are trusted

	mu      sync.Mutex
	changes []child.Status
}

// newBox makes a box that does not run yet; change may be nil.
func newBox(t testing.TB, change func(*child.Options)) *box {
	t.Helper()
	u := &users{known: map[string]*server.User{}}
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, CustomClientAuthentication: u,
	})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(patience) {
		t.Fatal("server is not ready")
	}
	conn, err := nats.Connect(ns.ClientURL(), nats.CustomInboxPrefix("edge.rpc.home.box"), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	b := &box{
		t: t, bus: lattice.NewBus(), users: u, cluster: seed(t, claims.Cluster), dir: t.TempDir(), log: &logged{}, conn: conn,
		account: seed(t, claims.Account), stop: func() {},
	}
	host := seed(t, claims.Server)
	l, err := rpc.New(rpc.Options{Conn: conn, Lattice: "home", Host: host.Key(), Cluster: b.cluster, Bus: b.bus, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	run(t, l.Run)
	o := child.Options{
		Conn: conn, Lattice: "home", Host: host.Key(), Cluster: b.cluster, Bus: b.bus, Call: l.Call, Users: u, Trust: l,
		URL: ns.ClientURL, Inbox: "edge.rpc.home.box", Dir: b.dir, Timeout: patience, Logger: slog.New(slog.NewTextHandler(b.log, nil)),
		Admit: func(_ context.Context, _ string, check func(claims.Policy) error) error {
			return check(claims.Policy{Issuers: []claims.Key{b.account.Key()}})
		},
		Changed: func(s child.Status) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.changes = append(b.changes, s)
		},
	}
	if change != nil {
		change(&o)
	}
	if b.Manager, err = child.New(o); err != nil {
		t.Fatal(err)
	}
	b.Hasten()
	return b
}

// startBox makes a box that runs.
func startBox(t testing.TB, change func(*child.Options)) *box {
	t.Helper()
	b := newBox(t, change)
	b.stop = run(t, b.Manager.Run)
	b.until("running", b.Runs)
	return b
}

// run runs a part until stop is called, at the latest at the end of the test.
func run(t testing.TB, part func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	stop = sync.OnceFunc(func() {
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
	t.Cleanup(stop)
	return stop
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

// until waits for a condition.
func (b *box) until(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			b.t.Fatalf("not %s; providers %+v\n%s", what, b.Running(), b.log)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// status is that of the one provider there is.
func (b *box) status() child.Status {
	b.t.Helper()
	all := b.Running()
	if len(all) != 1 {
		b.t.Fatalf("providers %+v, want one", all)
	}
	return all[0]
}

// start starts a provider that behaves so, and returns its key.
func (b *box) start(behaviour string, change func(*child.Spec)) string {
	b.t.Helper()
	s := child.Spec{Key: newKey(b.t, claims.Service), Contract: "acme:test", Name: behaviour, Program: program(b.t, behaviour)}
	if change != nil {
		change(&s)
	}
	if err := b.Start(b.t.Context(), s); err != nil {
		b.t.Fatal(err)
	}
	return s.Key
}

// link links an actor with the provider, and returns the actor's key.
func (b *box) link(provider string, values map[string]string) lattice.Link {
	b.t.Helper()
	l := lattice.Link{Actor: newKey(b.t, claims.Module), Contract: "acme:test", Name: "default", Provider: provider, Values: values}
	b.bus.SetGrant(l.Actor, lattice.Grant{Signed: true, Contracts: []string{"acme:test"}})
	b.bus.Replace(lattice.Entity{Key: l.Actor}, func(_ context.Context, inv lattice.Invocation) ([]byte, error) {
		return append([]byte("actor got "), inv.Payload...), nil
	})
	b.put(l)
	return l
}

// linked waits until the provider knows of a link.
func (b *box) linked(l lattice.Link) {
	b.t.Helper()
	b.until("linked", func() bool { return b.values(l)[l.Actor] == l.Values["n"] })
}

func (b *box) put(l lattice.Link) {
	b.t.Helper()
	b.bus.PutLink(l)
	if err := b.PutLink(l); err != nil {
		b.t.Fatal(err)
	}
}

// call calls an operation as the actor of a link.
func (b *box) call(l lattice.Link, operation, payload string) (string, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	reply, err := b.bus.HostCall(ctx, l.Actor, l.Name, l.Contract, operation, []byte(payload))
	return string(reply), err
}

func (b *box) ask(l lattice.Link, operation, payload string) string {
	b.t.Helper()
	reply, err := b.call(l, operation, payload)
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", operation, err, b.log)
	}
	return reply
}

// values are those of the links that the provider has, by actor.
func (b *box) values(l lattice.Link) map[string]string {
	b.t.Helper()
	var links map[string]struct {
		Values map[string]string `json:"values"`
	}
	if err := json.Unmarshal([]byte(b.ask(l, "Test.Links", "")), &links); err != nil {
		b.t.Fatal(err)
	}
	all := make(map[string]string)
	for actor, l := range links {
		all[actor] = l.Values["n"]
	}
	return all
}

func (b *box) states() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, s := range b.changes {
		if n := len(all); n == 0 || all[n-1] != string(s.State) {
			all = append(all, string(s.State))
		}
	}
	return strings.Join(all, " ")
}
