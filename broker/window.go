package broker

import (
	"container/heap"
	"slices"
	"time"
)

// item is a message that a subscription has not done with.
type item struct {
	seq      uint64
	subject  string
	m        Message // without header and data unless loaded
	loaded   bool
	attempts int         // that failed
	verdict  *deadReason // it is to become a dead letter
	due      time.Time   // of the next attempt
	done     bool
}

// deadReason is why a message is given up.
type deadReason struct{ reason, err, actor, version string }

const (
	// maxWindow bounds how many messages a subscription has read and not done with.
	maxWindow = 4096
	// maxSpan bounds how far it reads beyond the first of them. The store
	// remembers acknowledgements 65,536 messages ahead.
	maxSpan = 60_000
	// maxHeld bounds the bytes of messages that wait in memory. Those beyond it
	// are read again when their turn comes.
	maxHeld = 4 << 20
)

// window holds the items of a subscription: which may be handed out now, which
// wait for their predecessor, and which for the time of their next attempt. It
// does nothing by itself.
type window struct {
	ordered bool
	items   []*item            // by sequence; those in front that are done are gone
	lanes   map[string][]*item // ordered: by subject, the first one being ready, in a handler, or waiting for its time
	ready   []*item
	waiting dueHeap
	held    int
}

func newWindow(ordered bool) *window {
	return &window{ordered: ordered, lanes: make(map[string][]*item)}
}

// add takes a message that was read, in order of sequence.
func (w *window) add(m Message, attempts int) {
	it := &item{seq: m.Seq, subject: m.Subject, m: m, loaded: true, attempts: attempts}
	if size := len(m.Header) + len(m.Data); w.held > 0 && w.held+size > maxHeld {
		it.m.Header, it.m.Data, it.loaded = nil, nil, false
	} else {
		w.held += size
	}
	w.items = append(w.items, it)
	if w.ordered {
		lane := w.lanes[it.subject]
		w.lanes[it.subject] = append(lane, it)
		if len(lane) > 0 {
			return
		}
	}
	w.ready = append(w.ready, it)
}

// advance makes the items ready whose time has come.
func (w *window) advance(now time.Time) {
	for len(w.waiting) > 0 && !w.waiting[0].due.After(now) {
		w.ready = append(w.ready, heap.Pop(&w.waiting).(*item))
	}
}

// next returns an item to hand out, or nil.
func (w *window) next() *item {
	if len(w.ready) == 0 {
		return nil
	}
	it := w.ready[0]
	w.ready[0] = nil
	w.ready = w.ready[1:]
	return it
}

// retry has an item that was handed out wait until due.
func (w *window) retry(it *item, due time.Time) {
	it.due = due
	heap.Push(&w.waiting, it)
}

// again puts an item back that was not handed out after all.
func (w *window) again(it *item) { w.ready = slices.Insert(w.ready, 0, it) }

// nextDue returns when the first waiting item may be handed out.
func (w *window) nextDue() (due time.Time, ok bool) {
	if len(w.waiting) == 0 {
		return time.Time{}, false
	}
	return w.waiting[0].due, true
}

// finish forgets an item that was handed out.
func (w *window) finish(it *item) {
	it.done = true
	if it.loaded {
		w.held -= len(it.m.Header) + len(it.m.Data)
		it.m, it.loaded = Message{}, false
	}
	for len(w.items) > 0 && w.items[0].done {
		w.items[0] = nil
		w.items = w.items[1:]
	}
	if !w.ordered {
		return
	}
	lane := w.lanes[it.subject][1:]
	if len(lane) == 0 {
		delete(w.lanes, it.subject)
		return
	}
	w.lanes[it.subject] = lane
	w.ready = append(w.ready, lane[0])
}

// floor returns the last sequence up to which all is done, where next is the
// first that was not read yet.
func (w *window) floor(next uint64) uint64 {
	if len(w.items) > 0 {
		return w.items[0].seq - 1
	}
	return next - 1
}

// open says whether another message may be read.
func (w *window) open(next uint64, enough int) bool {
	return len(w.items) < maxWindow && len(w.ready) < enough && next-w.floor(next) < maxSpan
}

// dueHeap orders items by the time of their next attempt.
type dueHeap []*item

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].seq < h[j].seq
	}
	return h[i].due.Before(h[j].due)
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)   { *h = append(*h, x.(*item)) }
func (h *dueHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return it
}
