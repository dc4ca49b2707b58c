package store

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Bounds of the messages that are parked until they are due.
const (
	maxDelayed   = 1 << 16 // in the whole store; what is known of each is in memory
	maxDelay     = 100 * 365 * 24 * time.Hour
	releaseMsgs  = 1024 // that enter their streams in one turn
	releaseBytes = 1 << 20
	releaseRetry = time.Second // after one that found no room
)

// delays are the messages that are parked. Those of a given time are due when it
// is that time, by the best estimate of real time there is; those of a delay when
// so much time really passed. DB.mu guards it.
type delays struct {
	last     uint64        // number given to one
	retry    time.Duration // own clock; none is released before, since there was no room
	count    int
	at       dueHeap // by real time
	after    dueHeap // by the own clock
	byStream map[*stream]map[*parked]struct{}
}

// parkedCount is what a stream has parked. What is queued is included.
type parkedCount struct {
	msgs, bytes int64
	stored      int64 // of msgs, on disk
	storedBytes int64
	ids         map[idHash]*parked
}

// delayed says whether a message is to be parked at this moment.
func (m *Message) delayed(now time.Time) bool {
	return m.Delay > 0 || !m.NotBefore.IsZero() && m.NotBefore.After(now)
}

func (m *Message) checkDelay() error {
	switch y := m.NotBefore.Year(); {
	case m.NotBefore.IsZero():
	case m.Delay != 0:
		return errors.New("it has both a delay and a time before which it is not to be seen: give one")
	case y > 2200:
		return fmt.Errorf("its time %s is out of range", m.NotBefore.Format(time.RFC3339))
	}
	if m.Delay > maxDelay {
		return fmt.Errorf("its delay %s is out of range", m.Delay)
	}
	return nil
}

// park gives p a place among those that wait. Call it with db.mu held.
func (db *DB) park(p *pendingMessage, now time.Time) {
	d, own := &db.delays, db.clock.now()
	d.last++
	q := &parked{number: d.last, s: p.s, size: p.m.size(), published: own, ids: slices.Clone(p.identities(p.s))}
	if p.m.Delay > 0 {
		q.due, p.receipt.Due = p.m.Delay, now.Add(p.m.Delay)
	} else {
		q.absolute, q.due, p.receipt.Due = true, time.Duration(p.m.NotBefore.UnixNano()), p.m.NotBefore
	}
	p.parked, p.m.Seq, p.receipt.Seq = q, 0, 0
	d.add(q)
}

// add counts q. It is not due before it is stored.
func (d *delays) add(q *parked) {
	d.count++
	if d.byStream[q.s] == nil {
		d.byStream[q.s] = make(map[*parked]struct{})
	}
	d.byStream[q.s][q] = struct{}{}
	c := &q.s.parked
	c.msgs++
	c.bytes += q.size
	q.s.msgs++
	q.s.bytes += q.size
	for _, h := range q.ids {
		if c.ids == nil {
			c.ids = make(map[idHash]*parked)
		}
		c.ids[h] = q
	}
	q.index = -1
}

// remove forgets q. The stream has as much as before when it took q in.
func (d *delays) remove(q *parked) {
	d.unschedule(q)
	d.count--
	delete(d.byStream[q.s], q)
	if len(d.byStream[q.s]) == 0 {
		delete(d.byStream, q.s)
	}
	c := &q.s.parked
	c.msgs--
	c.bytes -= q.size
	q.s.msgs--
	q.s.bytes -= q.size
	if q.stored {
		c.stored--
		c.storedBytes -= q.size
	}
	for _, h := range q.ids {
		if c.ids[h] == q {
			delete(c.ids, h)
		}
	}
}

// isStored notes that q is on disk, from where it can be released.
func (d *delays) isStored(q *parked, c *clock) {
	q.stored = true
	q.s.parked.stored++
	q.s.parked.storedBytes += q.size
	d.schedule(q, c)
}

func (d *delays) heapOf(q *parked) *dueHeap {
	if q.absolute {
		return &d.at
	}
	return &d.after
}

func (d *delays) schedule(q *parked, c *clock) {
	q.when = q.due
	if !q.absolute {
		q.when = c.now() + q.due - c.since(q.published)
	}
	heap.Push(d.heapOf(q), q)
}

func (d *delays) unschedule(q *parked) {
	if q.index >= 0 {
		heap.Remove(d.heapOf(q), q.index)
	}
}

// retime orders those that count elapsed time anew: more is known of it.
func (d *delays) retime(c *clock) {
	old := d.after
	d.after = nil
	for _, q := range old {
		d.schedule(q, c)
	}
}

// until is how long it takes for the next message to be due; false if none waits.
func (d *delays) until(c *clock) (wait time.Duration, ok bool) {
	if len(d.after) > 0 {
		wait, ok = d.after[0].when-c.now(), true
	}
	if len(d.at) > 0 {
		now, _ := c.real()
		if w := time.Unix(0, int64(d.at[0].when)).Sub(now); !ok || w < wait {
			wait, ok = w, true
		}
	}
	return max(wait, d.retry-c.now()), ok
}

// take removes from the heaps what is due, up to the bounds of a turn.
func (d *delays) take(c *clock) (due []*parked) {
	now, _ := c.real()
	own, size := c.now(), int64(0)
	for _, h := range []struct {
		heap *dueHeap
		now  time.Duration
	}{{&d.at, time.Duration(now.UnixNano())}, {&d.after, own}} {
		for len(*h.heap) > 0 && (*h.heap)[0].when <= h.now && len(due) < releaseMsgs && size < releaseBytes {
			q := heap.Pop(h.heap).(*parked)
			size += q.size
			due = append(due, q)
		}
	}
	return due
}

// isParked returns what p is a repeat of, if that is parked.
func (s *stream) isParked(p *pendingMessage) *parked {
	for _, h := range p.identities(s) {
		if q := s.parked.ids[h]; q != nil {
			return q
		}
	}
	return nil
}

// dueOf is when a message that is parked is due, by what is known now.
func (db *DB) dueOf(q *parked) time.Time {
	switch {
	case q == nil:
		return time.Time{}
	case q.absolute:
		return time.Unix(0, int64(q.due))
	}
	now, _ := db.clock.real()
	return now.Add(q.due - db.clock.since(q.published))
}

// untilRelease is how long the writer may sleep for the sake of what is parked.
func (db *DB) untilRelease() time.Duration {
	db.mu.Lock()
	defer db.mu.Unlock()
	if wait, ok := db.delays.until(&db.clock); ok {
		return wait
	}
	return time.Hour
}

// releaseDue queues a turn that takes what is due from where it is parked, and
// puts it in its streams. Only the writer calls it.
func (db *DB) releaseDue() {
	db.mu.Lock()
	if db.full.on { // there is no room to move them
		db.delays.retry = db.clock.now() + releaseRetry
	}
	wait, ok := db.delays.until(&db.clock)
	if !ok || wait > 0 || db.usable() != nil || len(db.queue.turns) >= queueTurns {
		db.mu.Unlock()
		return
	}
	due := db.delays.take(&db.clock)
	db.mu.Unlock()
	t := db.Begin()
	t.ended = true
	t.done = func(err error) { db.released(due, err) }
	if err := db.view(func(tx *bolt.Tx) error { return t.readParked(tx, due) }); err != nil {
		return // it is damage, or the end of the store
	}
	db.mu.Lock()
	db.place(t)
	db.state.queue(t)
	db.queue.turns = append(db.queue.turns, t)
	db.queue.bytes += t.size
	db.mu.Unlock()
}

// released puts what could not be released back among what waits.
func (db *DB) released(due []*parked, err error) {
	if err == nil {
		return
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, q := range due {
		if _, there := db.delays.byStream[q.s][q]; there && q.index < 0 {
			db.delays.schedule(q, &db.clock)
		}
	}
	db.delays.retry = db.clock.now() + releaseRetry
}

// readParked stages the messages of due.
func (t *Turn) readParked(tx *bolt.Tx, due []*parked) error {
	b := tx.Bucket(bucketDelayed)
	for _, q := range due {
		key := seqKey(q.s.id, q.number)
		r, err := decodeParked(key, append([]byte(nil), b.Get(key)...))
		if err != nil {
			return fmt.Errorf("stream %s, delayed message %d: %w", q.s.config.Name, q.number, err)
		}
		p := &pendingMessage{m: r.frame.Message, s: q.s, receipt: Receipt{Stream: q.s.config.Name}, given: r.frame.given, released: q}
		p.identify()
		t.messages = append(t.messages, p)
		t.size += p.m.size()
	}
	return nil
}

// rollback forgets what did not get to the disk, after streams have.
func (d *delays) rollback() {
	for s, all := range d.byStream {
		s.msgs += s.parked.msgs
		s.bytes += s.parked.bytes
		for q := range all {
			if !q.stored {
				d.remove(q)
			}
		}
	}
}

// forget drops all of a stream that is gone.
func (d *delays) forget(s *stream) {
	for q := range d.byStream[s] {
		d.remove(q)
	}
}

// loadDelayed reads what is parked.
func (db *DB) loadDelayed(tx *bolt.Tx, byID map[uint32]*stream) error {
	b := tx.Bucket(bucketDelayed)
	if b == nil {
		return nil // before version 2
	}
	return b.ForEach(func(k, v []byte) error {
		id, number, ok := splitSeqKey(k)
		s := byID[id]
		if !ok || s == nil {
			return fmt.Errorf("delayed message under key %x belongs to no stream: %w", k, ErrDamaged)
		}
		r, err := decodeParked(k, v)
		if err != nil {
			return fmt.Errorf("stream %s, delayed message %d: %w", s.config.Name, number, err)
		}
		m := &r.frame.Message
		p := pendingMessage{m: *m}
		p.identify()
		q := &parked{number: number, s: s, size: m.size(), absolute: r.absolute, due: r.due, published: r.frame.published, ids: slices.Clone(p.identities(s))}
		db.delays.last = max(db.delays.last, number)
		db.delays.add(q)
		db.delays.isStored(q, &db.clock)
		return nil
	})
}

const (
	parkedVersion  = 0x81 // never that of a frame
	parkedAbsolute = 0x01
)

// dueHeap has the message that is due first in front.
type dueHeap []*parked

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	return h[i].when < h[j].when || h[i].when == h[j].when && h[i].number < h[j].number
}
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *dueHeap) Push(x any) {
	q := x.(*parked)
	q.index = len(*h)
	*h = append(*h, q)
}

func (h *dueHeap) Pop() any {
	old := *h
	q := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	q.index = -1
	return q
}
