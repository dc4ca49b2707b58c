package node

import (
	"context"
	"fmt"
	"strings"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/providers/mqtt"
	"github.com/edged-io/edged/providers/natsbroker"
	"github.com/edged-io/edged/store"
)

// mqttBridge is the client of an app at an MQTT broker. Without receive it only
// publishes.
func (n *Node) mqttBridge(app string, src config.MQTTSource, receive bool) bridge {
	o := mqtt.ClientOptions{
		URL: src.URL, ClientID: src.SessionID(n.o.Device.Device.ID, app), Clean: src.Clean, KeepAlive: src.KeepAlive,
		Login:      mqtt.Login{User: src.User, PasswordFile: src.PasswordFile, CA: src.CA, Cert: src.Cert, Key: src.Key},
		Store:      n.db,
		DeadLetter: n.refused(src.ID),
		Logger:     n.part("mqtt"),
		Health:     n.bridgeHealth("mqtt", src.ID, src.URL),
		MaxMessage: int(n.o.Device.Limits.MaxMessage),
		Failpoint:  n.o.Failpoint,
	}
	if w := src.Will; w != nil {
		o.Will = &mqtt.Will{Topic: w.Topic, Payload: []byte(w.Payload), QoS: w.QoS, Retain: w.Retain}
	}
	if receive {
		o.Filters = []mqtt.Filter{{Topic: src.Topic, QoS: src.QoS, Group: src.Group}}
		o.Stage = n.stageFrom(src.Name)
	}
	if src.Outlet != nil {
		o.Outbox = &mqtt.Outbox{Stream: src.Outlet.Stream, Subscription: outboxSubscription(src.Outlet.Stream), QoS: src.QoS, Retain: src.Retain}
	}
	return bridge{
		source: struct {
			config.MQTTSource
			receive bool
		}{src, receive},
		session: src.URL + " " + o.ClientID,
		client:  func() (bridgeClient, error) { return mqtt.NewClient(o) },
		leave:   func(ctx context.Context) error { return mqtt.Leave(ctx, o) },
		health:  o.Health,
	}
}

// natsBridge is the client of an app at a NATS server. Without receive it only
// publishes.
func (n *Node) natsBridge(app string, src config.NATSSource, receive bool) bridge {
	o := natsbroker.Options{
		URL: src.URL, Name: src.ConsumerName(n.o.Device.Device.ID, app), Domain: src.Domain, QoS: src.QoS,
		Login: natsbroker.Login{
			Credentials: src.Credentials, User: src.User, PasswordFile: src.PasswordFile, NKeyFile: src.NKeyFile, CA: src.CA, Cert: src.Cert, Key: src.Key,
		},
		Store:      n.db,
		DeadLetter: n.refused(src.ID),
		Logger:     n.part("nats"),
		Health:     n.bridgeHealth("nats", src.ID, src.URL),
		MaxMessage: int(n.o.Device.Limits.MaxMessage),
		Failpoint:  n.o.Failpoint,
	}
	if receive {
		o.Filters, o.Group, o.Stage = src.Filters, src.Group, n.stageFrom(src.Name)
	}
	if src.Outlet != nil {
		o.Outbox = &natsbroker.Outbox{Stream: src.Outlet.Stream, Subscription: outboxSubscription(src.Outlet.Stream)}
	}
	return bridge{
		source: struct {
			config.NATSSource
			receive bool
		}{src, receive},
		session: src.URL + " " + o.Name,
		client:  func() (bridgeClient, error) { return natsbroker.New(o) },
		leave:   func(ctx context.Context) error { return natsbroker.Leave(ctx, o) },
		health:  o.Health,
	}
}

// outboxBytes is what may wait for a broker elsewhere, for each outlet. It is
// the default of a declared stream, too.
const outboxBytes = 256 << 20

// outboxSubscription is the position of a broker elsewhere in an outbox. Names
// in a manifest have no dot, so this one is nobody else's.
func outboxSubscription(stream string) string { return stream + ".broker" }

// isOutbox says whether a subscription is that of an outbox.
func isOutbox(subscription, stream string) bool {
	name, ok := strings.CutSuffix(subscription, ".broker")
	return ok && name == stream
}

// outboxes returns the streams of what waits for brokers elsewhere. They hold no
// subjects: who publishes names them.
func outboxes(s appSet) (streams []broker.Stream) {
	for _, a := range s.sorted() {
		for _, o := range a.config.Outlets {
			streams = append(streams, broker.Stream{Name: o.Stream, MaxBytes: outboxBytes})
		}
	}
	return streams
}

// openOutboxes lets outboxes keep what is published, before any actor can.
func (n *Node) openOutboxes(s appSet) error {
	for _, st := range outboxes(s) {
		if _, err := n.db.Stream(st.Name); err != nil {
			if err := n.db.EnsureStream(store.StreamConfig{Name: st.Name, MaxBytes: st.MaxBytes}); err != nil {
				return fmt.Errorf("outbox %s: %w", st.Name, err)
			}
		}
		if err := n.db.EnsureSubscription(store.SubscriptionConfig{Name: outboxSubscription(st.Name), Stream: st.Name}); err != nil {
			return fmt.Errorf("outbox %s: %w", st.Name, err)
		}
	}
	return nil
}
