package broker

import (
	"context"
	"sync"
)

// gate decides whether messages are handed out, and to whom. It can be used
// while the loop of the delivery runs, and while it does not.
type gate struct {
	mu      sync.Mutex // guards the fields below
	paused  bool       // by Pause
	resting bool       // by Configure
	deliver deliverFunc
	busy    int           // handlers that run
	idle    chan struct{} // closed when busy becomes 0; nil if nobody waits
	kick    chan struct{} // capacity 1: the loop should look again
}

// enter takes the right to run one handler.
func (g *gate) enter() (deliverFunc, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused || g.resting {
		return nil, false
	}
	g.busy++
	return g.deliver, true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy--
	if g.busy == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// pause keeps handlers from being started and waits for those that run. So does
// rest; the two do not know of each other.
func (g *gate) pause(ctx context.Context) error {
	g.mu.Lock()
	g.paused = true
	g.mu.Unlock()
	return g.waitIdle(ctx)
}

func (g *gate) rest(ctx context.Context) error {
	g.mu.Lock()
	g.resting = true
	g.mu.Unlock()
	return g.waitIdle(ctx)
}

func (g *gate) waitIdle(ctx context.Context) error {
	g.mu.Lock()
	if g.busy == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// resume ends pause, and hands out to deliver from now on if it is not nil.
func (g *gate) resume(deliver deliverFunc) {
	g.mu.Lock()
	g.paused = false
	if deliver != nil {
		g.deliver = deliver
	}
	g.mu.Unlock()
	g.poke()
}

// wake ends rest.
func (g *gate) wake() {
	g.mu.Lock()
	g.resting = false
	g.mu.Unlock()
	g.poke()
}

// swap hands out to deliver from now on.
func (g *gate) swap(deliver deliverFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deliver = deliver
}

func (g *gate) poke() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

func (g *gate) isPaused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused
}
