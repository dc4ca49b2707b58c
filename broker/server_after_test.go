package broker_test

import (
	"fmt"
	"net"
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
	nc, err := nats.Connect("nats://"+b.Addr(), nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { lost <- err }))
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
	up, err := nats.Connect(hub.ClientURL())
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
