package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"

	bolt "go.etcd.io/bbolt"
)

// recount counts the messages that were carried over, now that they are in
// order, and gives those without a stream one under whose name they are found.
func (s *salvager) recount() error {
	for _, st := range s.streams {
		st.tally = tally{}
	}
	return s.to.View(func(tx *bolt.Tx) error {
		err := tx.Bucket(bucketMessages).ForEach(func(k, v []byte) error {
			id, seq, _ := splitSeqKey(k)
			m, stored, err := decodeMessage(k, v)
			if err != nil {
				return err // it was right when it was put there
			}
			s.newest = max(s.newest, stored)
			st := s.streams[id]
			if st == nil {
				st = &auditStream{name: recoveredName(id)}
				s.streams[id] = st
			}
			st.add(seq, m.size())
			return nil
		})
		if err != nil {
			return err
		}
		err = tx.Bucket(bucketDelayed).ForEach(func(k, v []byte) error {
			r, err := decodeParked(k, v)
			if err != nil {
				return err
			}
			s.newest = max(s.newest, r.frame.published)
			if id, _, _ := splitSeqKey(k); s.streams[id] == nil {
				s.streams[id] = &auditStream{name: recoveredName(id)}
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketIDs).ForEach(func(k, _ []byte) error {
			if id, seq, _ := splitSeqKey(k); s.streams[id] != nil {
				s.streams[id].lastID = max(s.streams[id].lastID, seq)
			}
			return nil
		})
	})
}

// mend makes the parts agree: counters with messages, identities and
// subscriptions with streams, positions with subscriptions.
func (s *salvager) mend() error {
	for _, step := range []func() error{s.mendSubscriptions, s.mendParts, s.mendStreams, s.mendSequences, s.mendClock} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// mendSubscriptions drops what has no stream, and lets a subscription whose
// position is lost begin with the first message there is.
func (s *salvager) mendSubscriptions() error {
	used := make(map[uint32]bool)
	for name, r := range s.subs {
		st := s.streams[s.names[r.Stream]]
		if st == nil || used[r.ID] {
			s.r.lose(Loss{What: lossName(string(bucketSubs)), First: name})
			if err := s.delete(string(bucketSubs), []byte(name)); err != nil {
				return err
			}
			continue
		}
		used[r.ID] = true
		s.maxSub = max(s.maxSub, r.ID)
		p, ok := s.floors[r.ID]
		if !ok {
			p = position{floor: max(st.first, st.old.first, 1) - 1}
			if st.msgs > 0 {
				p.floor = max(st.first, 1) - 1
			}
			s.r.lose(Loss{What: lossName(string(bucketPositions)), First: name})
		}
		st.lastID = max(st.lastID, p.floor)
		if err := s.putIn(bucketPositions, idKey(r.ID), p.encode(idKey(r.ID))); err != nil {
			return err
		}
	}
	return nil
}

func (s *salvager) putIn(bucket, key, value []byte) error {
	b, err := s.begun(string(bucket))
	if err != nil {
		return err
	}
	return b.Put(key, value)
}

// mendParts removes what belongs to streams that are gone.
func (s *salvager) mendParts() error {
	for _, name := range [][]byte{bucketIDs, bucketDelayed, bucketProducers} {
		if err := s.mendPart(name); err != nil {
			return err
		}
	}
	return nil
}

func (s *salvager) mendPart(name []byte) error {
	b, err := s.begun(string(name))
	if err != nil {
		return err
	}
	c := b.Cursor()
	for k, _ := c.First(); k != nil; {
		if len(k) > 4 && s.streams[binary.BigEndian.Uint32(k)] != nil {
			id := binary.BigEndian.Uint32(k)
			if id == math.MaxUint32 {
				return nil
			}
			k, _ = c.Seek(seqKey(id+1, 0)) // all of the stream stay
			continue
		}
		k = bytes.Clone(k)
		if err := b.Delete(k); err != nil {
			return err
		}
		k, _ = c.Seek(k)
	}
	return nil
}

// mendStreams writes the counters, and the records of streams that have lost
// theirs. Numbers go on behind everything that is known of a stream.
func (s *salvager) mendStreams() error {
	for id, st := range s.streams {
		if s.names[st.name] != id {
			s.names[st.name] = id
			body, err := json.Marshal(streamRecord{ID: id, Config: StreamConfig{Name: st.name}})
			if err != nil {
				return err
			}
			if err := s.putIn(bucketStreams, []byte(st.name), seal([]byte(st.name), body)); err != nil {
				return err
			}
		}
		c := counters{
			first: st.first, last: max(st.last, st.old.last, st.lastID),
			msgs: st.msgs, bytes: st.bytes, dropped: st.old.dropped,
		}
		if c.msgs == 0 {
			c.first = c.last + 1
		}
		if err := s.putIn(bucketCounters, idKey(id), c.encode(idKey(id))); err != nil {
			return err
		}
		if st.ahead && s.holed[string(bucketMeta)] {
			// Up to where it had told sequences is lost too.
			if err := putReservation(s.tx, id, reservation{ahead: c.last + reserveAhead}); err != nil {
				return err
			}
		}
	}
	return nil
}

// mendClock lets the own clock, where it is lost, go on from the newest message.
// Else what is stored would begin to grow old, and what is parked to wait, only
// when the clock had come there again.
func (s *salvager) mendClock() error {
	b, err := s.begun(string(bucketMeta))
	if err != nil || b.Get(clockKey) != nil {
		return err
	}
	return b.Put(clockKey, sealClock(s.newest))
}

// mendSequences lets new streams, subscriptions and dead letters have numbers
// that nothing has.
func (s *salvager) mendSequences() error {
	var maxStream uint32
	for id := range s.streams {
		maxStream = max(maxStream, id)
	}
	b, err := s.begun(string(bucketDead))
	if err != nil {
		return err
	}
	last := uint64(0)
	if k, _ := b.Cursor().Last(); len(k) == 8 {
		last = binary.BigEndian.Uint64(k)
	}
	for id := range s.floors {
		s.maxSub = max(s.maxSub, id)
	}
	return errors.Join(
		b.SetSequence(last),
		s.tx.Bucket(bucketStreams).SetSequence(uint64(maxStream)),
		s.tx.Bucket(bucketSubs).SetSequence(uint64(s.maxSub)),
	)
}
