package store

import (
	"errors"
	"fmt"
)

const (
	// freeBytes is what a bounded turn may hold in any case, at most.
	freeBytes = 256 << 10
	// readBytes is about what it takes to remember that a key was read, beside
	// the key.
	readBytes = 64
	// writeBytes is about what it takes to keep a value, beside the key and itself.
	writeBytes = 128
	// pendingBytes is about what it takes to keep a message, beside what is in it
	// and messageOverhead.
	pendingBytes = 512
	// maxBoundReads is how many keys a bounded turn may read: all of them are
	// looked at, with everybody waiting, when it ends.
	maxBoundReads = 1 << 14
)

// ErrBound: a turn that is bounded, or all of them together, would hold too much.
// It comes with ErrTooLarge or ErrFull.
var ErrBound = errors.New("the turn holds too much")

// boundError is ErrBound, and kind.
type boundError struct{ kind error }

func (e boundError) Error() string   { return e.kind.Error() }
func (e boundError) Unwrap() []error { return []error{ErrBound, e.kind} }

// Bound says that what fills t is foreign: from here on it may hold only so much
// in memory, and read so many keys. What is beyond that fails, with ErrTooLarge,
// or with ErrFull where other turns hold too much just now.
func (t *Turn) Bound() { t.bounded = true }

// Keep accounts for n more bytes that are kept in memory for t until its fate is
// known, by t itself or by who waits for its end (AfterCommit). It fails as Bound
// says; a negative n gives back.
func (t *Turn) Keep(n int64) error {
	t.kept += n
	free := t.db.freeStaged()
	over := t.kept - free
	if !t.bounded || over <= t.borrowed {
		return nil
	}
	most := t.db.o.MaxStaged
	if t.kept > most {
		t.kept -= n
		t.db.stats.bounded.Add(1)
		return fmt.Errorf("the turn holds %d bytes of state and messages, and may hold %d: %w", t.kept, most, boundError{ErrTooLarge})
	}
	// In steps, so that few calls meet the others.
	want := over - t.borrowed + free
	if now := t.db.borrowed.Add(want); now > most {
		t.db.borrowed.Add(-want)
		t.kept -= n
		t.db.stats.bounded.Add(1)
		return fmt.Errorf("turns hold %d bytes of state and messages together, and may hold %d: %w", now-want, most, boundError{ErrFull})
	}
	t.borrowed += want
	return nil
}

// freeStaged is what a bounded turn may hold in any case: less where all of them
// may hold little, for there can be many turns.
func (db *DB) freeStaged() int64 { return min(freeBytes, db.o.MaxStaged/32) }

// giveBack ends the account of t.
func (t *Turn) giveBack() {
	t.db.borrowed.Add(-t.borrowed)
	t.borrowed = 0
}

// keepRead is Keep for a key that is read, perhaps again. Call it with db.mu held.
func (t *Turn) keepRead(k stateKey) error {
	if _, again := t.reads[k]; again || !t.bounded {
		return nil
	}
	if len(t.reads) >= maxBoundReads {
		t.db.stats.bounded.Add(1)
		return fmt.Errorf("the turn has read %d keys, and may read no more: %w", len(t.reads), boundError{ErrTooLarge})
	}
	return t.Keep(int64(len(k) + readBytes))
}
