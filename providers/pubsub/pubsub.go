// Package pubsub is the built-in provider of edged:pubsub: actors publish
// events with it, and get the events of their subscriptions from it.
//
// An event that is published is staged in the turn of the call. It goes to the
// stream that covers its subject; an event of no stream goes out on core NATS
// after the commit. An event that is delivered is a message of a stream, read
// as a CloudEvent where it is one.
package pubsub

import (
	"context"
	"errors"
	"fmt"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

// Contract is the capability contract served here.
const Contract = "edged:pubsub"

// Streams is what the provider needs of the broker: to stage a message in a
// turn.
type Streams interface {
	Stage(t *store.Turn, m store.Message) error
}

// Provider serves edged:pubsub.
type Provider struct {
	db      *store.DB
	streams Streams
	device  string
}

var _ providers.Provider = (*Provider)(nil)

// New returns a provider for the box called device.
func New(db *store.DB, streams Streams, device string) *Provider {
	return &Provider{db, streams, device}
}

// Contract is edged:pubsub.
func (p *Provider) Contract() string { return Contract }

// PutLink has nothing to do: a subscription is the broker's.
func (p *Provider) PutLink(context.Context, lattice.Link) error { return nil }

// DeleteLink has nothing to do.
func (p *Provider) DeleteLink(context.Context, lattice.Link) error { return nil }

// Call serves PubSub.Publish. Receive and Stream, which wait for events, are
// refused: this version delivers by calling the actor.
func (p *Provider) Call(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	switch inv.Operation {
	case "PubSub.Publish":
		return nil, p.publish(ctx, inv)
	case "PubSub.Receive", "PubSub.Stream", "PubSub.Next", "PubSub.Close":
		return nil, fmt.Errorf("%s: this version delivers by calling the actor (delivery = \"push\") only", inv.Operation)
	}
	return nil, fmt.Errorf("%s: no such operation of %s", inv.Operation, Contract)
}

func (p *Provider) publish(ctx context.Context, inv lattice.Invocation) error {
	to, e, err := decodePublish(inv.Payload)
	if err != nil {
		return fmt.Errorf("%s: %w", inv.Operation, err)
	}
	subject, err := topic.Resolve(to)
	if err == nil && topic.Reserved(subject) {
		err = errors.New("the subject is reserved")
	}
	if err != nil {
		return fmt.Errorf("%s to %.200q: %w", inv.Operation, to, err)
	}
	m := store.Message{Subject: subject}
	header, data, err := e.Binary()
	if err != nil {
		return fmt.Errorf("%s to %s: %w", inv.Operation, to, err)
	}
	m.Header, m.Data = header, data
	err = p.db.Do(ctx, func(_ context.Context, t *store.Turn) error { return p.streams.Stage(t, m) })
	if err != nil {
		return fmt.Errorf("%s to %s: %w", inv.Operation, to, err)
	}
	return nil
}

// Event returns the message as the event that an actor gets. A message that is
// no CloudEvent becomes one: its id is the stream and sequence, which are the
// same at each attempt. The extension "topic" is the subject as an MQTT topic
// where it has one, so that an actor sees where an event came from whatever the
// producer wrote into it.
func (p *Provider) Event(m store.Message) event.Event {
	e, ok := event.Parse(event.Header(m.Header), m.Subject, m.Data)
	if !ok {
		if e.ID == "" {
			e.ID = fmt.Sprintf("%s-%d", m.Stream, m.Seq)
		}
		e.Source = "/" + p.device + "/" + m.Stream
		e.Type = "edged.message"
	}
	if e.Extensions == nil {
		e.Extensions = make(map[string]string)
	}
	e.Extensions["topic"] = m.Subject
	if t, err := topic.Topic(m.Subject); err == nil {
		e.Extensions["topic"] = t
	}
	return e
}
