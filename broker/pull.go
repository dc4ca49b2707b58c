package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/edged-io/edged/store"
)

// maxWaiting bounds who waits for messages of a pull subscription.
const maxWaiting = 512

// waiting are those who asked a pull subscription for messages.
type waiting struct {
	mu     sync.Mutex // guards the fields below
	all    []*request // in the order in which they are served
	leases map[*store.Turn]*lease
	closed bool // the loop has ended
}

// request is somebody who waits: a NATS client at its inbox, or a turn.
type request struct {
	want   int
	bytes  int       // at most; 0 means no limit
	until  time.Time // zero: until it is served
	noWait bool      // only what is there
	inbox  string
	owed   int // messages acknowledged for it that it may not have yet (at most once)

	lease  *lease
	got    []job
	served chan struct{} // closed when the turn has all that it gets
}

// Delivery is a message that was received, and which attempt at it this is, from
// 1.
type Delivery struct {
	Message
	Attempt int
}

// Receive returns the next messages of a pull subscription, at least one and at
// most max of those that are there, or none if nothing came within wait. ctx must
// carry a turn (store.TurnFrom), and the messages belong to it: its commit
// acknowledges them, and if it ends without one, they are given back in order,
// at once; that was an attempt, unless the turn lost a conflict or found no
// room. Until then
// nobody else has them, however long it takes. They count against
// MaxInFlight.
//
// Receivers share the messages of a subscription. One turn may receive several
// messages of a key, in order; another one gets the next of that key after the
// commit.
func (s *Server) Receive(ctx context.Context, subscription string, max int, wait time.Duration) ([]Delivery, error) {
	t := store.TurnFrom(ctx)
	if t == nil {
		return nil, fmt.Errorf("receive from subscription %s: not in a turn", subscription)
	}
	var before *delivery
	for end := time.Now().Add(wait); ; {
		d := s.work.get(subscription)
		switch {
		case d == nil:
			return nil, fmt.Errorf("receive from subscription %s: %w", subscription, errNoDelivery)
		case !d.sub.Pull:
			return nil, fmt.Errorf("receive from subscription %s: it is not a pull subscription", subscription)
		case d == before:
			return nil, fmt.Errorf("receive from subscription %s: %w", subscription, errWithdrawn)
		}
		got, again, err := d.receive(ctx, t, max, end)
		if err != nil {
			return nil, fmt.Errorf("receive from subscription %s: %w", subscription, err)
		}
		if !again {
			return got, nil
		}
		before = d
		// Configure has waited for all handlers when it ends a loop, and has
		// only to put the next one in its place.
		s.configured.wait()
	}
}

// receive is Receive. again says that the subscription was changed meanwhile.
func (d *delivery) receive(ctx context.Context, t *store.Turn, n int, end time.Time) (got []Delivery, again bool, err error) {
	r := &request{want: min(max(n, 1), d.sub.MaxInFlight), served: make(chan struct{})}
	left := time.Until(end)
	r.noWait = left <= 0
	if !d.pull.addTurn(r, t) {
		return nil, left > 0, nil
	}
	d.gate.poke()
	timer := time.NewTimer(max(left, receiveGrace))
	defer timer.Stop()
	select {
	case <-r.served:
	case <-timer.C:
	case <-ctx.Done():
	}
	jobs := d.pull.take(r)
	if err := ctx.Err(); err != nil {
		d.giveBack(jobs)
		return nil, false, context.Cause(ctx)
	}
	if d.sub.AtMostOnce {
		got, err = d.receiveOnce(ctx, jobs)
		return got, false, err
	}
	lost := make(map[*row]bool)
	for _, j := range jobs {
		if r := j.it.row; lost[r] || j.behind != nil && t.Follow(j.behind) != nil {
			lost[r] = r != nil // what comes behind it waits, too
			d.giveBack([]job{j})
			continue
		}
		d.ack(t, j)
		t.AfterEnd(func(committed bool) { d.turnEnded(t, j, committed) })
		got = append(got, Delivery{j.m, j.tried + 1})
	}
	return got, len(jobs) == 0 && d.pull.isClosed() && time.Now().Before(end), nil
}

// receiveGrace is how long the loop gets to answer one who does not want to wait.
const receiveGrace = time.Second

// turnEnded reports what became of a message that t received.
func (d *delivery) turnEnded(t *store.Turn, j job, committed bool) {
	r := result{it: j.it, floor: j.floor, outcome: outcomeAcked}
	if !committed {
		r.floor = 0
		switch r.err = t.Err(); {
		case errors.Is(r.err, store.ErrConflict), errors.Is(r.err, store.ErrBehind):
			r.outcome = outcomeBehind
		case errors.Is(r.err, store.ErrFull):
			r.outcome = outcomeLater
		case errors.Is(r.err, store.ErrFailed), errors.Is(r.err, store.ErrClosed):
			r.outcome = outcomeBroken
		case errors.Is(r.err, store.ErrNoDeadLetter):
			r.outcome = outcomeBehind // one that is gone is found when it is loaded
		default:
			r.outcome, r.err = outcomeRetry, errTurnEnded
		}
	}
	d.loop.results <- r // has room for all
	d.gate.leave()
}

var errTurnEnded = errors.New("the turn that received it was not committed")

// giveBack returns messages that nobody has seen.
func (d *delivery) giveBack(jobs []job) {
	for _, j := range jobs {
		d.loop.results <- result{it: j.it, outcome: outcomeBehind}
		d.gate.leave()
	}
}

// receiveOnce acknowledges messages in a turn of their own.
func (d *delivery) receiveOnce(ctx context.Context, jobs []job) (got []Delivery, err error) {
	if len(jobs) == 0 {
		return nil, nil
	}
	t := d.s.o.Store.Begin()
	for _, j := range jobs {
		if j.behind != nil && t.Follow(j.behind) != nil {
			t.Discard()
			d.giveBack(jobs)
			return nil, nil
		}
		d.ack(t, j)
		got = append(got, Delivery{j.m, j.tried + 1})
	}
	ended := make(chan error, 1)
	finish := func(err error) {
		for _, j := range jobs {
			r := result{it: j.it, floor: j.floor, outcome: outcomeAcked}
			if err != nil {
				r = result{it: j.it, outcome: outcomeBehind}
			}
			d.loop.results <- r
			d.gate.leave()
		}
		ended <- err
	}
	// The caller's turn may hold all others back: the wait must have an end.
	go t.Submit(finish) // ends when the turn has been queued or refused
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return got, nil
}

// addTurn lets a turn wait. It says false if the loop has ended.
func (p *waiting) addTurn(r *request, t *store.Turn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	if p.leases == nil {
		p.leases = make(map[*store.Turn]*lease)
	}
	if p.leases[t] == nil {
		p.leases[t] = new(lease)
		t.AfterEnd(func(bool) { p.forget(t) })
	}
	r.lease = p.leases[t]
	p.all = append(p.all, r)
	return true
}

func (p *waiting) forget(t *store.Turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.leases, t)
}

// take ends a turn's request and returns what it got.
func (p *waiting) take(r *request) []job {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(r)
	return r.got
}

// paid notes that a client has what it was owed, or never will.
func (p *waiting) paid(it *item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if it.owedTo != nil {
		it.owedTo.owed--
		it.owedTo = nil
	}
}

// remove ends a request. Call it with p.mu held.
func (p *waiting) remove(r *request) {
	p.all = slices.DeleteFunc(p.all, func(o *request) bool { return o == r })
}

func (p *waiting) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// nextDue returns when the first request expires.
func (p *waiting) nextDue() (due time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.all {
		if !r.until.IsZero() && r.owed == 0 && (!ok || r.until.Before(due)) {
			due, ok = r.until, true
		}
	}
	return due, ok
}

// ask takes a NATS client's request for messages.
func (d *delivery) ask(data []byte, inbox string) {
	q, err := parsePullRequest(data)
	if inbox == "" {
		return
	}
	if err != nil {
		d.s.local.sendAs(inbox, "", statusBlock(statusBadRequest+" - "+err.Error(), ""), nil)
		return
	}
	r := &request{want: q.Batch, bytes: q.MaxBytes, inbox: inbox}
	if q.Expires > 0 {
		r.until = time.Now().Add(q.Expires)
	} else {
		r.noWait = q.NoWait
	}
	p := &d.pull
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) >= maxWaiting {
		p.all = slices.DeleteFunc(p.all, func(r *request) bool { return r.inbox != "" && !d.s.local.heard(r.inbox) })
	}
	switch {
	case p.closed:
		d.s.local.sendAs(inbox, "", statusBlock(statusGoingAway, ""), nil)
	case len(p.all) >= maxWaiting:
		d.s.local.sendAs(inbox, "", statusBlock(statusTooManyWait, ""), nil)
	default:
		p.all = append(p.all, r)
		d.gate.poke()
	}
}

// serve takes a message for the next of those who wait. Nobody comes again
// before all others had a chance.
func (d *delivery) serve() (r *request, it *item, behind *store.Turn) {
	p := &d.pull
	p.mu.Lock()
	defer p.mu.Unlock()
	for range len(p.all) {
		r = p.all[0]
		p.all = append(p.all[1:], r)
		if r.want == 0 {
			continue
		}
		if it, behind = d.takeFor(r); it == nil {
			continue
		}
		r.want--
		if r.lease != nil {
			r.got = append(r.got, d.job(it, behind))
		} else {
			if r.want == 0 {
				p.remove(r)
			}
			if d.sub.AtMostOnce {
				it.owedTo = r
				r.owed++
			}
		}
		return r, it, behind
	}
	return nil, nil, nil
}

// takeFor takes a message for a request, or ends the request of a client that has
// gone or wants nothing as large. Call it with d.pull.mu held.
func (d *delivery) takeFor(r *request) (it *item, behind *store.Turn) {
	w := d.loop.win
	switch {
	case r.lease != nil:
		for it, behind = w.takeFor(r.lease); it != nil && !d.loadItem(it); {
			it, behind = w.takeFor(r.lease)
		}
	default:
		if _, ok := peek(&w.ready); !ok {
			return nil, nil
		}
		if !d.s.local.heard(r.inbox) {
			d.pull.remove(r)
			return nil, nil
		}
		it, behind = d.takeLoaded()
	}
	if it == nil || r.bytes == 0 {
		return it, behind
	}
	if size := len(it.subject) + len(it.m.Header) + len(it.m.Data); size > r.bytes {
		w.untake(it)
		if r.owed > 0 {
			return nil, nil // its end comes behind what it gets
		}
		d.pull.remove(r)
		d.s.local.sendAs(r.inbox, "", statusBlock(statusTooManyBytes, r.pending()), nil)
		return nil, nil
	} else if r.bytes -= size; r.bytes == 0 {
		r.want = 1 // it is the last
	}
	return it, behind
}

// takeLoaded takes the next item with its message.
func (d *delivery) takeLoaded() (it *item, behind *store.Turn) {
	for {
		it, behind = d.loop.win.take()
		if it == nil || d.loadItem(it) {
			return it, behind
		}
	}
}

// loadItem reads a message again that was not kept, or finishes it if it is not
// there any more.
func (d *delivery) loadItem(it *item) bool {
	if it.loaded {
		return true
	}
	m, err := d.load(it)
	switch {
	case err == nil:
		d.loop.win.keep(it, m)
		return true
	case errors.Is(err, errDropped), errors.Is(err, store.ErrNoDeadLetter):
		d.finish(it)
	default:
		d.broke(err)
	}
	return false
}

// pending are the headers that tell a client what it did not get.
func (r *request) pending() string {
	return "Nats-Pending-Messages: " + strconv.Itoa(r.want) + "\r\nNats-Pending-Bytes: " + strconv.Itoa(r.bytes) + "\r\n"
}

// answerWaiting answers those who got all there is, and those whose time is up.
func (d *delivery) answerWaiting(now time.Time) {
	p := &d.pull
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = slices.DeleteFunc(p.all, func(r *request) bool {
		switch {
		case r.lease != nil && (len(r.got) > 0 || r.noWait):
			close(r.served)
			return true
		case r.lease != nil, r.owed > 0: // a client takes the answer for the end
			return false
		case r.noWait:
			d.s.local.sendAs(r.inbox, "", statusBlock(statusNoMessages, r.pending()), nil)
			return true
		case !r.until.IsZero() && !now.Before(r.until):
			d.s.local.sendAs(r.inbox, "", statusBlock(statusTimeout, r.pending()), nil)
			return true
		}
		return false
	})
}

// dismissWaiting ends all requests, with the loop.
func (d *delivery) dismissWaiting() {
	p := &d.pull
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, r := range p.all {
		if r.lease != nil {
			close(r.served)
		} else {
			d.s.local.sendAs(r.inbox, "", statusBlock(statusGoingAway, r.pending()), nil)
		}
	}
	p.all = nil
}
