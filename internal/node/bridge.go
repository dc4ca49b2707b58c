package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/store"
)

// bridges are the clients of brokers elsewhere that apps ask for. They run while
// bridges.run does, each until its source is gone or another one.
type bridges struct {
	log *slog.Logger

	mu      sync.Mutex // guards all below
	ctx     context.Context
	wg      sync.WaitGroup
	want    map[string]bridge
	runs    map[string]runningBridge
	leaving map[string]running // by session
}

// bridge says how to make a client.
type bridge struct {
	source  any    // two clients of equal sources are the same
	session string // by which the broker knows the client
	client  func() (bridgeClient, error)
	leave   func(context.Context) error // ends the session; nobody is connected with it then
	health  func(error)
}

type bridgeClient interface {
	Run(context.Context) error
}

// running is something that can be stopped, and waited for.
type running struct {
	stop context.CancelFunc
	done chan struct{}
}

func (r running) end() {
	r.stop()
	<-r.done
}

type runningBridge struct {
	bridge
	running
}

// run lets the bridges run until ctx ends.
func (b *bridges) run(ctx context.Context) error {
	b.mu.Lock()
	b.ctx = ctx
	b.settle()
	b.mu.Unlock()
	<-ctx.Done()
	b.mu.Lock()
	b.ctx = nil
	b.mu.Unlock()
	b.wg.Wait()
	return nil
}

// set makes want the bridges. One whose source did not change is not touched.
// between runs when those that are to end have, and before new ones start.
func (b *bridges) set(want map[string]bridge, between func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.want = want
	b.stop()
	between()
	b.settle()
}

// stop ends the clients that are not wanted as they are. Call it with b.mu held.
func (b *bridges) stop() {
	if b.ctx == nil {
		return
	}
	for name, r := range b.runs {
		if w, ok := b.want[name]; ok && reflect.DeepEqual(w.source, r.source) && !r.ended() {
			continue
		}
		r.end()
		r.health(nil)
		delete(b.runs, name)
		if !b.wanted(r.session) {
			b.leave(r.bridge)
		}
	}
}

// settle starts clients, after stop. A session has one client at a time, so the
// old one has ended before the new one connects. Call it with b.mu held.
func (b *bridges) settle() {
	if b.ctx == nil {
		return
	}
	if b.runs == nil {
		b.runs, b.leaving = make(map[string]runningBridge), make(map[string]running)
	}
	for name, w := range b.want {
		if _, ok := b.runs[name]; ok {
			continue
		}
		if l, ok := b.leaving[w.session]; ok {
			l.end()
			delete(b.leaving, w.session)
		}
		client, err := w.client()
		if err != nil {
			w.health(err)
			continue
		}
		b.runs[name] = runningBridge{w, b.start(func(ctx context.Context) {
			if err := client.Run(ctx); err != nil && ctx.Err() == nil {
				w.health(err)
			}
		})}
	}
}

// start lets fn run until it is stopped, or the bridges are.
func (b *bridges) start(fn func(context.Context)) running {
	ctx, stop := context.WithCancel(b.ctx)
	r := running{stop, make(chan struct{})}
	b.wg.Go(func() {
		defer close(r.done)
		fn(ctx)
	})
	return r
}

// ended says whether the client gave up.
func (r running) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (b *bridges) wanted(session string) bool {
	for _, w := range b.want {
		if w.session == session {
			return true
		}
	}
	return false
}

// leaveBudget is how long the box tries to end a session that is not wanted any
// more. A broker that is away for longer keeps it, and what it has for the box,
// by its own rules.
const leaveBudget = time.Minute

// leave ends the session of a client that is gone for good.
func (b *bridges) leave(old bridge) {
	b.leaving[old.session] = b.start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, leaveBudget)
		defer cancel()
		for wait := time.Second; ; wait *= 2 {
			err := old.leave(ctx)
			if err == nil {
				b.log.Info("session at a broker ended, since no app wants it", "session", old.session)
				return
			}
			select {
			case <-time.After(wait/2 + rand.N(wait)):
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					b.log.Warn("broker keeps a session that no app wants, end it there", "session", old.session, "err", err)
				}
				return
			}
		}
	})
}

// setBridges makes the clients those of the apps.
func (n *Node) setBridges(ctx context.Context, s appSet) {
	want := make(map[string]bridge)
	receives := make(map[string]bool) // names of sources that have a client
	// A queue has one client on the box: its messages are shared out again from
	// the inbox. The others may still publish.
	part := func(src config.Elsewhere) (receive, any bool) {
		receive = len(src.Filters) > 0 && !receives[src.Name]
		receives[src.Name] = receives[src.Name] || receive
		return receive, receive || src.Outlet != nil
	}
	for _, a := range s.sorted() {
		for _, src := range a.config.MQTT {
			if receive, any := part(src.Elsewhere); any {
				want[src.ID] = n.mqttBridge(a.config.Name, src, receive)
			}
		}
		for _, src := range a.config.NATS {
			if receive, any := part(src.Elsewhere); any {
				want[src.ID] = n.natsBridge(a.config.Name, src, receive)
			}
		}
	}
	n.bridge.set(want, func() { n.sortOutboxes(ctx, s) })
}

// bridgeHealth tells how things stand with a broker elsewhere.
func (n *Node) bridgeHealth(part, name, url string) func(error) {
	return func(err error) {
		if err == nil {
			n.health.recover(part, name)
			return
		}
		n.health.degrade(part, name, fmt.Errorf("%s: %w", url, err))
	}
}

// stageFrom puts what a broker sent into the stream that is declared for its
// subject, else into the inbox.
func (n *Node) stageFrom(inbox string) func(*store.Turn, store.Message) error {
	port := n.broker.NewPort()
	return func(t *store.Turn, m store.Message) error {
		if _, ok := port.Covers(m.Subject); ok {
			return port.Stage(t, m)
		}
		if m.ID == "" {
			m.ID = event.Identity(event.Header(m.Header), m.Data)
		}
		_, err := t.Publish(inbox, m)
		return err
	}
}

// refused keeps what a broker sent and the box can not store.
func (n *Node) refused(source string) func(context.Context, broker.Message, string, error) error {
	return func(ctx context.Context, m broker.Message, reason string, cause error) error {
		return n.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
			t.DeadLetter(store.DeadLetter{
				Subject: m.Subject, Subscription: source, Attempts: 1, Reason: reason, Error: cause.Error(),
				Header: m.Header, Data: m.Data,
			})
			return nil
		})
	}
}
