package store

import (
	"encoding/binary"
	"time"

	bolt "go.etcd.io/bbolt"
)

// clock is the store's own time, by which messages grow old. It counts the time
// the store was open, on the monotonic clock, and stands still while the box is
// off, so that a wall clock that starts in 1970 or jumps can neither expire a
// message nor keep it for ever. Only the writer saves it.
type clock struct {
	base   time.Duration // at Open
	opened time.Time
	saved  time.Duration
	age    bool // something ages
}

var clockKey = []byte("clock")

// clockInterval is how often an idle store saves its time while it holds
// messages that grow old.
const clockInterval = 10 * time.Minute

func (c *clock) now() time.Duration { return c.base + time.Since(c.opened) }

func (c *clock) needed() { c.age = true }

// saveDue says whether the time should be saved for its own sake.
func (c *clock) saveDue(now time.Duration) bool {
	due := c.age && now-c.saved > clockInterval
	if due {
		c.saved = now
	}
	c.age = false
	return due
}

func putClock(tx *bolt.Tx, now time.Duration) error {
	v := binary.LittleEndian.AppendUint64(nil, uint64(now))
	return tx.Bucket(bucketMeta).Put(clockKey, seal(clockKey, v))
}

func loadClock(tx *bolt.Tx) (clock, error) {
	c := clock{opened: time.Now()}
	v := tx.Bucket(bucketMeta).Get(clockKey)
	if v == nil {
		return c, nil
	}
	b, err := unseal(clockKey, v)
	if err != nil {
		return c, err
	}
	if len(b) != 8 {
		return c, ErrDamaged
	}
	c.base = time.Duration(binary.LittleEndian.Uint64(b))
	c.saved = c.base
	return c, nil
}

// Elapsed is the store's own time: how long it has been open, over all
// restarts. It never runs backwards by more than what a crash took from it, and
// no wall clock moves it. It is good for saying when something expires.
func (db *DB) Elapsed() time.Duration { return db.clock.now() }
