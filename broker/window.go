package broker

import (
	"container/heap"
	"slices"
	"time"

	"github.com/edged-io/edged/store"
)

// item is a message that a subscription has not done with.
type item struct {
	seq      uint64
	subject  string
	m        Message // without header and data unless loaded
	loaded   bool
	attempts int         // that failed
	verdict  *deadReason // it is to become a dead letter
	due      time.Time   // not to be handed out before
	turn     *store.Turn // of its last attempt, once that is queued
	row      *row        // nil if there is no order
	offers   int         // how often it was offered; only the last offer counts
	done     bool
}

// offer is an item that may be handed out, unless it was offered again or its
// row was halted since.
type offer struct {
	it  *item
	n   int
	due time.Time
}

func (o offer) stale() bool { return o.n != o.it.offers }

// row is the items of one subject, which are handled in order. The next one is
// handed out when the turn of the one before is queued, so that a subject does
// not wait for the disk after each message. After a failure the row stops
// until all that were handed out have come back, and begins again with the
// first that is not done.
type row struct {
	items   []*item // not done, but for some in the middle that wait to be dropped
	next    int     // index of the first that was not handed out
	out     int     // handed out and not come back
	offered *item   // offered and not handed out yet
	halted  bool
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
// wait for their predecessor, and which for their time. It does nothing by
// itself.
type window struct {
	ordered bool
	items   []*item         // by sequence; those in front that are done are gone
	rows    map[string]*row // ordered: by subject
	ready   []offer
	waiting dueHeap
	held    int
}

func newWindow(ordered bool) *window {
	return &window{ordered: ordered, rows: make(map[string]*row)}
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
	if !w.ordered {
		w.offer(it)
		return
	}
	r := w.rows[it.subject]
	if r == nil {
		r = &row{}
		w.rows[it.subject] = r
	}
	it.row = r
	r.items = append(r.items, it)
	w.offerNext(r)
}

// offer puts an item among those to hand out, now or when it is due.
func (w *window) offer(it *item) {
	it.offers++
	o := offer{it, it.offers, it.due}
	if it.due.IsZero() {
		w.ready = append(w.ready, o)
	} else {
		heap.Push(&w.waiting, o)
	}
}

// offerNext offers the next item of a row, if it may be handed out.
func (w *window) offerNext(r *row) {
	if r.halted && r.out == 0 {
		r.halted, r.next = false, 0
	}
	if r.halted || r.offered != nil || r.next == len(r.items) || !r.free() {
		return
	}
	r.offered = r.items[r.next]
	w.offer(r.offered)
}

// free says whether the item before the next one is out of the way.
func (r *row) free() bool {
	return r.next == 0 || r.items[r.next-1].turn != nil || r.items[r.next-1].done
}

// behind returns the turn that the next item must follow, or nil.
func (r *row) behind() *store.Turn {
	for i := r.next - 1; i >= 0; i-- {
		if t := r.items[i].turn; t != nil {
			return t
		}
	}
	return nil
}

// advance makes the items ready whose time has come.
func (w *window) advance(now time.Time) {
	for len(w.waiting) > 0 && (!w.waiting[0].due.After(now) || w.waiting[0].stale()) {
		w.ready = append(w.ready, heap.Pop(&w.waiting).(offer))
	}
}

// take returns an item to hand out, or nil, and the turn that it must follow, if
// there is one.
func (w *window) take() (it *item, behind *store.Turn) {
	for len(w.ready) > 0 {
		o := w.ready[0]
		w.ready[0] = offer{}
		w.ready = w.ready[1:]
		if o.stale() {
			continue
		}
		it = o.it
		if r := it.row; r != nil {
			behind = r.behind()
			r.offered = nil
			r.next++
			r.out++
		}
		it.turn = nil
		return it, behind
	}
	return nil, nil
}

// untake puts an item back that was not handed out after all.
func (w *window) untake(it *item) {
	if r := it.row; r != nil {
		r.offered = it
		r.next--
		r.out--
	}
	w.ready = slices.Insert(w.ready, 0, offer{it, it.offers, it.due})
}

// queued notes that the turn of an item that was handed out is queued.
func (w *window) queued(it *item, t *store.Turn) {
	it.turn = t
	if it.row != nil {
		w.offerNext(it.row)
	}
}

// retry has an item that was handed out wait until due.
func (w *window) retry(it *item, due time.Time) {
	it.due, it.turn = due, nil
	r := it.row
	if r == nil {
		w.offer(it)
		return
	}
	r.out--
	r.halted = true
	if r.offered != nil {
		r.offered.offers++ // makes its offer stale
		r.offered = nil
	}
	w.offerNext(r)
}

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
	r := it.row
	if r == nil {
		return
	}
	r.out--
	for len(r.items) > 0 && r.items[0].done {
		r.items[0] = nil
		r.items = r.items[1:]
		r.next--
	}
	if len(r.items) == 0 {
		delete(w.rows, it.subject)
		return
	}
	w.offerNext(r)
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

// dueHeap orders offers by the time of their items.
type dueHeap []offer

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].it.seq < h[j].it.seq
	}
	return h[i].due.Before(h[j].due)
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)   { *h = append(*h, x.(offer)) }
func (h *dueHeap) Pop() any {
	old := *h
	o := old[len(old)-1]
	old[len(old)-1] = offer{}
	*h = old[:len(old)-1]
	return o
}
