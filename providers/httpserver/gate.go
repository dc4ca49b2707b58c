package httpserver

import (
	"context"
	"fmt"
	"sync"
)

// gates let requests through to actors, or hold them back while an app is
// exchanged.
type gates struct {
	mu      sync.Mutex // guards what follows, and the gates
	byActor map[string]*gate
}

type gate struct {
	inside int
	shut   int           // how often it was closed and not yet opened again
	opens  chan struct{} // closed when it opens; nil while it is open
	empty  chan struct{} // closed when nobody is inside; nil if nobody asked
}

func (g *gates) of(actor string) *gate {
	if g.byActor == nil {
		g.byActor = make(map[string]*gate)
	}
	if g.byActor[actor] == nil {
		g.byActor[actor] = &gate{}
	}
	return g.byActor[actor]
}

// enter lets a request through to an actor; leave has to follow. If it had to
// wait, it is not inside, and has to ask its way again.
func (g *gates) enter(ctx context.Context, actor string) (inside bool, err error) {
	g.mu.Lock()
	t := g.of(actor)
	opens := t.opens
	if opens == nil {
		t.inside++
		g.mu.Unlock()
		return true, nil
	}
	g.mu.Unlock()
	select {
	case <-opens:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

func (g *gates) leave(actor string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.of(actor)
	t.inside--
	g.settle(actor, t)
}

// settle tells who waits that nobody is inside, and forgets a gate that is like
// new. g.mu is held.
func (g *gates) settle(actor string, t *gate) {
	if t.inside > 0 {
		return
	}
	if t.empty != nil {
		close(t.empty)
		t.empty = nil
	}
	if t.shut == 0 {
		delete(g.byActor, actor)
	}
}

// close shuts the gates of actors and waits until nobody is inside. open opens
// them again.
func (g *gates) close(ctx context.Context, actors []string) (open func(), err error) {
	var wait []chan struct{}
	g.mu.Lock()
	for _, a := range actors {
		t := g.of(a)
		if t.shut++; t.shut == 1 {
			t.opens = make(chan struct{})
		}
		if t.inside > 0 {
			if t.empty == nil {
				t.empty = make(chan struct{})
			}
			wait = append(wait, t.empty)
		}
	}
	g.mu.Unlock()
	open = func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, a := range actors {
			t := g.of(a)
			if t.shut--; t.shut == 0 {
				close(t.opens)
				t.opens = nil
				g.settle(a, t)
			}
		}
	}
	for _, empty := range wait {
		select {
		case <-empty:
		case <-ctx.Done():
			open()
			return nil, fmt.Errorf("wait for HTTP requests to end: %w", context.Cause(ctx))
		}
	}
	return open, nil
}
