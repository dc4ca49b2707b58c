package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

const (
	// slowestLink is what a link carries at least, in bytes per second, when it
	// is judged whether the hub is late.
	slowestLink = 256
	// repliesRoom is how many answers wait to be read. A batch gets two.
	repliesRoom = 64
)

// errLate: nobody answered in time.
var errLate = fmt.Errorf("%w in time", errHubSilent)

// replies is the inbox of a lane, open while the link is up.
type replies struct {
	prefix string
	sub    *nats.Subscription
	ch     chan *nats.Msg
}

func openReplies(nc *nats.Conn) (*replies, error) {
	r := &replies{prefix: nc.NewInbox(), ch: make(chan *nats.Msg, repliesRoom)}
	var err error
	if r.sub, err = nc.ChanSubscribe(r.prefix+".*", r.ch); err != nil {
		return nil, fmt.Errorf("subscribe to the answers of the hub: %w", err)
	}
	return r, nil
}

func (r *replies) close() { _ = r.sub.Unsubscribe() } // it fails only with the connection, which ends it too

// subject is where the answers to batch id go.
func (r *replies) subject(id string) string { return r.prefix + "." + id }

// wait returns the next answer to batch id. Answers to earlier ones are passed
// over.
func (r *replies) wait(ctx context.Context, id string, until <-chan time.Time) (*nats.Msg, error) {
	for {
		select {
		case m := <-r.ch:
			if m.Subject == r.subject(id) {
				return m, nil
			}
		case <-until:
			return nil, errLate
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// advance sends a batch and deals with the answer. A nil error means that there
// is something to go on with; after any other the hub has to be asked.
func (l *uplinkLane) advance(ctx context.Context, in *replies, batch []outMsg) error {
	if len(batch) == 1 && l.suspect.seq == batch[0].seq {
		refused, err := l.examine(ctx, in, batch[0])
		if err != nil || refused {
			return err
		}
	}
	l.p.o.Failpoint("uplink-before-batch")
	began := time.Now()
	ack, err := l.send(ctx, in, batch)
	if err != nil {
		l.synced = false
		return l.judge(ctx, batch, err, time.Since(began))
	}
	l.p.o.Failpoint("uplink-after-hub-ack")
	l.suspect, l.raced = suspect{}, 0
	l.badMost = max(1, l.badMost/2)
	l.grow(len(batch))
	l.noteTrouble(nil)
	l.prove(batch, ack.Seq)
	l.ackedByHub(batch[len(batch)-1].seq, ack.Seq)
	return nil
}

// send publishes one atomic batch and waits for the hub's answer to the whole of
// it. After an error nothing is known about its fate, unless the error is a
// hubError.
func (l *uplinkLane) send(ctx context.Context, in *replies, batch []outMsg) (pubAck, error) {
	id := nuid.Next()
	sealBatch(batch, id, l.filter, l.expect, in.subject(id))
	size := 0
	for i := range batch {
		size += batch[i].size
	}
	late := time.NewTimer(l.p.o.Timing.Request)
	defer late.Stop()
	for i := range batch {
		if err := l.api.nc.PublishMsg(batch[i].msg); err != nil {
			return pubAck{}, fmt.Errorf("publish: %w", err)
		}
		if i == 0 && l.careful && len(batch) > 1 {
			if _, err := l.answer(ctx, in, id, late.C, true); err != nil {
				return pubAck{}, err
			}
		}
	}
	l.hash(batch)
	ack, err := l.answer(ctx, in, id, late.C, false)
	if errors.Is(err, errLate) && size > slowestLink {
		ack, err = l.answerLater(ctx, in, id, size)
	}
	if err != nil {
		return ack, err
	}
	if ack.Batch != id || ack.Count != len(batch) || ack.Seq == 0 {
		return ack, fmt.Errorf("%w: acknowledged %d messages of batch %.64q", errHubAnswer, ack.Count, ack.Batch)
	}
	return ack, nil
}

// answerLater waits for the answer to a batch that may still be on its way. What
// is asked now comes to the hub behind the batch, so that with the answer to it
// the waiting has an end: a slow link is told from a batch that got lost.
func (l *uplinkLane) answerLater(ctx context.Context, in *replies, id string, size int) (pubAck, error) {
	behind := *l.api
	behind.timeout += time.Duration(size/slowestLink) * time.Second
	if _, _, err := behind.last(ctx, l.filter, l.hub.direct); err != nil {
		return pubAck{}, err
	}
	late := time.NewTimer(l.p.o.Timing.Request / 2)
	defer late.Stop()
	return l.answer(ctx, in, id, late.C, false)
}

// answer waits for the answer to the batch, or only until the hub has opened it.
func (l *uplinkLane) answer(ctx context.Context, in *replies, id string, late <-chan time.Time, opened bool) (pubAck, error) {
	for {
		m, err := in.wait(ctx, id, late)
		if err != nil {
			return pubAck{}, err
		}
		ack, begun, err := parsePubAck(m)
		if err != nil || !begun || opened {
			return ack, err
		}
	}
}

// grow lets batches have more messages. How many bytes they have is up to the
// queue.
func (l *uplinkLane) grow(n int) {
	l.careful = false
	if n >= l.size || l.badEnd != 0 {
		l.size = min(l.size*2, maxBatchMessages)
	}
}

// judge decides what a failed batch means for the next one. It returns nil if
// that can go out at once, after the hub was asked.
func (l *uplinkLane) judge(ctx context.Context, batch []outMsg, err error, took time.Duration) error {
	n := len(batch)
	var hub *hubError
	refusal := errors.As(err, &hub)
	switch {
	case refusal && (hub.Code == 429 || hub.Code >= 500):
		l.careful = true // the hub is loaded or not well: it says so before we send it all
		return err
	case isCode(err, codeWrongLastSequence, codeWrongLastSequenceConstant):
		// What was under way has arrived, or somebody else wrote.
		if l.raced++; l.raced == 1 {
			return nil
		}
		return err
	case isCode(err, codeBatchDisabled, codeSealed, codeAccountLimits):
		return err // up to the hub's owner
	case isCode(err, codeBatchTooLarge) && n > 1:
		l.most = n / 2
		return nil
	case n > 1 && refusal, n > 1 && errors.Is(err, nats.ErrMaxPayload):
		l.badEnd, l.badMost = batch[n-1].seq, n/2
		return nil
	case n > 1:
		l.size = max(1, n/2)
		if ctx.Err() != nil {
			l.badEnd = 0
		}
		return err
	}
	return l.suspects(ctx, batch[0], err, took)
}
