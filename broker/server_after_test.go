package broker_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
)

// A hub that must wait is not called, and when it is, clients that were there
// before do not notice, on either side of the accounts.
func TestServer_Hub_calledAfter(t *testing.T) {
	port := freePort(t)
	hub := startHub(t, port)
	defer hub.Shutdown()
	after := make(chan struct{})
	b := startBox(t, broker.Options{Listen: anyPort, Hub: broker.HubOptions{
		URL: fmt.Sprintf("nats-leaf://127.0.0.1:%d", port), Reconnect: 20 * time.Millisecond,
		After: after, Share: []string{"shared.>"},
	}})
	lost := make(chan error, 4)
	nc, err := nats.Connect("nats://"+b.Addr(), nats.Timeout(patience), nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { lost <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	got := make(chan *nats.Msg, 1)
	if _, err := nc.ChanSubscribe("before", got); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := hub.NumLeafNodes(); n != 0 || b.LinkUp() {
		t.Fatalf("called before it may: %d leaf nodes, link up %v", n, b.LinkUp())
	}
	_, changed := b.LinkState()
	close(after)
	await(t, "link up", changed)
	if err := nc.Publish("before", []byte("x")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-got:
	case err := <-lost:
		t.Fatalf("the client was cut off: %v", err)
	case <-time.After(patience):
		t.Fatal("a subscription made before is not served any more")
	}
	up, err := nats.Connect(hub.ClientURL(), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	shared, err := up.SubscribeSync("shared.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Flush(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; { // interest takes a moment to get here
		if err := nc.Publish("shared.a", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := shared.NextMsg(50 * time.Millisecond); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("what is shared does not reach the hub")
		}
	}
}

// A box that ends while its hub still waits to be called ends as ever.
func TestServer_Hub_neverCalled(t *testing.T) {
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := startBox(t, broker.Options{Listen: anyPort, Hub: broker.HubOptions{
		URL: "nats-leaf://" + l.Addr().String(), After: make(chan struct{}),
	}})
	if b.LinkUp() {
		t.Fatal("link is up")
	}
}

// Clients from outside are let in when what they publish to may be configured;
// until then connections inside the process are made.
func TestServer_After(t *testing.T) {
	port := freePort(t)
	after := make(chan struct{})
	b := newBox(t, broker.Options{Listen: fmt.Sprintf("127.0.0.1:%d", port), After: after})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	await(t, "up", b.Up())
	inside, err := b.ConnectApp()
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	url := fmt.Sprintf("nats://127.0.0.1:%d", port)
	if nc, err := nats.Connect(url); err == nil {
		nc.Close()
		t.Error("a client was let in before")
	}
	if b.Addr() != "" {
		t.Errorf("address %s before there is one", b.Addr())
	}
	b.configure(t, []broker.Stream{{Name: "late", Subjects: []string{"late.>"}}})
	close(after)
	await(t, "ready", b.Ready())
	nc := dial(t, url)
	if _, err := nc.Request("late.a", []byte("x"), patience); err != nil {
		t.Errorf("publish to what was configured meanwhile: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A server that ends before it lets anybody in ends as ever, and one whose address is
// taken says so.
func TestServer_After_ends(t *testing.T) {
	b := newBox(t, broker.Options{Listen: anyPort, After: make(chan struct{})})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	await(t, "up", b.Up())
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}

	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := newBox(t, broker.Options{Listen: l.Addr().String()})
	if err := taken.Run(t.Context()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("the address is taken: got %v", err)
	}
}
