package store

import (
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// trim removes the messages that every subscription has acknowledged, then
// those beyond the limits of the stream. Where nobody is subscribed, it removes
// those whose own time is over too; a subscription is to see them.
func (w *groupWrite) trim(tx *bolt.Tx, s *stream, age time.Duration) error {
	if !w.withHeld && w.db.held.binds(s) {
		return nil
	}
	c := w.of(s)
	keep, consumed := w.keepFrom(s)
	over := w.overStore(s)
	inMemory := w.inMemory(s)
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
		size := f.size()
		if seq <= s.shed.upTo { // counted when it was
			c.shed.msgs++
			c.shed.bytes += size
		} else if !consumed || seq >= keep {
			all := c.held()
			all.msgs, all.bytes = all.msgs+inMemory.msgs+c.shed.msgs, all.bytes+inMemory.bytes+c.shed.bytes
			reason, out := overLimit(&s.config, all, w.line.between(f.stored, age), over)
			if !out && !consumed && f.expired(w.line, age) {
				reason, out = dropExpired, true
			}
			if !out {
				return nil
			}
			c.dropped[reason]++
		}
		if err := cursor.Delete(); err != nil {
			return err
		}
		if seq > s.shed.upTo { // else it is not counted in over
			over -= size
		}
		c.first, c.msgs, c.bytes = seq+1, c.msgs-1, c.bytes-size
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
	streams := make([]*stream, 0, len(w.db.streams))
	for _, s := range w.db.streams {
		streams = append(streams, s)
	}
	w.db.mu.Unlock()
	for _, s := range streams {
		if c, ok := w.streams[s]; ok {
			n += c.held().bytes
		} else {
			n += s.disk.bytes + s.parked.storedBytes
		}
		n += w.inMemory(s).bytes
	}
	return n
}

// inMemory is what a stream will have in memory when the group is on disk.
func (w *groupWrite) inMemory(s *stream) (c counters) {
	w.db.mu.Lock()
	c.msgs, c.bytes = s.tail.msgs(), s.tail.bytes()
	if n := s.tail.heldMsgs(); w.withHeld && n > 0 { // it is in the group
		c.msgs -= n
		c.bytes -= s.tail.entries[n-1].upTo - s.tail.gone
	}
	w.db.mu.Unlock()
	c.msgs, c.bytes = c.msgs-s.shed.msgs, c.bytes-s.shed.bytes
	if sw := w.streams[s]; sw != nil {
		c.msgs, c.bytes = c.msgs+sw.shed.msgs, c.bytes+sw.shed.bytes
		for _, p := range sw.stays {
			c.msgs++
			c.bytes += p.m.size()
		}
	}
	return c
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
	old := s.ids.oldest(min(max(0, s.ids.len()-s.config.remembers()), trimLimit))
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
