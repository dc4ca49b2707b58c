package control

import (
	"context"
	"fmt"
	"sync"
)

// lanes run commands: those of one lane in order, several lanes at once. The zero value is ready.
type lanes struct {
	mu      sync.Mutex // guards all below
	queues  map[string][]func(context.Context)
	pending int
	idle    []string // lanes that have something to do and wait for others to end
	busy    int

	wg sync.WaitGroup // the lanes at work; wait waits for them
}

// add has f run after what was added to its lane before, or says that too much waits.
func (l *lanes) add(ctx context.Context, lane string, f func(context.Context)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending >= MaxCommands {
		return fmt.Errorf("%d commands wait to be done; try again later", l.pending)
	}
	l.pending++
	if l.queues == nil {
		l.queues = map[string][]func(context.Context){}
	}
	queue, there := l.queues[lane]
	l.queues[lane] = append(queue, f)
	switch {
	case there:
	case l.busy < MaxLanes:
		l.busy++
		l.wg.Go(func() { l.work(ctx, lane) })
	default:
		l.idle = append(l.idle, lane)
	}
	return nil
}

// work runs the commands of a lane, and then those of lanes that waited.
func (l *lanes) work(ctx context.Context, lane string) {
	for {
		f, next, ok := l.take(lane)
		if !ok {
			return
		}
		lane = next
		if f != nil && ctx.Err() == nil { // a host that stops does not begin anything
			f(ctx)
		}
	}
}

// take is the next command of a lane. Without one it is the lane to go on with, and false at the end.
func (l *lanes) take(lane string) (f func(context.Context), next string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if queue := l.queues[lane]; len(queue) > 0 {
		l.queues[lane] = queue[1:]
		l.pending--
		return queue[0], lane, true
	}
	delete(l.queues, lane)
	if len(l.idle) == 0 {
		l.busy--
		return nil, "", false
	}
	next, l.idle = l.idle[0], l.idle[1:]
	return nil, next, true
}

// wait waits for all commands. Nothing may be added meanwhile.
func (l *lanes) wait() { l.wg.Wait() }
