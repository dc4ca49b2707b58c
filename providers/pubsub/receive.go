package pubsub

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

const (
	// MaxStreams is how many streams an actor may have open.
	MaxStreams = 64
	// MaxNext is how many events one PubSub.Next returns.
	MaxNext = 256
	// nextBytes is what they hold together, about: no further event is taken
	// once there is so much.
	nextBytes = 1 << 20
	// streamIdle is how long a stream stays open that nobody asks.
	streamIdle = 10 * time.Minute
	// margin is what is left of the turn's time when a wait ends, so that the
	// actor can do something about it: a tenth of it, at most this.
	margin = 100 * time.Millisecond
)

// cursor is a stream that an actor has open. The position is that of the
// subscription; all it has is the name of the topic.
type cursor struct {
	topic string
	used  time.Time
}

// receive serves PubSub.Receive {topic, waitMs}, which answers {event?}.
func (p *Provider) receive(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	req, err := decodeRequest(inv.Payload)
	if err != nil {
		return nil, fail(providers.ErrFormat, err)
	}
	messages, err := p.take(ctx, inv.Origin.Key, req.topic, 1, req.wait)
	if err != nil {
		return nil, err
	}
	if len(messages) == 0 {
		return msgpack.AppendMapHeader(nil, 0), nil
	}
	b := msgpack.AppendString(msgpack.AppendMapHeader(nil, 1), "event")
	return AppendEvent(b, p.Event(messages[0])), nil
}

// stream serves PubSub.Stream {topic}, which answers {id}.
func (p *Provider) stream(inv lattice.Invocation) ([]byte, error) {
	req, err := decodeRequest(inv.Payload)
	if err != nil {
		return nil, fail(providers.ErrFormat, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeStale()
	if _, err := p.pull(inv.Origin.Key, req.topic); err != nil {
		return nil, err
	}
	mine := p.open[inv.Origin.Key]
	if len(mine) >= MaxStreams {
		return nil, fail(providers.ErrUnavailable, fmt.Errorf("%d streams are open, close one", len(mine)))
	}
	if mine == nil {
		mine = make(map[string]*cursor)
		p.open[inv.Origin.Key] = mine
	}
	id := rand.Text()
	mine[id] = &cursor{req.topic, time.Now()}
	b := msgpack.AppendString(msgpack.AppendMapHeader(nil, 1), "id")
	return msgpack.AppendString(b, id), nil
}

// next serves PubSub.Next {id, max, waitMs}, which answers {events}.
func (p *Provider) next(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	req, err := decodeRequest(inv.Payload)
	if err != nil {
		return nil, fail(providers.ErrFormat, err)
	}
	p.mu.Lock()
	p.closeStale()
	c := p.open[inv.Origin.Key][req.id]
	if c != nil {
		c.used = time.Now().Add(req.wait)
	}
	p.mu.Unlock()
	if c == nil {
		return nil, fail(providers.ErrNoTopic, fmt.Errorf("the actor has no stream %.80q open: one is closed after %s without use, and when the box starts anew", req.id, streamIdle))
	}
	messages, err := p.take(ctx, inv.Origin.Key, c.topic, min(max(req.max, 1), MaxNext), req.wait)
	if err != nil {
		return nil, err
	}
	b := msgpack.AppendString(msgpack.AppendMapHeader(nil, 1), "events")
	b = msgpack.AppendArrayHeader(b, len(messages))
	for _, m := range messages {
		b = AppendEvent(b, p.Event(m))
	}
	return b, nil
}

// closeStream serves PubSub.Close {id}. To close what is closed is well.
func (p *Provider) closeStream(inv lattice.Invocation) error {
	req, err := decodeRequest(inv.Payload)
	if err != nil {
		return fail(providers.ErrFormat, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open[inv.Origin.Key], req.id)
	return nil
}

// closeStale closes the streams that nobody asks, and those whose topic their
// actor may not receive from any more. Call it with p.mu held.
func (p *Provider) closeStale() {
	now := time.Now()
	for actor, mine := range p.open {
		for id, c := range mine {
			if _, ok := p.access[actor].Pull[c.topic]; !ok || now.Sub(c.used) > streamIdle {
				delete(mine, id)
			}
		}
		if len(mine) == 0 {
			delete(p.open, actor)
		}
	}
}

// pull returns the subscriptions of a topic that an actor may receive from.
// Call it with p.mu held.
func (p *Provider) pull(actor, topic string) ([]string, error) {
	subs, ok := p.access[actor].Pull[topic]
	if !ok {
		return nil, fail(providers.ErrNotPermitted, fmt.Errorf("receive from %.200q: no capability of the actor has this topic or queue with delivery = \"pull\"", topic))
	}
	return slices.Clone(subs), nil
}

// take takes messages into the turn of ctx.
func (p *Provider) take(ctx context.Context, actor, topic string, most int, wait time.Duration) (messages []store.Message, err error) {
	p.mu.Lock()
	subs, err := p.pull(actor, topic)
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if store.TurnFrom(ctx) == nil {
		return nil, fail(providers.ErrUnavailable, errors.New("receive: the actor handles nothing now, so there is no turn that could acknowledge the event"))
	}
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		wait = min(wait, left-min(left/10, margin))
	}
	for held := 0; len(messages) < most && held < nextBytes; {
		// One at a time: what is taken is the turn's, whether it fits or not.
		got, err := p.streams.Receive(ctx, subs, 1, max(wait, 0))
		if err != nil && len(messages) == 0 {
			return nil, fail(nil, fmt.Errorf("receive from %.200q: %w", topic, err))
		}
		if err != nil || len(got) == 0 {
			break
		}
		for _, m := range got {
			held += len(m.Data) + len(m.Header)
		}
		messages = append(messages, got...)
		wait = 0
	}
	return messages, nil
}
