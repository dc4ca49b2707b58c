package store

import (
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// groupWrite is one group on its way to the disk: what the file will say once
// it is committed. Only the writer makes one, and nothing but the writer
// changes what it starts from (stream.disk, subscription.pos).
type groupWrite struct {
	db        *DB
	streams   map[*stream]*streamWrite
	positions map[*subscription]*position
	dead      deadWrite
	parks     parkWrite
	line      *timeline
	saved     func() // the clock is, once the group is on disk
}

// streamWrite is what a group does to one stream.
type streamWrite struct {
	counters          // as the file will say
	added    int      // messages added
	gone     counters // messages removed: only msgs and bytes are used
	forget   int      // identities forgotten, oldest first
	parked   counters // that will be parked: only msgs and bytes are used
}

func newGroupWrite(db *DB) *groupWrite {
	return &groupWrite{
		db:        db,
		streams:   make(map[*stream]*streamWrite),
		positions: make(map[*subscription]*position),
		dead:      deadWrite{deadTotals: db.dead.deadTotals, known: db.dead.index},
		line:      db.clock.line.Load(),
	}
}

func (w *groupWrite) of(s *stream) *streamWrite {
	c, ok := w.streams[s]
	if !ok {
		c = &streamWrite{counters: s.disk, parked: counters{msgs: s.parked.stored, bytes: s.parked.storedBytes}}
		w.streams[s] = c
	}
	return c
}

func (w *groupWrite) position(sub *subscription) *position {
	p, ok := w.positions[sub]
	if !ok {
		c := sub.pos.clone()
		p = &c
		w.positions[sub] = p
	}
	return p
}

// write stages the group in tx.
func (w *groupWrite) write(tx *bolt.Tx, group []*Turn) error {
	age := w.db.clock.now()
	messages := tx.Bucket(bucketMessages)
	messages.FillPercent = 1 // sequences only grow: a half-full page would stay so
	ids := tx.Bucket(bucketIDs)
	ids.FillPercent = 1
	state := make(map[stateKey][]byte)
	for _, t := range group {
		for i := range t.messages {
			if err := w.putMessage(tx, messages, ids, &t.messages[i], age); err != nil {
				return err
			}
		}
		for k, v := range t.writes {
			state[k] = v // the last turn of the group wins
		}
	}
	w.acknowledge(group)
	if err := putState(tx.Bucket(bucketState), state); err != nil {
		return err
	}
	now, _ := w.db.clock.real()
	if err := w.dead.write(tx, group, now, w.deadRoom()); err != nil {
		return err
	}
	return w.finish(tx, age)
}

// finish trims what is consumed or over a limit, and writes what changed of
// streams and positions.
func (w *groupWrite) finish(tx *bolt.Tx, age time.Duration) error {
	for sub := range w.positions {
		w.of(sub.stream)
	}
	for _, policy := range []OnFull{Reject, DropOldest} { // who drops does so for what is left when the others gave back what was consumed
		for s := range w.streams {
			if s.config.OnFull != policy {
				continue
			}
			if err := w.trim(tx, s, age); err != nil {
				return err
			}
			if err := w.trimIDs(tx, s); err != nil {
				return err
			}
		}
	}
	for s, c := range w.streams {
		key := idKey(s.id)
		if err := tx.Bucket(bucketCounters).Put(key, c.encode(key)); err != nil {
			return err
		}
	}
	for sub, p := range w.positions {
		if sub.ephemeral {
			continue
		}
		key := idKey(sub.id)
		if err := tx.Bucket(bucketPositions).Put(key, p.encode(key)); err != nil {
			return err
		}
	}
	var err error
	w.saved, err = w.db.clock.put(tx, age)
	return err
}

func (w *groupWrite) putMessage(tx *bolt.Tx, messages, ids *bolt.Bucket, p *pendingMessage, age time.Duration) error {
	if p.receipt.Duplicate || p.s.deleted {
		return nil
	}
	if p.parked != nil {
		w.of(p.s).parked.msgs++
		w.of(p.s).parked.bytes += p.parked.size
		return w.parks.park(tx, p)
	}
	key := seqKey(p.s.id, p.m.Seq)
	f := frame{Message: p.m, stored: age, published: age, given: p.given}
	if q := p.released; q != nil {
		f.published = q.published
		w.of(p.s).parked.msgs--
		w.of(p.s).parked.bytes -= q.size
		if err := w.parks.release(tx, q); err != nil {
			return err
		}
	}
	if err := messages.Put(key, f.encode(key)); err != nil {
		return fmt.Errorf("stream %s, message %d: %w", p.s.config.Name, p.m.Seq, err)
	}
	c := w.of(p.s)
	if c.msgs == 0 {
		c.first = p.m.Seq
	}
	c.last = p.m.Seq
	c.msgs++
	c.bytes += p.m.size()
	c.added++
	if !p.remembered {
		return nil
	}
	return ids.Put(key, seal(key, p.hash[:]))
}

func putState(b *bolt.Bucket, state map[stateKey][]byte) error {
	for k, v := range state {
		key := []byte(k)
		var err error
		if v == nil {
			err = b.Delete(key)
		} else {
			err = b.Put(key, seal(key, v))
		}
		if err != nil {
			return fmt.Errorf("space %s, key %s: %w", k[1:1+k[0]], k[1+k[0]:], err)
		}
	}
	return nil
}

func (w *groupWrite) acknowledge(group []*Turn) {
	for _, t := range group {
		for _, a := range t.acks {
			w.ack(a)
		}
	}
}

func (w *groupWrite) ack(a pendingAck) {
	if w.db.subscription(a.subscription) != a.sub {
		return // deleted since it was queued
	}
	p := w.position(a.sub)
	switch {
	case a.attempts > 0:
		p.tried(a.seq, a.attempts)
	case a.upTo:
		p.ackUpTo(a.seq)
	default:
		// How far ahead it is was checked when it was queued, against a floor
		// that can only have risen since.
		_ = p.ack(a.seq)
	}
}

func (db *DB) subscription(name string) *subscription {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.subs[name]
}

// trim removes the messages that every subscription has acknowledged, then
// those beyond the limits of the stream. Where nobody is subscribed, it removes
// those whose own time is over too; a subscription is to see them.
func (w *groupWrite) trim(tx *bolt.Tx, s *stream, age time.Duration) error {
	c := w.of(s)
	keep, consumed := w.keepFrom(s)
	over := w.overStore(s)
	cursor := tx.Bucket(bucketMessages).Cursor()
	for n := 0; c.msgs > 0; n++ {
		if n == trimLimit+c.added {
			return nil // the rest, of before this group, goes with the next one
		}
		k, v := cursor.Seek(seqKey(s.id, c.first))
		id, seq, ok := splitSeqKey(k)
		if !ok || id != s.id {
			return fmt.Errorf("stream %s should hold %d messages from %d on: %w", s.config.Name, c.msgs, c.first, ErrDamaged)
		}
		c.first = seq
		f, err := decodeFrame(k, v)
		if err != nil {
			return fmt.Errorf("stream %s, message %d: %w", s.config.Name, seq, err)
		}
		if !consumed || seq >= keep {
			reason, out := overLimit(&s.config, c.held(), w.line.between(f.stored, age), over)
			if !out && !consumed && f.expired(w.line, age) {
				reason, out = dropExpired, true
			}
			if !out {
				return nil
			}
			c.dropped[reason]++
		}
		size := f.size()
		if err := cursor.Delete(); err != nil {
			return err
		}
		c.first, c.msgs, c.bytes, over = seq+1, c.msgs-1, c.bytes-size, over-size
		c.gone.msgs++
		c.gone.bytes += size
	}
	return nil
}

// held is what the stream will hold, with what is parked.
func (c *streamWrite) held() *counters {
	return &counters{msgs: c.msgs + c.parked.msgs, bytes: c.bytes + c.parked.bytes}
}

// overLimit says whether the oldest message of a stream has to go, and why.
// over is by how many bytes the whole store is over its bound.
func overLimit(cfg *StreamConfig, c *counters, age time.Duration, over int64) (reason int, out bool) {
	switch {
	case cfg.MaxAge > 0 && age > cfg.MaxAge:
		return dropAge, true
	case cfg.MaxMsgs > 0 && c.msgs > cfg.MaxMsgs, cfg.MaxBytes > 0 && c.bytes > cfg.MaxBytes:
		return dropFull, cfg.OnFull == DropOldest
	case over > 0 && c.msgs > 1:
		return dropFull, cfg.OnFull == DropOldest
	}
	return 0, false
}

// overStore is by how much what the store holds is over what s may fill, if s is
// one that gives way.
func (w *groupWrite) overStore(s *stream) int64 {
	if s.config.OnFull != DropOldest {
		return 0
	}
	return w.dead.bytes + w.streamBytes() - w.db.o.level(s, false)
}

// streamBytes is what streams will hold.
func (w *groupWrite) streamBytes() (n int64) {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	for _, s := range w.db.streams {
		if c, ok := w.streams[s]; ok {
			n += c.held().bytes
		} else {
			n += s.disk.bytes + s.parked.storedBytes
		}
	}
	return n
}

// deadRoom is what dead letters may hold: a quarter of the store, and no more
// than messages leave.
func (w *groupWrite) deadRoom() int64 {
	return min(w.db.o.MaxBytes/4, w.db.o.MaxBytes-w.streamBytes())
}

// keepFrom is DB.keepFrom with the positions of this group.
func (w *groupWrite) keepFrom(s *stream) (uint64, bool) {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	from, any := uint64(0), false
	for _, sub := range w.db.subs {
		if sub.stream != s {
			continue
		}
		p, ok := w.positions[sub]
		if !ok {
			p = &sub.pos
		}
		if !any || p.floor+1 < from {
			from, any = p.floor+1, true
		}
	}
	return from, any
}

// trimIDs forgets the oldest identities beyond what a stream remembers.
func (w *groupWrite) trimIDs(tx *bolt.Tx, s *stream) error {
	w.db.mu.Lock()
	excess := min(max(0, len(s.idOrder)-s.config.remembers()), trimLimit)
	old := s.idOrder[:excess:excess]
	w.db.mu.Unlock()
	ids := tx.Bucket(bucketIDs)
	for _, e := range old {
		if e.seq > w.of(s).last {
			break // queued behind this group
		}
		if err := ids.Delete(seqKey(s.id, e.seq)); err != nil {
			return err
		}
		w.of(s).forget++
	}
	return nil
}

// apply makes what was written what is known. Call it with db.mu held.
func (w *groupWrite) apply() {
	for s, c := range w.streams {
		s.disk = c.counters
		s.msgs -= c.gone.msgs
		s.bytes -= c.gone.bytes
		s.forget(c.forget)
		if c.added > 0 {
			s.wakeWatchers()
		}
	}
	for sub, p := range w.positions {
		sub.pos = *p
	}
	w.dead.apply(w.db)
	w.parks.apply(w.db)
	if w.saved != nil { // not where all of it is in memory
		w.saved()
	}
}
