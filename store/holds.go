package store

import (
	"context"
	"fmt"
	"slices"
)

// holds are the rights of turns that must not lose a conflict: one that is
// irrevocable holds the keys it has read or written, and one that lost too often
// those that it has met in all its attempts. Nobody ever holds more than keys:
// whoever shares none with a turn does not wait for it, however slow it is.
// DB.mu guards it.
type holds struct {
	db    *DB
	keys  map[stateKey]*Turn
	waits map[*Turn]*Turn // who waits for whom, among turns that act at once
}

func newHolds(db *DB) holds {
	return holds{db: db, keys: make(map[stateKey]*Turn), waits: make(map[*Turn]*Turn)}
}

// blocker returns a turn whose rights the writes of t would break, or nil.
func (h *holds) blocker(t *Turn) *Turn {
	if len(t.writes) == 0 {
		return nil // what only publishes or acknowledges makes nobody lose
	}
	for k := range t.writes {
		if o := h.keys[k]; o != nil && o != t {
			return o
		}
	}
	return nil
}

// causedBy says whether o waits for t.
func (t *Turn) causedBy(o *Turn) bool { return slices.Contains(t.causes, o.ID()) }

// Irrevocable prepares t for an effect that happens at once and can not be
// undone. It waits until all that t has read is on disk, checks that none of
// it has changed, and takes hold of the keys of t: from here on t is never the
// loser of a conflict, and only a crash or a failure of its own can make its
// work be done again. It fails with ErrConflict if t has lost already, and
// with ErrDeadlock if waiting could not end.
func (t *Turn) Irrevocable(ctx context.Context) error {
	db, h := t.db, &t.db.holds
	for {
		changed := db.changed.wait()
		db.mu.Lock()
		done, err := h.seize(t)
		db.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			db.mu.Lock()
			delete(h.waits, t)
			db.mu.Unlock()
			return fmt.Errorf("wait to act at once: %w", context.Cause(ctx))
		}
	}
}

// Exclusive says whether other turns may have to wait until t ends: it is
// irrevocable, or holds its keys because it lost too often.
func (t *Turn) Exclusive() bool { return t.irrevocable || t.insists }

// seize makes t irrevocable if nothing stands against it now.
func (h *holds) seize(t *Turn) (done bool, err error) {
	if t.irrevocable {
		return true, nil
	}
	if err := h.db.usable(); err != nil {
		return false, err
	}
	if t.lost || h.db.state.conflicts(t) {
		t.lost = true
		return false, ErrConflict
	}
	if h.db.state.durable < t.seen {
		h.db.hurryUp()
		return false, nil
	}
	for _, k := range t.keys() {
		if o := h.keys[k]; o != nil && o != t {
			return false, h.waitFor(t, o)
		}
	}
	delete(h.waits, t)
	for _, k := range t.keys() {
		h.keys[k] = t
	}
	t.irrevocable = true
	return true, nil
}

// keys returns what t read and wrote.
func (t *Turn) keys() []stateKey {
	keys := make([]stateKey, 0, len(t.reads)+len(t.writes))
	for k := range t.reads {
		keys = append(keys, k)
	}
	for k := range t.writes {
		keys = append(keys, k)
	}
	return keys
}

// waitFor notes that t waits for o, unless that could never end.
func (h *holds) waitFor(t, o *Turn) error {
	if t.causedBy(o) {
		return ErrDeadlock
	}
	for w := o; w != nil; w = h.waits[w] {
		if w == t {
			return ErrDeadlock
		}
	}
	h.waits[t] = o
	return nil
}

// hold takes k for t if t must not lose: a key it touches now must not make it
// lose later. What another turn holds can not be waited for here, in the middle
// of a handler, without a risk of two waiting for each other. One that is
// irrevocable fails; any other goes on, and does its work again if it has to.
// Call it with db.mu held.
func (t *Turn) hold(k stateKey) error {
	h := &t.db.holds
	o := h.keys[k]
	if o != nil && o != t && t.causedBy(o) {
		return ErrDeadlock
	}
	if !t.irrevocable && !t.insists || o == t {
		return nil
	}
	if o != nil && !t.irrevocable {
		return nil
	}
	if o != nil {
		return fmt.Errorf("key %s is held by another turn that must not lose: %w", k[1+k[0]:], ErrDeadlock)
	}
	h.keys[k] = t
	return nil
}

// insist makes t hold keys before it has read any of them. It waits for all at
// once, so that two that wait can not wait for each other.
func (h *holds) insist(ctx context.Context, t *Turn, keys map[stateKey]struct{}) error {
	db := h.db
	for {
		changed := db.changed.wait()
		db.mu.Lock()
		o := h.anyHolder(keys)
		if o == nil {
			for k := range keys {
				h.keys[k] = t
			}
			t.insists = true
		}
		db.mu.Unlock()
		switch {
		case o == nil:
			return nil
		case t.causedBy(o):
			return ErrDeadlock
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (h *holds) anyHolder(keys map[stateKey]struct{}) *Turn {
	for k := range keys {
		if o := h.keys[k]; o != nil {
			return o
		}
	}
	return nil
}

// release gives up whatever t holds, and says whether that was anything. Call
// it with db.mu held.
func (h *holds) release(t *Turn) bool {
	delete(h.waits, t)
	if !t.irrevocable && !t.insists {
		return false
	}
	for k, o := range h.keys {
		if o == t {
			delete(h.keys, k)
		}
	}
	return true
}
