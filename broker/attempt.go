package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/store"
)

// outcome is how one attempt ended.
type outcome int

const (
	outcomeAcked   outcome = iota // and committed
	outcomeDead                   // a dead letter, committed
	outcomeGone                   // a limit of the stream took the message
	outcomeRetry                  // failed; counts
	outcomeLater                  // could not be tried, or not be committed; does not count
	outcomeUnsent                 // there was no way to its receiver; does not count
	outcomeAborted                // the server ends
	outcomeBroken                 // the store or the subscription is gone
	outcomeQueued                 // not ended yet: only the disk is to come
	outcomeBehind                 // a message before it was not committed; does not count
	outcomeSaved                  // no message: position and attempts were saved
)

// result is what a handler's goroutine reports to the delivery loop.
type result struct {
	it      *item
	outcome outcome
	turn    *store.Turn    // of outcomeQueued
	floor   uint64         // committed with it
	saved   map[uint64]int // attempts that outcomeSaved wrote
	pause   time.Duration  // before the next attempt; < 0 means by the backoff
	verdict *deadReason    // the next attempt writes a dead letter
	acked   bool           // the next attempt writes the acknowledgement
	id      string         // of the message
	letter  uint64         // the dead letter that it became
	reply   string         // where a client waits to hear that this is on disk
	err     error
}

// job is what an attempt needs; the loop owns the rest.
type job struct {
	it      *item
	m       Message
	loaded  bool
	tried   int // failed attempts before this one
	verdict *deadReason
	acked   bool        // only the acknowledgement is to be written
	floor   uint64      // everything up to here is done, and rides along
	behind  *store.Turn // to follow, or nil
	to      string      // the subject where its receiver is, "" for a function
	pending uint64      // messages behind it
	handed  *handed     // what went out there
	err     error       // why it did not
}

// errDropped: the message is not in the stream any more.
var errDropped = errors.New("the message is not held any more")

// attempt hands one message out and reports how that ended. A NATS client is
// given up when ctx ends; a function may go on until handlers ends.
func (d *delivery) attempt(ctx, handlers context.Context, deliver deliverFunc, j job) result {
	r := result{it: j.it, floor: j.floor, pause: -1, acked: j.acked}
	if !j.loaded && !j.acked {
		m, err := d.load(j.it)
		if err != nil {
			return d.judge(handlers, r, j, err)
		}
		j.m = m
	}
	if j.verdict != nil {
		return d.bury(handlers, r, j)
	}
	if d.sub.AtMostOnce {
		return d.attemptOnce(handlers, r, deliver, j)
	}
	if j.to != "" {
		var err error
		if r.reply, err = d.waitForAnswer(ctx, j); err != nil {
			return d.judge(handlers, r, j, err)
		}
		j.acked, r.acked = true, true
	}
	run, cancel := context.WithTimeout(handlers, d.sub.AckWait)
	defer cancel()
	err := d.s.o.Store.Do(run, func(ctx context.Context, t *store.Turn) error {
		if err := d.order(t, j); err != nil {
			return err
		}
		if !j.acked {
			if err := deliver(ctx, j.m, j.tried+1); err != nil {
				return err
			}
		}
		d.ack(t, j)
		d.s.o.Failpoint("deliver-before-commit")
		return nil
	})
	if err == nil {
		d.s.o.Failpoint("deliver-after-commit")
		r.outcome = outcomeAcked
		return r
	}
	return d.judge(handlers, r, j, err)
}

// attemptOnce acknowledges the message first. An error of its receiver is noted
// and changes nothing.
func (d *delivery) attemptOnce(ctx context.Context, r result, deliver deliverFunc, j job) result {
	t := d.s.o.Store.Begin()
	if j.behind != nil {
		if err := t.Follow(j.behind); err != nil {
			t.Discard()
			return d.judge(ctx, r, j, err)
		}
	}
	d.ack(t, j)
	if err := t.Commit(); err != nil {
		return d.judge(ctx, r, j, err)
	}
	r.outcome = outcomeAcked
	if j.to != "" {
		r.err = d.send(j, d.ackSubject(j, 0))
		return r
	}
	run, cancel := context.WithTimeout(ctx, d.sub.AckWait)
	defer cancel()
	if r.err = d.s.o.Store.Do(run, func(ctx context.Context, _ *store.Turn) error { return deliver(ctx, j.m, j.tried+1) }); r.err != nil {
		r.id = messageID(j.m)
	}
	return r
}

// order puts the turn behind that of the message before, and lets the message
// after it go on as soon as it is queued.
func (d *delivery) order(t *store.Turn, j job) error {
	t.OnQueued(func() { d.loop.results <- result{it: j.it, outcome: outcomeQueued, turn: t} }) // has room for all
	if j.behind == nil {
		return nil
	}
	return t.Follow(j.behind)
}

// ack stages that the message is done with, and what lies before it.
func (d *delivery) ack(t *store.Turn, j job) {
	d.ackFloor(t, j)
	if j.it.letter != 0 {
		t.DropDeadLetter(j.it.letter)
	} else {
		t.Ack(d.sub.Name, j.it.seq)
	}
}

func (d *delivery) ackFloor(t *store.Turn, j job) {
	if j.floor > 0 {
		t.AckUpTo(d.sub.Name, j.floor)
	}
}

// judge decides what an error means for the message.
func (d *delivery) judge(ctx context.Context, r result, j job, err error) result {
	r.err, r.id = err, messageID(j.m)
	var rejected *rejectError
	var later *retryError
	switch {
	case errors.Is(err, errDropped), errors.Is(err, store.ErrNoDeadLetter):
		r.outcome = outcomeGone
	case errors.Is(err, store.ErrBehind):
		r.outcome = outcomeBehind
	case errors.Is(err, errUnsent):
		r.outcome = outcomeUnsent
	case errors.Is(err, errWithdrawn):
		r.outcome = outcomeAborted
	case errors.Is(err, errTooLarge):
		j.verdict = &deadReason{reason: "too-large", err: err.Error()}
		return d.bury(ctx, r, j)
	case errors.Is(err, store.ErrFailed), errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrDamaged),
		errors.Is(err, store.ErrNoSubscription):
		r.outcome = outcomeBroken
	case errors.As(err, &rejected):
		j.verdict = d.blame("rejected", rejected.reason, err)
		return d.bury(ctx, r, j)
	case ctx.Err() != nil:
		r.outcome = outcomeAborted
	case errors.Is(err, store.ErrFull):
		r.outcome = outcomeLater
	case d.sub.MaxDeliver > 0 && j.tried+1 >= d.sub.MaxDeliver:
		j.tried++
		j.verdict = d.blame("max-deliver", err.Error(), err)
		return d.bury(ctx, r, j)
	default:
		r.outcome = outcomeRetry
		if errors.As(err, &later) {
			r.pause = later.after
		}
	}
	return r
}

// messageID is how a person finds a message again: its Nats-Msg-Id, else source and
// id of the event that it is, else "".
func messageID(m Message) string {
	h := event.Header(m.Header)
	id, ok := h.Get("Nats-Msg-Id")
	if !ok {
		if e, ok := event.Parse(h, "", m.Data); ok {
			id = e.Source + " " + e.ID
		}
	}
	return id[:min(len(id), 256)]
}

// blame notes who failed, if the error tells.
func (d *delivery) blame(reason, text string, err error) *deadReason {
	v := &deadReason{reason: reason, err: text}
	var tracer Tracer
	if errors.As(err, &tracer) {
		v.err = strings.TrimRight(v.err+"\n"+tracer.Trace(), "\n")
	}
	var b Blame
	if errors.As(err, &b) {
		v.actor, v.version = b.Actor()
	}
	return v
}

// exhausted is the verdict on a message that failed n times, nil if it may be
// tried again.
func (sub *Subscription) exhausted(n int) *deadReason {
	if sub.MaxDeliver == 0 || n < sub.MaxDeliver || sub.AtMostOnce {
		return nil
	}
	return &deadReason{reason: "max-deliver", err: fmt.Sprintf("given up after %d attempts", n)}
}

// bury makes the message a dead letter and acknowledges it, in one turn that
// holds nothing of the handler's.
func (d *delivery) bury(ctx context.Context, r result, j job) result {
	if !j.loaded && j.m.Data == nil {
		m, err := d.load(j.it)
		if err != nil {
			j.verdict = nil
			return d.judge(ctx, r, j, err)
		}
		j.m = m
	}
	t := d.s.o.Store.Begin()
	if err := d.order(t, j); err != nil {
		t.Discard()
		r.outcome, r.verdict = outcomeBehind, j.verdict
		return r
	}
	if err := d.writeLetter(t, j); err != nil {
		t.Discard()
		j.verdict = nil
		return d.judge(ctx, r, j, err)
	}
	switch err := t.Commit(); {
	case err == nil:
		r.outcome, r.verdict, r.letter = outcomeDead, j.verdict, j.it.letter
		if ids := t.DeadLetters(); len(ids) > 0 {
			r.letter = ids[0]
		}
	case errors.Is(err, store.ErrNoDeadLetter): // dropped meanwhile
		r.outcome = outcomeGone
	case errors.Is(err, store.ErrFull):
		r.outcome, r.verdict, r.err = outcomeLater, j.verdict, err
	case errors.Is(err, store.ErrConflict): // the message before was not committed
		r.outcome, r.verdict = outcomeBehind, j.verdict
	default:
		r.outcome, r.err = outcomeBroken, err
	}
	return r
}

// writeLetter stages the dead letter of a message and that it is done with. One
// that was handled once more, in vain, is brought up to date.
func (d *delivery) writeLetter(t *store.Turn, j job) error {
	v := j.verdict
	if j.it.letter != 0 {
		l, err := d.letter(j.it.letter)
		if err != nil {
			return err
		}
		l.Attempts += max(j.tried, 1)
		l.Reason, l.Error, l.Actor, l.ActorVersion = v.reason, v.err, v.actor, v.version
		l.ReplayTo = ""
		t.UpdateDeadLetter(l)
		d.ackFloor(t, j)
		return nil
	}
	attempts := j.tried
	if v.reason != "expired" {
		attempts = max(attempts, 1)
	}
	t.DeadLetter(store.DeadLetter{
		Stream: d.sub.Stream, Seq: j.it.seq, Subject: j.m.Subject, Subscription: d.sub.Name,
		Attempts: attempts, Reason: v.reason, Error: v.err, Actor: v.actor, ActorVersion: v.version,
		Header: j.m.Header, Data: j.m.Data,
	})
	d.ack(t, j)
	return nil
}

// load reads one message again.
func (d *delivery) load(it *item) (m Message, err error) {
	if it.letter != 0 {
		l, err := d.letter(it.letter)
		return letterMessage(l), err
	}
	seq := it.seq
	err = d.s.o.Store.Read(d.sub.Stream, seq, 1, 1, func(r Message) error {
		m = r
		return nil
	})
	if err == nil && m.Seq != seq {
		err = errDropped
	}
	return m, err
}

// save writes how far the subscription has come, and attempts, without a
// message.
func (d *delivery) save(floor uint64, attempts map[uint64]int) result {
	t := d.s.o.Store.Begin()
	if floor > 0 {
		t.AckUpTo(d.sub.Name, floor)
	}
	for seq, n := range attempts {
		t.Attempt(d.sub.Name, seq, n)
	}
	r := result{outcome: outcomeSaved, floor: floor, saved: attempts}
	r.err = t.Commit()
	return r
}
