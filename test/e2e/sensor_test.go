package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// reading is a message of a sensor.
type reading struct{ sensor, id, topic, body string }

const sensors = 8

// readings makes n of them for eight sensors in turn. They are structured
// CloudEvents with ids of their own, but for the first sensor's, which only the
// packet identifier can tell from a repeat.
func readings(r *rand.Rand, n int) []reading {
	all := make([]reading, n)
	for i := range all {
		sensor, k := fmt.Sprintf("s%d", i%sensors), i/sensors+1
		id := fmt.Sprintf("%s-%d", sensor, k)
		data := fmt.Sprintf(`{"n":%d,"celsius":%.2f,"pad":"%s"}`, k, 60*r.Float64(), strings.Repeat("x", r.IntN(300)))
		body := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/sensors/%s","type":"reading","data":%s}`, id, sensor, data)
		if sensor == "s0" {
			body = data
		}
		all[i] = reading{sensor, id, "sensors/" + sensor + "/temperature", body}
	}
	return all
}

// publisher is an MQTT client with a session. It sends readings in order with QoS
// 1, as far as it is allowed, and keeps each until it is acknowledged, through
// every loss of the connection, to send it again under its packet identifier.
type publisher struct {
	t      *testing.T
	addr   func() string // of the broker; "" while it is not there
	all    []reading
	window int
	flash  flash
	wake   chan struct{} // one token: something has changed

	mu      sync.Mutex // guards all below
	allowed int        // how many may have been sent
	next    int        // the first that was not
	known   bool       // the broker has said that it keeps the session
	lives   int        // connections
}

func newPublisher(t *testing.T, addr func() string, all []reading, window int) *publisher {
	p := &publisher{t: t, addr: addr, all: all, window: window, wake: make(chan struct{}, 1)}
	p.flash.changed = p.poke
	return p
}

func (p *publisher) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// allow lets n more messages be sent.
func (p *publisher) allow(n int) {
	p.mu.Lock()
	p.allowed = min(len(p.all), p.allowed+n)
	p.mu.Unlock()
	p.poke()
}

// state returns how many messages were acknowledged, and how many may be sent.
func (p *publisher) state() (acked, allowed int) {
	kept := p.flash.len()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next - kept, p.allowed
}

// sent returns how many messages were sent or may be.
func (p *publisher) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.allowed
}

// caughtUp says whether all that may be sent is acknowledged.
func (p *publisher) caughtUp() (bool, string) {
	acked, allowed := p.state()
	return acked == allowed, fmt.Sprintf("%d of %d acknowledged", acked, allowed)
}

// run sends until the test ends.
func (p *publisher) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = p.session(ctx) // whatever it was, a sensor tries again
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	p.t.Cleanup(func() { cancel(); wg.Wait() })
}

// session is one connection. What was not acknowledged in the ones before goes
// first, in its order; nothing new is sent until all of that has been.
func (p *publisher) session(ctx context.Context) error {
	lost := make(chan struct{})
	o := paho.NewClientOptions().AddBroker("tcp://broker:1883").SetClientID("sensors").SetCleanSession(false)
	o.SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(10 * time.Second).SetWriteTimeout(2 * time.Second)
	o.SetStore(&p.flash).SetProtocolVersion(4)
	o.SetConnectionLostHandler(func(paho.Client, error) { close(lost) })
	o.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		addr := p.addr()
		if addr == "" {
			return nil, errors.New("the broker is not there")
		}
		return net.DialTimeout("tcp", addr, 5*time.Second)
	})
	c := paho.NewClient(o)
	token := c.Connect().(*paho.ConnectToken)
	<-token.Done() // after the kept messages were sent again
	if err := token.Error(); err != nil {
		return err
	}
	defer c.Disconnect(100)
	p.mu.Lock()
	p.lives++
	forgot := p.known && !token.SessionPresent()
	p.known = true
	p.mu.Unlock()
	if forgot {
		p.t.Errorf("the broker has forgotten the session")
	}
	for again := true; ; {
		again = again && p.flash.len() > 0
		if again || !p.mayPublish() {
			select {
			case <-p.wake:
				continue
			case <-lost:
				return errors.New("connection lost")
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if !p.publish(c) {
			return errors.New("not published")
		}
	}
}

func (p *publisher) mayPublish() bool {
	kept := p.flash.len()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next < p.allowed && kept < p.window
}

// publish sends the next message; false says that this connection takes no more.
func (p *publisher) publish(c paho.Client) bool {
	p.mu.Lock()
	m := p.all[p.next]
	p.mu.Unlock()
	before := p.flash.taken()
	token := c.Publish(m.topic, 1, false, m.body)
	if p.flash.taken() == before {
		return false // it was not kept, and so not sent
	}
	p.mu.Lock()
	p.next++
	p.mu.Unlock()
	select {
	case <-token.Done():
		return token.Error() == nil
	default:
		return true
	}
}

// flash is the memory of a sensor: what it has sent and what was not
// acknowledged, in order, from one paho client to the next.
type flash struct {
	changed func()

	mu      sync.Mutex // guards all below
	keys    []string
	packets map[string]packets.ControlPacket
	puts    int
}

func (f *flash) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.keys)
}

func (f *flash) taken() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.puts
}

// Put keeps a packet; Open, Close and Reset change nothing.
func (f *flash) Put(key string, m packets.ControlPacket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.packets == nil {
		f.packets = make(map[string]packets.ControlPacket)
	}
	if f.packets[key] == nil {
		f.keys = append(f.keys, key)
	}
	f.packets[key] = m
	f.puts++
}

// Get returns a copy: what an earlier client sent may still be on its way out.
func (f *flash) Get(key string) packets.ControlPacket {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, ok := f.packets[key].(*packets.PublishPacket); ok {
		c := *m
		return &c
	}
	return f.packets[key]
}

func (f *flash) All() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.keys)
}

func (f *flash) Del(key string) {
	f.mu.Lock()
	delete(f.packets, key)
	f.keys = slices.DeleteFunc(f.keys, func(k string) bool { return k == key })
	f.mu.Unlock()
	f.changed()
}

func (f *flash) Open()  {}
func (f *flash) Close() {}
func (f *flash) Reset() {}
