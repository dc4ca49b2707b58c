package broker_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/claims"
)

// dialAs connects with the login in the URL, as kits in other languages do.
func dialAs(t *testing.T, b *box, l broker.Login, opts ...nats.Option) (*nats.Conn, error) {
	t.Helper()
	nc, err := nats.Connect(fmt.Sprintf("nats://%s:%s@%s", l.User, l.Password, b.Addr()), append(opts, nats.Timeout(patience), nats.ReconnectWait(10*time.Millisecond))...)
	if err == nil {
		t.Cleanup(nc.Close)
	}
	return nc, err
}

func TestServer_AddUser_ownSubjectsOnly(t *testing.T) {
	b := newBox(t, broker.Options{Listen: "127.0.0.1:0"}).run(t)
	l, err := b.AddUser("V1", broker.Permissions{Publish: []string{"rpc.*"}, Subscribe: []string{"rpc.V1.>", "_INBOX.>"}})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := b.ConnectLink()
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	refused := make(chan error, 16)
	nc, err := dialAs(t, b, l, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	wantRefused := func(subject string) {
		t.Helper()
		select {
		case err := <-refused:
			if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(subject)) {
				t.Errorf("%s: got error %v, want a refusal", subject, err)
			}
		case <-time.After(patience):
			t.Errorf("%s: not refused", subject)
		}
	}

	// It is called, and answers to an inbox that it may not publish to otherwise.
	if _, err := nc.QueueSubscribe("rpc.V1.default", "rpc", func(m *nats.Msg) { _ = m.Respond([]byte("pong")) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	if m, err := whole.Request("rpc.V1.default", nil, patience); err != nil || string(m.Data) != "pong" {
		t.Errorf("call of the user: got %v, %v", m, err)
	}
	// It calls others.
	if _, err := whole.Subscribe("rpc.M1", func(m *nats.Msg) { _ = m.Respond([]byte("hello")) }); err != nil {
		t.Fatal(err)
	}
	if err := whole.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	if m, err := nc.Request("rpc.M1", nil, patience); err != nil || string(m.Data) != "hello" {
		t.Errorf("call by the user: got %v, %v", m, err)
	}
	// And nothing else.
	for _, subject := range []string{"rpc.V2.default", "ctl.stop", "_INBOX.x"} {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		wantRefused(subject)
	}
	for _, subject := range []string{"rpc.V2.default", "rpc.M1", ">"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		wantRefused(subject)
	}

	if _, err := b.AddUser("V1", broker.Permissions{}); !errors.Is(err, broker.ErrUserTaken) {
		t.Errorf("second user of the name: got %v, want ErrUserTaken", err)
	}
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	b.RemoveUser("V1")
	select {
	case <-closed: // the login is refused twice, then the client gives up
	case <-time.After(patience):
		t.Error("the removed user is still there")
	}
	if _, err := dialAs(t, b, l); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("login of a removed user: got %v", err)
	}
}

func TestServer_AddUser_withoutPermissions(t *testing.T) {
	b := newBox(t, broker.Options{Listen: "127.0.0.1:0"}).run(t)
	l, err := b.AddUser("nobody", broker.Permissions{})
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 2)
	nc, err := dialAs(t, b, l, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("a", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.SubscribeSync("a"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case err := <-refused:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("got %v, want a refusal", err)
			}
		case <-time.After(patience):
			t.Fatal("it may publish or subscribe")
		}
	}
}

func TestServer_AddUser_refused(t *testing.T) {
	b := newBox(t, broker.Options{Listen: "127.0.0.1:0"}).run(t)
	for _, name := range []string{"", "a b", "a.b", "a:b", "a@b", strings.Repeat("a", 65)} {
		if _, err := b.AddUser(name, broker.Permissions{}); !errors.Is(err, broker.ErrUserName) {
			t.Errorf("user %q: got %v, want ErrUserName", name, err)
		}
	}
	for _, name := range []string{"app", "link"} {
		if _, err := b.AddUser(name, broker.Permissions{}); !errors.Is(err, broker.ErrUserTaken) {
			t.Errorf("user %q: got %v, want ErrUserTaken", name, err)
		}
		b.RemoveUser(name)
	}
	if _, err := b.AddUser("a", broker.Permissions{Publish: []string{"a..b"}}); err == nil {
		t.Error("permission a..b: got no error")
	}
	if _, err := dialAs(t, b, b.LinkLogin()); err != nil {
		t.Errorf("user of the account LINK: %v", err)
	}
	for _, l := range []broker.Login{{User: "a", Password: "x"}, {User: "link", Password: "x"}, {User: "", Password: "x"}, {User: "link"}} {
		if _, err := dialAs(t, b, l); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("login %s: got %v, want a refusal", l.User, err)
		}
	}
	if _, err := nats.Connect("nats://"+b.Addr(), nats.Token("x"), nats.Timeout(patience)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("token: got %v, want a refusal", err)
	}
}

// A program keeps its login when the server begins anew; who takes a name ends who had it.
func TestServer_PutUser(t *testing.T) {
	b := newBox(t, broker.Options{Listen: "127.0.0.1:0"}).run(t)
	l := broker.Login{User: "kept", Password: "of-the-time-before"}
	p := broker.Permissions{Subscribe: []string{"a.>"}}
	if err := b.PutUser(l, p); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	if _, err := dialAs(t, b, l, nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(closed) })); err != nil {
		t.Fatal(err)
	}
	l.Password = "another-password"
	if err := b.PutUser(l, p); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("who had the name is still there")
	}
	if _, err := dialAs(t, b, l); err != nil {
		t.Error(err)
	}
	for _, bad := range []broker.Login{{User: "link", Password: l.Password}, {User: "app", Password: l.Password}, {User: "a.b", Password: l.Password}, {User: "x", Password: "short"}} {
		if err := b.PutUser(bad, p); err == nil {
			t.Errorf("user %s was made", bad.User)
		}
	}
	if err := b.PutUser(broker.Login{User: "x", Password: l.Password}, broker.Permissions{Publish: []string{"a..b"}}); err == nil {
		t.Error("a permission that is no subject")
	}
}

// Who may read all inboxes can not read those of the box.
func TestServer_AddUser_inboxesOfTheBox(t *testing.T) {
	b := newBox(t, broker.Options{Listen: "127.0.0.1:0"}).run(t)
	l, err := b.AddUser("V1", broker.Permissions{Publish: []string{"a"}, Subscribe: []string{"_INBOX.>"}})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := dialAs(t, b, l)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("_INBOX.>")
	if err == nil {
		err = nc.FlushTimeout(patience)
	}
	if err != nil {
		t.Fatal(err)
	}
	whole, err := b.ConnectLink()
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if _, err := whole.Subscribe("a", func(m *nats.Msg) { _ = m.Respond([]byte("for the box")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := whole.Request("a", nil, patience); err != nil {
		t.Fatal(err)
	}
	if err := whole.Publish("_INBOX.other", []byte("for others")); err != nil {
		t.Fatal(err)
	}
	if m, err := sub.NextMsg(patience); err != nil || string(m.Data) != "for others" {
		t.Errorf("got %v, %v", m, err)
	}
}

// A client that takes no notice of a login in the URL logs in by token and key; one that
// sends both, too.
func TestServer_AddUser_byToken(t *testing.T) {
	b := newBox(t, broker.Options{Listen: "127.0.0.1:0"}).run(t)
	l, err := b.AddUser("V1", broker.Permissions{Publish: []string{"a"}, Subscribe: []string{"_INBOX.>"}})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := b.ConnectLink()
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if _, err := whole.Subscribe("a", func(m *nats.Msg) { _ = m.Respond(nil) }); err != nil {
		t.Fatal(err)
	}
	if err := whole.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	token, seed := claims.NATSUser(l.User, l.Password)
	foreign, stranger := claims.NATSUser(l.User, "another password")
	for name, opts := range map[string][]nats.Option{
		"token alone": {nats.UserJWTAndSeed(token, seed.Reveal())},
		"both":        {nats.UserJWTAndSeed(token, seed.Reveal()), nats.UserInfo(l.User, l.Password)},
	} {
		closed := make(chan struct{})
		nc, err := nats.Connect("nats://"+b.Addr(), append(opts, nats.Timeout(patience), nats.ReconnectWait(10*time.Millisecond), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer nc.Close()
		if _, err := nc.Request("a", nil, patience); err != nil {
			t.Errorf("%s: it is not in the account: %v", name, err)
		}
		defer func() {
			select {
			case <-closed:
			case <-time.After(patience):
				t.Errorf("%s: the removed user is still there", name)
			}
		}()
	}
	for name, o := range map[string]nats.Option{
		"another token": nats.UserJWTAndSeed(foreign, stranger.Reveal()), "another key": nats.UserJWTAndSeed(token, stranger.Reveal()),
	} {
		if _, err := nats.Connect("nats://"+b.Addr(), o, nats.Timeout(patience)); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	b.RemoveUser("V1")
}

// When the box begins to call the hub, its own connections stay, and those of programs
// that came by a key.
func TestServer_callHub_keepsConnections(t *testing.T) {
	after := make(chan struct{})
	port := freePort(t)
	startHub(t, port)
	b := newBox(t, broker.Options{Listen: "127.0.0.1:0", Hub: broker.HubOptions{URL: fmt.Sprintf("nats-leaf://127.0.0.1:%d", port), After: after}}).run(t)
	l, err := b.AddUser("V1", broker.Permissions{Publish: []string{"a"}, Subscribe: []string{"_INBOX.>"}})
	if err != nil {
		t.Fatal(err)
	}
	token, seed := claims.NATSUser(l.User, l.Password)
	for name, connect := range map[string]func(...nats.Option) (*nats.Conn, error){
		"LINK": b.ConnectLink, "APP": b.ConnectApp,
		"a stranger": func(o ...nats.Option) (*nats.Conn, error) { return nats.Connect("nats://"+b.Addr(), o...) },
		"a user": func(o ...nats.Option) (*nats.Conn, error) {
			return nats.Connect("nats://"+b.Addr(), append(o, nats.UserJWTAndSeed(token, seed.Reveal()))...)
		},
	} {
		nc, err := connect()
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		defer func() {
			if err := nc.FlushTimeout(patience); err != nil || nc.Stats().Reconnects > 0 {
				t.Errorf("%s: was cut off: %d times, %v", name, nc.Stats().Reconnects, err)
			}
		}()
	}
	close(after)
	for deadline := time.Now().Add(patience); !b.LinkUp(); {
		if time.Now().After(deadline) {
			t.Fatal("the link does not come up")
		}
		_, changed := b.LinkState()
		select {
		case <-changed:
		case <-time.After(patience):
		}
	}
}
