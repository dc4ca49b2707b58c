package mqtt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

const (
	// maxOutgoing is how many messages of QoS 1 and 2 are in flight: what brokers take by default before they queue (Mosquitto's
	// max_inflight_messages).
	maxOutgoing = 20
	// maxUnkept is how many messages of QoS 0 leave with one turn.
	maxUnkept = 256
	// maxReadBytes bounds what is read from the outbox at a time.
	maxReadBytes = 4 << 20
)

// errExpired is of a message whose time to live was over before the broker could have it.
var errExpired = errors.New("its time to live ended before the broker had it")

// outgoing is a message of the outbox as the broker gets it.
type outgoing struct {
	topic   string
	payload []byte
}

// outgoingOf makes a CloudEvent structured, since MQTT 3.1.1 has no properties; anything else is sent as it is. The same message always becomes the
// same bytes. The error is an ErrRefused.
func outgoingOf(m *store.Message) (*outgoing, error) {
	name, err := topic.Topic(m.Subject)
	if err == nil && len(name) > MaxTopic {
		err = fmt.Errorf("topic of %d bytes, at most %d", len(name), MaxTopic)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	out := &outgoing{name, m.Data}
	if e, ok := event.Parse(event.Header(m.Header), m.Subject, m.Data); ok && len(m.Header) > 0 {
		if text, err := e.JSON(); err == nil {
			out.payload = text
		}
	}
	return out, nil
}

// drain publishes what is in the outbox and what comes, in order, until the link ends. Whoever starts it knows that nothing is in flight.
func (l *link) drain(ctx context.Context) {
	if err := l.publishAll(ctx); err != nil {
		l.fail(fmt.Errorf("publish from stream %s: %w", l.c.o.Outbox.Stream, err))
	}
}

func (l *link) publishAll(ctx context.Context) error {
	box := l.c.o.Outbox
	wake, stop, err := l.c.o.Store.Watch(box.Stream)
	if err != nil {
		return err
	}
	defer stop()
	at, err := l.c.o.Store.Position(box.Subscription)
	if err != nil {
		return err
	}
	done := make(map[uint64]bool, len(at.Above))
	for _, seq := range at.Above {
		done[seq] = true
	}
	for next := at.Floor + 1; ; {
		n := 0
		if next, n, err = l.publishSome(ctx, next, done); err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		select {
		case <-wake:
		case <-l.flight.changed:
		case <-l.ended:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// publishSome publishes as many messages from next on as may be in flight, but for those in done. It returns where to go on, and how many it has read.
func (l *link) publishSome(ctx context.Context, next uint64, done map[uint64]bool) (uint64, int, error) {
	box := l.c.o.Outbox
	room := maxUnkept
	if box.QoS > 0 {
		room = maxOutgoing - l.flight.count()
	}
	if room <= 0 {
		return next, 0, nil
	}
	var batch []store.Message
	read := 0
	err := l.c.o.Store.Read(box.Stream, next, room, maxReadBytes, func(m store.Message) error {
		read++
		next = m.Seq + 1
		if !done[m.Seq] {
			batch = append(batch, m)
		}
		return nil
	})
	if err != nil || len(batch) == 0 {
		return next, read, err
	}
	out := make([]*outgoing, len(batch))
	refused := make(map[int]error)
	for i := range batch {
		if out[i], err = outgoingOf(&batch[i]); err == nil && batch[i].TTL < 0 {
			out[i], err = nil, errExpired
		}
		if err != nil {
			refused[i] = err
		}
	}
	if err := l.acknowledge(ctx, batch, refused); err != nil {
		return next, read, err
	}
	for i := range batch {
		if out[i] == nil {
			continue
		}
		if err := l.publish(&batch[i], out[i]); err != nil {
			return next, read, err
		}
	}
	return next, read, nil
}

// acknowledge ends what can not be published at all, and what may be published once at most: it is gone before it goes.
func (l *link) acknowledge(ctx context.Context, batch []store.Message, refused map[int]error) error {
	box := l.c.o.Outbox
	if box.QoS > 0 && len(refused) == 0 {
		return nil
	}
	return l.c.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error {
		for i := range batch {
			if err := refused[i]; err != nil {
				l.giveUp(t, &batch[i], err)
			} else if box.QoS == 0 {
				t.Ack(box.Subscription, batch[i].Seq)
			}
		}
		return nil
	})
}

// giveUp makes a dead letter of a message that can never be published.
func (l *link) giveUp(t *store.Turn, m *store.Message, cause error) {
	box, reason := l.c.o.Outbox, "rejected"
	if errors.Is(cause, errExpired) {
		reason = "expired"
	}
	t.DeadLetter(store.DeadLetter{
		Stream: m.Stream, Seq: m.Seq, Subject: m.Subject, Subscription: box.Subscription, Attempts: 1, Reason: reason, Error: cause.Error(),
		Header: m.Header, Data: m.Data,
	})
	t.Ack(box.Subscription, m.Seq)
	t.AfterCommit(func() { l.c.stats.deadLetters.Add(1) })
}

// publish hands a message to paho.
func (l *link) publish(m *store.Message, out *outgoing) error {
	box := l.c.o.Outbox
	if box.QoS > 0 {
		l.flight.announce(sending{seq: m.Seq, sum: sumOf(m), qos: box.QoS, retain: box.Retain})
	}
	token := l.paho.Publish(out.topic, box.QoS, box.Retain, out.payload)
	if box.QoS > 0 {
		select {
		case <-token.Done():
			return token.Error() // it was not taken; or acknowledged already
		default:
			return nil
		}
	}
	select {
	case <-token.Done():
	case <-l.ended:
	case <-time.After(linkTimeout):
		return errSilent
	}
	if err := token.Error(); err != nil {
		return err
	}
	l.c.stats.published.Add(1)
	l.useful.Store(true)
	return nil
}
