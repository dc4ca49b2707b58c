package store

import (
	"slices"
	"sort"
	"time"

	bolt "go.etcd.io/bbolt"
)

// tail is the end of a stream that is in memory: what was told to publishers
// and is on its way to the disk, and behind it what stays in memory. DB.mu
// guards it.
type tail struct {
	entries []tailEntry
	last    uint64 // the last sequence there ever was in it
	gone    int64  // bytes of all before the first entry, ever
	total   int64  // bytes of all there ever were
}

type tailEntry struct {
	seq   uint64
	value []byte        // as it would be, or will be, on disk
	times frame         // without the message
	size  int64         // as it counts
	upTo  int64         // bytes of this one and all before it, ever
	told  time.Duration // the own clock when its publisher was told
	held  bool          // it is on its way to the disk
}

func (l *tail) msgs() int64  { return int64(len(l.entries)) }
func (l *tail) bytes() int64 { return l.total - l.gone }

// add puts a message at the end.
func (l *tail) add(p *pendingMessage, age time.Duration, held bool) {
	key := seqKey(p.s.id, p.m.Seq)
	f := p.frame(age)
	p.value, p.held = f.encode(key), held
	f.Message = Message{TTL: p.m.TTL}
	l.total += p.m.size()
	l.entries = append(l.entries, tailEntry{
		seq: p.m.Seq, value: p.value, times: *f, size: p.m.size(), upTo: l.total, told: age, held: held,
	})
	l.last = max(l.last, p.m.Seq)
}

// cut removes the first n.
func (l *tail) cut(n int) {
	if n == 0 {
		return
	}
	l.gone = l.entries[n-1].upTo
	clear(l.entries[:n])
	l.entries = l.entries[n:]
}

// written removes what is on disk now.
func (l *tail) written() {
	n := 0
	for n < len(l.entries) && l.entries[n].held {
		n++
	}
	l.cut(n)
}

// find returns the place of the first entry from seq on.
func (l *tail) find(seq uint64) int {
	return sort.Search(len(l.entries), func(i int) bool { return l.entries[i].seq >= seq })
}

// from returns at most limit entries from seq on.
func (l *tail) from(seq uint64, limit int) []tailEntry {
	rest := l.entries[l.find(seq):]
	return slices.Clone(rest[:min(len(rest), max(limit, 0))])
}

// heldMsgs is how many are on their way to the disk.
func (l *tail) heldMsgs() int64 {
	return int64(sort.Search(len(l.entries), func(i int) bool { return !l.entries[i].held }))
}

// first and last are the sequences that readers see: first is last+1 in a stream
// that holds nothing.
func (s *stream) lastSeq() uint64 { return max(s.disk.last, s.tail.last) }

func (s *stream) firstSeq() uint64 {
	first := s.lastSeq() + 1
	switch {
	case s.disk.msgs > 0:
		first = s.disk.first
	case len(s.tail.entries) > 0:
		first = s.tail.entries[0].seq
	}
	return max(first, s.shed.upTo+1)
}

// lastHeld is the sequence of the last message there is.
func (s *stream) lastHeld() uint64 {
	if n := len(s.tail.entries); n > 0 {
		return s.tail.entries[n-1].seq
	}
	return s.written
}

// heldMsgs and heldBytes are what readers see of a stream.
func (s *stream) heldMsgs() int64  { return s.disk.msgs + s.tail.msgs() - s.shed.msgs }
func (s *stream) heldBytes() int64 { return s.disk.bytes + s.tail.bytes() - s.shed.bytes }

// trimMemory removes what is consumed or over a limit from a stream in memory.
// Call it with db.mu held.
func (db *DB) trimMemory(s *stream, age time.Duration) {
	if s.config.Durability != Memory {
		return
	}
	s.forgetMemory()
	if len(s.tail.entries) == 0 {
		return
	}
	keep, consumed := db.keepFrom(s)
	line := db.clock.line.Load()
	over := int64(0)
	if s.config.OnFull == DropOldest {
		over = db.storedBytes() - db.o.level(s, false)
	}
	left := counters{msgs: s.heldMsgs() + s.parked.stored, bytes: s.heldBytes() + s.parked.storedBytes}
	n := 0
	for ; n < len(s.tail.entries) && !s.tail.entries[n].held; n++ {
		e := &s.tail.entries[n]
		if !consumed || e.seq >= keep {
			reason, out := overLimit(&s.config, &left, line.between(e.times.stored, age), over)
			if !out && !consumed && e.times.expired(line, age) {
				reason, out = dropExpired, true
			}
			if !out {
				break
			}
			s.lost[reason]++
		}
		left.msgs, left.bytes, over = left.msgs-1, left.bytes-e.size, over-e.size
		s.msgs, s.bytes = s.msgs-1, s.bytes-e.size
	}
	s.tail.cut(n)
}

// forgetMemory forgets the oldest identities beyond what a stream in memory
// remembers, but for those on disk, from before (trimIDs).
func (s *stream) forgetMemory() {
	n, excess := 0, s.ids.len()-s.config.remembers()
	for n < excess && s.ids.at(n).seq > s.disk.last && s.ids.at(n).seq <= s.tail.last {
		n++
	}
	s.ids.forgetOldest(max(n, 0))
}

// ageMemory removes what grew too old from streams in memory.
func (db *DB) ageMemory(age time.Duration) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, s := range db.streams {
		db.trimMemory(s, age)
	}
}

// holdTail sends what a stream that is no longer in memory holds on its way to
// the disk, and with it how far its subscriptions and producers are. Call it in
// the writer, with db.mu held.
func (db *DB) holdTail(s *stream) {
	s.moved = true
	t := &Turn{db: db, order: db.held.order}
	for i := s.tail.heldMsgs(); i < s.tail.msgs(); i++ {
		e := &s.tail.entries[i]
		m, _, _ := decodeMessage(seqKey(s.id, e.seq), e.value) // our own bytes
		m.Seq = e.seq
		p := &pendingMessage{m: m, s: s, value: e.value, held: true}
		t.messages = append(t.messages, p)
		t.size += e.size
		e.held = true
	}
	db.held.add(t, time.Now())
}

// keepMoved writes, together with what a stream held that was in memory, its
// last sequence, which is reserved no more, its positions, so that nothing is
// handled again, and its watermarks and identities, which must not get to the
// disk before the messages.
func (w *groupWrite) keepMoved(tx *bolt.Tx) error {
	if !w.withHeld {
		return nil
	}
	w.db.mu.Lock()
	var moved []*stream
	for _, s := range w.db.streams {
		if s.moved {
			moved = append(moved, s)
		}
	}
	w.db.mu.Unlock()
	for _, s := range moved {
		c := w.of(s)
		if last := s.lastSeq(); last > c.last { // of messages that were consumed in memory
			if c.last = last; c.msgs == 0 {
				c.first = last + 1
			}
		}
		if c.marks == nil {
			c.marks = make(map[idHash]watermark)
		}
		for producer, m := range s.marks.stored {
			if _, raised := c.marks[producer]; !raised {
				c.marks[producer] = m
			}
		}
		w.db.mu.Lock()
		for _, sub := range w.db.subs {
			if sub.stream == s {
				w.position(sub)
			}
		}
		w.db.mu.Unlock()
		if err := w.keepIDs(tx, s, c.last); err != nil {
			return err
		}
	}
	return nil
}

// keepIDs writes the identities that s remembers of messages up to last.
func (w *groupWrite) keepIDs(tx *bolt.Tx, s *stream, last uint64) error {
	w.db.mu.Lock()
	ids := s.ids.oldest(sort.Search(s.ids.len(), func(i int) bool { return s.ids.at(i).seq > last }))
	w.db.mu.Unlock()
	b := tx.Bucket(bucketIDs)
	for len(ids) > 0 {
		n, hashes := 0, []byte(nil)
		for ; n < len(ids) && ids[n].seq == ids[0].seq; n++ {
			hashes = append(hashes, ids[n].hash[:]...)
		}
		key := seqKey(s.id, ids[0].seq)
		if err := b.Put(key, seal(key, hashes)); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}
