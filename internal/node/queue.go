package node

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/edged-io/edged/broker"
)

// queue hands each message to one of its receivers, to the one that has the
// fewest, and where these are several to the one that waited longest. One whose app
// is being compiled gets none while there is another.
type queue struct {
	mu        sync.Mutex // guards receivers
	receivers []receiver // the one that was asked last is the last
}

type receiver struct {
	app     *app
	deliver func(context.Context, broker.Message, int) error
	busy    *int // messages it has now
}

// compare is negative if r is the better one for a message.
func (r receiver) compare(b receiver) int {
	if late := r.app.isCompiling(); late != b.app.isCompiling() {
		if late {
			return 1
		}
		return -1
	}
	return cmp.Compare(*r.busy, *b.busy)
}

// add adds a receiver, before the first message.
func (q *queue) add(a *app, deliver func(context.Context, broker.Message, int) error) {
	q.receivers = append(q.receivers, receiver{a, deliver, new(int)})
}

func (q *queue) deliver(ctx context.Context, m broker.Message, attempt int) error {
	r := q.take()
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		*r.busy--
	}()
	return r.deliver(ctx, m, attempt)
}

func (q *queue) take() receiver {
	q.mu.Lock()
	defer q.mu.Unlock()
	best := 0
	for i, r := range q.receivers {
		if r.compare(q.receivers[best]) < 0 {
			best = i
		}
	}
	r := q.receivers[best]
	*r.busy++
	q.receivers = append(slices.Delete(q.receivers, best, best+1), r)
	return r
}
