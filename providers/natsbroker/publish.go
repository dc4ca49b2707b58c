package natsbroker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/store"
)

const (
	// maxOutgoing is how many messages of QoS 1 and 2 are published at a time, each of another subject.
	maxOutgoing = 64
	// maxAhead is how far a message may overtake one of another subject.
	maxAhead = 4 * maxOutgoing
	// maxReadBytes bounds what is read from the outbox at a time.
	maxReadBytes = 4 << 20
	// spaceEpoch has the epoch of each outbox.
	spaceEpoch = "nats/out"
)

// errExpired is of a message whose time to live was over before the server could have it.
var errExpired = errors.New("its time to live ended before the server had it")

// outflow is what one link publishes. Messages of one subject go one after the other, so that they stay in order whatever the server does with each.
type outflow struct {
	l       *link
	epoch   string // of the outbox, so that a new store does not use up the ids of an old one
	next    uint64 // to be read
	done    map[uint64]bool
	waiting []store.Message // read and not yet sent, in order
	begun   map[string]bool // subjects published to on this link
	changed chan struct{}   // gets a token when a message is through

	mu   sync.Mutex // guards busy
	busy map[string]bool
}

// drain publishes what is in the outbox and what comes, until the link ends.
func (l *link) drain(ctx context.Context) error {
	box := l.c.o.Outbox
	wake, stop, err := l.c.o.Store.Watch(box.Stream)
	if err != nil {
		return err
	}
	defer stop()
	f, err := l.newOutflow(ctx)
	if err != nil {
		return err
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	for {
		more, err := f.read()
		if err == nil {
			err = f.send(ctx, &sending)
		}
		if err != nil {
			return err
		}
		if more && len(f.waiting) == 0 {
			continue
		}
		select {
		case <-wake:
		case <-f.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *link) newOutflow(ctx context.Context) (*outflow, error) {
	box := l.c.o.Outbox
	f := &outflow{l: l, changed: make(chan struct{}, 1), begun: make(map[string]bool), busy: make(map[string]bool), done: make(map[uint64]bool)}
	at, err := l.c.o.Store.Position(box.Subscription)
	if err != nil {
		return nil, err
	}
	f.next = at.Floor + 1
	for _, seq := range at.Above {
		f.done[seq] = true
	}
	return f, l.c.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error {
		value, ok, err := t.Get(spaceEpoch, box.Stream)
		if f.epoch = string(value); err != nil || ok {
			return err
		}
		f.epoch = nuid.Next()
		return t.Put(spaceEpoch, box.Stream, []byte(f.epoch))
	})
}

// read fills waiting. It says whether there was something.
func (f *outflow) read() (more bool, err error) {
	room := maxAhead - len(f.waiting)
	if room <= 0 {
		return false, nil
	}
	err = f.l.c.o.Store.Read(f.l.c.o.Outbox.Stream, f.next, room, maxReadBytes, func(m store.Message) error {
		more = true
		f.next = m.Seq + 1
		if !f.done[m.Seq] {
			f.waiting = append(f.waiting, m)
		}
		return nil
	})
	return more, err
}

// send publishes of waiting what may go now.
func (f *outflow) send(ctx context.Context, sending *sync.WaitGroup) error {
	if f.l.c.o.QoS == 0 {
		return f.sendUnkept(ctx)
	}
	kept := f.waiting[:0]
	blocked := make(map[string]bool) // subjects of messages that have to wait
	for _, m := range f.waiting {
		f.mu.Lock()
		wait := blocked[m.Subject] || f.busy[m.Subject] || len(f.busy) >= maxOutgoing
		if !wait {
			f.busy[m.Subject] = true
		}
		f.mu.Unlock()
		if wait {
			blocked[m.Subject] = true
			kept = append(kept, m)
			continue
		}
		first := !f.begun[m.Subject]
		if len(f.begun) < maxSubjects {
			f.begun[m.Subject] = true
		}
		sending.Go(func() { f.one(ctx, m, first) })
	}
	clear(f.waiting[len(kept):])
	f.waiting = kept
	return nil
}

// maxSubjects bounds how many subjects are remembered; more are looked up more often.
const maxSubjects = 10_000

// sendUnkept publishes at most once: a message is gone from the outbox before it goes.
func (f *outflow) sendUnkept(ctx context.Context) error {
	if len(f.waiting) == 0 {
		return nil
	}
	box := f.l.c.o.Outbox
	err := f.l.c.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error {
		for i := range f.waiting {
			if err := f.l.fits(&f.waiting[i]); err != nil {
				f.l.giveUp(t, &f.waiting[i], err)
			} else {
				t.Ack(box.Subscription, f.waiting[i].Seq)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range f.waiting {
		m := &f.waiting[i]
		if f.l.fits(m) != nil {
			continue
		}
		if err := f.l.nc.PublishMsg(&nats.Msg{Subject: m.Subject, Header: fieldsOf(m.Header), Data: m.Data}); err != nil {
			return err
		}
		f.l.c.stats.published.Add(1)
	}
	f.waiting = nil
	f.l.useful.Store(true)
	return f.l.nc.FlushTimeout(linkTimeout)
}

// fits says why a message can not be published at all.
func (l *link) fits(m *store.Message) error {
	if limit := l.nc.MaxPayload(); limit > 0 && int64(len(m.Header)+len(m.Data)) > limit {
		return fmt.Errorf("%d bytes, the server takes %d: %w", len(m.Header)+len(m.Data), limit, store.ErrTooLarge)
	}
	if m.TTL < 0 {
		return errExpired
	}
	return nil
}

// giveUp makes a dead letter of a message that can never be published.
func (l *link) giveUp(t *store.Turn, m *store.Message, cause error) {
	reason, _ := never(cause)
	if errors.Is(cause, errExpired) {
		reason = "expired"
	}
	t.DeadLetter(store.DeadLetter{
		Stream: m.Stream, Seq: m.Seq, Subject: m.Subject, Subscription: l.c.o.Outbox.Subscription, Attempts: 1, Reason: reason, Error: cause.Error(),
		Header: m.Header, Data: m.Data,
	})
	t.Ack(l.c.o.Outbox.Subscription, m.Seq)
	t.AfterCommit(func() { l.c.stats.deadLetters.Add(1) })
}

// one publishes a message of QoS 1 or 2. first says that it may be there already: nobody knows what became of it on the link before.
func (f *outflow) one(ctx context.Context, m store.Message, first bool) {
	l := f.l
	cause := l.fits(&m)
	var err error
	if cause == nil {
		err = f.publish(ctx, &m, first)
		if _, refused := never(err); refused {
			cause, err = err, nil
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			l.fail(fmt.Errorf("publish on %s: %w", m.Subject, err))
		}
		return // its subject stays busy: nothing may overtake it on this link
	}
	if cause == nil {
		l.c.o.Failpoint(FailpointPublished)
		l.c.stats.published.Add(1)
		l.useful.Store(true)
	}
	l.submit(func(t *store.Turn) error {
		if cause != nil {
			l.giveUp(t, &m, cause)
		} else {
			t.Ack(l.c.o.Outbox.Subscription, m.Seq)
		}
		return nil
	}, func(err error) {
		if err != nil {
			l.fail(err)
		}
	})
	f.mu.Lock()
	delete(f.busy, m.Subject)
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// publish returns when a stream there has the message.
func (f *outflow) publish(ctx context.Context, m *store.Message, first bool) error {
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	out := &nats.Msg{Subject: m.Subject, Header: fieldsOf(m.Header), Data: m.Data}
	id, ok := event.Header(m.Header).Get(nats.MsgIdHdr)
	if !ok || id == "" {
		id = f.epoch + "." + m.Stream + "." + strconv.FormatUint(m.Seq, 10) + "." + digits(m)
	}
	out.Header.Set(nats.MsgIdHdr, id)
	if first && f.l.c.o.QoS == 2 {
		there, err := f.l.isLast(ctx, m.Subject, id)
		if err != nil || there {
			return err
		}
	}
	_, err := f.l.js.PublishMsg(ctx, out, jetstream.WithRetryAttempts(0))
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		return act("no stream there holds %s: create one, or use qos = 0", m.Subject)
	case errors.As(err, &api) && api.ErrorCode == codeTooLarge:
		return fmt.Errorf("the stream there refuses it: %w: %w", err, store.ErrTooLarge)
	}
	return err
}

// digits tell a message from another one with its sequence, in a stream that was deleted and made again.
func digits(m *store.Message) string {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(m.Subject), m.Header, m.Data} {
		_ = binary.Write(h, binary.BigEndian, uint32(len(part)))
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// codeTooLarge is the server's for a message that is over the limit of its stream.
const codeTooLarge = 10054

// isLast says whether the message with that id is the last of its subject there. Beyond the time in which the server recognises repeats by itself this
// tells what became of a message that was sent when the link broke.
func (l *link) isLast(ctx context.Context, subject, id string) (bool, error) {
	name, err := l.js.StreamNameBySubject(ctx, subject)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return false, nil // publishing will say so
	}
	if err != nil {
		return false, err
	}
	stream, err := l.js.Stream(ctx, name)
	if err != nil {
		return false, err
	}
	last, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil && last.Header.Get(nats.MsgIdHdr) == id, err
}
