package gpio

import "time"

// debouncer decides which edges of a contact that bounces are real: an edge is
// one when the level has then been stable for the wait time and differs from
// the level of the last real edge. It has no clock; the caller tells the time,
// which never runs backwards.
type debouncer struct {
	wait    time.Duration
	settled bool      // the level of the last real edge, or at the start
	level   bool      // the level last seen
	since   time.Time // the last edge seen
	moving  bool      // an edge was seen and the wait is not over
}

// see takes an edge to level. Every edge begins the wait anew, also one to the
// level already seen: the edge between the two was then too short to be seen.
func (d *debouncer) see(level bool, now time.Time) {
	d.level, d.since, d.moving = level, now, true
}

// left is how long the level must still be stable; 0 and false if nothing is
// being waited for.
func (d *debouncer) left(now time.Time) (left time.Duration, moving bool) {
	if !d.moving {
		return 0, false
	}
	return d.since.Add(d.wait).Sub(now), true
}

// settle ends a wait that is over, with the level that the line has now, and
// says whether that is a real edge, and since when. A line that has another
// level than the last edge led to has lost an edge, and the wait begins anew.
func (d *debouncer) settle(level bool, now time.Time) (since time.Time, real bool) {
	if level != d.level {
		d.see(level, now)
		return time.Time{}, false
	}
	d.moving = false
	real = level != d.settled
	d.settled = level
	return d.since, real
}
