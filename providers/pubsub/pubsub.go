// Package pubsub is the built-in provider of edged:pubsub: actors publish
// events with it, and get the events of their subscriptions from it.
//
// An event that is published is staged in the turn of the call. It goes to the
// stream that covers its subject, or to the outbox of a broker elsewhere; an
// event of neither goes out on core NATS after the commit. An event that is
// delivered, or received, is a message of a stream, read as a CloudEvent where
// it is one. What is received is acknowledged by the turn that received it.
//
// Its errors are those of providers.Fail, of the service "pubsub".
package pubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

// Contract is the capability contract served here.
const Contract = "edged:pubsub"

// Streams is what the provider needs of the broker.
type Streams interface {
	// Covers returns the stream that keeps messages of a subject, if any.
	Covers(subject string) (stream string, ok bool)
	// Stage puts a message into a turn: to the stream that covers its subject,
	// else on core NATS after the commit.
	Stage(t *store.Turn, m store.Message) error
	// StageTo puts a message into a turn and the stream of that name.
	StageTo(t *store.Turn, stream string, m store.Message) error
	// Receive takes the next messages of pull subscriptions into the turn of
	// ctx, at most max, and waits that long if there is none. Nothing and no
	// error means that none came.
	Receive(ctx context.Context, subscriptions []string, max int, wait time.Duration) ([]store.Message, error)
}

// Access is what an actor may do beyond publishing to the box.
type Access struct {
	// Pull are the topics and queues that it may receive from, as the manifest
	// names them, each with its subscriptions.
	Pull map[string][]string
	// Outlets take what it publishes to brokers elsewhere. No two of a link
	// match the same subject.
	Outlets []Outlet
}

// Outlet is the way to a broker elsewhere.
type Outlet struct {
	Link    string   // name of the link through which the actor publishes
	Filters []string // of subjects
	Stream  string   // that keeps what the broker does not have yet
}

// Provider serves edged:pubsub. Its methods may be called from any goroutine.
type Provider struct {
	db      *store.DB
	streams Streams
	device  string

	mu     sync.Mutex // guards what follows
	access map[string]Access
	open   map[string]map[string]*cursor // by actor and id
}

var _ providers.Provider = (*Provider)(nil)

// New returns a provider for the box called device.
func New(db *store.DB, streams Streams, device string) *Provider {
	return &Provider{db: db, streams: streams, device: device, open: make(map[string]map[string]*cursor)}
}

// Contract is edged:pubsub.
func (p *Provider) Contract() string { return Contract }

// PutLink has nothing to do: what an actor may is told by SetAccess.
func (p *Provider) PutLink(context.Context, lattice.Link) error { return nil }

// DeleteLink has nothing to do.
func (p *Provider) DeleteLink(context.Context, lattice.Link) error { return nil }

// SetAccess says what each actor may, by its key; those that are left out may
// only publish to the box. What they have open on other topics is closed.
func (p *Provider) SetAccess(actors map[string]Access) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.access = actors
	p.closeStale()
}

// Call serves the operations of the contract.
func (p *Provider) Call(ctx context.Context, inv lattice.Invocation) (reply []byte, err error) {
	switch inv.Operation {
	case "PubSub.Publish":
		err = p.publish(ctx, inv)
	case "PubSub.Receive":
		reply, err = p.receive(ctx, inv)
	case "PubSub.Stream":
		reply, err = p.stream(inv)
	case "PubSub.Next":
		reply, err = p.next(ctx, inv)
	case "PubSub.Close":
		err = p.closeStream(inv)
	default:
		err = fail(providers.ErrFormat, fmt.Errorf("%.80q is no operation of %s", inv.Operation, Contract))
	}
	return reply, err
}

// fail is providers.Fail for this service.
func fail(kind, cause error) error { return providers.Fail("pubsub", kind, cause) }

func (p *Provider) publish(ctx context.Context, inv lattice.Invocation) error {
	to, e, err := decodePublish(inv.Payload)
	if err != nil {
		return fail(providers.ErrFormat, err)
	}
	subject, err := topic.Resolve(to)
	if err != nil {
		return fail(providers.ErrFormat, fmt.Errorf("publish to %.200q: %w", to, err))
	}
	if topic.Reserved(subject) {
		return fail(providers.ErrNotPermitted, fmt.Errorf("publish to %.200q: the subject is reserved", to))
	}
	m := store.Message{Subject: subject}
	header, data, err := e.Binary()
	if err != nil {
		kind := providers.ErrFormat
		if errors.Is(err, event.ErrHeader) { // what is in it is encoded, so it is too long
			kind = providers.ErrTooLarge
		}
		return fail(kind, fmt.Errorf("publish to %.200q: %w", to, err))
	}
	m.Header, m.Data = header, data
	if err := schedule(&m, e); err != nil {
		return fail(providers.ErrFormat, fmt.Errorf("publish to %.200q: %w", to, err))
	}
	outbox := p.outbox(inv.Origin.Key, inv.Target.Link, subject)
	if _, kept := p.streams.Covers(subject); !kept && outbox == "" && (m.Delay > 0 || !m.NotBefore.IsZero()) {
		return fail(providers.ErrNoTopic, fmt.Errorf("publish to %.200q: no stream keeps it until it is due", to))
	}
	err = p.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		if outbox != "" {
			m.ID = event.Identity(event.Header(m.Header), m.Data)
			return p.streams.StageTo(t, outbox, m)
		}
		return p.streams.Stage(t, m)
	})
	if err != nil {
		return fail(nil, fmt.Errorf("publish to %.200q: %w", to, err))
	}
	return nil
}

// outbox returns the stream of the outlet that takes a subject, or "".
func (p *Provider) outbox(actor, link, subject string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.access[actor].Outlets {
		if o.Link == link && slices.ContainsFunc(o.Filters, func(f string) bool { return topic.Match(f, subject) }) {
			return o.Stream
		}
	}
	return ""
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
