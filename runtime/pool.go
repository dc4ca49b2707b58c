package runtime

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A pool keeps an actor's instances: at most max in all, those that wait for
// work on a stack, so that the warmest serves and the coldest can go. Who finds
// all of them busy waits in turn.
type pool struct {
	min     int
	idleFor time.Duration

	room    chan struct{} // a token for each call in progress; full when closed
	closing chan struct{}

	mu      sync.Mutex // guards what follows
	idle    []*instance
	sweeper *time.Timer // armed while there are more idle ones than min
	closed  bool

	sweeps sync.WaitGroup // armed or running sweepers

	closeMu sync.Mutex // one Close at a time; guards what follows
	drained int        // tokens that Close holds
}

func newPool(minimum, maximum int, idleFor time.Duration) *pool {
	return &pool{min: minimum, idleFor: idleFor, room: make(chan struct{}, maximum), closing: make(chan struct{})}
}

// acquire waits for its turn and returns an idle instance, or nil when one has
// to be made. Each acquire is followed by a release.
func (p *pool) acquire(ctx context.Context) (*instance, error) {
	if ctx.Err() != nil { // an instance that meets it would be lost
		return nil, context.Cause(ctx)
	}
	select {
	case p.room <- struct{}{}:
	case <-p.closing:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case <-p.closing:
		<-p.room
		return nil, ErrClosed
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		in := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		return in, nil
	}
	return nil, nil
}

// release gives the turn back, and an instance for the next caller unless it is
// nil.
func (p *pool) release(in *instance) {
	if in != nil {
		in.idleSince = time.Now()
		p.mu.Lock()
		p.idle = append(p.idle, in)
		if len(p.idle) > p.min && p.sweeper == nil {
			p.arm(p.idleFor)
		}
		p.mu.Unlock()
	}
	// Only now: an acquire that gets this token must find the instance.
	<-p.room
}

// arm has sweep run after d. p.mu is held.
func (p *pool) arm(d time.Duration) {
	p.sweeps.Add(1)
	p.sweeper = time.AfterFunc(d, func() {
		defer p.sweeps.Done()
		p.sweep()
	})
}

// sweep closes instances that nobody has needed for a while.
func (p *pool) sweep() {
	p.mu.Lock()
	p.sweeper = nil
	var cold []*instance
	if !p.closed {
		limit := time.Now().Add(-p.idleFor)
		n := 0
		for n < len(p.idle)-p.min && !p.idle[n].idleSince.After(limit) {
			n++
		}
		cold = append(cold, p.idle[:n]...)
		clear(p.idle[copy(p.idle, p.idle[n:]):])
		p.idle = p.idle[:len(p.idle)-n]
		if len(p.idle) > p.min {
			p.arm(max(time.Until(p.idle[0].idleSince.Add(p.idleFor)), time.Second))
		}
	}
	p.mu.Unlock()
	for _, in := range cold {
		in.discard()
	}
}

// len is how many instances wait and how many calls are in progress.
func (p *pool) len() (idle, busy int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle), min(len(p.room), cap(p.room))
}

// close refuses further calls, waits for those in progress, and closes all
// instances. If ctx ends first it may be called again to go on waiting.
func (p *pool) close(ctx context.Context) error {
	p.closeMu.Lock()
	defer p.closeMu.Unlock()
	select {
	case <-p.closing:
	default:
		close(p.closing)
	}
	for p.drained < cap(p.room) {
		select {
		case p.room <- struct{}{}:
			p.drained++
		case <-ctx.Done():
			return fmt.Errorf("wait for %d calls in progress: %w", len(p.room)-p.drained, context.Cause(ctx))
		}
	}
	p.mu.Lock()
	p.closed = true
	if p.sweeper != nil && p.sweeper.Stop() {
		p.sweeps.Done()
	}
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	p.sweeps.Wait()
	for _, in := range idle {
		in.discard()
	}
	return nil
}
