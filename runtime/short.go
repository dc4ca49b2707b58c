package runtime

import (
	goruntime "runtime"
	"time"
)

// Calls that are over within a slice are not timed, since reading a clock twice
// would cost them a fifth of their time. shortCalls has an instance pay for them
// all the same: once in a while one of them is timed, and stands for all others.
type shortCalls struct {
	sample  bool   // the next call is timed
	began   int64  // by clock, the call that is; 0 for none
	took    int64  // nanoseconds of the last one that was
	settled uint64 // calls that were paid for
	at      int64  // by clock, when that was
}

// hostTime is how much of a host call counts as work. What lasts longer is
// waiting.
const hostTime = 20 * time.Microsecond

func (s *shortCalls) begin(in *instance) {
	s.sample, s.began, in.waited = false, clock(), 0
}

// end is the end of a call that was timed. One that was long has been paid for,
// and stands for no others.
func (s *shortCalls) end(in *instance) {
	if in.runner.asked {
		s.sample = true
	} else {
		s.took = min(max(clock()-s.began-in.waited, 0), int64(sliceTime))
	}
	s.began = 0
}

// settle charges the actor for the calls since it did so last: at a tick, which
// comes once in so many steps, however short the calls are. It lets others run, as
// a long call does, and returns what the clock says then.
func (s *shortCalls) settle(in *instance, now int64) int64 {
	since := now - s.at
	if since < int64(sliceTime) || in.runner.first != 0 || s.began != 0 {
		return now
	}
	if ran := min(int64(in.calls-s.settled)*s.took, since); ran > 0 {
		in.actor.host.fair.charge(&in.actor.share, now, ran)
	}
	s.settled, s.sample = in.calls, true
	goruntime.Gosched()
	s.at = clock() // not to count what others do meanwhile
	return s.at
}
