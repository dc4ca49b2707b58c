package store

import (
	"errors"
	"fmt"
)

// ErrBehind: the turn follows one that was not committed, and must not be
// either. Doing the work again, after the other one's, can help.
var ErrBehind = errors.New("the turn before was not committed")

// Follow orders t behind o, which has been queued (see OnQueued): t is committed
// after o or not at all, as if it had read something that o wrote. Two pieces of
// work that must be done in order need not wait for the disk in between.
// It fails with ErrBehind if o was not queued, or not committed.
func (t *Turn) Follow(o *Turn) error {
	db := t.db
	db.mu.Lock()
	defer db.mu.Unlock()
	if o.order == 0 || o.err != nil {
		return fmt.Errorf("turn %s behind %s: %w", t.ID(), o.ID(), ErrBehind)
	}
	if t.reads == nil { // a rollback makes all lose that have read
		t.reads = make(map[stateKey]uint64)
		db.state.active[t] = db.state.queued
	}
	t.seen = max(t.seen, o.order)
	return nil
}

// OnQueued lets fn run as soon as t has been queued: nothing but the disk can
// keep it from being committed now, and others may Follow it. fn is called in
// the goroutine of Commit or Submit, which is Do's, before the turn's fate is
// told there.
func (t *Turn) OnQueued(fn func()) { t.onQueued = fn }
