package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// stateOverhead is what a value costs beside its key and itself.
const stateOverhead = 32

// SpaceInfo is a space as it is on disk.
type SpaceInfo struct {
	Name  string
	Keys  int64
	Bytes int64 // of keys and values, and 32 for each
	// Reserved is what turns under way and queued may add to Bytes, at most.
	Reserved int64
}

// spaces counts what values take, by space. What the file holds is counted when
// it is opened, since the whole of it is read then anyway, and by the writer
// from then on: there is nothing about it on disk that could be wrong, and no key
// that all turns would change. DB.mu guards it.
type spaces struct {
	all   map[string]*SpaceInfo
	total SpaceInfo
}

func (s *spaces) of(name string) *SpaceInfo {
	i := s.all[name]
	if i == nil {
		if s.all == nil {
			s.all = make(map[string]*SpaceInfo)
		}
		i = &SpaceInfo{Name: name}
		s.all[name] = i
	}
	return i
}

// add counts keys and bytes, which may be negative.
func (s *spaces) add(name string, keys, bytes int64) {
	i := s.of(name)
	i.Keys, i.Bytes = i.Keys+keys, i.Bytes+bytes
	s.total.Keys, s.total.Bytes = s.total.Keys+keys, s.total.Bytes+bytes
	s.sweep(i)
}

// reserve counts what a turn may add to a space, and to all of them.
func (s *spaces) reserve(name string, bytes, all int64) {
	i := s.of(name)
	i.Reserved += bytes
	s.total.Reserved += all
	s.sweep(i)
}

// sweep forgets a space of which there is nothing.
func (s *spaces) sweep(i *SpaceInfo) {
	if i.Keys == 0 && i.Bytes == 0 && i.Reserved == 0 {
		delete(s.all, i.Name)
	}
}

// space and key of a stateKey.
func (k stateKey) split() (space, key string) {
	n := 1 + int(k[0])
	return string(k[1:n]), string(k[n:])
}

// size is what k takes with a value of n bytes.
func (k stateKey) size(n int) int64 {
	return int64(len(k)-1-int(k[0])) + int64(n) + stateOverhead
}

// Spaces returns those whose names begin with prefix, by name.
func (db *DB) Spaces(prefix string) []SpaceInfo {
	db.mu.Lock()
	defer db.mu.Unlock()
	var found []SpaceInfo
	for _, i := range db.spaces.all {
		if strings.HasPrefix(i.Name, prefix) {
			found = append(found, *i)
		}
	}
	slices.SortFunc(found, func(a, b SpaceInfo) int { return cmp.Compare(a.Name, b.Name) })
	return found
}

// spaceTurn is what a turn does to the size of a space.
type spaceTurn struct {
	// grows is by how much the space grows with the turn, at most: what it puts
	// under keys that are not exact counts as if nothing was there.
	grows    int64
	reserved int64 // counted in spaces
	deltas   map[stateKey]int64
	inexact  map[stateKey]struct{} // of deltas
}

// set makes d what writing k does.
func (s *spaceTurn) set(k stateKey, d int64, exact bool) {
	if s.deltas == nil {
		s.deltas, s.inexact = make(map[stateKey]int64), make(map[stateKey]struct{})
	}
	s.grows += d - s.deltas[k]
	s.deltas[k] = d
	if exact {
		delete(s.inexact, k)
	} else {
		s.inexact[k] = struct{}{}
	}
}

// PutWithin is Put for a space that may hold limit bytes (SpaceInfo.Bytes), 0
// for any number, while all spaces together may hold Options.MaxState. Beyond
// that it fails with ErrFull, and stages nothing; what makes the space no larger
// is taken in any case. What other turns under way may add counts as if they had
// been committed, so that a turn that is let in is not refused later on.
//
// A space whose limit is to hold is written with PutWithin and Delete alone.
func (t *Turn) PutWithin(space, key string, value []byte, limit int64) error {
	k, err := newStateKey(space, key)
	if err != nil {
		return err
	}
	if len(value) > maxValue { // Put says so
		return t.Put(space, key, value)
	}
	s := t.space(space)
	before, known := s.deltas[k]
	_, guessed := s.inexact[k]
	take := func(exact bool) error {
		base := int64(0)
		if exact {
			if base, err = t.base(k); err != nil {
				return err
			}
		}
		s.set(k, k.size(len(value))-base, exact)
		return t.admitGrowth(space, s, limit)
	}
	_, read := t.reads[k]
	err = take(read)
	if err != nil && !read {
		// It did not fit as if nothing was there. Now it matters what is.
		err = take(true)
	}
	if err != nil {
		if exact := t.makeExact(); exact != nil {
			err = exact
		} else {
			err = t.admitGrowth(space, s, limit)
		}
	}
	admitted := err == nil
	if admitted || s.deltas[k] <= 0 || known && s.deltas[k] <= before {
		if err = t.write(space, key, nonNil(value)); err == nil {
			if !admitted {
				t.forceGrowth(space, s)
			}
			return nil
		}
	}
	if known {
		s.set(k, before, !guessed)
	} else {
		s.set(k, 0, true)
		delete(s.deltas, k)
	}
	t.forceGrowth(space, s)
	return err
}

func nonNil(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

func (t *Turn) space(name string) *spaceTurn {
	s := t.spaces[name]
	if s == nil {
		if t.spaces == nil {
			t.spaces = make(map[string]*spaceTurn)
		}
		s = &spaceTurn{}
		t.spaces[name] = s
	}
	return s
}

// base returns what k takes now, and makes t lose if that changes before it is
// queued.
func (t *Turn) base(k stateKey) (int64, error) {
	v, ok, err := t.read(k)
	if err != nil || !ok {
		return 0, err
	}
	return k.size(len(v)), nil
}

// makeExact finds out what is there under the keys that t puts something under,
// in all spaces, since all share one bound.
func (t *Turn) makeExact() error {
	for name, s := range t.spaces {
		for k := range s.inexact {
			base, err := t.base(k)
			if err != nil {
				return err
			}
			s.set(k, s.deltas[k]-base, true)
		}
		t.lowerGrowth(name, s)
	}
	return nil
}

// deleted notes that t deletes k. It counts if it is known what was there.
func (t *Turn) deleted(space string, k stateKey) error {
	if _, read := t.reads[k]; !read && t.spaces[space] == nil {
		return nil
	}
	s, base := t.space(space), int64(0)
	if _, read := t.reads[k]; read {
		var err error
		if base, err = t.base(k); err != nil {
			return err
		}
	}
	s.set(k, -base, true) // that nothing was there is a bound, and never too low
	t.forceGrowth(space, s)
	return nil
}

// admitGrowth reserves what t adds to a space, if there is room.
func (t *Turn) admitGrowth(space string, s *spaceTurn, limit int64) error {
	db := t.db
	db.mu.Lock()
	defer db.mu.Unlock()
	more, all := t.grows(s)
	i, total := db.spaces.of(space), &db.spaces.total
	switch {
	case limit > 0 && i.Bytes+i.Reserved+more > limit:
		defer db.spaces.sweep(i)
		return fmt.Errorf("it holds %d bytes of %d: %w", i.Bytes+i.Reserved, limit, ErrFull)
	case db.o.MaxState > 0 && all > 0 && total.Bytes+total.Reserved+all > db.o.MaxState:
		defer db.spaces.sweep(i)
		return fmt.Errorf("all state together holds %d bytes of %d: %w", total.Bytes+total.Reserved, db.o.MaxState, ErrFull)
	}
	t.reserve(space, s, more, all)
	return nil
}

// forceGrowth reserves what t adds to a space, as it is.
func (t *Turn) forceGrowth(space string, s *spaceTurn) {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	more, all := t.grows(s)
	t.reserve(space, s, more, all)
}

// lowerGrowth gives back what t has reserved and does not add.
func (t *Turn) lowerGrowth(space string, s *spaceTurn) {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	more, all := t.grows(s)
	t.reserve(space, s, min(more, 0), min(all, 0))
}

// grows is by how much more than what it has reserved t grows a space, and all
// spaces: what it takes from one of them counts for another one.
func (t *Turn) grows(s *spaceTurn) (more, all int64) {
	for _, o := range t.spaces {
		all += o.grows
	}
	return max(s.grows, 0) - s.reserved, max(all, 0) - t.reserved
}

func (t *Turn) reserve(space string, s *spaceTurn, more, all int64) {
	t.db.spaces.reserve(space, more, all)
	s.reserved += more
	t.reserved += all
}

// releaseGrowth gives back what t reserved. Call it with db.mu held.
func (db *DB) releaseGrowth(t *Turn) {
	for name, s := range t.spaces {
		db.spaces.reserve(name, -s.reserved, 0)
	}
	db.spaces.total.Reserved -= t.reserved
	t.spaces, t.reserved = nil, 0
}

// putState writes values, and returns by what spaces grow with them.
func putState(b *bolt.Bucket, state map[stateKey][]byte) (spaces, error) {
	var grown spaces
	for k, v := range state {
		key := []byte(k)
		keys, bytes := int64(0), int64(0)
		if old := b.Get(key); old != nil {
			keys, bytes = -1, -k.size(len(old)-sealLen)
		}
		var err error
		if v == nil {
			err = b.Delete(key)
		} else {
			keys, bytes = keys+1, bytes+k.size(len(v))
			err = b.Put(key, seal(key, v))
		}
		space, name := k.split()
		if err != nil {
			return grown, fmt.Errorf("space %s, key %s: %w", space, name, err)
		}
		i := grown.of(space)
		i.Keys, i.Bytes = i.Keys+keys, i.Bytes+bytes
	}
	return grown, nil
}

// countState counts a value that is found in the file.
func (s *spaces) countState(key, body []byte) {
	if len(key) > 0 && 1+int(key[0]) <= len(key) {
		k := stateKey(key)
		space, _ := k.split()
		s.add(space, 1, k.size(len(body)))
	}
}
