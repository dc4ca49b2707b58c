package node

import (
	"context"
	"reflect"
	"sync"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/providers/mqtt"
	"github.com/edged-io/edged/store"
)

// bridges are the clients of MQTT brokers that apps ask for. They run while
// bridges.run does, each until its source is gone or another one.
type bridges struct {
	mu   sync.Mutex // guards all below
	ctx  context.Context
	wg   sync.WaitGroup
	want map[string]bridge
	runs map[string]runningBridge
}

type bridge struct {
	source config.MQTTSource
	client func() (*mqtt.Client, error)
	fail   func(error)
}

type runningBridge struct {
	source config.MQTTSource
	stop   context.CancelFunc
	done   chan struct{}
	client *mqtt.Client
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
func (b *bridges) set(want map[string]bridge) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.want = want
	b.settle()
}

// settle stops and starts clients. A session has one client at a time, so the
// old one has ended before the new one connects. Call it with b.mu held.
func (b *bridges) settle() {
	if b.ctx == nil {
		return
	}
	if b.runs == nil {
		b.runs = make(map[string]runningBridge)
	}
	for name, r := range b.runs {
		if w, ok := b.want[name]; !ok || !reflect.DeepEqual(w.source, r.source) || r.ended() {
			r.stop()
			<-r.done
			delete(b.runs, name)
		}
	}
	for name, w := range b.want {
		if _, ok := b.runs[name]; ok {
			continue
		}
		client, err := w.client()
		if err != nil {
			w.fail(err)
			continue
		}
		ctx, stop := context.WithCancel(b.ctx)
		r := runningBridge{w.source, stop, make(chan struct{}), client}
		b.runs[name] = r
		b.wg.Go(func() {
			defer close(r.done)
			if err := client.Run(ctx); err != nil && ctx.Err() == nil {
				w.fail(err)
			}
		})
	}
}

// ended says whether the client gave up.
func (r runningBridge) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// setBridges makes the clients those of the apps.
func (n *Node) setBridges(s appSet) {
	want := make(map[string]bridge)
	for _, a := range s {
		for _, src := range a.config.MQTT {
			want[src.Name] = bridge{
				source: src,
				client: func() (*mqtt.Client, error) { return n.newClient(a.config.Name, src) },
				fail: func(err error) {
					n.log.Error("mqtt client ended", "app", a.config.Name, "url", src.URL, "err", err)
					n.health.degrade("mqtt", src.Name, err)
				},
			}
		}
	}
	n.health.recover("mqtt", "") // those that ended are tried again
	n.bridge.set(want)
}

func (n *Node) newClient(app string, src config.MQTTSource) (*mqtt.Client, error) {
	return mqtt.NewClient(mqtt.ClientOptions{
		URL: src.URL, ClientID: src.SessionID(n.o.Device.Device.ID, app),
		Filters:    []mqtt.Filter{{Topic: src.Topic, QoS: src.QoS}},
		Store:      n.db,
		Stage:      n.stageFrom(src.Name),
		DeadLetter: n.refused(src.Name),
		Logger:     n.part("mqtt"),
		MaxMessage: int(n.o.Device.Limits.MaxMessage),
	})
}

// stageFrom puts what a broker sent into the stream that is declared for its
// subject, else into the inbox.
func (n *Node) stageFrom(inbox string) func(*store.Turn, store.Message) error {
	port := n.broker.NewPort()
	return func(t *store.Turn, m store.Message) error {
		if _, ok := port.Covers(m.Subject); ok {
			return port.Stage(t, m)
		}
		m.ID = event.Identity(event.Header(m.Header), m.Data)
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
