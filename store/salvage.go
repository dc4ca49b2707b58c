package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Salvage does to a damaged store in dir what Open does: it sets the file aside
// in quarantine/ and puts one in its place that holds everything that can be
// read. The report says what was lost. A store without damage is left as it is.
// It fails with ErrLocked while a process has the store open. It needs as much
// room on the disk as what can be read takes, and no more memory than Check.
func Salvage(ctx context.Context, dir string) (Report, error) {
	r, err := salvageLocked(ctx, filepath.Join(dir, fileName))
	if err != nil {
		return Report{}, err
	}
	return *r, nil
}

func salvageLocked(ctx context.Context, path string) (r *Report, err error) {
	lock, err := lockDir(filepath.Dir(path))
	if err == nil {
		defer func() { err = errors.Join(err, lock.Close()) }()
		err = removeStale(path)
	}
	if err == nil {
		if _, _, err = checkFile(path); errors.Is(err, ErrDamaged) {
			var o Options
			o.setDefaults()
			if r, err = salvage(ctx, path, o); err == nil {
				err = quarantineOf(r, path)
			}
			return r, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("salvage store %s: %w", path, err)
	}
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := newAudit(ctx, f, false)
	if err := a.file(path); err != nil {
		return nil, err
	}
	a.conclude()
	return a.r, quarantineOf(a.r, path)
}

// salvage sets the damaged file at path aside and puts one in its place that
// holds everything in it that can be read and has the right checksum.
//
// A power cut at any point leaves either the damaged file at path, and the next
// start does this again, or the new one.
func salvage(ctx context.Context, path string, o Options) (_ *Report, err error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &salvager{audit: newAudit(ctx, f, false)}
	tmp := path + salvagedSuffix
	defer func() {
		if err != nil {
			err = errors.Join(full(err), ignoreMissing(os.Remove(tmp)))
		}
	}()
	if err := s.writeTo(tmp, path, o); err != nil {
		return nil, err
	}
	s.r.Aside, err = setAside(path)
	if err != nil {
		return nil, err
	}
	if err := writeReport(s.r); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, err
	}
	s.r.log(o.Logger)
	return s.r, syncDir(filepath.Dir(path))
}

// setAside gives the file a second name in the quarantine; it has one already
// if a crash came between this and the rename.
func setAside(path string) (string, error) {
	dir := filepath.Join(filepath.Dir(path), QuarantineDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	us, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		aside := filepath.Join(dir, fmt.Sprintf("%s%d.db", asidePrefix, n))
		err := os.Link(path, aside)
		if errors.Is(err, os.ErrExist) {
			if there, err := os.Stat(aside); err == nil && os.SameFile(us, there) {
				return aside, nil
			}
			continue
		}
		if err != nil {
			return "", err
		}
		return aside, errors.Join(syncDir(dir), syncDir(filepath.Dir(path)))
	}
}

// writeReport puts what is known of a file that was set aside beside it. A
// power cut may take it; then the file is named without what was lost.
func writeReport(r *Report) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(r.Aside+reportSuffix, append(b, '\n'), 0o600)
}

// salvager writes what an audit can read into a new file, as it reads it. What
// has been written serves as the index of what is known.
type salvager struct {
	*audit
	to     *bolt.DB
	tx     *bolt.Tx // under way
	size   int      // of what it has written
	maxSub uint32
	newest time.Duration // the own clock when the newest message was stored, or parked
}

func (s *salvager) writeTo(tmp, path string, o Options) (err error) {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	opt := boltOptions(o)
	opt.MaxSize = max(opt.MaxSize, clampInt(info.Size()+fileSlack)) // the file may be from when the limit was higher
	opt.NoSync = true                                               // until it is whole
	if s.to, err = newFile(tmp, opt); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.to.Close()) }()
	s.carry = s.put
	defer recoverDamage(&err)
	for _, step := range []func() error{
		func() error { return s.file(path) },
		s.scan,
		s.commit,
		s.recount,
		s.mend,
		s.commit,
		s.to.Sync,
	} {
		if err := step(); err != nil {
			if s.tx != nil {
				_ = s.tx.Rollback()
			}
			return err
		}
	}
	s.conclude()
	return nil
}

// begin returns a bucket of the transaction that is under way.
func (s *salvager) begun(bucket string) (_ *bolt.Bucket, err error) {
	if s.tx == nil {
		if s.tx, err = s.to.Begin(true); err != nil {
			return nil, err
		}
	}
	b := s.tx.Bucket([]byte(bucket))
	b.FillPercent = 1
	return b, nil
}

func (s *salvager) commit() error {
	if s.tx == nil {
		return nil
	}
	tx := s.tx
	s.tx, s.size = nil, 0
	return tx.Commit()
}

// put carries a value over.
func (s *salvager) put(bucket string, key, value []byte) error {
	switch {
	case bucket == string(bucketCounters), bucket == string(bucketPositions):
		return nil // written when all is known
	case bucket == string(bucketMeta) && bytes.Equal(key, versionKey):
		return nil // the new file has its own
	}
	b, err := s.begun(bucket)
	if err != nil {
		return err
	}
	if err := b.Put(key, bytes.Clone(value)); err != nil {
		return err
	}
	if s.size += len(key) + len(value); s.size > groupBytes {
		return s.commit()
	}
	return nil
}

func (s *salvager) delete(bucket string, key []byte) error {
	b, err := s.begun(bucket)
	if err != nil {
		return err
	}
	return b.Delete(key)
}

// scan looks for messages, and for the streams they belong to, in pages that
// the tree does not lead to. Some of those are left over from before, so that a
// message which was consumed may come back, where no counters tell that it was;
// of state and positions, where an old value is worse than none, nothing is
// taken from them.
func (s *salvager) scan() error {
	if s.r.Unreadable == 0 && !s.r.Rootless && len(s.r.Findings) == 0 {
		return nil
	}
	w := s.walker
	w.hole = func(hole) error { return nil }
	look := func(flags uint32, k, v []byte) error {
		switch {
		case flags == 0:
			return s.find(k, v)
		case flags == leafBucket && len(v) > bucketLen && binary.LittleEndian.Uint64(v) == 0:
			// A small bucket is inside the page of its parent.
			return w.bucket(v, 1, func(flags uint32, k, v []byte) error {
				if flags != 0 {
					return nil
				}
				return s.find(k, v)
			})
		}
		return nil
	}
	for id := uint64(2); id < w.pages; id++ {
		if err := s.ctx.Err(); err != nil {
			return context.Cause(s.ctx)
		}
		b, _ := w.page(id, 0)
		if len(b) < pageHeaderLen || binary.LittleEndian.Uint16(b[8:]) != pageLeaf {
			continue
		}
		if err := w.elements(b, id, 0, nil, nil, look); err != nil {
			return err
		}
	}
	return nil
}

// maxStreamID is more streams than a box ever had. The key of a value in a space
// begins with the length of the space's name, and so is a larger number.
const maxStreamID = 1<<24 - 1

// find takes a message or a stream that was found outside the tree, unless it is
// known, or nothing of its kind is missing.
func (s *salvager) find(k, v []byte) error {
	var r streamRecord
	if id, seq, ok := splitSeqKey(k); ok {
		if id > maxStreamID {
			return nil // it is the key of a value
		}
		if _, err := decodeParked(k, v); err == nil {
			return s.findIn(bucketDelayed, k, v)
		}
		if _, _, err := decodeMessage(k, v); err != nil {
			return nil
		}
		st := s.streams[id]
		if st != nil && st.counted && (seq < st.old.first || seq > st.old.last) {
			return nil // consumed, or of a commit that did not come to its end
		}
		return s.findIn(bucketMessages, k, v)
	}
	if getJSON(k, v, &r) != nil || r.ID == 0 || r.Config.Name != string(k) {
		return nil
	}
	if known, ok := s.names[string(k)]; !s.holed[string(bucketStreams)] || ok && known >= r.ID {
		return nil // an older one was deleted
	}
	if st := s.streams[r.ID]; st != nil && st.name != recoveredName(r.ID) {
		return nil
	}
	s.streams[r.ID] = &auditStream{name: string(k), ahead: r.Config.Durability != Synced}
	s.names[string(k)] = r.ID
	s.r.Outside++
	return s.put(string(bucketStreams), k, v)
}

func (s *salvager) findIn(bucket, k, v []byte) error {
	if !s.holed[string(bucket)] {
		return nil // all that counts was in the tree
	}
	b, err := s.begun(string(bucket))
	if err != nil || b.Get(k) != nil {
		return err
	}
	s.r.Outside++
	return s.put(string(bucket), k, v)
}

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
