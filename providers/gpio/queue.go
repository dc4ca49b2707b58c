package gpio

import (
	"context"
	"sync"
)

// maxQueued is how many steps wait before a new level of a line takes the
// place of an older one that was not driven yet.
const maxQueued = 4096

// step is a level to put on a line, in the order of the commits.
type step struct {
	address
	actor   string
	level   bool
	restore bool // read the level from the store instead
}

// queue hands steps from the goroutine of the store, which must not wait for a
// device, to Run.
type queue struct {
	wake chan struct{} // holds a token when there is something to do

	mu       sync.Mutex // guards what follows
	steps    []step
	added    uint64        // steps ever added
	finished uint64        // steps ever driven
	progress chan struct{} // closed and replaced when finished moves
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), progress: make(chan struct{})}
}

// add appends s. It never waits.
func (q *queue) add(s step) {
	q.mu.Lock()
	if len(q.steps) < maxQueued || !q.drop(s.address) {
		q.added++
	}
	q.steps = append(q.steps, s)
	q.mu.Unlock()
	q.kick()
}

// drop removes the oldest step for a, so that the queue is never longer than
// maxQueued and one step for each line. The caller holds q.mu.
func (q *queue) drop(a address) bool {
	for i, s := range q.steps {
		if s.address == a {
			q.steps = append(q.steps[:i], q.steps[i+1:]...)
			return true
		}
	}
	return false
}

// kick lets Run look again at what there is to do.
func (q *queue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns what is queued.
func (q *queue) take() []step {
	q.mu.Lock()
	defer q.mu.Unlock()
	steps := q.steps
	q.steps = nil
	return steps
}

// finish tells that n more steps were driven.
func (q *queue) finish(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.finished += uint64(n)
	close(q.progress)
	q.progress = make(chan struct{})
}

// wait returns when all that is queued now has been driven, which is what
// lets an actor see the levels that earlier turns have set.
func (q *queue) wait(ctx context.Context, gone <-chan struct{}) error {
	q.mu.Lock()
	target := q.added
	q.mu.Unlock()
	for {
		q.mu.Lock()
		reached, progress := q.finished >= target, q.progress
		q.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-progress:
		case <-gone:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
