package broker

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/edged-io/edged/store"
)

// row is the items of one key, which are handled in order. The next one is
// handed out when the turn of the one before is queued, so that a key does
// not wait for the disk after each message. After a failure the row stops
// until all that were handed out have come back, and begins again with the
// first that is not done.
type row struct {
	key     string
	items   []*item // not done, but for some in the middle that wait to be dropped
	next    int     // index of the first that was not handed out
	out     int     // handed out and not come back
	offered *item   // offered and not handed out yet
	holder  *lease  // has received what is out, or its end; nil if nobody
	halted  bool
}

// lease is a turn in which items are received. What it holds of a row is done
// together or not at all, so it may have the next of the row too.
type lease struct{ rows []*row }

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
	ordered  bool
	items    []*item         // by sequence; the first is not done
	done     int             // how many of items are done
	rows     map[string]*row // ordered: by key
	ready    []offer         // for a receiver
	chores   []offer         // for none
	waiting  dueHeap
	expiring expiryHeap
	letters  map[uint64]*item // by id
	held     int
}

func newWindow(ordered bool) *window {
	return &window{ordered: ordered, rows: make(map[string]*row), letters: make(map[uint64]*item)}
}

// add takes a message that was read, in order of sequence. Without order its
// key does not matter.
func (w *window) add(m Message, key string, attempts int, expires time.Time, verdict *deadReason) {
	it := &item{seq: m.Seq, subject: m.Subject, m: m, loaded: true, attempts: attempts, expires: expires, verdict: verdict}
	if size := len(m.Header) + len(m.Data); w.held > 0 && w.held+size > maxHeld {
		it.m.Header, it.m.Data, it.loaded = nil, nil, false
	} else {
		w.held += size
	}
	w.items = append(w.items, it)
	if !it.expires.IsZero() {
		heap.Push(&w.expiring, it)
	}
	if !w.ordered {
		w.offer(it)
		return
	}
	r := w.row(key)
	it.row = r
	r.items = append(r.items, it)
	w.offerNext(r)
}

func (w *window) row(key string) *row {
	r := w.rows[key]
	if r == nil {
		r = &row{key: key}
		w.rows[key] = r
	}
	return r
}

// addLetter takes a dead letter that is to be handled once more. Of those of its
// key that were not handed out yet it goes first, behind letters that are older.
func (w *window) addLetter(id uint64, m Message, key string) {
	it := &item{letter: id, seq: m.Seq, subject: m.Subject, m: Message{Stream: m.Stream}}
	w.letters[id] = it
	if !w.ordered {
		w.offer(it)
		return
	}
	r := w.row(key)
	it.row = r
	if r.offered != nil {
		r.offered.offers++ // makes its offer stale
		r.offered = nil
	}
	i := r.next
	for i < len(r.items) && before(r.items[i], it) < 0 {
		i++
	}
	r.items = slices.Insert(r.items, i, it)
	w.offerNext(r)
}

// offer puts an item among those to hand out, now or when it is due.
func (w *window) offer(it *item) {
	it.offers++
	o := offer{it, it.offers, it.due}
	if it.due.IsZero() {
		w.admit(o)
	} else {
		heap.Push(&w.waiting, o)
	}
}

// admit has an offer wait for nothing but its turn.
func (w *window) admit(o offer) {
	switch {
	case o.it.chore():
		w.chores = append(w.chores, o)
	case o.it.attempts > 0: // among those of its age
		i, _ := slices.BinarySearchFunc(w.ready, o, func(a, b offer) int { return cmp.Compare(a.it.seq, b.it.seq) })
		w.ready = slices.Insert(w.ready, i, o)
	default:
		w.ready = append(w.ready, o)
	}
}

// hurry offers an item anew, now, that is not handed out and became a chore.
func (w *window) hurry(it *item) {
	it.due = time.Time{}
	if it.row == nil || it.row.offered == it {
		w.offer(it)
	}
}

// offerNext offers the next item of a row, if it may be handed out.
func (w *window) offerNext(r *row) {
	if r.halted && r.out == 0 {
		r.halted, r.next = false, 0
		r.items = slices.DeleteFunc(r.items, func(it *item) bool { return it.done })
		slices.SortFunc(r.items, before)
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
		w.admit(heap.Pop(&w.waiting).(offer))
	}
	for len(w.expiring) > 0 && !w.expiring[0].expires.After(now) {
		it := heap.Pop(&w.expiring).(*item)
		if it.overdue = true; !it.out && it.expire() {
			w.hurry(it)
		}
	}
}

// take returns an item to hand out to a receiver, or nil, and the turn that it
// must follow, if there is one. takeChore is take for those that need no
// receiver.
func (w *window) take() (it *item, behind *store.Turn) { return w.takeFrom(&w.ready) }

func (w *window) takeChore() (it *item, behind *store.Turn) { return w.takeFrom(&w.chores) }

func (w *window) takeFrom(from *[]offer) (it *item, behind *store.Turn) {
	o, ok := peek(from)
	if !ok {
		return nil, nil
	}
	(*from)[0] = offer{}
	*from = (*from)[1:]
	it = o.it
	if r := it.row; r != nil {
		behind = r.behind()
		r.offered = nil
		r.next++
		r.out++
	}
	it.turn, it.out = nil, true
	return it, behind
}

// peek returns the first offer that is not stale, and drops those before it.
func peek(from *[]offer) (o offer, ok bool) {
	for len(*from) > 0 {
		if o := (*from)[0]; !o.stale() {
			return o, true
		}
		(*from)[0] = offer{}
		*from = (*from)[1:]
	}
	return offer{}, false
}

// takeFor is take for a turn that receives: it may also have what is behind its
// own in a row. The lower sequence goes first.
func (w *window) takeFor(l *lease) (it *item, behind *store.Turn) {
	var next *row
	for _, r := range l.rows {
		if r.nextFor(l) && (next == nil || r.items[r.next].seq < next.items[next.next].seq) {
			next = r
		}
	}
	if o, ok := peek(&w.ready); next == nil || ok && o.it.seq < next.items[next.next].seq {
		if it, behind = w.take(); it != nil && it.row != nil {
			it.row.holder = l
			l.rows = append(l.rows, it.row)
		}
		return it, behind
	}
	it = next.items[next.next]
	next.next++
	next.out++
	it.turn, it.out = nil, true
	return it, nil
}

// nextFor says whether l, which holds the end of what is out, may have the next
// item too.
func (r *row) nextFor(l *lease) bool {
	if r.holder != l || r.halted || r.offered != nil || r.next == len(r.items) {
		return false
	}
	it := r.items[r.next]
	return !it.chore() && it.due.IsZero()
}

// untake puts an item back that was taken last and not handed out after all.
func (w *window) untake(it *item) {
	it.out = false
	if r := it.row; r != nil {
		r.offered = it
		r.next--
		r.back()
	}
	w.ready = slices.Insert(w.ready, 0, offer{it, it.offers, it.due})
}

// back notes that one that was out has come back.
func (r *row) back() {
	r.out--
	if r.out == 0 {
		r.holder = nil
	}
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
	it.due, it.turn, it.out = due, nil, false
	if it.expire() {
		it.due = time.Time{}
	}
	if it.letter != 0 { // it is read anew, since it may have been dropped
		it.m, it.loaded = Message{Stream: it.m.Stream}, false
	}
	r := it.row
	if r == nil {
		w.offer(it)
		return
	}
	r.back()
	r.halted = true
	if r.offered != nil {
		r.offered.offers++ // makes its offer stale
		r.offered = nil
	}
	w.offerNext(r)
}

// nextDue returns when the first waiting item may be handed out, or expires.
func (w *window) nextDue() (due time.Time, ok bool) {
	if len(w.waiting) > 0 {
		due, ok = w.waiting[0].due, true
	}
	if len(w.expiring) > 0 && (!ok || w.expiring[0].expires.Before(due)) {
		due, ok = w.expiring[0].expires, true
	}
	return due, ok
}

// finish forgets an item that was handed out.
func (w *window) finish(it *item) {
	it.done, it.out = true, false
	if it.heapAt > 0 {
		heap.Remove(&w.expiring, it.heapAt-1)
	}
	if it.letter != 0 {
		delete(w.letters, it.letter)
	} else if it.loaded {
		w.held -= len(it.m.Header) + len(it.m.Data)
	}
	it.m, it.loaded = Message{}, false
	if it.letter == 0 {
		w.done++
		w.trim()
	}
	r := it.row
	if r == nil {
		return
	}
	r.back()
	for len(r.items) > 0 && r.items[0].done {
		r.items[0] = nil
		r.items = r.items[1:]
		r.next--
	}
	if len(r.items) == 0 {
		delete(w.rows, r.key)
		return
	}
	w.offerNext(r)
}

// trim forgets items that are done: those in front at once, and those behind one
// that is not when they are many, so that a message which is tried again and again
// does not fill the window with what was done meanwhile.
func (w *window) trim() {
	for len(w.items) > 0 && w.items[0].done {
		w.items[0] = nil
		w.items = w.items[1:]
		w.done--
	}
	if w.done > maxWindow/4 && w.done > len(w.items)/2 {
		w.items = slices.DeleteFunc(w.items, func(it *item) bool { return it.done })
		w.done = 0
	}
}

// keep gives an item its message, until it is finished.
func (w *window) keep(it *item, m Message) {
	it.m, it.loaded = m, true
	if it.letter == 0 {
		w.held += len(m.Header) + len(m.Data)
	}
}

// find returns the item of a sequence that is not done, or nil.
func (w *window) find(seq uint64) *item {
	i, ok := slices.BinarySearchFunc(w.items, seq, func(it *item, seq uint64) int { return cmp.Compare(it.seq, seq) })
	if !ok || w.items[i].done {
		return nil
	}
	return w.items[i]
}

// findLetter returns the item of a dead letter that went out and is not done, or nil.
func (w *window) findLetter(stream string, seq uint64) *item {
	for _, it := range w.letters {
		if it.sent && it.seq == seq && it.m.Stream == stream {
			return it
		}
	}
	return nil
}

// undone is how many messages have been read and not done with.
func (w *window) undone() int { return len(w.items) - w.done }

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
	return w.undone() < maxWindow && len(w.ready) < enough && next-w.floor(next) < maxSpan
}
