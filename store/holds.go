package store

import (
	"context"
	"fmt"
	"slices"
)

// holds are the rights of turns that must not lose a conflict: a turn that is
// irrevocable holds the keys it has read or written, and a turn that lost too
// often holds everything while it runs alone. DB.mu guards it.
type holds struct {
	db    *DB
	keys  map[stateKey]*Turn
	turns map[*Turn]struct{} // irrevocable ones under way
	waits map[*Turn]*Turn    // who waits for whom, among irrevocable turns
	lone  *Turn              // runs alone
	next  bool               // a turn waits to run alone: nobody else becomes irrevocable
	door  chan struct{}      // capacity 1: held by the turn that runs, or waits to run, alone
}

func newHolds(db *DB) holds {
	return holds{
		db: db, keys: make(map[stateKey]*Turn), turns: make(map[*Turn]struct{}),
		waits: make(map[*Turn]*Turn), door: make(chan struct{}, 1),
	}
}

// blocker returns a turn whose rights the writes of t would break, or nil.
func (h *holds) blocker(t *Turn) *Turn {
	if len(t.writes) == 0 {
		return nil // what only publishes or acknowledges makes nobody lose
	}
	if h.lone != nil && h.lone != t {
		return h.lone
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
// irrevocable, or runs alone after it lost too often.
func (t *Turn) Exclusive() bool { return t.irrevocable || t.alone }

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
	if h.next && h.lone != t {
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
	h.turns[t] = struct{}{}
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

// hold takes k for t if t is irrevocable: a key it touches now must not make
// it lose later. Another irrevocable turn's key can not be waited for here, in
// the middle of a handler, without a risk of two waiting for each other; the
// call fails. Call it with db.mu held.
func (t *Turn) hold(k stateKey) error {
	h := &t.db.holds
	o := h.keys[k]
	if o != nil && o != t && t.causedBy(o) {
		return ErrDeadlock
	}
	if !t.irrevocable || o == t {
		return nil
	}
	if o != nil {
		return fmt.Errorf("key %s is held by another turn that acts at once: %w", k[1+k[0]:], ErrDeadlock)
	}
	h.keys[k] = t
	return nil
}

// goAlone holds back all other turns that write keys until t has ended.
func (h *holds) goAlone(ctx context.Context, t *Turn) error {
	select {
	case h.door <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.alone = true // from here on the end of t opens the door
	db := h.db
	for {
		changed := db.changed.wait()
		db.mu.Lock()
		h.next = true
		if len(h.turns) == 0 {
			h.lone = t
		}
		alone := h.lone == t
		db.mu.Unlock()
		if alone {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// release gives up whatever t holds, and says whether that was anything. Call
// it with db.mu held.
func (h *holds) release(t *Turn) bool {
	delete(h.waits, t)
	if t.irrevocable {
		delete(h.turns, t)
		for k, o := range h.keys {
			if o == t {
				delete(h.keys, k)
			}
		}
	}
	if t.alone {
		h.lone, h.next = nil, false
		<-h.door
	}
	return t.irrevocable || t.alone
}
