package broker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/store"
)

type deliverFunc func(ctx context.Context, m Message, attempt int) error

const (
	readMessages = 256
	readBytes    = 1 << 20
	// savePause is how long attempts, and a position that no message carries
	// along, may stay in memory alone. Losing them costs nothing but work.
	savePause = time.Second
)

// delivery runs one subscription. All below loop belongs to the loop's
// goroutine.
type delivery struct {
	s    *Server
	sub  Subscription // Deliver is in gate
	log  *slog.Logger
	gate gate
	out  outbox        // what went out to NATS clients and was not answered
	pull waiting       // who asked for messages
	stop func()        // nil until it was started
	gone chan struct{} // closed when the loop has ended
	seen deliverySeen

	loop struct {
		win      *window
		next     uint64              // first sequence not read yet
		above    map[uint64]struct{} // acknowledged in the store beyond saved
		saved    uint64              // floor in the store
		attempts map[uint64]int      // from before the start, for messages not read yet
		unsaved  map[uint64]int      // attempts that the store does not know of
		saving   bool
		more     bool // there may be something to read
		letters  bool // there may be dead letters to hand out once more
		broken   bool // the store or the subscription is gone
		full     bool // the last attempt found no room, or what it needs is not there yet
		inFlight int
		nobody   bool // there is a message to push, and nobody is subscribed
		results  chan result
	}
}

// deliverySeen are the counters that others may read.
type deliverySeen struct {
	next, window, inFlight            atomic.Uint64
	delivered, redelivered, dead, bad atomic.Uint64
	expired, replayed, strayAcks      atomic.Uint64
	letters                           atomic.Uint64 // that wait to be handled once more
}

func newDelivery(s *Server, sub Subscription) *delivery {
	d := &delivery{s: s, sub: sub, log: s.log.With("subscription", sub.Name), gone: make(chan struct{})}
	d.gate = gate{deliver: sub.Deliver, paused: sub.Paused, kick: make(chan struct{}, 1)}
	d.sub.Deliver = nil
	return d
}

// run hands messages out until ctx ends, and then waits for its handlers: for
// a while as they are, after that with their context cancelled.
func (d *delivery) run(ctx context.Context) {
	defer close(d.gone)
	wake, unwatch, err := d.s.o.Store.Watch(d.sub.Stream)
	if err == nil {
		defer unwatch()
		err = d.begin()
	}
	if err != nil {
		d.log.Error("subscription cannot run", "err", err)
		return
	}
	handlers, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg sync.WaitGroup
	d.handOut(ctx, handlers, &wg, wake)
	grace := time.AfterFunc(d.s.o.Grace, cancel)
	defer grace.Stop()
	wg.Wait()
	d.end()
}

// begin takes up the position in the store.
func (d *delivery) begin() error {
	pos, err := d.s.o.Store.Position(d.sub.Name)
	if err != nil {
		return err
	}
	l := &d.loop
	l.win = newWindow(d.sub.OrderedBy != orderedByNone)
	l.next, l.saved = pos.Floor+1, pos.Floor
	l.above = make(map[uint64]struct{}, len(pos.Above))
	for _, seq := range pos.Above {
		l.above[seq] = struct{}{}
	}
	l.attempts, l.unsaved = pos.Attempts, make(map[uint64]int)
	l.more, l.letters = true, true
	l.results = make(chan result, 2*d.sub.MaxInFlight+1) // each attempt may tell twice, and there may be a save
	return nil
}

// handOut is the loop: read, hand out, wait for something to happen.
func (d *delivery) handOut(ctx, handlers context.Context, wg *sync.WaitGroup, wake <-chan struct{}) {
	l := &d.loop
	alarm, save := newStoppedTimer(), newStoppedTimer()
	defer alarm.Stop()
	defer save.Stop()
	saveSet := false
	for ctx.Err() == nil && !l.broken {
		d.takeLetters()
		d.fill()
		now := time.Now()
		l.win.advance(now)
		d.takeStrayAcks()
		l.nobody = false
		for l.inFlight < d.sub.MaxInFlight && d.start(ctx, handlers, wg) {
			l.inFlight++
		}
		if l.more && !l.broken && l.win.open(l.next, 2*d.sub.MaxInFlight) {
			continue
		}
		d.answerWaiting(now)
		d.seen.window.Store(uint64(l.win.undone()))
		d.seen.inFlight.Store(uint64(l.inFlight))
		if due, ok := d.nextDue(now); ok {
			alarm.Reset(time.Until(due))
		}
		if d.unsaved() && !saveSet && !l.saving {
			save.Reset(savePause)
			saveSet = true
		}
		select {
		case <-ctx.Done():
		case <-wake:
			l.more, l.letters = true, true
		case <-d.gate.kick:
		case <-alarm.C:
		case <-save.C:
			saveSet = false
			d.startSave(wg)
		case r := <-l.results:
			d.settle(r)
		}
		for len(l.results) > 0 && !l.broken { // what came back together is handed out in order
			d.settle(<-l.results)
		}
	}
	d.seen.inFlight.Store(0)
	d.dismissWaiting()
}

// nextDue returns when the loop should look again though nothing happened.
func (d *delivery) nextDue(now time.Time) (due time.Time, ok bool) {
	earlier := func(t time.Time) {
		if !ok || t.Before(due) {
			due, ok = t, true
		}
	}
	if t, ok := d.loop.win.nextDue(); ok {
		earlier(t)
	}
	if t, ok := d.pull.nextDue(); ok {
		earlier(t)
	}
	if d.loop.nobody {
		earlier(now.Add(interestPoll))
	}
	return due, ok
}

func newStoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// fill reads what there is, as far as it is wanted now.
func (d *delivery) fill() {
	l := &d.loop
	for l.more && !l.broken && l.win.open(l.next, 2*d.sub.MaxInFlight) {
		n := 0
		now := time.Now()
		err := d.s.o.Store.Read(d.sub.Stream, l.next, readMessages, readBytes, func(m Message) error {
			n++
			l.next = m.Seq + 1
			if _, done := l.above[m.Seq]; done {
				return nil
			}
			if d.sub.matches(m.Subject) {
				var expires time.Time
				if m.TTL != 0 {
					expires = now.Add(m.TTL)
				}
				l.win.add(m, d.sub.key(m), l.attempts[m.Seq], expires, d.sub.exhausted(l.attempts[m.Seq]))
			}
			delete(l.attempts, m.Seq)
			return nil
		})
		if err != nil {
			d.broke(err)
			return
		}
		l.more = n > 0
		d.seen.next.Store(l.next)
	}
}

// start hands out one message, if there is one that may be handed out now and
// somebody to take it.
func (d *delivery) start(ctx, handlers context.Context, wg *sync.WaitGroup) bool {
	deliver, ok := d.gate.enter()
	if !ok { // paused
		return false
	}
	l := &d.loop
	leave := d.gate.leave
	it, behind := l.win.takeChore()
	to := ""
	switch {
	case it != nil:
	case d.sub.Pull:
		var r *request
		if r, it, behind = d.serve(); r != nil && r.lease != nil {
			return true // whoever received it leaves the gate
		} else if r != nil {
			to = r.inbox
		}
	case d.sub.PushTo == "":
		it, behind = l.win.take()
	case d.listenedTo():
		it, behind = d.takeLoaded()
		to = d.sub.PushTo
	}
	if it == nil {
		leave()
		return false
	}
	j := d.job(it, behind)
	if to != "" {
		// A client may take its time; a pause does not wait for it.
		leave()
		leave = func() {}
		j.to, j.pending = to, d.pending()
		it.sent = true
		if !d.sub.AtMostOnce { // here, so that messages go out in order
			j.handed, j.err = d.handOver(j)
		}
	}
	wg.Go(func() {
		r := d.attempt(ctx, handlers, deliver, j)
		l.results <- r // has room for all
		leave()
	})
	return true
}

// job is what an attempt at an item that was taken needs.
func (d *delivery) job(it *item, behind *store.Turn) job {
	l := &d.loop
	j := job{it: it, m: it.m, loaded: it.loaded, tried: it.attempts, verdict: it.verdict, acked: it.acked, behind: behind}
	if floor := l.win.floor(l.next); floor > l.saved {
		j.floor = floor
	}
	if it.attempts > 0 {
		d.seen.redelivered.Add(1)
	}
	return j
}

// raise notes what the store makes of floor and of what is acknowledged beyond.
func (d *delivery) raise(floor uint64) {
	l := &d.loop
	for ; l.saved < floor; l.saved++ {
		delete(l.above, l.saved+1)
	}
	for {
		if _, ok := l.above[l.saved+1]; !ok {
			return
		}
		l.saved++
		delete(l.above, l.saved)
	}
}

// A message that nothing could be tried with, since a stream or the disk is full or
// there is no memory for its actor just now, waits for leastPause and then twice as
// long each time, up to fullPause.
const (
	leastPause = 10 * time.Millisecond
	fullPause  = 500 * time.Millisecond
)

// end settles what came in while the handlers ended, and saves the rest.
func (d *delivery) end() {
	l := &d.loop
	for len(l.results) > 0 {
		d.settle(<-l.results)
	}
	if l.broken || !d.unsaved() {
		return
	}
	if r := d.save(d.toSave()); r.err != nil && !errors.Is(r.err, store.ErrClosed) {
		d.log.Warn("position not saved; some messages will be skipped over again", "err", r.err)
	}
}
