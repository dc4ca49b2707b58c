package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/providers/messaging"
	"github.com/edged-io/edged/store"
)

// streams is the broker as pubsub sees it.
type streams struct{ *Node }

func (s streams) Stage(t *store.Turn, m store.Message) error { return s.broker.Stage(t, m) }

func (s streams) Covers(subject string) (string, bool) { return s.broker.Covers(subject) }

func (s streams) StageTo(t *store.Turn, stream string, m store.Message) error {
	if n, most := len(m.Header)+len(m.Data), int(s.o.Device.Limits.MaxMessage); n > most {
		return fmt.Errorf("message of %d bytes, at most %d: %w", n, most, store.ErrTooLarge)
	}
	_, err := t.Publish(stream, m)
	return err
}

// Receive asks the subscriptions one after the other. Where there are several,
// it does not wait long for any, since a message may come to each.
func (s streams) Receive(ctx context.Context, subs []string, most int, wait time.Duration) ([]store.Message, error) {
	const turn = 50 * time.Millisecond
	for end, first := time.Now().Add(wait), true; first || time.Now().Before(end); first = false {
		for _, name := range subs {
			pause := max(time.Until(end), 0)
			if len(subs) > 1 {
				pause = min(pause, turn)
			}
			if first && len(subs) > 1 {
				pause = 0 // what is there comes first
			}
			got, err := s.receive(ctx, name, most, pause)
			if err != nil || len(got) > 0 {
				return got, err
			}
		}
	}
	return nil, nil
}

func (s streams) receive(ctx context.Context, name string, most int, wait time.Duration) ([]store.Message, error) {
	waiting := ctx
	if wait > 0 { // and not a moment longer: the turn may be about to end
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	got, err := s.broker.Receive(waiting, name, most, wait)
	if waiting.Err() != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	messages := make([]store.Message, len(got))
	for i, d := range got {
		messages[i] = d.Message
	}
	return messages, err
}

// coreBroker is the broker as messaging sees it.
type coreBroker struct{ *Node }

func (b coreBroker) Covers(subject string) (string, bool)       { return b.broker.Covers(subject) }
func (b coreBroker) Stage(t *store.Turn, m store.Message) error { return b.broker.Stage(t, m) }

// causeHeader names the turn that waits for the answer to a request, so that
// whoever handles it on the same box does not wait for that turn's keys.
const causeHeader = "Edged-Cause"

func (b coreBroker) Publish(m messaging.Message) {
	nc, err := b.coreConn()
	if err == nil {
		err = nc.PublishMsg(&nats.Msg{Subject: m.Subject, Reply: m.Reply, Data: m.Body})
	}
	if err != nil {
		b.log.Warn("message not sent", "subject", fmt.Sprintf("%.200s", m.Subject), "err", err)
	}
}

func (b coreBroker) Request(ctx context.Context, subject string, body []byte) (messaging.Message, error) {
	nc, err := b.coreConn()
	if err != nil {
		return messaging.Message{}, err
	}
	m := &nats.Msg{Subject: subject, Data: body}
	if t := store.TurnFrom(ctx); t != nil {
		m.Header = nats.Header{causeHeader: {t.ID()}}
	}
	reply, err := nc.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return messaging.Message{}, messaging.ErrNoResponders
	case err != nil:
		return messaging.Message{}, err
	}
	return messaging.Message{Subject: reply.Subject, Reply: reply.Reply, Body: reply.Data}, nil
}
