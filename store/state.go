package store

import (
	"fmt"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// stateView is what turns see of keys beyond the file, and how conflicts are
// found. Time in it is the number of turns queued so far. DB.mu guards it.
type stateView struct {
	queued  uint64                   // turns queued since Open
	durable uint64                   // of which so many are on disk
	pending map[stateKey]queuedWrite // writes queued and not yet on disk
	written map[stateKey]uint64      // when a key was last queued to be written; only what an active turn could have read before
	active  map[*Turn]uint64         // turns that have read, and when they began to
}

type queuedWrite struct {
	value []byte // nil deletes
	at    uint64
}

// pruneAbove is how many entries written may have before it is swept.
const pruneAbove = 4096

// read notes that t reads k, and returns its queued value if there is one. ok
// is false if the file has to be asked.
//
// The file may be read after a later turn has reached it. Then written is newer
// than what is noted here, and t loses: an unneeded conflict, never a wrong
// value.
func (v *stateView) read(t *Turn, k stateKey) (value []byte, ok bool) {
	if t.reads == nil {
		t.reads = make(map[stateKey]uint64)
		v.active[t] = v.queued
	}
	if _, again := t.reads[k]; !again {
		t.reads[k] = v.queued
	}
	w, ok := v.pending[k]
	if ok {
		t.seen = max(t.seen, w.at)
	}
	return w.value, ok
}

// conflicts says whether a key that t read has been queued to be written since.
func (v *stateView) conflicts(t *Turn) bool {
	for k, at := range t.reads {
		if v.written[k] > at {
			return true
		}
	}
	return false
}

// queue makes the writes of t visible to turns that read from now on.
func (v *stateView) queue(t *Turn) {
	v.queued++
	t.order = v.queued
	for k, value := range t.writes {
		v.pending[k] = queuedWrite{value, t.order}
		if len(v.active) > 0 {
			v.written[k] = t.order
		}
	}
}

// committed notes that the turns of group are on disk.
func (v *stateView) committed(group []*Turn) {
	for _, t := range group {
		for k := range t.writes {
			if w, ok := v.pending[k]; ok && w.at <= group[len(group)-1].order {
				delete(v.pending, k)
			}
		}
	}
	v.prune()
}

// prune forgets when keys were written that no active turn could have read
// before.
func (v *stateView) prune() {
	if len(v.active) == 0 {
		clear(v.written)
		return
	}
	if len(v.written) <= pruneAbove {
		return
	}
	oldest := v.queued
	for _, at := range v.active {
		oldest = min(oldest, at)
	}
	for k, at := range v.written {
		if at <= oldest {
			delete(v.written, k)
		}
	}
}

// rollback forgets all that is queued. Turns that have read can not be told
// from those that saw some of it without more bookkeeping, so all of them lose,
// but for one that has acted at once: what it had read by then is on disk.
func (v *stateView) rollback() {
	clear(v.pending)
	for t := range v.active {
		if !t.irrevocable || t.seen > v.durable {
			t.lost = true
		}
	}
	v.durable = v.queued
}

// readState returns the value of k on disk, nil if there is none.
func (db *DB) readState(k stateKey) (value []byte, err error) {
	err = db.view(func(tx *bolt.Tx) error {
		key := []byte(k)
		v := tx.Bucket(bucketState).Get(key)
		if v == nil {
			return nil
		}
		body, err := unseal(key, v)
		if err != nil {
			return fmt.Errorf("space %s, key %s: %w", k[1:1+k[0]], k[1+k[0]:], err)
		}
		value = append([]byte{}, body...)
		return nil
	})
	return value, err
}

// List calls fn for each committed key of space that begins with prefix, in
// order, until fn fails. The bytes are fn's to keep.
func (db *DB) List(space, prefix string, fn func(key string, value []byte) error) error {
	start, err := newStateKey(space, prefix)
	if err != nil {
		return err
	}
	type entry struct {
		key   string
		value []byte
	}
	from, skip := []byte(start), false
	for {
		var batch []entry
		err := db.view(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucketState).Cursor()
			k, v := c.Seek(from)
			if skip && k != nil && string(k) == string(from) {
				k, v = c.Next()
			}
			for ; k != nil && len(batch) < 256 && len(k) >= len(start) && string(k[:len(start)]) == string(start); k, v = c.Next() {
				body, err := unseal(k, v)
				if err != nil {
					return fmt.Errorf("space %s, key %s: %w", space, k[1+len(space):], err)
				}
				batch = append(batch, entry{string(k[1+len(space):]), slices.Clone(body)})
				from, skip = slices.Clone(k), true
			}
			return nil
		})
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, e := range batch {
			if err := fn(e.key, e.value); err != nil {
				return err
			}
		}
	}
}

// Keys returns up to most keys of space that begin with prefix and come after
// another one, in order: those that t sees, its own included. It reads no values,
// so that t does not lose when another turn adds or removes one of them; it does if
// it has read that one with Get.
func (t *Turn) Keys(space, prefix, after string, most int) (keys []string, err error) {
	start, err := newStateKey(space, prefix)
	if err != nil {
		return nil, err
	}
	from := max(start, stateKey(start[:1+len(space)])+stateKey(after))
	if after == "" {
		from = start
	}
	in := func(k stateKey) bool {
		return strings.HasPrefix(string(k), string(start)) && (k > from || k == from && after == "")
	}
	// What is not in the file yet wins over what is.
	there := make(map[stateKey]bool)
	db := t.db
	db.mu.Lock()
	err = db.usable()
	for k, w := range db.state.pending {
		if in(k) {
			there[k] = w.value != nil
		}
	}
	db.mu.Unlock()
	if err != nil {
		return nil, err
	}
	for k, v := range t.writes {
		if in(k) {
			there[k] = v != nil
		}
	}
	gone := 0
	for _, ok := range there {
		if !ok {
			gone++
		}
	}
	err = db.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketState).Cursor()
		k, _ := c.Seek([]byte(from))
		for n := 0; k != nil && n < most+gone && strings.HasPrefix(string(k), string(start)); k, _ = c.Next() {
			if s := stateKey(k); in(s) {
				n++
				if _, known := there[s]; !known {
					there[s] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for k, ok := range there {
		if ok {
			_, key := k.split()
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys[:min(len(keys), most)], nil
}
