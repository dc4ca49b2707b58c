package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// DeadLetter is a message that was given up, with what is known about why. It
// is kept until somebody drops it, or until there are more than the store has
// room for and it is the oldest of those that are not marked for replay.
type DeadLetter struct {
	ID           uint64    `json:"id"` // set by the store
	Stream       string    `json:"stream"`
	Seq          uint64    `json:"seq"`
	Subject      string    `json:"subject"`
	Subscription string    `json:"subscription"`
	Attempts     int       `json:"attempts"`
	Reason       string    `json:"reason"` // "max-deliver", "rejected", "expired", "uplink-refused", "too-large"
	Error        string    `json:"error"`
	Actor        string    `json:"actor"`
	ActorVersion string    `json:"actor_version"`
	Time         time.Time `json:"time"` // when it was given up; set by the store when zero
	// ReplayTo is the subscription that is to handle it once more; "" for none.
	ReplayTo string `json:"replay_to,omitempty"`
	Header   []byte `json:"header,omitempty"`
	Data     []byte `json:"data,omitempty"`
}

// Bounds of the dead letters, beside a quarter of the store's bytes.
const (
	maxDeadLetters = 10_000
	maxErrorText   = 8 << 10
)

// deadLetters is what is known of them in memory. DB.mu guards it; only the
// writer changes what is on disk.
type deadLetters struct {
	deadTotals
	index   map[uint64]*deadEntry          // on disk
	replays map[string]map[uint64]struct{} // the marked ones of those, by subscription
	queued  map[uint64]queuedDead          // what queued turns make of them
}

type deadTotals struct {
	count   int
	bytes   int64
	dropped uint64 // for want of room, since Open
}

// deadEntry is what memory holds of one dead letter.
type deadEntry struct {
	stream       string
	seq          uint64
	subscription string
	replayTo     string
	size         int64
}

type queuedDead struct {
	entry *deadEntry // nil when it is gone
	order uint64     // of the turn
}

// deadChange is what a turn does to a dead letter that is there.
type deadChange struct {
	id     uint64
	verb   string
	letter *DeadLetter // what it becomes, with update
	to     string      // with replay; "" is where it came from, until the turn is queued
}

// Verbs of a deadChange.
const (
	deadDrop   = "drop"
	deadUpdate = "update"
	deadReplay = "replay"
)

func newDeadLetters() deadLetters {
	return deadLetters{
		index:   make(map[uint64]*deadEntry),
		replays: make(map[string]map[uint64]struct{}),
		queued:  make(map[uint64]queuedDead),
	}
}

func (d *DeadLetter) size() int64 {
	return int64(len(d.Subject)+len(d.Header)+len(d.Data)+len(d.Error)) + 256
}

func (d *DeadLetter) entry() *deadEntry {
	return &deadEntry{stream: d.Stream, seq: d.Seq, subscription: d.Subscription, replayTo: d.ReplayTo, size: d.size()}
}

func (d *DeadLetter) cutError() {
	if len(d.Error) > maxErrorText {
		d.Error = d.Error[:maxErrorText]
	}
}

// set makes e what is known of dead letter id; nil when it is gone.
func (d *deadLetters) set(id uint64, e *deadEntry) {
	if old := d.index[id]; old != nil && old.replayTo != "" {
		delete(d.replays[old.replayTo], id)
		if len(d.replays[old.replayTo]) == 0 {
			delete(d.replays, old.replayTo)
		}
	}
	if e == nil {
		delete(d.index, id)
		return
	}
	d.index[id] = e
	if e.replayTo == "" {
		return
	}
	if d.replays[e.replayTo] == nil {
		d.replays[e.replayTo] = make(map[uint64]struct{})
	}
	d.replays[e.replayTo][id] = struct{}{}
}

// DeadLetters returns the ids of the dead letters that t staged, in order. They
// are known once t is committed.
func (t *Turn) DeadLetters() (ids []uint64) {
	for i := range t.dead {
		ids = append(ids, t.dead[i].ID)
	}
	return ids
}

// DropDeadLetter stages the end of a dead letter. Commit fails with
// ErrNoDeadLetter if it is not there.
func (t *Turn) DropDeadLetter(id uint64) {
	t.deadChanges = append(t.deadChanges, deadChange{id: id, verb: deadDrop})
	t.size += 64
}

// ReplayDeadLetter stages that a subscription is to handle a dead letter once
// more; "" is the one it came from. It marks it (DeadLetter.ReplayTo), and who
// watches the stream of the subscription wakes; the dead letter stays until
// somebody drops it. Commit fails with ErrNoDeadLetter or ErrNoSubscription. A
// mark outlives its subscription, and waits for one of the same name.
func (t *Turn) ReplayDeadLetter(id uint64, subscription string) {
	t.deadChanges = append(t.deadChanges, deadChange{id: id, verb: deadReplay, to: subscription})
	t.size += 64
}

// UpdateDeadLetter stages that d takes the place of the dead letter with its
// ID: of one whose replay failed again, say. Error is cut to 8 KiB. Commit fails
// with ErrNoDeadLetter if it is not there, and with ErrNoSubscription if
// d.ReplayTo names none.
func (t *Turn) UpdateDeadLetter(d DeadLetter) {
	d.cutError()
	t.deadChanges = append(t.deadChanges, deadChange{id: d.ID, verb: deadUpdate, letter: &d, to: d.ReplayTo})
	t.size += d.size()
}

// Replays returns the ids of the dead letters that the subscription is to
// handle once more, on disk, by stream and sequence.
func (db *DB) Replays(subscription string) []uint64 {
	db.mu.Lock()
	defer db.mu.Unlock()
	marked := db.dead.replays[subscription]
	if len(marked) == 0 {
		return nil
	}
	ids := make([]uint64, 0, len(marked))
	for id := range marked {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b uint64) int {
		x, y := db.dead.index[a], db.dead.index[b]
		return cmp.Or(cmp.Compare(x.stream, y.stream), cmp.Compare(x.seq, y.seq), cmp.Compare(a, b))
	})
	return ids
}

// DeadLetters calls fn for each dead letter, oldest first, until fn fails. The
// bytes are fn's to keep.
func (db *DB) DeadLetters(fn func(DeadLetter) error) error {
	var from []byte
	for {
		var batch []DeadLetter
		err := db.view(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucketDead).Cursor()
			for k, v := c.Seek(from); k != nil && len(batch) < 64; k, v = c.Next() {
				var d DeadLetter
				if err := getJSON(k, v, &d); err != nil {
					return fmt.Errorf("dead letter %x: %w", k, err)
				}
				batch = append(batch, d)
			}
			return nil
		})
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, d := range batch {
			if err := fn(d); err != nil {
				return err
			}
		}
		from = deadKey(batch[len(batch)-1].ID + 1)
	}
}

// DeadLetter returns one dead letter, or ErrNoDeadLetter.
func (db *DB) DeadLetter(id uint64) (DeadLetter, error) {
	var d DeadLetter
	err := db.view(func(tx *bolt.Tx) error {
		key := deadKey(id)
		v := tx.Bucket(bucketDead).Get(key)
		if v == nil {
			return fmt.Errorf("dead letter %d: %w", id, ErrNoDeadLetter)
		}
		return getJSON(key, slices.Clone(v), &d)
	})
	return d, err
}

// DeadLetterCount returns how many there are.
func (db *DB) DeadLetterCount() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.dead.count
}

// resolveDead finds whether what t does to dead letters can be done, and what
// it makes of them. Call it with db.mu held.
func (db *DB) resolveDead(t *Turn) (map[uint64]*deadEntry, error) {
	if len(t.deadChanges) == 0 {
		return nil, nil
	}
	after := make(map[uint64]*deadEntry, len(t.deadChanges))
	for i := range t.deadChanges {
		c := &t.deadChanges[i]
		e, ok := after[c.id]
		if !ok {
			if q, queued := db.dead.queued[c.id]; queued {
				e = q.entry
			} else {
				e = db.dead.index[c.id]
			}
		}
		if e == nil {
			return nil, fmt.Errorf("%s dead letter %d: %w", c.verb, c.id, ErrNoDeadLetter)
		}
		if c.verb == deadReplay && c.to == "" {
			c.to = e.subscription
		}
		if _, ok := db.subs[c.to]; !ok && (c.verb == deadReplay || c.to != "") {
			return nil, fmt.Errorf("%s dead letter %d: subscription %s: %w", c.verb, c.id, c.to, ErrNoSubscription)
		}
		switch c.verb {
		case deadDrop:
			e = nil
		case deadUpdate:
			e = c.letter.entry()
		case deadReplay:
			marked := *e
			marked.replayTo = c.to
			e = &marked
		}
		after[c.id] = e
	}
	return after, nil
}

// queue makes what a turn does to dead letters visible to turns behind it.
func (d *deadLetters) queue(after map[uint64]*deadEntry, order uint64) {
	for id, e := range after {
		d.queued[id] = queuedDead{e, order}
	}
}

// deadWrite is what a group does to dead letters.
type deadWrite struct {
	deadTotals
	known   map[uint64]*deadEntry // on disk; not to be changed
	changed map[uint64]*deadEntry // nil when it is gone
	order   uint64                // of the last turn of the group
}

func (w *deadWrite) entry(id uint64) *deadEntry {
	if e, ok := w.changed[id]; ok {
		return e
	}
	return w.known[id]
}

func (w *deadWrite) set(id uint64, e *deadEntry) {
	if old := w.entry(id); old != nil {
		w.count--
		w.bytes -= old.size
	}
	if e != nil {
		w.count++
		w.bytes += e.size
	}
	if w.changed == nil {
		w.changed = make(map[uint64]*deadEntry)
	}
	w.changed[id] = e
}

// write puts what the group does to dead letters into tx, and drops the oldest
// beyond the bounds.
func (w *deadWrite) write(tx *bolt.Tx, group []*Turn, now time.Time, maxBytes int64) error {
	b := tx.Bucket(bucketDead)
	for _, t := range group {
		w.order = t.order
		for i := range t.dead {
			l := &t.dead[i]
			id, err := b.NextSequence()
			if err != nil {
				return err
			}
			l.ID = id
			if err := w.put(b, l, now); err != nil {
				return err
			}
		}
		for i := range t.deadChanges {
			if err := w.change(b, &t.deadChanges[i], now); err != nil {
				return err
			}
		}
	}
	return w.makeRoom(b, maxBytes)
}

func (w *deadWrite) put(b *bolt.Bucket, l *DeadLetter, now time.Time) error {
	if l.Time.IsZero() {
		l.Time = now
	}
	w.set(l.ID, l.entry())
	return putJSON(b, deadKey(l.ID), l)
}

func (w *deadWrite) change(b *bolt.Bucket, c *deadChange, now time.Time) error {
	if w.entry(c.id) == nil {
		w.set(c.id, nil) // dropped for want of room since the turn was queued
		return nil
	}
	switch c.verb {
	case deadDrop:
		w.set(c.id, nil)
		return b.Delete(deadKey(c.id))
	case deadUpdate:
		return w.put(b, c.letter, now)
	}
	key := deadKey(c.id)
	var l DeadLetter
	if err := getJSON(key, b.Get(key), &l); err != nil {
		return fmt.Errorf("dead letter %d: %w", c.id, err)
	}
	l.ReplayTo = c.to
	return w.put(b, &l, now)
}

// makeRoom drops dead letters beyond the bounds: the oldest first, and those
// marked for replay last.
func (w *deadWrite) makeRoom(b *bolt.Bucket, maxBytes int64) error {
	over := func() bool { return w.count > maxDeadLetters || w.bytes > maxBytes && w.count > 1 }
	for _, marked := range []bool{false, true} {
		if !over() {
			return nil
		}
		var drop [][]byte
		c := b.Cursor()
		for k, _ := c.First(); k != nil && over(); k, _ = c.Next() {
			id := binary.BigEndian.Uint64(k)
			if e := w.entry(id); e != nil && (e.replayTo != "") == marked {
				w.set(id, nil)
				w.dropped++
				drop = append(drop, slices.Clone(k))
			}
		}
		for _, k := range drop {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply makes what was written what is known, and wakes who has something to
// handle once more. Call it with db.mu held.
func (w *deadWrite) apply(db *DB) {
	d := &db.dead
	d.deadTotals = w.deadTotals
	for id, e := range w.changed {
		d.set(id, e)
		if q, ok := d.queued[id]; ok && q.order <= w.order {
			delete(d.queued, id)
		}
		if e == nil || e.replayTo == "" {
			continue
		}
		if sub := db.subs[e.replayTo]; sub != nil {
			sub.stream.wakeWatchers()
		}
	}
}

// loadDeadLetters reads them all, and keeps what has to be known without them.
func (db *DB) loadDeadLetters(tx *bolt.Tx, _ map[uint32]*stream) error {
	return tx.Bucket(bucketDead).ForEach(func(k, v []byte) error {
		var l DeadLetter
		if err := getJSON(k, v, &l); err != nil {
			return fmt.Errorf("dead letter %x: %w", k, err)
		}
		if len(k) != 8 || binary.BigEndian.Uint64(k) != l.ID {
			return fmt.Errorf("dead letter %d under key %x: %w", l.ID, k, ErrDamaged)
		}
		db.dead.count++
		db.dead.bytes += l.size()
		db.dead.set(l.ID, l.entry())
		return nil
	})
}
