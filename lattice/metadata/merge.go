package metadata

import (
	"encoding/json"
	"fmt"
	"slices"
)

// maxOver is how many values of its own a change remembers.
const maxOver = 8

// An entry is a key of the copy. One that is nothing and not pending is not kept.
type entry struct {
	now     record
	pending bool // the hub does not have it
	// over are what the change that is pending may take the place of: what the
	// lattice had before it, and what the box has put since, some of which may have
	// reached the hub without its answer coming back.
	over []record
}

// put is the entry after a change that is made here.
func (e entry) put(r record) entry {
	over := slices.Clone(e.over)
	if !e.pending {
		over = nil
	}
	if len(over) == maxOver {
		over = slices.Delete(over, 1, 2) // what the lattice had, and what was put last, matter most
	}
	return entry{now: r, pending: true, over: append(over, e.now)}
}

// merge is the entry once it is known what the lattice has, and whether a change that
// was made here is lost by that.
func (e entry) merge(theirs record) (now entry, lost bool) {
	switch {
	case !e.pending || e.now.equal(theirs):
		return entry{now: theirs}, false
	case slices.ContainsFunc(e.over, theirs.equal):
		return e, false
	case e.now.claims != nil && (theirs.none() || theirs.claims.Revision < e.now.claims.Revision):
		return entry{now: e.now, pending: true, over: []record{theirs}}, false
	}
	return entry{now: theirs}, theirs.claims == nil
}

// missing is the entry of a key that the bucket knows nothing of: it is to be put
// there, whatever it was before.
func (e entry) missing() entry {
	if e.now.none() {
		return entry{}
	}
	return entry{now: e.now, pending: true, over: []record{{}}}
}

// same says that nothing is different in o.
func (e entry) same(o entry) bool {
	return e.pending == o.pending && e.now.equal(o.now) && slices.EqualFunc(e.over, o.over, record.equal)
}

// stored is how an entry is on disk. Values are those of the bucket.
type stored struct {
	Now     json.RawMessage   `json:"now,omitempty"`
	Pending bool              `json:"pending,omitempty"`
	Over    []json.RawMessage `json:"over,omitempty"` // null for nothing
}

// encode returns the entry as it is on disk, nil for one that is not kept.
func (e entry) encode() []byte {
	if e.now.none() && !e.pending {
		return nil
	}
	s := stored{Now: e.now.value, Pending: e.pending}
	for _, r := range e.over {
		v := r.value
		if v == nil {
			v = []byte("null")
		}
		s.Over = append(s.Over, v)
	}
	return mustJSON(s)
}

// decodeEntry reads what encode wrote.
func decodeEntry(key string, b []byte, decode func(string, []byte) (record, error)) (e entry, err error) {
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return e, fmt.Errorf("key %s of the copy: %w", key, err)
	}
	read := func(v json.RawMessage) (r record) {
		if len(v) == 0 || string(v) == "null" || err != nil {
			return record{}
		}
		r, err = decode(key, v)
		return r
	}
	e.now, e.pending = read(s.Now), s.Pending
	for _, v := range s.Over {
		e.over = append(e.over, read(v))
	}
	if err != nil {
		return entry{}, fmt.Errorf("key %s of the copy: %w", key, err)
	}
	return e, nil
}
