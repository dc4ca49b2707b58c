package runtime

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// A pool keeps an actor's instances, at most so many, each in a slot of its own
// while it waits for work. Who finds all of them busy waits in turn.
//
// Cores do not meet in it as long as there is enough for all: each begins to
// look where it found an instance the last time, takes it with one compare-and-swap,
// and puts it back with one store.
type pool struct {
	min     int
	idleFor time.Duration
	waits   *waits // of the host
	slots   []slot
	hints   [32]hint // where to look first, by goroutine

	_    [64]byte
	gate atomic.Int64 // waiting callers, and closedGate; 0 on the quick way
	high atomic.Int64 // slots above have never been used
	_    [64]byte

	mu           sync.Mutex // guards what follows
	size         int        // slots in use: idle, busy, or where an instance is being made
	queue        []*waiter  // callers that wait, in turn
	waited       uint64     // callers that have
	crowded      int        // so many instances are enough until crowdedUntil; 0 for any number
	crowdedUntil int64
	sweeper      *time.Timer // armed while there are more than min
	closed       bool
	drained      chan struct{} // closed when the pool is closed and empty
	past         totals        // of instances that are no more

	sweeps sync.WaitGroup // armed or running sweepers
}

// closedGate in gate: the pool is closed.
const closedGate = 1 << 32

// A slot is the place of one instance. It is as large as what a core fetches at
// once.
type slot struct {
	// Twice the calls that the instance has served up to its last put, and one
	// more while it is idle.
	state atomic.Uint64
	// Nil, or making, while there is none. Who changes it holds pool.mu and the
	// instance; to read it, either will do.
	in    *instance
	swept uint64 // its calls at the last sweep; guarded by pool.mu
	_     [104]byte
}

// idleBit in the state of a slot: it is idle.
const idleBit = 1

// take takes the instance, if it is idle.
func (s *slot) take() *instance {
	if state := s.state.Load(); state&idleBit == 0 || !s.state.CompareAndSwap(state, state&^idleBit) {
		return nil
	}
	return s.in
}

func (s *slot) idle() bool { return s.state.Load()&idleBit != 0 }

type hint struct {
	slot atomic.Int64
	_    [56]byte
}

// hint is the one of this goroutine, by where its stack is. Two may share one;
// they only look a little longer then.
func (p *pool) hint() *hint {
	var here byte
	at := uint64(uintptr(unsafe.Pointer(&here))) >> 11
	return &p.hints[at*0x9e3779b97f4a7c15>>59]
}

// A waiter is a caller that waits for an instance, or for the right to make one
// in a slot.
type waiter struct{ turn chan grant }

type grant struct {
	in   *instance // nil: make one
	slot int
	err  error
}

func newPool(minimum, maximum int, idleFor time.Duration, w *waits) *pool {
	return &pool{min: minimum, idleFor: idleFor, waits: w, slots: make([]slot, maximum), drained: make(chan struct{})}
}

// acquire waits for its turn and returns an idle instance, or nil and the slot
// in which to make one. It is followed by a put or a drop.
func (p *pool) acquire(ctx context.Context) (in *instance, slot int, err error) {
	if ctx.Err() != nil { // an instance that meets it would be lost
		return nil, 0, context.Cause(ctx)
	}
	if p.gate.Load() == 0 {
		if in := p.take(); in != nil {
			return in, in.slot, nil
		}
	}
	return p.wait(ctx)
}

// take takes an idle instance, if there is one.
func (p *pool) take() *instance {
	h := p.hint()
	first := int(h.slot.Load())
	high := int(p.high.Load())
	for i := range high {
		at := first + i
		if at >= high {
			at -= high
		}
		if in := p.slots[at].take(); in != nil {
			if at != first {
				h.slot.Store(int64(at))
			}
			return in
		}
	}
	return nil
}

// put gives an instance to the next caller.
func (p *pool) put(in *instance) {
	p.slots[in.slot].state.Store(in.calls<<1 | idleBit)
	switch gate := p.gate.Load(); {
	case gate == 0:
	case gate >= closedGate:
		p.empty()
	default:
		p.mu.Lock()
		p.serve()
		p.mu.Unlock()
	}
}

// drop empties the slot of an instance that is no more, or was never made.
func (p *pool) drop(slot int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.slots[slot]
	if s.in != making {
		p.past.add(s.in, s.in.calls)
	}
	s.in = nil
	p.size--
	p.serve()
	if p.closed && p.size == 0 {
		close(p.drained)
	}
}

// enter makes an instance known that has been made for its slot.
func (p *pool) enter(in *instance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.slots[in.slot]
	s.state.Store(0)
	s.in, s.swept = in, 0
}

// serve gives waiting callers what there is. p.mu is held.
func (p *pool) serve() {
	for len(p.queue) > 0 {
		g, ok := p.spare()
		if !ok {
			return
		}
		p.queue[0].turn <- g
		p.queue = p.queue[1:]
		p.gate.Add(-1)
	}
}

// spare finds an idle instance or room for one. p.mu is held.
func (p *pool) spare() (grant, bool) {
	if in := p.take(); in != nil {
		return grant{in: in, slot: in.slot}, true
	}
	if p.size >= p.room() {
		return grant{}, false
	}
	for i := range p.slots {
		if p.slots[i].in == nil {
			p.slots[i].in = making
			p.size++
			p.high.Store(max(p.high.Load(), int64(i)+1))
			p.arm()
			return grant{slot: i}, true
		}
	}
	panic("runtime: a pool with room has no free slot")
}

// room is how many instances there may be now. p.mu is held.
func (p *pool) room() int {
	if p.crowded > 0 && clock() < p.crowdedUntil {
		return p.crowded
	}
	return len(p.slots)
}

// crowdedFor is how long a pool makes do with what it has after the host had no
// memory for more.
const crowdedFor = 100 * time.Millisecond

// crowd empties the slot of an instance for which there was no memory. It says
// whether there are others to wait for.
func (p *pool) crowd(slot int) bool {
	p.mu.Lock()
	others := p.size - 1
	p.crowded, p.crowdedUntil = others, clock()+int64(crowdedFor)
	p.mu.Unlock()
	p.drop(slot)
	return others > 0
}

// making stands for an instance that is being made.
var making = &instance{}

// wait is the slow way: there is no idle instance, or others wait already.
func (p *pool) wait(ctx context.Context) (*instance, int, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, 0, ErrClosed
	}
	if len(p.queue) == 0 {
		if g, ok := p.spare(); ok {
			p.mu.Unlock()
			return g.in, g.slot, nil
		}
	}
	w := &waiter{turn: make(chan grant, 1)}
	p.queue = append(p.queue, w)
	p.waited++
	// A put that has not seen the gate has put its instance where it is found
	// now.
	p.gate.Add(1)
	p.serve()
	p.mu.Unlock()

	leave, err := p.waits.begin(ctx, p)
	if err == nil {
		defer leave()
		select {
		case g := <-w.turn:
			return g.in, g.slot, g.err
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, q := range p.queue {
		if q == w {
			p.queue = append(p.queue[:i:i], p.queue[i+1:]...)
			p.gate.Add(-1)
			return nil, 0, err
		}
	}
	// Its turn came meanwhile.
	g := <-w.turn
	return g.in, g.slot, g.err
}

// arm has sweep run, while there are more instances than are kept. p.mu is held.
func (p *pool) arm() {
	if p.sweeper != nil || p.closed || p.size <= p.min {
		return
	}
	p.sweeps.Add(1)
	p.sweeper = time.AfterFunc(p.idleFor, func() {
		defer p.sweeps.Done()
		p.sweep()
	})
}

// sweep closes instances that nobody has called since the sweep before, and
// has all cores look from the first slot on again, so that they need no more
// instances than they must.
func (p *pool) sweep() {
	p.mu.Lock()
	p.sweeper = nil
	var cold []*instance
	for i := len(p.slots) - 1; i >= 0 && p.size-len(cold) > p.min && !p.closed; i-- {
		s := &p.slots[i]
		if !s.idle() {
			continue
		}
		if calls := s.state.Load() >> 1; calls != s.swept {
			s.swept = calls
		} else if in := s.take(); in != nil {
			cold = append(cold, in)
		}
	}
	for i := range p.hints {
		p.hints[i].slot.Store(0)
	}
	p.arm()
	p.mu.Unlock()
	for _, in := range cold {
		in.discard()
	}
}

// reclaim closes idle instances until they have given back n bytes, or so many
// instances are left, and returns how many bytes it got.
func (p *pool) reclaim(n int64, keep int) (got int64) {
	p.mu.Lock()
	most := p.size - keep
	p.mu.Unlock()
	for i := len(p.slots) - 1; i >= 0 && got < n && most > 0; i-- {
		if in := p.slots[i].take(); in != nil {
			most--
			got += in.memory.held.Load()
			in.discard()
		}
	}
	return got
}

// largest is how much memory the largest instance holds; 0 if there is none.
func (p *pool) largest() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.slots {
		if in := p.slots[i].in; in != nil && in != making {
			n = max(n, in.memory.held.Load())
		}
	}
	return n
}

// totals are what instances have counted.
type totals struct {
	calls, guestErrors, steps uint64
	memory                    int64
}

func (t *totals) add(in *instance, calls uint64) {
	t.calls += calls
	t.guestErrors += in.guestErrors.Load()
	t.steps += in.steps.Load()
}

// figures are sums over all instances, those that are no more included, and
// what there is now.
func (p *pool) figures() (sum totals, idle, busy int, waited uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum = p.past
	for i := range p.slots {
		s := &p.slots[i]
		if s.in == nil || s.in == making {
			continue
		}
		sum.add(s.in, s.state.Load()>>1)
		sum.memory += s.in.memory.held.Load()
		if s.idle() {
			idle++
		}
	}
	return sum, idle, p.size - idle, p.waited
}

// close refuses further calls, waits for those in progress, and closes all
// instances. If ctx ends first it may be called again to go on waiting.
func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		for _, w := range p.queue {
			w.turn <- grant{err: ErrClosed}
		}
		p.queue = nil
		p.gate.Store(closedGate)
		if p.size == 0 {
			close(p.drained)
		}
		if p.sweeper != nil && p.sweeper.Stop() {
			p.sweeps.Done()
		}
	}
	p.mu.Unlock()
	p.sweeps.Wait()
	p.empty()
	select {
	case <-p.drained:
		return nil
	case <-ctx.Done():
		_, _, busy, _ := p.figures()
		return fmt.Errorf("wait for %d calls in progress: %w", busy, context.Cause(ctx))
	}
}

// empty closes what is idle.
func (p *pool) empty() {
	for i := range p.slots {
		if in := p.slots[i].take(); in != nil {
			in.discard()
		}
	}
}
