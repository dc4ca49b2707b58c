package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

var (
	// errUnsent: there was no way to the client just now.
	errUnsent = errors.New("no connection to the embedded server")
	// errWithdrawn: the delivery ends before the client has answered.
	errWithdrawn  = errors.New("the subscription ends")
	errTooLarge   = errors.New("larger than what a NATS client may be sent")
	errUnanswered = errors.New("not acknowledged in time")
	errRefused    = errors.New("the client asked for another attempt")
)

// interestPoll is how often the embedded server is asked whether somebody
// listens, while there is a message to push. It tells nobody of its own
// accord.
const interestPoll = 250 * time.Millisecond

// maxStray bounds the acknowledgements that wait for the loop; more are dropped,
// and their messages come again.
const maxStray = 4096

// outbox knows what went out to NATS clients and was not answered.
type outbox struct {
	mu    sync.Mutex // guards the fields below
	last  uint64     // the consumer sequence that was given last
	sent  map[uint64]*handed
	stray []answer // to messages that are not in sent
}

// handed is one message with a client.
type handed struct {
	stream           string
	seq, consumerSeq uint64
	has              bool          // an answer, the only one; outbox.mu guards it
	answered         chan answer   // capacity 1
	progress         chan struct{} // capacity 1
}

func (o *outbox) add(stream string, seq uint64) *handed {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sent == nil {
		o.sent = make(map[uint64]*handed)
	}
	o.last++
	h := &handed{
		stream: stream, seq: seq, consumerSeq: o.last,
		answered: make(chan answer, 1), progress: make(chan struct{}, 1),
	}
	o.sent[o.last] = h
	return h
}

func (o *outbox) remove(h *handed) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.sent, h.consumerSeq)
}

// answered takes what a client says. An acknowledgement counts for whichever
// delivery of the message it was; a refusal and a sign of life for this one only.
func (d *delivery) answered(a answer) {
	o := &d.out
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.sent[a.consumerSeq]
	if h == nil || h.seq != a.seq || h.stream != a.stream {
		h = nil
		if a.done() {
			h = o.find(a)
		}
	}
	switch {
	case h != nil && a.kind == answerProgress:
		select {
		case h.progress <- struct{}{}:
		default:
		}
		return
	case h != nil && !h.has:
		h.has = true
		h.answered <- a
		return
	}
	if a.done() && len(o.stray) < maxStray {
		o.stray = append(o.stray, a)
		d.gate.poke()
	} else {
		d.seen.strayAcks.Add(1)
	}
}

// find returns the delivery under way of a message. Call it with o.mu held.
func (o *outbox) find(a answer) *handed {
	for _, h := range o.sent {
		if h.seq == a.seq && h.stream == a.stream {
			return h
		}
	}
	return nil
}

// takeStrayAcks deals with acknowledgements of messages that no client is known
// to have now: one that came late, or twice, or out of the blue.
func (d *delivery) takeStrayAcks() {
	d.out.mu.Lock()
	stray := d.out.stray
	d.out.stray = nil
	d.out.mu.Unlock()
	l := &d.loop
	for _, a := range stray {
		var it *item
		if a.stream == d.sub.Stream {
			it = l.win.find(a.seq)
		}
		if it == nil {
			it = l.win.findLetter(a.stream, a.seq)
		}
		switch {
		case it == nil && a.stream == d.sub.Stream && d.isAcked(a.seq):
			if a.reply != "" {
				d.confirm(a.reply, a.stream, a.seq)
			}
		case it == nil || !it.sent:
			d.seen.strayAcks.Add(1)
			d.log.Debug("an acknowledgement of a message that no client was given", "seq", a.seq)
		case it.out:
			it.promise(a.reply)
			it.late = it.late || a.kind != answerTerm
		default: // it was to be delivered once more
			if a.kind == answerTerm {
				it.verdict = &deadReason{reason: "rejected", err: a.reason}
			} else {
				it.acked = true
			}
			it.promise(a.reply)
			l.win.hurry(it)
		}
	}
}

// isAcked says whether the store has a message acknowledged.
func (d *delivery) isAcked(seq uint64) bool {
	_, above := d.loop.above[seq]
	return above || seq <= d.loop.saved
}

// confirm tells a client that its acknowledgement is on disk.
func (d *delivery) confirm(reply, stream string, seq uint64) {
	d.s.local.publish(reply, nil, ackJSON(Ack{Stream: cmp.Or(stream, d.sub.Stream), Seq: seq}))
}

// handOver sends a message to a NATS client.
func (d *delivery) handOver(j job) (*handed, error) {
	h := d.out.add(cmp.Or(j.m.Stream, d.sub.Stream), j.it.seq)
	if err := d.send(j, d.ackSubject(j, h.consumerSeq)); err != nil {
		d.out.remove(h)
		return nil, err
	}
	return h, nil
}

// waitForAnswer waits until a message that was handed over is answered. No error
// means that it was acknowledged; reply is where the client waits to hear that
// this is on disk.
func (d *delivery) waitForAnswer(ctx context.Context, j job) (reply string, err error) {
	if j.err != nil {
		return "", j.err
	}
	a, err := j.handed.wait(ctx, d.sub.AckWait)
	d.out.remove(j.handed)
	if err != nil {
		select {
		case a = <-j.handed.answered: // in the last moment
		default:
			return "", err
		}
	}
	return a.reply, a.err()
}

// wait returns the answer, or why it waits no longer.
func (h *handed) wait(ctx context.Context, ackWait time.Duration) (answer, error) {
	timer := time.NewTimer(ackWait)
	defer timer.Stop()
	for {
		select {
		case a := <-h.answered:
			return a, nil
		case <-h.progress:
			timer.Reset(ackWait)
		case <-timer.C:
			return answer{}, RetryAfterError(0, errUnanswered)
		case <-ctx.Done():
			return answer{}, errWithdrawn
		}
	}
}

// err is what an answer means for the message, as an error of Deliver would.
func (a *answer) err() error {
	switch a.kind {
	case answerNak:
		if a.delay < 0 {
			return errRefused
		}
		return RetryAfterError(a.delay, errRefused)
	case answerTerm:
		return Reject(a.reason)
	}
	return nil
}

// send publishes a message for a NATS client.
func (d *delivery) send(j job, reply string) error {
	header := withSubject(j.m.Header, j.m.Subject)
	if n := len(header) + len(j.m.Data); n > int(maxPayload(d.s.o.MaxMessage)) {
		return fmt.Errorf("%d bytes: %w", n, errTooLarge)
	}
	if !d.s.local.sendAs(j.to, reply, header, j.m.Data) {
		return errUnsent
	}
	return nil
}

// ackSubject is the reply subject under which a message goes out.
func (d *delivery) ackSubject(j job, consumerSeq uint64) string {
	b := make([]byte, 0, 128)
	b = append(append(b, ackPrefix...), cmp.Or(j.m.Stream, d.sub.Stream)...)
	b = append(append(b, '.'), subjectToken(d.sub.Name)...)
	for _, n := range [...]uint64{uint64(j.tried) + 1, j.it.seq, consumerSeq, uint64(max(j.m.Time.UnixNano(), 0)), j.pending} {
		b = strconv.AppendUint(append(b, '.'), n, 10)
	}
	return string(b)
}

// pending is about how many messages there are behind one that goes out.
func (d *delivery) pending() uint64 {
	l := &d.loop
	n := uint64(max(l.win.undone()-l.inFlight-1, 0))
	if info, err := d.s.o.Store.Stream(d.sub.Stream); err == nil && info.Last >= l.next {
		n += info.Last - max(l.next, info.First) + 1
	}
	return n
}

// listenedTo says whether somebody is there to push to, and has the loop look
// again soon if a message waits in vain.
func (d *delivery) listenedTo() bool {
	if _, ok := peek(&d.loop.win.ready); !ok {
		return false
	}
	d.loop.nobody = !d.s.local.heard(d.sub.PushTo)
	return !d.loop.nobody
}
