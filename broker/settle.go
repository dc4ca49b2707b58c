package broker

import (
	"errors"
	"time"

	"github.com/edged-io/edged/store"
)

// settle takes note of how an attempt ended.
func (d *delivery) settle(r result) {
	l := &d.loop
	if r.it != nil && r.outcome != outcomeQueued {
		l.inFlight--
		if d.sub.Pull && d.sub.AtMostOnce {
			d.pull.paid(r.it)
		}
	}
	switch r.outcome {
	case outcomeAcked, outcomeDead:
		d.acked(r)
	case outcomeGone:
		d.finish(r.it)
	case outcomeRetry:
		d.failed(r)
	case outcomeLater:
		d.later(r)
	case outcomeQueued:
		l.win.queued(r.it, r.turn)
	case outcomeBehind:
		d.keepAnswer(r)
		l.win.retry(r.it, time.Time{})
	case outcomeUnsent:
		l.win.retry(r.it, time.Now().Add(jitter(interestPoll)))
	case outcomeAborted: // the loop has ended
	case outcomeBroken:
		d.broke(r.err)
	case outcomeSaved:
		d.noteSaved(r)
	}
}

func (d *delivery) acked(r result) {
	l := &d.loop
	if l.full {
		l.full = false
		d.log.Info("handlers go on")
	}
	if r.it.letter == 0 {
		l.above[r.it.seq] = struct{}{}
	}
	d.raise(r.floor)
	switch {
	case r.outcome == outcomeDead && r.it.letter != 0:
		if !d.tell(r, 0) {
			d.log.Warn("dead letter could not be handled this time either", "id", r.it.letter, "subject", r.it.subject,
				"reason", r.verdict.reason, "err", r.verdict.err)
		}
	case r.outcome == outcomeDead:
		d.seen.dead.Add(1)
		if r.verdict.reason == "expired" {
			d.seen.expired.Add(1)
			d.log.Debug("message has expired", "subject", r.it.subject, "seq", r.it.seq)
			break
		}
		if !d.tell(r, 0) {
			d.log.Warn("message became a dead letter", "subject", r.it.subject, "seq", r.it.seq,
				"id", r.letter, "reason", r.verdict.reason, "err", r.verdict.err)
		}
	case r.err != nil: // at most once
		d.seen.bad.Add(1)
		if !d.tell(r, 0) {
			d.log.Debug("message is lost to its receiver", "subject", r.it.subject, "seq", r.it.seq, "err", r.err)
		}
	case r.it.letter != 0:
		d.seen.replayed.Add(1)
		d.log.Info("dead letter is handled", "id", r.it.letter, "subject", r.it.subject)
	default:
		d.seen.delivered.Add(1)
	}
	r.it.promise(r.reply)
	for _, reply := range r.it.replies {
		d.confirm(reply, r.it.m.Stream, r.it.seq)
	}
	d.finish(r.it)
}

// tell tells who wants to know of an attempt by a function that failed. False
// says that nobody does.
func (d *delivery) tell(r result, after time.Duration) bool {
	if d.s.o.Failed == nil || d.sub.remote() || r.err == nil {
		return false
	}
	f := Failure{
		Subscription: d.sub.Name, Stream: d.sub.Stream, Seq: r.it.seq, Subject: r.it.subject, ID: r.id,
		Attempt: r.it.attempts, Err: r.err, After: after, Letter: r.letter, Lost: r.outcome == outcomeAcked,
	}
	if r.outcome != outcomeRetry { // it is counted there already
		f.Attempt++
	}
	if r.verdict != nil {
		f.Reason = r.verdict.reason
	}
	d.s.o.Failed(f)
	return true
}

// finish forgets an item that was handed out.
func (d *delivery) finish(it *item) {
	l := &d.loop
	if it.letter == 0 {
		delete(l.unsaved, it.seq)
	} else {
		l.letters = true // it may have been marked once more
	}
	l.win.finish(it)
}

func (d *delivery) failed(r result) {
	l := &d.loop
	it := r.it
	it.attempts++
	if it.letter == 0 {
		l.unsaved[it.seq] = it.attempts
	}
	d.seen.bad.Add(1)
	pause := r.pause
	if pause < 0 {
		pause = d.sub.pause(it.attempts)
	}
	if !d.tell(r, pause) {
		d.log.Debug("message will be tried again", "subject", it.subject, "seq", it.seq, "attempts", it.attempts, "after", pause, "err", r.err)
	}
	it.verdict = d.sub.exhausted(it.attempts)
	due := time.Time{}
	if it.late {
		it.acked, it.verdict = true, nil
	} else if pause > 0 {
		due = time.Now().Add(pause)
	}
	l.win.retry(it, due)
}

func (d *delivery) later(r result) {
	l := &d.loop
	if !l.full {
		l.full = true
		d.log.Warn("handlers can not go on for now; messages wait", "err", r.err)
	}
	d.keepAnswer(r)
	r.it.pause = min(max(2*r.it.pause, leastPause), fullPause)
	l.win.retry(r.it, time.Now().Add(jitter(r.it.pause)))
}

// keepAnswer keeps what is already decided about a message for the next attempt.
func (d *delivery) keepAnswer(r result) {
	it := r.it
	it.verdict, it.acked = r.verdict, r.acked
	it.promise(r.reply)
}

func (d *delivery) broke(err error) {
	d.loop.broken = true
	if !errors.Is(err, store.ErrClosed) {
		d.log.Error("subscription ends", "err", err)
	}
}
