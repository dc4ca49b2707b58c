package store

import "time"

// Risk is what a power cut right now would take of what publishers were told is
// stored.
type Risk struct {
	Msgs, Bytes int64
	Age         time.Duration // since the first of them was told
}

// risk looks at what is in memory alone and still wanted by somebody. Call it
// with db.mu held.
func (db *DB) risk(s *stream) Risk {
	entries := s.tail.entries
	before := s.tail.gone
	keep, _ := db.keepFrom(s)
	if n := s.tail.find(max(keep, s.shed.upTo+1)); n > 0 {
		before, entries = entries[n-1].upTo, entries[n:]
	}
	if len(entries) == 0 {
		return Risk{}
	}
	return Risk{
		Msgs:  int64(len(entries)),
		Bytes: s.tail.total - before,
		Age:   db.clock.now() - entries[0].told,
	}
}
