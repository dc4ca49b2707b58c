// Package messaging is the built-in provider of wasmcloud:messaging: actors of
// classic wasmCloud send, ask and receive messages with it, on the subjects and
// streams of the box.
//
// What is published is staged in the turn of the call: it goes to the stream
// that covers its subject, else out on core NATS, after the commit either way. A
// request is made at once. Messages for an actor come from a durable
// subscription where a stream covers their subject, else from core NATS, which
// is best effort; that is the business of whoever made the subscription.
//
// Its errors are those of providers.Fail, of the service "messaging".
package messaging

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

const (
	// Contract is the capability contract served here.
	Contract = "wasmcloud:messaging"
	// HandleMessage is the operation of an actor that gets messages.
	HandleMessage = "MessageSubscriber.HandleMessage"
	// ReplyHeader keeps the reply subject of a message that a stream keeps.
	ReplyHeader = "Edged-Reply-To"
)

const (
	// longest is how long a request waits that has neither a time of its own nor
	// a turn that ends.
	longest = 10 * time.Second
	// margin is what is left of the turn's time when a wait ends, so that the
	// actor can do something about it: a tenth of it, at most this.
	margin = 100 * time.Millisecond
)

// ErrNoResponders is an answer of Broker.Request: nobody listens.
var ErrNoResponders = errors.New("nobody listens on the subject")

// Message is one on core NATS.
type Message struct {
	Subject string
	Reply   string // "" for none
	Body    []byte
}

// Broker is what the provider needs of the box's NATS server.
type Broker interface {
	// Covers returns the stream that keeps messages of a subject, if any.
	Covers(subject string) (stream string, ok bool)
	// Stage puts a message into a turn: to the stream that covers its subject,
	// else on core NATS after the commit.
	Stage(t *store.Turn, m store.Message) error
	// Publish sends a message on core NATS, best effort, and does not block.
	Publish(m Message)
	// Request sends a message at once and waits for one answer, until ctx ends.
	// It fails with ErrNoResponders if nobody could give it.
	Request(ctx context.Context, subject string, body []byte) (Message, error)
}

// Provider serves wasmcloud:messaging. Its methods may be called from any
// goroutine.
type Provider struct {
	db         *store.DB
	broker     Broker
	maxMessage int
	maxSubject int
}

var _ providers.Provider = (*Provider)(nil)

// New returns a provider; maxMessage bounds a message, and maxSubject its subject
// together with the one that answers go to, in bytes.
func New(db *store.DB, b Broker, maxMessage, maxSubject int) *Provider {
	return &Provider{db, b, maxMessage, maxSubject}
}

// Contract is wasmcloud:messaging.
func (p *Provider) Contract() string { return Contract }

// PutLink has nothing to do: a subscription is the broker's.
func (p *Provider) PutLink(context.Context, lattice.Link) error { return nil }

// DeleteLink has nothing to do.
func (p *Provider) DeleteLink(context.Context, lattice.Link) error { return nil }

// Call serves the operations of the contract.
func (p *Provider) Call(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	switch inv.Operation {
	case "Messaging.Publish":
		return nil, p.publish(ctx, inv.Payload)
	case "Messaging.Request":
		return p.request(ctx, inv.Payload)
	}
	return nil, fail(providers.ErrFormat, fmt.Errorf("%.80q is no operation of %s", inv.Operation, Contract))
}

// fail is providers.Fail for this service.
func fail(kind, cause error) error { return providers.Fail("messaging", kind, cause) }

// check refuses what can not be sent.
func (p *Provider) check(m Message) error {
	subject, body := m.Subject, m.Body
	switch {
	case !topic.ValidSubject(subject):
		return fail(providers.ErrFormat, fmt.Errorf("%.200q is no subject", subject))
	case m.Reply != "" && !topic.ValidSubject(m.Reply):
		return fail(providers.ErrFormat, fmt.Errorf("replyTo %.200q is no subject", m.Reply))
	case len(subject)+len(m.Reply) > p.maxSubject: // it would end the connection that all actors share
		return fail(providers.ErrTooLarge, fmt.Errorf("subject and replyTo have %d bytes, at most %d", len(subject)+len(m.Reply), p.maxSubject))
	case topic.Reserved(subject) && !isInbox(subject):
		return fail(providers.ErrNotPermitted, fmt.Errorf("the subject %.200q is reserved", subject))
	case len(subject)+len(body) > p.maxMessage:
		return fail(providers.ErrTooLarge, fmt.Errorf("message of %d bytes to %.200s, at most %d", len(body), subject, p.maxMessage))
	}
	return nil
}

// isInbox says whether a subject is one that answers go to.
func isInbox(subject string) bool { return strings.HasPrefix(subject, "_INBOX.") }

func (p *Provider) publish(ctx context.Context, payload []byte) error {
	m, _, err := decodeMessage(payload, messageMembers)
	if err != nil {
		return fail(providers.ErrFormat, err)
	}
	if err := p.check(m); err != nil {
		return err
	}
	_, kept := p.broker.Covers(m.Subject)
	err = p.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		if m.Reply != "" && !kept {
			if err := t.Keep(int64(512 + len(m.Subject) + len(m.Reply) + len(m.Body))); err != nil {
				return err
			}
			t.AfterCommit(func() { p.broker.Publish(m) })
			return nil
		}
		var header event.Header
		if m.Reply != "" {
			if header, err = header.Append(ReplyHeader, m.Reply); err != nil {
				return err
			}
		}
		return p.broker.Stage(t, store.Message{Subject: m.Subject, Header: header, Data: m.Body})
	})
	if err != nil {
		return fail(nil, fmt.Errorf("publish to %.200s: %w", m.Subject, err))
	}
	return nil
}

func (p *Provider) request(ctx context.Context, payload []byte) ([]byte, error) {
	m, wait, err := decodeMessage(payload, requestMembers)
	if err != nil {
		return nil, fail(providers.ErrFormat, err)
	}
	if err := p.check(m); err != nil {
		return nil, err
	}
	if t := store.TurnFrom(ctx); t != nil {
		if err := t.Irrevocable(ctx); err != nil {
			return nil, fail(nil, fmt.Errorf("request to %.200s: %w", m.Subject, err))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, within(ctx, wait))
	defer cancel()
	reply, err := p.broker.Request(ctx, m.Subject, m.Body)
	switch {
	case errors.Is(err, ErrNoResponders):
		return nil, fail(providers.ErrNoTopic, fmt.Errorf("request to %.200s: %w", m.Subject, err))
	case err != nil:
		return nil, fail(nil, fmt.Errorf("request to %.200s: %w", m.Subject, err))
	}
	return AppendMessage(nil, reply), nil
}

// within returns how long a wait may be: as asked for, and not so long that the
// time of ctx is over with it.
func within(ctx context.Context, wait time.Duration) time.Duration {
	if wait <= 0 {
		wait = longest
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		wait = min(wait, left-min(left/10, margin))
	}
	return wait
}

// Of returns the message of a stream as one for an actor.
func Of(m store.Message) Message {
	reply, _ := event.Header(m.Header).Get(ReplyHeader)
	return Message{Subject: m.Subject, Reply: reply, Body: m.Data}
}
