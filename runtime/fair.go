package runtime

import (
	"context"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// fair decides whose guests run when they want more than there is. A call that
// takes longer than a slice needs a permit to go on. There are as many as cores,
// so that all of them can be used, but the scheduler has one processor more
// (see Options.Cores): that one is for calls that are short, and for everything
// else. Permits go to the actor that has had the least, and change hands at
// ticks, so that what an actor gets of the cores depends neither on how many
// calls it has nor on how long they are.
//
// A guest that waits in a host call keeps its permit for a moment, because most
// host calls are short, and loses it if somebody else wants it.
type fair struct {
	cores int

	// contended says that calls of an actor that has had much need a permit to
	// begin. It may be so for a moment too long, until begin looks.
	contended atomic.Bool

	mu      sync.Mutex // guards what follows, and the fields of runners and shares
	holders []*runner  // at most cores
	queue   []*runner  // in the order in which they came
	greedy  []*share   // those that are, or were when they were seen last
	keeping bool       // keep runs

	keepers sync.WaitGroup // at most one
}

const (
	// keepEvery is how often somebody looks after those that wait.
	keepEvery = time.Millisecond
	// halfLife is how long it takes until half of what an actor has had is
	// forgotten.
	halfLife = 128 * time.Millisecond
	// greed is what an actor has had that makes its calls need a permit from
	// their beginning, and step back for other processes, too: a tenth of a core,
	// about.
	greed = int64(20 * time.Millisecond)
	// fresh is how long a call goes before others of its actor that have gone for
	// longer. Among those each runs to its end: an actor that has more to do than
	// there is time gets some of it done.
	fresh = int64(time.Millisecond)
)

// A share is what an actor has had of the cores.
type share struct {
	greedy atomic.Bool // it has had so much that its calls may need a permit to begin

	had  int64 // nanoseconds, half of which is forgotten after each halfLife
	seen int64 // by clock, when had was right
}

func (s *share) at(now int64) int64 {
	if n := (now - s.seen) / int64(halfLife); n > 0 {
		s.had >>= min(n, 63)
		s.seen += n * int64(halfLife)
	}
	return s.had
}

// A runner is a call, or what comes to be one: an instance.
type runner struct {
	share    *share
	first    int64 // by clock, the first tick of the call; 0 before
	asked    bool  // for a permit, in this call
	long     bool  // it has asked since it has gone for a slice
	holds    bool  // one
	since    int64 // when it got it, or gave way last
	ran      int64 // nanoseconds of this call
	charged  int64 // by clock, up to when its actor was charged for this call, if it has asked; its own
	inHost   bool  // it waits for a host call, perhaps
	hostSeen bool  // and did when keep looked last
	ctx      context.Context
	deadline int64
	wake     chan struct{} // of capacity 1; nil until it has waited
}

func newFair(cores int) *fair { return &fair{cores: cores} }

// breathe is for a call that has run from, or since it breathed last, until now,
// by clock. It returns when the call may go on, or has to end.
func (f *fair) breathe(r *runner, from, now int64) {
	if r.first == 0 {
		r.first = now
	}
	if !r.asked && now-r.first < int64(sliceTime) {
		goruntime.Gosched()
		return
	}
	f.mu.Lock()
	if r.asked {
		from = r.charged
	}
	r.asked = true
	if !r.long && now-r.first >= int64(sliceTime) {
		r.long = true
		f.contended.Store(true)
	}
	ran := min(now-max(from, r.first), int64(keepEvery))
	r.ran += ran
	r.charged = now
	f.add(r.share, now, ran)
	over := now-r.since >= int64(sliceTime)
	switch {
	case r.holds && (!over || len(f.queue) == 0 || !f.next(now).before(r, now)):
		stepBack := over && r.share.greedy.Load()
		if over {
			r.since = now
		}
		f.mu.Unlock()
		if stepBack {
			osYield()
		}
		goruntime.Gosched()
		return
	case r.holds:
		f.drop(r)
		f.grant(now)
		f.queue = slices.Insert(f.queue, 0, r)
	case len(f.holders) < f.cores:
		f.give(r, now)
		f.mu.Unlock()
		return
	default:
		f.queue = append(f.queue, r)
	}
	if r.wake == nil {
		r.wake = make(chan struct{}, 1)
	}
	if !f.keeping {
		f.keeping = true
		f.keepers.Add(1)
		go f.keep()
	}
	f.mu.Unlock()
	<-r.wake
	r.charged = clock()
}

// begin is before a call of an actor that has had much, while there is somebody
// else. limit is for how long it may have to wait.
func (f *fair) begin(ctx context.Context, r *runner, limit time.Duration) {
	now := clock()
	f.mu.Lock()
	f.add(r.share, now, 0)
	need := r.share.greedy.Load() && f.contends(r.share, now)
	f.mu.Unlock()
	if need {
		r.ctx, r.deadline = ctx, now+int64(limit)
		r.first, r.charged, r.asked = now, now, true
		f.breathe(r, now, now)
	}
}

// contends says whether short calls of an actor have to go in turn with others:
// those of an actor that has not had twice as much, or a long call of its own. Who
// has had little beside all others would go first anyway. f.mu is held.
func (f *fair) contends(s *share, now int64) (is bool) {
	others := false
	see := func(o *share) {
		if o != s {
			others = true
			is = is || o.at(now) < 2*s.at(now)
		}
	}
	for _, o := range slices.Clone(f.greedy) {
		if f.add(o, now, 0); o.greedy.Load() {
			see(o)
		}
	}
	for _, all := range [][]*runner{f.holders, f.queue} {
		for _, r := range all {
			see(r.share)
			is = is || r.share == s && r.long
		}
	}
	f.contended.Store(others || is)
	return is
}

// charge is for what an actor has had outside of calls, or in calls that were too
// short to be seen.
func (f *fair) charge(s *share, now, ran int64) {
	f.mu.Lock()
	f.add(s, now, ran)
	f.mu.Unlock()
}

// add adds to what an actor has had. f.mu is held.
func (f *fair) add(s *share, now, ran int64) {
	s.had = s.at(now) + ran
	is := s.had > greed
	if s.greedy.Swap(is) == is {
		return
	}
	if is {
		f.greedy = append(f.greedy, s)
		f.contended.Store(true)
	} else {
		f.forgetGreed(s)
	}
}

// forget is for an actor that is gone, which nothing is to keep.
func (f *fair) forget(s *share) {
	f.mu.Lock()
	f.forgetGreed(s)
	f.mu.Unlock()
}

// forgetGreed takes an actor from those that are greedy. f.mu is held.
func (f *fair) forgetGreed(s *share) {
	f.greedy = slices.DeleteFunc(f.greedy, func(o *share) bool { return o == s })
}

// next is who of those that wait goes first. f.mu is held, and somebody waits.
func (f *fair) next(now int64) *runner {
	best := f.queue[0]
	for _, r := range f.queue[1:] {
		if r.before(best, now) {
			best = r
		}
	}
	return best
}

// before says whether r has more right to a permit than o.
func (r *runner) before(o *runner, now int64) bool {
	if r.share == o.share {
		return r.ran < fresh && o.ran >= fresh
	}
	return r.share.at(now) < o.share.at(now)
}

// grant gives away what permits there are. f.mu is held.
func (f *fair) grant(now int64) {
	for len(f.holders) < f.cores && len(f.queue) > 0 {
		r := f.next(now)
		f.leaveQueue(r)
		f.give(r, now)
		r.wake <- struct{}{}
	}
}

func (f *fair) give(r *runner, now int64) {
	r.holds, r.since = true, now
	f.holders = append(f.holders, r)
}

func (f *fair) drop(r *runner) {
	r.holds = false
	for i, o := range f.holders {
		if o == r {
			last := len(f.holders) - 1
			f.holders[i] = f.holders[last]
			f.holders[last] = nil
			f.holders = f.holders[:last]
			return
		}
	}
}

func (f *fair) leaveQueue(r *runner) {
	for i, o := range f.queue {
		if o == r {
			f.queue = append(f.queue[:i], f.queue[i+1:]...)
			return
		}
	}
}

// keep runs while somebody waits. It takes permits from who seems to wait for
// a host call, and ends the wait of calls that are over.
func (f *fair) keep() { // fair.close waits
	defer f.keepers.Done()
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	for {
		<-t.C
		now := clock()
		f.mu.Lock()
		for i := len(f.holders) - 1; i >= 0; i-- {
			switch r := f.holders[i]; {
			case !r.inHost:
			case r.hostSeen:
				f.drop(r)
			default:
				r.hostSeen = true
			}
		}
		f.grant(now)
		for i := len(f.queue) - 1; i >= 0; i-- {
			if r := f.queue[i]; now >= r.deadline || r.ctx.Err() != nil {
				f.leaveQueue(r)
				r.wake <- struct{}{}
			}
		}
		f.keeping = len(f.queue) > 0
		keeping := f.keeping
		f.mu.Unlock()
		if !keeping {
			return
		}
	}
}

// enterHost and leaveHost are around a host call.
func (f *fair) enterHost(r *runner) {
	if r.asked {
		f.mu.Lock()
		r.inHost, r.hostSeen = true, false
		f.mu.Unlock()
	}
}

func (f *fair) leaveHost(r *runner) {
	if r.asked {
		f.mu.Lock()
		r.inHost = false
		f.mu.Unlock()
	}
}

// end is the end of a call.
func (f *fair) end(r *runner) {
	if r.first == 0 { // it was short
		return
	}
	if r.asked {
		now := clock()
		f.mu.Lock()
		f.add(r.share, now, min(now-r.charged, int64(keepEvery)))
		if r.holds {
			f.drop(r)
			f.grant(now)
		}
		f.mu.Unlock()
	}
	r.first, r.ran, r.asked, r.long, r.inHost, r.ctx = 0, 0, false, false, false, nil
}

// close waits for what still looks after calls, which have all ended.
func (f *fair) close() { f.keepers.Wait() }
