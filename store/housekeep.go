package store

import (
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// housekeep looks at the clock, and removes what is consumed, expired or over a
// limit in streams that no turn has touched: limits were lowered, a subscription
// was deleted, time has passed.
func (db *DB) housekeep() {
	db.compactWhenQuiet()
	if db.clock.look() {
		db.mu.Lock()
		db.delays.retime(&db.clock)
		db.mu.Unlock()
	}
	age := db.clock.now()
	db.ageMemory(age)
	db.checkFull()
	if db.overLimits() {
		db.flush()
	}
	due := db.dueStreams(age)
	if slices.ContainsFunc(due, db.held.binds) {
		if !db.full.waits() {
			db.flush()
			due = db.dueStreams(age)
		}
		due = slices.DeleteFunc(due, db.held.binds)
	}
	if len(due) == 0 && !db.clock.saveDue(age) {
		return
	}
	w := newGroupWrite(db)
	for _, s := range due {
		w.of(s)
	}
	if err := db.update(func(tx *bolt.Tx) error { return w.finish(tx, age) }); err != nil {
		if fatal(err) {
			db.fail(err)
			return
		}
		db.giveUpBallast() // and try again next time
		db.noteFull(err)
		return
	}
	db.mu.Lock()
	w.apply()
	db.mu.Unlock()
	db.changed.fire()
}

// saveClock saves the time when the store is closed, so that only a crash takes
// any of it.
func (db *DB) saveClock() {
	if now := db.clock.now(); now-db.clock.saved < time.Second && !db.clock.saveDue(now) {
		return
	}
	var wrote func()
	err := db.update(func(tx *bolt.Tx) (err error) {
		wrote, err = db.clock.put(tx, db.clock.now())
		return err
	})
	if err != nil {
		db.log.Warn("store's own time was not saved", "err", err)
		return
	}
	wrote()
}

// overLimits says whether a stream that is in what is held is over its limits: they
// were lowered.
func (db *DB) overLimits() bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	for s := range db.held.streams {
		if s.config.OnFull != DropOldest || s.deleted || db.full.waits() {
			continue
		}
		msgs, bytes := db.excess(s, s.heldMsgs()+s.parked.stored, s.heldBytes()+s.parked.storedBytes, 0)
		if msgs > 0 || bytes > 0 {
			return true
		}
	}
	return false
}

// dueStreams returns the streams whose oldest message has to go.
func (db *DB) dueStreams(age time.Duration) (due []*stream) {
	type candidate struct {
		s          *stream
		subscribed bool
	}
	db.mu.Lock()
	var ageing []candidate
	for _, s := range db.streams {
		keep, consumed := db.keepFrom(s)
		_, inHeld := db.held.streams[s] // it is trimmed when that is written
		held := counters{msgs: s.heldMsgs() + s.parked.stored, bytes: s.heldBytes() + s.parked.storedBytes}
		_, dropping := overLimit(&s.config, &held, 0, 0)
		switch {
		case !inHeld && s.ids.len() > s.config.remembers() && s.ids.at(0).seq <= s.disk.last: // it is to remember less than before
			due = append(due, s)
		case s.disk.msgs == 0:
		case !inHeld && (consumed && s.disk.first < keep || dropping || s.shed.msgs > 0):
			due = append(due, s)
		case s.config.MaxAge > 0 || !consumed:
			ageing = append(ageing, candidate{s, consumed})
		}
	}
	db.clock.ages = db.clock.ages || db.delays.count > 0
	db.mu.Unlock()
	line := db.clock.line.Load()
	for _, c := range ageing {
		f := db.front(c.s)
		mayExpire := f.TTL != 0 && !c.subscribed
		if mayExpire || c.s.config.MaxAge > 0 {
			db.clock.ages = true
		}
		if most := c.s.config.MaxAge; most > 0 && line.between(f.stored, age) > most || mayExpire && f.expired(line, age) {
			due = append(due, c.s)
		}
	}
	return due
}

// front returns the oldest message of s, which has some, without what it holds.
// Only the writer calls it.
func (db *DB) front(s *stream) *frame {
	if s.front.Seq == s.disk.first {
		return &s.front
	}
	first := s.disk.first
	s.front = frame{stored: db.clock.now(), published: db.clock.now()}
	_ = db.view(func(tx *bolt.Tx) error {
		k, v := tx.Bucket(bucketMessages).Cursor().Seek(seqKey(s.id, first))
		id, seq, ok := splitSeqKey(k)
		if !ok || id != s.id {
			return nil
		}
		f, err := decodeFrame(k, v)
		if err != nil {
			return fmt.Errorf("stream %s, message %d: %w", s.config.Name, seq, err)
		}
		f.Header, f.Data, f.Seq = nil, nil, first
		s.front = f
		return nil
	}) // damage ends the store through view itself
	return &s.front
}
