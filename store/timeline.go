package store

import (
	"encoding/binary"
	"math"
	"slices"
	"time"
)

// timeline is what is known of real time, along the store's own clock. That
// clock counts only while the store is open, so between two times that it was
// open lies a gap: as long as the box was off, which is known once the wall
// clock was right on both sides. A timeline is not changed once others see it.
//
//	own clock   0────────────┬───────┬──────────────┬────────▶
//	sessions     synced      │ not   │ not          │ synced
//	real − own   known       │ ?     │ ?            │ known
type timeline struct {
	sessions []session // by start; the first starts at 0, the last one is now
}

// session is a stretch of the store's own clock without a gap.
type session struct {
	start  time.Duration
	offset time.Duration // real time minus the store's own, if known
	known  bool
}

// maxSessions bounds a timeline. Beyond it, those whose gap is the shortest
// count as one.
const maxSessions = 64

func newTimeline() *timeline { return &timeline{sessions: []session{{}}} }

// now returns the session that goes on.
func (l *timeline) now() session { return l.sessions[len(l.sessions)-1] }

// at returns the index of the session in which the store's own clock showed own.
func (l *timeline) at(own time.Duration) int {
	i, found := slices.BinarySearchFunc(l.sessions, own, func(s session, own time.Duration) int {
		return int(min(max(s.start-own, -1), 1))
	})
	if !found {
		i--
	}
	return max(i, 0)
}

// floor returns the last offset known at or before session i: real time is no
// earlier.
func (l *timeline) floor(i int) (index int, offset time.Duration, ok bool) {
	for ; i >= 0; i-- {
		if s := l.sessions[i]; s.known {
			return i, s.offset, true
		}
	}
	return 0, 0, false
}

// ceiling returns the first offset known at or after session i: real time is no
// later.
func (l *timeline) ceiling(i int) (index int, offset time.Duration, ok bool) {
	for ; i < len(l.sessions); i++ {
		if s := l.sessions[i]; s.known {
			return i, s.offset, true
		}
	}
	return 0, 0, false
}

// between is how much time really passed from one moment of the store's own
// clock to a later one, as far as is known: gaps that are not known yet count
// nothing, so that nothing is taken for older than it is.
func (l *timeline) between(from, to time.Duration) time.Duration {
	d := to - from
	i, k := l.at(from), l.at(to)
	if i == k {
		return d
	}
	a, begin, ok := l.ceiling(i)
	b, end, ok2 := l.floor(k)
	if ok && ok2 && a < b {
		d += max(0, end-begin)
	}
	return d
}

// stamp returns the real time at a moment of the store's own clock, and whether
// it is known; else what is the nearest to guess that it can have been.
func (l *timeline) stamp(own time.Duration, guess time.Time) (t time.Time, known bool) {
	i := l.at(own)
	if s := l.sessions[i]; s.known {
		return realTime(own, s.offset), true
	}
	if _, offset, ok := l.floor(i); ok && guess.Before(realTime(own, offset)) {
		guess = realTime(own, offset)
	}
	if _, offset, ok := l.ceiling(i); ok && guess.After(realTime(own, offset)) {
		guess = realTime(own, offset)
	}
	return guess, false
}

func realTime(own, offset time.Duration) time.Time {
	return time.Unix(0, int64(offset)).Add(own)
}

// opened returns the timeline of a store that is opened when its own clock shows
// own.
func (l *timeline) opened(own time.Duration) *timeline {
	s := slices.Clone(l.sessions)
	if n := len(s); n > 1 && !s[n-1].known && !s[n-2].known {
		s = s[:n-1] // nothing will ever tell how long the gap between them was
	}
	if last := s[len(s)-1]; own > last.start {
		s = append(s, session{start: own})
	} else { // it has never been open for a moment
		s[len(s)-1] = session{start: last.start}
	}
	if len(s) > maxSessions {
		s = mergeShortest(s)
	}
	return &timeline{s}
}

// mergeShortest makes one of two sessions. What was stored in the first one
// counts as stored after the gap between them: younger than it is, and never
// older. The session that goes on stays by itself.
func mergeShortest(s []session) []session {
	best, shortest := -1, time.Duration(math.MaxInt64)
	for i := range s[:len(s)-2] {
		a, b := s[i], s[i+1]
		switch {
		case !b.known:
		case !a.known && best < 0:
			best = i
		case a.known && b.offset-a.offset < shortest:
			best, shortest = i, b.offset-a.offset
		}
	}
	if best < 0 { // never, while stretches that are not known are made one
		s[1].start = 0
		return s[1:]
	}
	s[best].offset, s[best].known = s[best+1].offset, true
	return slices.Delete(s, best+1, best+2)
}

// anchored returns the timeline with the offset of the session that goes on.
func (l *timeline) anchored(offset time.Duration) *timeline {
	s := slices.Clone(l.sessions)
	last := &s[len(s)-1]
	last.offset, last.known = offset, true
	return &timeline{s}
}

const (
	timelineVersion = 1
	sessionLen      = 17
)

func (l *timeline) encode(key []byte) []byte {
	v := make([]byte, sealLen, sealLen+2+len(l.sessions)*sessionLen)
	v = append(v, timelineVersion, byte(len(l.sessions)))
	for _, s := range l.sessions {
		v = binary.LittleEndian.AppendUint64(v, uint64(s.start))
		v = binary.LittleEndian.AppendUint64(v, uint64(s.offset))
		known := byte(0)
		if s.known {
			known = 1
		}
		v = append(v, known)
	}
	return finishSeal(key, v)
}

func decodeTimeline(key, v []byte) (*timeline, error) {
	b, err := unseal(key, v)
	if err != nil {
		return nil, err
	}
	if len(b) < 2 || b[0] != timelineVersion || b[1] == 0 || int(b[1]) > maxSessions || len(b) != 2+int(b[1])*sessionLen {
		return nil, ErrDamaged
	}
	l := &timeline{}
	for b = b[2:]; len(b) > 0; b = b[sessionLen:] {
		s := session{
			start:  time.Duration(binary.LittleEndian.Uint64(b)),
			offset: time.Duration(binary.LittleEndian.Uint64(b[8:])),
			known:  b[16] == 1,
		}
		if n := len(l.sessions); b[16] > 1 || n == 0 && s.start != 0 || n > 0 && s.start <= l.sessions[n-1].start {
			return nil, ErrDamaged
		}
		l.sessions = append(l.sessions, s)
	}
	return l, nil
}
