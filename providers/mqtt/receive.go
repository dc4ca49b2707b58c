package mqtt

import (
	"context"
	"fmt"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/edged-io/edged/store"
)

// inbound is one message from the broker.
type inbound struct {
	m      paho.Message
	msg    store.Message
	repeat bool
	fate   chan error // one value
}

// take is paho's handler. It only hands over, and waits when too much is under way.
func (l *link) take(_ paho.Client, m paho.Message) {
	select {
	case l.incoming <- &inbound{m: m, fate: make(chan error, 1)}:
		l.c.stats.received.Add(1)
	case <-l.ended:
	}
}

// stageAll submits a turn for each message, in order.
func (l *link) stageAll(ctx context.Context) {
	defer close(l.pending)
	for {
		select {
		case <-l.ended:
			return
		case in := <-l.incoming:
			select {
			case l.pending <- in: // before its fate can be known, so that acknowledgements keep the order
			case <-l.ended:
				return
			}
			l.stage(ctx, in)
		}
	}
}

func (l *link) stage(ctx context.Context, in *inbound) {
	payload, whole := l.untruncate(in.m.Payload())
	subject, err := subjectOf(in.m.Topic())
	in.msg = store.Message{Subject: subject, Data: payload}
	if err == nil && (!whole || len(payload) > l.c.o.MaxMessage) {
		err = fmt.Errorf("message on topic %s: over %d bytes: %w", in.m.Topic(), l.c.o.MaxMessage, store.ErrTooLarge)
	}
	if err == nil && l.c.o.Stage == nil {
		err = fmt.Errorf("message on topic %s, from an earlier subscription: %w", in.m.Topic(), store.ErrNoStream)
	}
	if err != nil {
		in.fate <- err
		return
	}
	submit(ctx, l.c.o.Store, func(t *store.Turn) (err error) {
		in.repeat = false
		if in.m.Qos() > 0 {
			if err := l.trail.follow(t); err != nil {
				return err
			}
			t.Loose() // the note goes with the message
			in.repeat, err = l.repeats.note(t, in.m.MessageID(), in.m.Duplicate(), in.m.Topic(), payload)
			if in.repeat || err != nil {
				return err
			}
		}
		err = l.c.o.Stage(t, in.msg)
		if _, ok := never(err); ok {
			l.trail.skip()
		}
		return err
	}, func(err error) { in.fate <- err })
	l.trail.step()
}

// ackAll acknowledges in the order in which the messages came. After the first that can not be, none is.
func (l *link) ackAll(ctx context.Context) {
	var failed error
	for in := range l.pending {
		err := <-in.fate
		if failed != nil {
			continue
		}
		if err != nil {
			if err = l.refused(ctx, in, err); err != nil {
				failed = fmt.Errorf("message on topic %s: %w", in.m.Topic(), err)
				l.c.failed.begin(l.c.log, "messages of the MQTT broker can not be stored", "err", err)
				l.fail(failed)
				continue
			}
		} else {
			l.c.failed.end(l.c.log, "messages of the MQTT broker are stored again", time.Now())
		}
		if in.repeat {
			l.c.stats.repeats.Add(1)
		}
		l.useful.Store(true)
		in.m.Ack()
	}
}

// refused makes a dead letter of what can never be stored. The error is that of a message which the broker must keep.
func (l *link) refused(ctx context.Context, in *inbound, cause error) error {
	reason, ok := never(cause)
	if !ok {
		if in.m.Qos() == 0 { // the broker does not keep it anyway
			l.c.stats.dropped.Add(1)
			return nil
		}
		return cause
	}
	l.c.stats.deadLetters.Add(1)
	if l.c.o.DeadLetter == nil {
		l.c.log.Warn("message of the MQTT broker refused", "topic", in.m.Topic(), "err", cause)
		return nil
	}
	return l.c.o.DeadLetter(ctx, in.msg, reason, cause)
}
