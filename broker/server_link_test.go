package broker_test

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
)

func TestServer_Link_comesAndGoes(t *testing.T) {
	port := freePort(t)
	b := startBox(t, broker.Options{Listen: anyPort, Hub: broker.HubOptions{
		URL: fmt.Sprintf("nats-leaf://127.0.0.1:%d", port), Reconnect: 20 * time.Millisecond,
	}})
	if b.LinkUp() {
		t.Fatal("link is up without a hub")
	}
	for range 2 {
		_, changed := b.LinkState()
		hub := startHub(t, port)
		await(t, "link up", changed)
		up, changed := b.LinkState()
		if !up {
			t.Fatal("changed, but not up")
		}
		hub.Shutdown()
		hub.WaitForShutdown()
		await(t, "link down", changed)
		if b.LinkUp() {
			t.Fatal("changed, but not down")
		}
	}
	if got := b.Stats().Downs; got != 2 {
		t.Errorf("got %d downs, want 2", got)
	}
}

func await(t testing.TB, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatalf("in vain: %s", what)
	}
}

// proxy forwards connections until it is told to swallow what they carry.
type proxy struct {
	l      net.Listener
	target string

	mu    sync.Mutex // guards swallow
	black bool
}

func (p *proxy) serve() {
	for {
		a, err := p.l.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", p.target)
		if err != nil {
			a.Close()
			continue
		}
		go p.copy(a, b)
		go p.copy(b, a)
	}
}

func (p *proxy) copy(to io.WriteCloser, from io.Reader) {
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		black := p.black
		p.mu.Unlock()
		if !black {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}

func TestServer_Link_blackHole(t *testing.T) {
	port := freePort(t)
	startHub(t, port)
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &proxy{l: l, target: fmt.Sprintf("127.0.0.1:%d", port)}
	go p.serve() // ends with the listener
	b := startBox(t, broker.Options{Listen: anyPort, Hub: broker.HubOptions{
		URL: "nats-leaf://" + l.Addr().String(), Reconnect: 20 * time.Millisecond, Ping: 50 * time.Millisecond,
	}})
	eventually(t, "link up", b.LinkUp)
	p.mu.Lock()
	p.black = true
	p.mu.Unlock()
	eventually(t, "black hole is noticed", func() bool { return !b.LinkUp() })
}

// TestServer_Share has two boxes and the hub: a shared subject crosses, once, and
// no other does.
func TestServer_Share(t *testing.T) {
	port := freePort(t)
	hub := startHub(t, port)
	o := broker.Options{Listen: anyPort, Hub: broker.HubOptions{
		URL: fmt.Sprintf("nats-leaf://127.0.0.1:%d", port), Reconnect: 20 * time.Millisecond, Share: []string{"plant.>"},
	}}
	o.Device = "one"
	one := startBox(t, o)
	o.Device = "two"
	two := startBox(t, o)
	eventually(t, "links up", func() bool { return one.LinkUp() && two.LinkUp() })

	clients := map[string]*nats.Conn{"one": one.client(t), "two": two.client(t), "hub": dial(t, hub.ClientURL())}
	subs := make(map[string]*nats.Subscription)
	for name, nc := range clients {
		sub, err := nc.SubscribeSync(">")
		if err != nil {
			t.Fatal(err)
		}
		subs[name] = sub
		if _, err := nc.Subscribe("plant.ask."+name, func(m *nats.Msg) { m.Respond([]byte(name)) }); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	// Interest needs a moment to travel.
	for from, nc := range clients {
		for to, sub := range subs {
			eventually(t, from+" reaches "+to, func() bool {
				if err := nc.Publish("plant.warm", nil); err != nil {
					t.Fatal(err)
				}
				_, err := sub.NextMsg(20 * time.Millisecond)
				return err == nil
			})
		}
	}
	settle(t, subs)
	for from, nc := range clients {
		if err := nc.Publish("private.of."+from, nil); err != nil {
			t.Fatal(err)
		}
		if err := nc.Publish("plant.from."+from, nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, got := range settle(t, subs) {
		for from := range clients {
			if n := got["plant.from."+from]; n != 1 {
				t.Errorf("%s got what %s shared %d times, want once", name, from, n)
			}
			if n := got["private.of."+from]; from != name && n != 0 {
				t.Errorf("%s got what %s did not share", name, from)
			}
		}
	}
	for _, name := range []string{"one", "two"} {
		m, err := clients["hub"].Request("plant.ask."+name, nil, patience)
		if err != nil || string(m.Data) != name {
			t.Errorf("ask %s from the hub: %v", name, err)
		}
	}
}

// settle returns what each subscription got, by subject, when nothing more comes.
func settle(t *testing.T, subs map[string]*nats.Subscription) map[string]map[string]int {
	t.Helper()
	all := make(map[string]map[string]int)
	for name, sub := range subs {
		all[name] = make(map[string]int)
		for {
			m, err := sub.NextMsg(200 * time.Millisecond)
			if err != nil {
				break
			}
			all[name][m.Subject]++
		}
	}
	return all
}
