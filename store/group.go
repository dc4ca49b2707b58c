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

func (db *DB) subscription(name string) *subscription {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.subs[name]
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
