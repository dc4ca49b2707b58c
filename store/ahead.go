package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Sequences that are told before their message is on disk are reserved there
// ahead of need. After a crash a stream goes on behind all that was reserved, so
// that no sequence is ever given to two messages: subscriptions, the hub's lane
// and whoever keeps a receipt rely on it. A gap costs nothing.
//
// A stream whose messages wait for the disk reserves none.

// reserveAhead is how many sequences are reserved, and half of them must be left
// after a commit.
const reserveAhead = 1 << 14

// aheadPrefix begins the keys in bucketMeta under which it is.
const aheadPrefix = "ahead/"

// reservation is what is kept of it: sequences up to ahead may have been told,
// and so many messages were in memory alone.
type reservation struct{ ahead, memory uint64 }

func aheadKey(stream uint32) []byte { return append([]byte(aheadPrefix), idKey(stream)...) }

func putReservation(tx *bolt.Tx, stream uint32, r reservation) error {
	key := aheadKey(stream)
	if r == (reservation{}) {
		return tx.Bucket(bucketMeta).Delete(key)
	}
	v := binary.LittleEndian.AppendUint64(nil, r.ahead)
	v = binary.LittleEndian.AppendUint64(v, r.memory)
	return tx.Bucket(bucketMeta).Put(key, seal(key, v))
}

func getReservation(tx *bolt.Tx, stream uint32) (r reservation, err error) {
	key := aheadKey(stream)
	v := tx.Bucket(bucketMeta).Get(key)
	if v == nil {
		return r, nil
	}
	return decodeReservation(key, v)
}

func decodeReservation(key, v []byte) (r reservation, err error) {
	b, err := unseal(key, v)
	if err != nil || len(b) != 16 {
		return r, ErrDamaged
	}
	return reservation{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}, nil
}

// reservation reads what meta has beside what it always has.
func (a *audit) reservation(key, value []byte) bool {
	id, found := bytes.CutPrefix(key, []byte(aheadPrefix))
	if !found || len(id) != 4 {
		return true
	}
	r, err := decodeReservation(key, value)
	if err == nil {
		a.aheads[binary.BigEndian.Uint32(id)] = r.ahead
	}
	return err == nil
}

// reserve decides up to where s may tell sequences once the group is on disk.
func (w *groupWrite) reserve(tx *bolt.Tx, s *stream, c *streamWrite) error {
	w.db.mu.Lock()
	last, memory := s.last, s.tail.msgs()-s.tail.heldMsgs()+int64(len(c.stays))
	w.db.mu.Unlock()
	switch {
	case s.config.Durability != Synced:
		if c.ahead < last+reserveAhead/2 {
			c.ahead = last + reserveAhead
		}
	case c.ahead == 0 || !w.withHeld:
		return nil
	default:
		c.ahead, memory = 0, 0 // all that was told is on disk with this group
	}
	c.counted = memory
	return putReservation(tx, s.id, reservation{c.ahead, uint64(memory)})
}

// resume lets a stream go on behind what it may have told before a crash.
func (s *stream) resume(tx *bolt.Tx) error {
	r, err := getReservation(tx, s.id)
	if err != nil {
		return fmt.Errorf("reserved sequences of stream %s: %w", s.config.Name, err)
	}
	s.ahead = r.ahead
	s.disk.dropped[dropRestart] += r.memory
	if r.ahead > s.disk.last {
		s.jumped = true
		s.disk.last = r.ahead
		if s.disk.msgs == 0 {
			s.disk.first = r.ahead + 1
		}
	}
	return nil
}

// resume lets a position that had everything go on behind what a crash, or a
// restart of a stream in memory, took.
func (p *position) resume(s *stream) {
	if s.jumped && p.floor >= s.written || s.config.Durability == Memory && s.disk.msgs == 0 {
		*p = position{floor: max(p.floor, s.disk.last)}
	}
}

// countMemory takes the streams along of which another number of messages is in
// memory alone than the file says, so that a restart can count them.
func (w *groupWrite) countMemory() {
	w.db.mu.Lock()
	var changed []*stream
	for _, s := range w.db.streams {
		if s.config.Durability == Memory && s.tail.msgs() != s.counted && s.ahead > 0 {
			changed = append(changed, s)
		}
	}
	w.db.mu.Unlock()
	for _, s := range changed {
		w.of(s)
	}
}

// keepJumps writes the positions that went on with their streams, together with
// the first change of those: from then on nothing tells that they had.
func (w *groupWrite) keepJumps() {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	for _, sub := range w.db.subs {
		if w.streams[sub.stream] != nil && sub.stream.jumped {
			w.position(sub)
		}
	}
}

// settle notes at the end that what was reserved is not in use, and how many
// messages end with the process.
func (db *DB) settle() error {
	any := false
	for _, s := range db.streams {
		any = any || s.ahead > 0
	}
	if !any {
		return nil
	}
	return db.update(func(tx *bolt.Tx) error {
		for _, s := range db.streams {
			if s.ahead == 0 {
				continue
			}
			c := s.disk
			for i, n := range s.lost {
				c.dropped[i] += n
			}
			c.dropped[dropRestart] += uint64(s.tail.msgs())
			c.last = s.lastSeq()
			if c.msgs == 0 {
				c.first = c.last + 1
			}
			key := idKey(s.id)
			if err := tx.Bucket(bucketCounters).Put(key, c.encode(key)); err != nil {
				return err
			}
			if err := putReservation(tx, s.id, reservation{}); err != nil {
				return err
			}
		}
		for _, sub := range db.subs {
			if !sub.stream.jumped || sub.ephemeral {
				continue
			}
			key := idKey(sub.id)
			if err := tx.Bucket(bucketPositions).Put(key, sub.pos.encode(key)); err != nil {
				return err
			}
		}
		return nil
	})
}
