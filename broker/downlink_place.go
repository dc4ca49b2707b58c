package broker

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// accept takes messages in the order of their delivery: those that the box does
// not have yet go to disk, together with the watermark, and then all of them are
// acknowledged to the hub.
func (in *inlet) accept(ctx context.Context, batch []jetstream.Msg) error {
	var fresh []downMessage
	for _, m := range batch {
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("%w: message on %.200q is no delivery: %w", errHubAnswer, m.Subject(), err)
		}
		if meta.Sequence.Consumer != in.next {
			return errOutOfStep
		}
		in.next++
		at := watermark{in.mark.Created, meta.Sequence.Stream, meta.Timestamp.UTC()}
		if !in.started && in.rewritten(at) {
			return errOutOfStep
		}
		in.started = true
		switch {
		case in.mark.has(at.Seq, at.Time):
		case meta.NumDelivered > 1:
			return errOutOfStep // what came after it may be there already
		default:
			fresh = append(fresh, downMessage{at, m, parseOrigin(m.Headers().Get(headerOrigin))})
		}
	}
	if err := in.placeAll(ctx, fresh); err != nil {
		return err
	}
	in.p.o.Failpoint("downlink-before-ack")
	for _, m := range batch {
		if err := m.Ack(); err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
	}
	return nil
}

// rewritten says whether the first message that a new consumer delivers shows
// that the hub lost messages that we have, and gave their sequences to others.
// Then the watermark is taken back to before them.
func (in *inlet) rewritten(at watermark) bool {
	if in.mark.Time.IsZero() || at.Seq != in.mark.Seq || !at.Time.After(in.mark.Time) {
		return false
	}
	in.log.Error("the hub lost messages that this box has, and has others in their place", "hub_seq", at.Seq)
	in.mark.Seq = 0 // the time tells what the box has
	return true
}

type downMessage struct {
	at     watermark
	msg    jetstream.Msg
	origin origin
}

// origin says where a message was that somebody took from one hub to another:
// the creation time of EDGE_DOWN there, and the message's sequence. Zero for
// one that was not.
type origin struct {
	created time.Time
	seq     uint64
}

// parseOrigin reads "<creation time in RFC 3339>/<sequence>". What is not that is
// nothing.
func parseOrigin(s string) (o origin) {
	at, number, ok := strings.Cut(s, "/")
	if !ok {
		return origin{}
	}
	created, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return origin{}
	}
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || seq == 0 {
		return origin{}
	}
	return origin{created.UTC(), seq}
}

func (o origin) String() string {
	return o.created.Format(time.RFC3339Nano) + "/" + strconv.FormatUint(o.seq, 10)
}

// took says whether the box has a message since a former hub sent it.
func (in *inlet) took(o origin) bool {
	for _, w := range in.former {
		if o.seq > 0 && w.Created.Equal(o.created) {
			return o.seq <= w.Seq
		}
	}
	return false
}

// placeAll puts messages to disk in one turn; if that cannot be, one by one, so
// that none waits for a later one.
func (in *inlet) placeAll(ctx context.Context, all []downMessage) error {
	if len(all) == 0 {
		return nil
	}
	err := in.place(ctx, all)
	if err == nil || len(all) == 1 {
		return err
	}
	for i := range all {
		if err := in.place(ctx, all[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// place puts messages into the streams of the box in one turn, together with the
// watermark.
func (in *inlet) place(ctx context.Context, all []downMessage) error {
	rejected, repeats := 0, 0
	last := all[len(all)-1].at
	err := in.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		rejected, repeats = 0, 0
		for _, d := range all {
			if in.took(d.origin) {
				repeats++
				continue
			}
			reason, err := in.stage(t, d)
			if reason != "" {
				rejected++
				in.reject(t, d, reason, err)
			} else if err != nil {
				return err
			}
		}
		return putRecord(t, in.key(), inletRecord{last, in.former})
	})
	if err != nil {
		return fmt.Errorf("store message %d of the hub: %w", all[0].at.Seq, err)
	}
	in.mark = last
	in.mu.Lock()
	in.shown.Seq = last.Seq
	in.shown.Received += uint64(len(all) - rejected - repeats)
	in.shown.Repeats += uint64(repeats)
	in.shown.Rejected += uint64(rejected)
	in.mu.Unlock()
	return nil
}

// stage puts one message into the turn. A reason says that the box can never
// take it.
func (in *inlet) stage(t *store.Turn, d downMessage) (reason string, err error) {
	subject := d.msg.Subject()
	if from := d.msg.Headers().Get("Nats-Stream"); from != "" {
		// Anybody who may ask for a message of a stream can have the answer sent
		// here: a reply subject is not held against permissions.
		return "rejected", fmt.Errorf("it is a copy out of stream %.64s, and not from a publisher", from)
	}
	rest := strings.TrimPrefix(subject, in.address)
	if !in.covers(subject) {
		if !in.covers(rest) {
			return "rejected", fmt.Errorf("no stream takes subject %s", rest)
		}
		subject = rest
	}
	m := Message{Subject: subject, Header: headerBlock(d.msg.Headers()), Data: d.msg.Data()}
	if d.origin.seq > 0 && event.Identity(event.Header(m.Header), m.Data) == "" {
		m.ID = headerOrigin + " " + in.consumer + " " + d.origin.String() // who copies once may do it again
	}
	err = in.p.o.Place.Stage(t, m)
	switch {
	case err == nil:
		return "", nil
	case errors.Is(err, store.ErrTooLarge):
		return "too-large", err
	case errors.Is(err, store.ErrFull), errors.Is(err, store.ErrNoStream), storeEnded(err), errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrDeadlock):
		return "", err
	}
	return "rejected", err
}

func (in *inlet) covers(subject string) bool {
	if !topic.ValidSubject(subject) {
		return false
	}
	_, ok := in.p.o.Place.Covers(subject)
	return ok
}

func (in *inlet) reject(t *store.Turn, d downMessage, reason string, err error) {
	in.log.Warn("a message of the hub is rejected", "subject", d.msg.Subject(), "hub_seq", d.at.Seq, "why", err)
	t.DeadLetter(store.DeadLetter{
		Stream: streamDown, Seq: d.at.Seq, Subject: d.msg.Subject(), Subscription: in.consumer,
		Attempts: 1, Reason: reason, Error: err.Error(),
		Header: headerBlock(d.msg.Headers()), Data: d.msg.Data(),
	})
}

// headerBlock returns headers as they are on the wire, in a fixed order, or nil.
func headerBlock(h nats.Header) []byte {
	if len(h) == 0 {
		return nil
	}
	names := make([]string, 0, len(h))
	for name := range h {
		if headerName(name) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	b := []byte("NATS/1.0\r\n")
	for _, name := range names {
		for _, value := range h[name] {
			b = append(append(b, name...), ": "...)
			b = append(append(b, headerValue(value)...), "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}
