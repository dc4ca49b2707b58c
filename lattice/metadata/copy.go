package metadata

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/edged-io/edged/lattice"
)

// conflictPrefix is before the key of a link in the copy, for a conflict about it.
const conflictPrefix = "lost/"

// batch is how many keys change in one turn.
const batch = 256

// load reads the copy. What does not read is left out and told: it comes back from
// the hub, or from who declares it.
func (m *Metadata) load() error {
	return m.o.Store.List(m.space, "", func(key string, value []byte) error {
		var err error
		if link, ok := strings.CutPrefix(key, conflictPrefix); ok {
			var c Conflict
			if c, err = decodeConflict(link, value); err == nil {
				m.conflicts[link] = c
			}
		} else {
			var e entry
			if e, err = decodeEntry(key, value, m.decode); err == nil {
				m.set(key, e)
			}
		}
		if err != nil {
			m.log.Error("a record of the lattice does not read and is left out", "key", key, "err", err)
		}
		return nil
	})
}

// storedConflict is how a conflict is on disk. Links are as in the bucket.
type storedConflict struct {
	Mine   json.RawMessage `json:"mine,omitempty"`
	Theirs json.RawMessage `json:"theirs,omitempty"`
	Time   time.Time       `json:"time"`
}

func (c Conflict) encode() []byte {
	s := storedConflict{Time: c.Time}
	if c.Mine != nil {
		s.Mine = encodeLink(*c.Mine)
	}
	if c.Theirs != nil {
		s.Theirs = encodeLink(*c.Theirs)
	}
	return mustJSON(s)
}

// decodeConflict reads what encode wrote, about the link with that key.
func decodeConflict(key string, b []byte) (Conflict, error) {
	var s storedConflict
	if err := json.Unmarshal(b, &s); err != nil {
		return Conflict{}, err
	}
	var mine, theirs record
	var err error
	if s.Mine != nil {
		mine, err = decode(key, s.Mine)
	}
	if s.Theirs != nil && err == nil {
		theirs, err = decode(key, s.Theirs)
	}
	if err == nil && (mine.link == nil) && (theirs.link == nil) {
		err = faulty("a conflict about no link")
	}
	if err != nil {
		return Conflict{}, err
	}
	return newConflict(mine, theirs, s.Time), nil
}

// newConflict is about a change that was lost. One of both is a link.
func newConflict(mine, theirs record, at time.Time) Conflict {
	l := cmp.Or(mine.link, theirs.link)
	return Conflict{
		Link: lattice.Link{Actor: l.Actor, Contract: l.Contract, Name: l.Name},
		Mine: mine.link, Theirs: theirs.link, Time: at,
	}
}

// set makes e the entry of key in memory. The caller holds mu, or nobody else has m.
func (m *Metadata) set(key string, e entry) {
	m.bytes += len(e.now.value) - len(m.entries[key].now.value)
	if e.now.none() && !e.pending {
		delete(m.entries, key)
	} else {
		m.entries[key] = e
	}
	if e.pending {
		m.pending[key] = struct{}{}
	} else {
		delete(m.pending, key)
	}
}

// changes are entries and conflicts that take the place of what there is.
type changes struct {
	entries   map[string]entry
	conflicts map[string]*Conflict // nil for one that goes
}

func newChanges() changes {
	return changes{make(map[string]entry), make(map[string]*Conflict)}
}

// write has the copy changed, on disk and then in memory. The caller holds writing.
func (m *Metadata) write(c changes) error {
	type put struct {
		key   string
		value []byte
		apply func()
	}
	var puts []put
	for _, key := range slices.Sorted(maps.Keys(c.entries)) {
		e := c.entries[key]
		puts = append(puts, put{key, e.encode(), func() { m.set(key, e) }})
	}
	for _, key := range slices.Sorted(maps.Keys(c.conflicts)) {
		p := put{key: conflictPrefix + key, apply: func() { delete(m.conflicts, key) }}
		if conflict := c.conflicts[key]; conflict != nil {
			p.value, p.apply = conflict.encode(), func() { m.conflicts[key] = *conflict }
		}
		puts = append(puts, p)
	}
	for part := range slices.Chunk(puts, batch) {
		t := m.o.Store.Begin()
		for _, p := range part {
			var err error
			if p.value == nil {
				err = t.Delete(m.space, p.key)
			} else {
				err = t.Put(m.space, p.key, p.value)
			}
			if err != nil {
				t.Discard()
				return fmt.Errorf("metadata of lattice %s: %w", m.o.Lattice, err)
			}
		}
		if err := t.Commit(); err != nil {
			return fmt.Errorf("metadata of lattice %s: %w", m.o.Lattice, err)
		}
		m.mu.Lock()
		for _, p := range part {
			p.apply()
		}
		m.mu.Unlock()
	}
	return nil
}

// change is a change that is made here. One that changes nothing writes nothing;
// one of claims of a lower revision than those that are known changes nothing.
func (m *Metadata) change(key string, r record, insist bool) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	m.mu.Lock()
	e := m.entries[key]
	_, conflict := m.conflicts[key]
	room := m.room(e, r, 0, 0)
	m.mu.Unlock()
	c := newChanges()
	if conflict {
		c.conflicts[key] = nil // whoever puts or deletes the link now has seen what became of it
	}
	switch {
	case e.now.equal(r):
	case !insist && e.now.claims != nil && e.now.claims.Revision > r.claims.Revision:
	case !room:
		return fmt.Errorf("%w: %d records or %d bytes", ErrFull, MaxRecords, m.o.maxBytes)
	default:
		c.entries[key] = e.put(r)
	}
	if err := m.write(c); err != nil {
		return err
	}
	if len(c.entries) > 0 {
		signal(m.wake)
	}
	return nil
}

// room says whether r has room in the place of e, where others grow by so many
// records and bytes at the same time. The caller holds mu.
func (m *Metadata) room(e entry, r record, others, grown int) bool {
	more := len(r.value) - len(e.now.value)
	if more <= 0 {
		return true
	}
	if e.now.none() && !e.pending && len(m.entries)+others >= MaxRecords {
		return false
	}
	return m.bytes+grown+more <= m.o.maxBytes
}

// merge takes in what the lattice has, and that it knows nothing of the keys that are
// missing. It says whether that changed anything for others. A record that has no room
// is left out.
func (m *Metadata) merge(theirs map[string]record, missing []string) (changed bool, err error) {
	m.writing.Lock()
	defer m.writing.Unlock()
	c := newChanges()
	var lost []Conflict
	var overruled []string // configurations
	m.mu.Lock()
	kept, others, grown := len(m.conflicts), 0, 0
	for _, key := range slices.Sorted(maps.Keys(theirs)) {
		r, e := theirs[key], m.entries[key]
		now, isLost := e.merge(r)
		if !m.room(e, now.now, others, grown) {
			m.leftOut[key] = struct{}{}
			continue
		}
		delete(m.leftOut, key)
		if e.same(now) {
			continue
		}
		if e.now.none() && !e.pending {
			others++
		}
		grown += len(now.now.value) - len(e.now.value)
		changed = changed || !now.now.equal(e.now)
		c.entries[key] = now
		if !isLost {
			continue
		}
		if e.now.link == nil && r.link == nil {
			overruled = append(overruled, key)
			continue
		}
		conflict := newConflict(e.now, r, m.o.Now().UTC().Truncate(time.Second))
		lost = append(lost, conflict)
		if _, again := m.conflicts[key]; again || kept < MaxConflicts {
			kept++
			c.conflicts[key] = &conflict
		}
	}
	for _, key := range missing {
		if e := m.entries[key]; !e.same(e.missing()) {
			c.entries[key] = e.missing()
		}
	}
	m.mu.Unlock()
	if err := m.write(c); err != nil {
		return false, err
	}
	for _, l := range lost {
		m.reportLost(l)
	}
	for _, name := range overruled {
		m.log.Warn("a change of a configuration is lost: somebody else changed it, and that reached the lattice first; make it again if it is still wanted", "name", name)
	}
	return changed, nil
}

// reportLost tells the operator. Values of links may be secrets, and stay out of it.
func (m *Metadata) reportLost(c Conflict) {
	m.lost.Inc()
	provider := func(l *lattice.Link) string {
		if l == nil {
			return "deleted"
		}
		return l.Provider
	}
	m.log.Warn("a change of a link is lost: somebody else changed it, and that reached the lattice first; make it again if it is still wanted",
		"actor", c.Link.Actor, "contract", c.Link.Contract, "link", c.Link.Name, "mine", provider(c.Mine), "theirs", provider(c.Theirs))
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is told already
	}
}
