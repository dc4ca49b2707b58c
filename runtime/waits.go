package runtime

import (
	"context"
	"fmt"
	"sync"
)

// waits knows which instances stand still because what they asked of the host
// waits for an instance of some actor. A call that would complete a circle,
// where all instances of an actor are held by calls that wait for one another,
// is refused at once: nothing but the time limit would ever end it.
//
// Calls that come from outside hold nothing and are not looked at. What waits on
// the far side of a network is not seen.
type waits struct {
	mu sync.Mutex // guards what follows; taken before a pool's
	by map[*instance]*pool
}

// begin says that the caller of ctx waits for an instance of p, until end is
// called.
func (w *waits) begin(ctx context.Context, p *pool) (end func(), err error) {
	var held []*instance
	for h := hostContextOf(ctx); h != nil; h = hostContextOf(h.parent) {
		held = append(held, h.in)
	}
	if len(held) == 0 {
		return func() {}, nil
	}
	end = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, in := range held {
			delete(w.by, in)
		}
	}
	w.mu.Lock()
	for _, in := range held {
		w.by[in] = p
	}
	stuck := w.stuck(p, map[*pool]bool{})
	w.mu.Unlock()
	if stuck {
		end()
		return nil, p.deadlock()
	}
	return end, nil
}

// stuck says whether every instance of p is held by a call that waits for a pool
// that is stuck. w.mu is held.
func (w *waits) stuck(p *pool, seen map[*pool]bool) bool {
	if seen[p] {
		return true
	}
	seen[p] = true
	busy, all := p.busy()
	if !all {
		return false
	}
	for _, in := range busy {
		if next := w.by[in]; next == nil || !w.stuck(next, seen) {
			return false
		}
	}
	return true
}

// deadlock is ErrDeadlock, with what would let calls nest deeper.
func (p *pool) deadlock() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.room() < len(p.slots) {
		return fmt.Errorf("%w, and the host has no memory for one more: give all actors more ([limits] memory of the device file), or have instances take less", ErrDeadlock)
	}
	return fmt.Errorf("%w: allow more than %d (limits.instances of the manifest), or call nobody in a circle", ErrDeadlock, len(p.slots))
}

// busy returns the instances that serve calls, and whether those are all that
// there can be.
func (p *pool) busy() (busy []*instance, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.slots {
		in := p.slots[i].in
		if in == nil && p.size >= p.room() {
			continue
		}
		if in == nil || in == making || p.slots[i].idle() {
			return nil, false
		}
		busy = append(busy, in)
	}
	return busy, true
}
