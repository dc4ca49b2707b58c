package store

import (
	"fmt"
	"time"
)

// Who may fill how much of the store. Ordinary publishes end where there is
// still room for turns that acknowledge something: what a full store needs most
// is that its messages are consumed, and handling them may take publishing. What
// those leave is for control and alarms. The last bit is for dead letters: a
// message that can not be given up would hold up all that is behind it.
const (
	ordinaryReserve = 8  // one part in so many is not for ordinary publishes,
	consumerReserve = 16 // one in so many not for turns that acknowledge,
	deadReserve     = 64 // and one in so many for no message
)

// level is up to where a turn may fill the store with messages for s.
func (o *Options) level(s *stream, acks bool) int64 {
	switch {
	case s.config.Priority == MaxPriority:
		return o.MaxBytes - o.MaxBytes/deadReserve
	case acks:
		return o.MaxBytes - o.MaxBytes/consumerReserve
	}
	return o.MaxBytes - o.MaxBytes/ordinaryReserve
}

// checkRoom finds whether what t stages fits, without changing anything.
//
// It counts what is queued as if none of it was trimmed on its way to the disk,
// so that what it admits is within the bounds whatever group it ends in.
func (db *DB) checkRoom(t *Turn) error {
	held := db.heldBytes()
	if err := db.checkDeadRoom(t, held); err != nil || len(t.messages) == 0 {
		return err
	}
	var before added
	var now time.Time   // read for those that name a time: few do, and it takes two clocks
	waiting := int64(0) // messages of t that are to be parked
	for i, p := range t.messages {
		s := p.s
		if db.streams[s.config.Name] != s {
			return fmt.Errorf("publish %s to stream %s: %w", p.m.Subject, s.config.Name, ErrNoStream)
		}
		if before.repeats(p, i+1 < len(t.messages)) {
			continue
		}
		if err := before.checkProducer(p); err != nil {
			return err
		}
		size := p.m.size()
		held += size
		a := before.to(s, size)
		others := held
		if s.config.OnFull == DropOldest {
			// The writer makes room by dropping what the stream has before this
			// message; beside what others hold it has to fit by itself.
			others -= s.bytes - s.parked.bytes + a.bytes - size
		} else if err := s.checkLimits(a); err != nil {
			return err
		}
		if now.IsZero() && !p.m.NotBefore.IsZero() {
			now, _ = db.clock.real()
		}
		if p.m.delayed(now) {
			if waiting++; db.delays.count+int(waiting) > maxDelayed {
				return fmt.Errorf("%d messages are parked already: %w", db.delays.count, ErrFull)
			}
			if err := s.checkParked(a); err != nil {
				return err
			}
		}
		if others > db.o.level(s, len(t.acks) > 0) {
			return fmt.Errorf("store holds %d bytes of %d: %w", held-size, db.o.MaxBytes, ErrFull)
		}
	}
	return nil
}

// checkLimits finds whether a stream that refuses what is beyond its limits
// takes a. What it could not hold if it were empty is too large, and not to be
// tried again for ever.
func (s *stream) checkLimits(a addedTo) error {
	switch c := &s.config; {
	case c.MaxMsgs > 0 && a.msgs > c.MaxMsgs:
		return fmt.Errorf("%d messages at once for stream %s, which may hold %d: %w", a.msgs, c.Name, c.MaxMsgs, ErrTooLarge)
	case c.MaxBytes > 0 && a.bytes > c.MaxBytes:
		return fmt.Errorf("%d bytes at once for stream %s, which may hold %d: %w", a.bytes, c.Name, c.MaxBytes, ErrTooLarge)
	case c.MaxMsgs > 0 && s.msgs+a.msgs > c.MaxMsgs:
		return fmt.Errorf("stream %s holds %d messages: %w", c.Name, s.msgs, ErrFull)
	case c.MaxBytes > 0 && s.bytes+a.bytes > c.MaxBytes:
		return fmt.Errorf("stream %s holds %d bytes: %w", c.Name, s.bytes, ErrFull)
	}
	return nil
}

// checkParked finds whether a stream that drops its oldest takes a among what
// is parked, which it does not drop.
func (s *stream) checkParked(a addedTo) error {
	c := &s.config
	if c.OnFull == DropOldest && (c.MaxMsgs > 0 && s.parked.msgs+a.msgs > c.MaxMsgs/2 || c.MaxBytes > 0 && s.parked.bytes+a.bytes > c.MaxBytes/2) {
		return fmt.Errorf("stream %s has %d delayed messages, half of what it may hold: %w", c.Name, s.parked.msgs, ErrFull)
	}
	return nil
}

// checkDeadRoom finds whether the dead letters of t fit beside the messages: the
// writer drops older ones to make room, but no message.
func (db *DB) checkDeadRoom(t *Turn, held int64) error {
	for i := range t.dead {
		if size := t.dead[i].size(); held-db.dead.bytes+size > db.o.MaxBytes {
			return fmt.Errorf("store holds %d bytes of %d, which leaves no room for a dead letter of %d: %w", held, db.o.MaxBytes, size, ErrFull)
		}
	}
	return nil
}

// added is what the messages of a turn add, up to one of them.
type added struct {
	streams []addedTo
	ids     map[identity]struct{}
	marks   map[identity]uint64 // of producers

	producers map[*stream]int // that were not known
}

type addedTo struct {
	s           *stream
	msgs, bytes int64
}

type identity struct {
	s    *stream
	hash idHash
}

// repeats says whether p is a repeat of a message that the stream remembers, or
// of one before it in the turn. more says whether another one comes after it.
func (a *added) repeats(p *pendingMessage, more bool) bool {
	if _, known := p.s.repeated(p); known {
		return true
	}
	if seq, known := a.marks[identity{p.s, p.producer}]; known && p.numbered.seq > 0 && p.numbered.seq <= seq {
		return true
	}
	for _, h := range p.identities(p.s) {
		if _, known := a.ids[identity{p.s, h}]; known {
			return true
		}
		if more {
			if a.ids == nil {
				a.ids = make(map[identity]struct{})
			}
			a.ids[identity{p.s, h}] = struct{}{}
		}
	}
	return false
}

// to counts a message of size bytes for s, and returns all of s so far.
func (a *added) to(s *stream, size int64) addedTo {
	for i := range a.streams {
		if o := &a.streams[i]; o.s == s {
			o.msgs, o.bytes = o.msgs+1, o.bytes+size
			return *o
		}
	}
	a.streams = append(a.streams, addedTo{s, 1, size})
	return a.streams[len(a.streams)-1]
}

// heldBytes is what counts against MaxBytes, queued included.
func (db *DB) heldBytes() int64 {
	n := db.dead.bytes
	for _, s := range db.streams {
		n += s.bytes
	}
	return n
}

// storedBytes is what the store holds, without what is queued.
func (db *DB) storedBytes() int64 {
	n := db.dead.bytes
	for _, s := range db.streams {
		n += s.heldBytes() + s.parked.storedBytes
	}
	return n
}
