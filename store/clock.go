package store

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// TimeTrust says how far a time can be trusted.
type TimeTrust int

const (
	// TimeUnknown: nobody knows if the clock was right. The time is the best
	// guess: not before what was known to be past, and not after what is known
	// to have come later.
	TimeUnknown TimeTrust = iota
	// TimeCorrected: worked out from how long before or after it the clock was
	// right.
	TimeCorrected
	// TimeSynced: the clock was right.
	TimeSynced
)

func (t TimeTrust) String() string {
	names := [...]string{"unknown", "corrected", "synced"}
	if t < 0 || int(t) >= len(names) {
		return fmt.Sprintf("TimeTrust(%d)", int(t))
	}
	return names[t]
}

// clock is the store's own time, by which messages grow old, and what it knows
// of real time. The own time counts the time the store was open, on the
// monotonic clock, and stands still while the box is off, so that no wall clock
// that starts in 1970, or jumps, moves it. How long the box was off is added
// once it is known (timeline).
type clock struct {
	base   time.Duration // at Open
	opened time.Time
	wall   func() time.Time
	right  func() bool // whether the wall clock is

	line   atomic.Pointer[timeline]
	synced atomic.Bool // the wall clock is right, by the last look

	// Only the writer has to do with these.
	written *timeline     // what the file has
	saved   time.Duration // what the file has of the own time
	ages    bool          // something grows old
}

var (
	clockKey    = []byte("clock")
	timelineKey = []byte("timeline")
)

const (
	// clockInterval is how often an idle store saves its time while it holds
	// messages that grow old.
	clockInterval = 10 * time.Minute
	// clockSlack is by how much a wall clock that is right may leave its own
	// path before it is followed.
	clockSlack = 100 * time.Millisecond
	// clockJump is by how much it has moved for that to be saved for its own sake.
	clockJump = 10 * time.Second
)

// now is the own time.
func (c *clock) now() time.Duration { return c.base + time.Since(c.opened) }

// since is how much time really passed since a moment of the own time, as far
// as is known.
func (c *clock) since(own time.Duration) time.Duration { return c.line.Load().between(own, c.now()) }

// real is the best estimate of the time it is.
func (c *clock) real() (time.Time, TimeTrust) {
	l, own, wall := c.line.Load(), c.now(), c.wall().Round(0) // what is monotonic about it is the own clock's
	if s := l.now(); s.known {
		t := realTime(own, s.offset)
		if !c.synced.Load() {
			return t, TimeCorrected
		}
		if d := wall.Sub(t).Abs(); d < time.Second {
			return wall, TimeSynced
		}
		return t, TimeSynced // it has just jumped: whether that is right shows at the next look
	}
	if _, offset, ok := l.floor(len(l.sessions) - 1); ok && wall.Before(realTime(own, offset)) {
		return realTime(own, offset), TimeUnknown
	}
	return wall, TimeUnknown
}

// look asks whether the wall clock is right, and says whether that changed what
// is known of real time. Only Open and the writer call it.
func (c *clock) look() (changed bool) {
	right := c.right()
	wall, own, l := c.wall(), c.now(), c.line.Load()
	if y := wall.Year(); y < 1970 || y > 2200 { // beyond what can be stored, and never right
		right = false
	}
	if right {
		offset := time.Duration(wall.UnixNano()) - own
		if s := l.now(); !s.known || (offset-s.offset).Abs() > clockSlack {
			c.line.Store(l.anchored(offset))
			changed = true
		}
	}
	c.synced.Store(right)
	return changed
}

// saveDue says whether the time should be saved for its own sake.
func (c *clock) saveDue(now time.Duration) bool {
	due := c.ages && now-c.saved > clockInterval
	c.ages = false
	s, w := c.line.Load().now(), c.written.now()
	if s.known {
		due = due || !w.known || s.start != w.start || (s.offset-w.offset).Abs() > clockJump
	}
	return due
}

// put saves the time in tx; wrote has to be called when that is on disk.
func (c *clock) put(tx *bolt.Tx, now time.Duration) (wrote func(), err error) {
	b := tx.Bucket(bucketMeta)
	if err := b.Put(clockKey, sealClock(now)); err != nil {
		return nil, err
	}
	l := c.line.Load()
	if l != c.written {
		if err := b.Put(timelineKey, l.encode(timelineKey)); err != nil {
			return nil, err
		}
	}
	return func() { c.written, c.saved = l, now }, nil
}

func sealClock(now time.Duration) []byte {
	return seal(clockKey, binary.LittleEndian.AppendUint64(nil, uint64(now)))
}

func decodeClock(v []byte) (time.Duration, error) {
	b, err := unseal(clockKey, v)
	if err == nil && len(b) != 8 {
		err = ErrDamaged
	}
	if err != nil {
		return 0, err
	}
	return time.Duration(binary.LittleEndian.Uint64(b)), nil
}

// load begins the clock where the file has it.
func (c *clock) load(tx *bolt.Tx, o *Options) error {
	c.opened, c.wall, c.right = time.Now(), o.Now, o.ClockSynced
	c.written = newTimeline()
	if v := tx.Bucket(bucketMeta).Get(timelineKey); v != nil {
		var err error
		if c.written, err = decodeTimeline(timelineKey, v); err != nil {
			return fmt.Errorf("timeline: %w", err)
		}
	}
	if v := tx.Bucket(bucketMeta).Get(clockKey); v != nil {
		saved, err := decodeClock(v)
		if err != nil {
			return fmt.Errorf("clock: %w", err)
		}
		// What was stored last has the time that was saved with it, and belongs to
		// what is over.
		c.base = saved + 1
	}
	c.base = max(c.base, c.written.now().start)
	c.saved = c.base
	c.line.Store(c.written.opened(c.base))
	c.look()
	return nil
}

// Elapsed is the store's own time: how long it has been open, over all
// restarts. It never runs backwards by more than what a crash took from it, and
// no wall clock moves it. It is good for saying when something expires.
func (db *DB) Elapsed() time.Duration { return db.clock.now() }

// Age is how long ago the store's own time was own, with the time that the store
// was closed since then, as far as that is known. It is never more than real
// time has gone.
func (db *DB) Age(own time.Duration) time.Duration {
	return db.clock.line.Load().between(own, db.clock.now())
}

// Now is the best estimate of real time, and how far it can be trusted. A wall
// clock that is known to be right (Options.ClockSynced) is followed. When it is
// not, the time goes on from when it last was, while the store is open; a clock
// that jumps then changes nothing. Before it was ever right since Open, the time
// is the wall clock's, but no earlier than what is known to be past.
func (db *DB) Now() (time.Time, TimeTrust) { return db.clock.real() }
