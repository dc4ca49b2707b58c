package store

import (
	bolt "go.etcd.io/bbolt"
)

// A batch stream that drops its oldest, and has met a limit, drops in memory
// first, so that it need not go to the disk for each message that comes: what is
// shed is counted and no reader sees it any more, and the next transaction, with
// the messages it made room for, removes it. A crash before that brings it back.

// shed is what was dropped and is still on disk, or on its way there: the oldest
// up to a sequence. DB.mu guards it.
type shed struct {
	upTo        uint64
	msgs, bytes int64
}

// fronts are the oldest messages that a stream has on disk, as far as they were
// looked at. Only the writer has to do with it.
type fronts struct {
	seqs  []uint64
	sizes []int64
	bytes int64
	upTo  uint64 // all up to here were looked at
}

const (
	frontsAhead = 256  // messages looked at beyond those that have to go
	frontsMost  = 8192 // that may have to go at a time; more want the disk
)

// next forgets what is gone up to seq, and returns the oldest of what is left.
func (f *fronts) next(gone uint64) (seq uint64, size int64, ok bool) {
	for len(f.seqs) > 0 && f.seqs[0] <= gone {
		f.pop()
	}
	if len(f.seqs) == 0 {
		return 0, 0, false
	}
	return f.seqs[0], f.sizes[0], true
}

func (f *fronts) pop() {
	f.bytes -= f.sizes[0]
	f.seqs, f.sizes = f.seqs[1:], f.sizes[1:]
}

// mayShed looks at what the batch streams of a group will have to drop, and
// says whether that can be done in memory.
func (db *DB) mayShed(group []*Turn) bool {
	seen := make(map[*stream]bool)
	for _, t := range group {
		for _, p := range t.messages {
			s := p.s
			if s.config.Durability != Batch || s.config.OnFull != DropOldest || seen[s] {
				continue
			}
			seen[s] = true
			if !db.lookAtFronts(s) {
				return false
			}
		}
	}
	return true
}

func (db *DB) lookAtFronts(s *stream) bool {
	db.mu.Lock()
	msgs, bytes := db.excess(s, s.msgs, s.bytes, db.heldBytes())
	gone := max(s.shed.upTo, s.disk.first-1)
	db.mu.Unlock()
	if msgs <= 0 && bytes <= 0 {
		return true
	}
	f := &s.fronts
	f.next(gone)
	f.upTo = max(f.upTo, gone)
	enough := func() bool { return int64(len(f.seqs)) >= msgs && f.bytes >= bytes }
	if enough() || f.upTo >= s.disk.last {
		return true
	}
	err := db.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketMessages).Cursor()
		more := 0
		for k, v := c.Seek(seqKey(s.id, f.upTo+1)); ; k, v = c.Next() {
			id, seq, ok := splitSeqKey(k)
			if !ok || id != s.id {
				f.upTo = s.disk.last
				return nil
			}
			m, _, err := decodeMessage(k, v)
			if err != nil {
				return err
			}
			f.seqs, f.sizes = append(f.seqs, seq), append(f.sizes, m.size())
			f.bytes, f.upTo = f.bytes+m.size(), seq
			if enough() {
				more++
			}
			if more > frontsAhead || len(f.seqs) > frontsMost {
				return nil
			}
		}
	})
	return err == nil && (enough() || f.upTo >= s.disk.last)
}

// excess is by how much so many messages of s, and bytes, are over what it may
// hold, and by how many bytes the store is. Call it with db.mu held.
func (db *DB) excess(s *stream, msgs, bytes, store int64) (overMsgs, overBytes int64) {
	c := &s.config
	if c.MaxMsgs > 0 {
		overMsgs = msgs - c.MaxMsgs
	}
	if c.MaxBytes > 0 {
		overBytes = bytes - c.MaxBytes
	}
	return overMsgs, max(overBytes, store-db.o.level(s, false))
}

// shedOldest drops in memory what is over the limits of a batch stream. Call it
// with db.mu held, in the writer, after mayShed.
func (db *DB) shedOldest(s *stream) {
	if s.config.Durability != Batch || s.config.OnFull != DropOldest {
		return
	}
	keep, subscribed := db.keepFrom(s)
	store := db.storedBytes()
	for s.heldMsgs() > 1 {
		msgs, bytes := db.excess(s, s.heldMsgs()+s.parked.stored, s.heldBytes()+s.parked.storedBytes, store)
		if msgs <= 0 && bytes <= 0 {
			return
		}
		seq, size, ok := s.fronts.next(max(s.shed.upTo, s.disk.first-1))
		if !ok {
			i := s.tail.find(s.shed.upTo + 1)
			if i == len(s.tail.entries) {
				return
			}
			seq, size = s.tail.entries[i].seq, s.tail.entries[i].size
		}
		s.shed = shed{upTo: seq, msgs: s.shed.msgs + 1, bytes: s.shed.bytes + size}
		s.msgs, s.bytes, store = s.msgs-1, s.bytes-size, store-size
		if !subscribed || seq >= keep {
			s.lost[dropFull]++
		}
	}
}
