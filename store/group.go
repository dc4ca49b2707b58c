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
	withHeld  bool // the group begins with all that is held
	streams   map[*stream]*streamWrite
	positions map[*subscription]*position
	grown     spaces // by what, and not what they hold
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
	ahead    uint64   // sequences reserved
	lost     [numDropReasons]uint64
	counted  int64                // messages in memory alone, as the file will say
	shed     counters             // of what is gone, shed before: only msgs and bytes are used
	stays    []*pendingMessage    // in memory; not written
	fresh    bool                 // readers have not seen all that was added
	marks    map[idHash]watermark // of producers, raised
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
		c = &streamWrite{counters: s.disk, ahead: s.ahead, parked: counters{msgs: s.parked.stored, bytes: s.parked.storedBytes}}
		w.db.mu.Lock()
		c.lost = s.lost
		w.db.mu.Unlock()
		for i, n := range c.lost {
			c.dropped[i] += n
		}
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
		for _, p := range t.messages {
			if p.receipt.Duplicate || p.s.deleted || t.told && !p.held {
				continue
			}
			here, err := w.parking(tx, p)
			if err != nil {
				return err
			}
			if !here {
				continue
			}
			if p.s.config.Durability == Memory && !t.told {
				w.of(p.s).stays = append(w.of(p.s).stays, p)
				continue
			}
			if err := w.putMessage(messages, ids, p, age); err != nil {
				return err
			}
			w.of(p.s).fresh = w.of(p.s).fresh || !t.told
		}
		for k, v := range t.writes {
			state[k] = v // the last turn of the group wins
		}
	}
	w.acknowledge(group)
	var err error
	if w.grown, err = putState(tx.Bucket(bucketState), state); err != nil {
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
	w.countMemory()
	w.keepJumps()
	if err := w.keepMoved(tx); err != nil {
		return err
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
		if err := w.reserve(tx, s, c); err != nil {
			return err
		}
		if err := putWatermarks(tx, s, c.marks); err != nil {
			return err
		}
	}
	for sub, p := range w.positions {
		if sub.ephemeral || sub.stream.config.Durability == Memory && w.of(sub.stream).msgs == 0 {
			continue // it is in memory alone
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

// parking does what has to be done for a message that is to be parked, or was.
// here says whether it enters its stream now.
func (w *groupWrite) parking(tx *bolt.Tx, p *pendingMessage) (here bool, err error) {
	if p.parked != nil {
		w.of(p.s).raise(p)
		w.of(p.s).parked.msgs++
		w.of(p.s).parked.bytes += p.parked.size
		return false, w.parks.park(tx, p)
	}
	if q := p.released; q != nil {
		w.of(p.s).parked.msgs--
		w.of(p.s).parked.bytes -= q.size
		return true, w.parks.release(tx, q)
	}
	return true, nil
}

// frame is the message as it is stored now.
func (p *pendingMessage) frame(now time.Duration) *frame {
	f := &frame{Message: p.m, stored: now, published: now, given: p.given}
	if p.released != nil {
		f.published = p.released.published
	}
	return f
}

func (w *groupWrite) putMessage(messages, ids *bolt.Bucket, p *pendingMessage, age time.Duration) error {
	key := seqKey(p.s.id, p.m.Seq)
	if p.value == nil {
		p.value = p.frame(age).encode(key)
	}
	if err := messages.Put(key, p.value); err != nil {
		return fmt.Errorf("stream %s, message %d: %w", p.s.config.Name, p.m.Seq, err)
	}
	c := w.of(p.s)
	c.raise(p)
	if c.msgs == 0 {
		c.first = p.m.Seq
	}
	c.last = p.m.Seq
	c.msgs++
	c.bytes += p.m.size()
	c.added++
	if len(p.remembered) == 0 {
		return nil
	}
	var hashes []byte
	for _, h := range p.remembered {
		hashes = append(hashes, h[:]...)
	}
	return ids.Put(key, seal(key, hashes))
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
	a.apply(w.position(a.sub))
}

func (a *pendingAck) apply(p *position) {
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

// apply makes what was written what is known. Call it with db.mu held.
func (w *groupWrite) apply() {
	for sub, p := range w.positions {
		sub.pos = *p
	}
	age := w.db.clock.now()
	for s, c := range w.streams {
		s.disk, s.ahead, s.jumped, s.counted = c.counters, c.ahead, false, c.counted
		s.msgs -= c.gone.msgs - c.shed.msgs
		s.bytes -= c.gone.bytes - c.shed.bytes
		s.shed.msgs -= c.shed.msgs
		s.shed.bytes -= c.shed.bytes
		s.ids.forgetOldest(c.forget)
		for i, n := range c.lost {
			s.lost[i] -= n
		}
		for producer, m := range c.marks {
			s.marks.wrote(producer, m)
		}
		if c.added > 0 {
			s.written = c.last
		}
		if w.withHeld {
			s.moved = false
			s.tail.written()
		}
		for _, p := range c.stays {
			s.tail.add(p, age, false)
			s.marks.told(p)
		}
		w.db.trimMemory(s, age)
		if c.fresh || len(c.stays) > 0 {
			s.wakeWatchers()
		}
	}
	for _, i := range w.grown.all {
		w.db.spaces.add(i.Name, i.Keys, i.Bytes)
	}
	w.dead.apply(w.db)
	w.parks.apply(w.db)
	if w.saved != nil { // not where all of it is in memory
		w.saved()
	}
}
