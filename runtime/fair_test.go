package runtime

import (
	"context"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// callOf is a call of an actor whose clock the test moves.
func callOf(s *share) *runner {
	return &runner{share: s, ctx: context.Background(), deadline: 1 << 62}
}

// hold makes calls that have run for a slice and want to go on.
func hold(f *fair, now int64, all ...*runner) {
	for _, r := range all {
		f.breathe(r, now, now)
		f.breathe(r, now, now+int64(sliceTime))
	}
}

// awaits runs breathe and returns once it waits; done is closed when it goes on.
func awaits(t *testing.T, f *fair, r *runner, now int64) (done chan struct{}) {
	t.Helper()
	done = make(chan struct{})
	go func() {
		defer close(done)
		f.breathe(r, now, now)
	}()
	for end := time.Now().Add(30 * time.Second); ; {
		f.mu.Lock()
		waiting := slices.Contains(f.queue, r)
		f.mu.Unlock()
		if waiting {
			return done
		}
		if time.Now().After(end) {
			t.Fatal("it does not wait")
		}
		goruntime.Gosched()
	}
}

// The first slice of a call is free; then there are so many permits.
func TestFair_permits(t *testing.T) {
	f, now := newFair(2), clock()
	a, b, c := callOf(&share{}), callOf(&share{}), callOf(&share{})
	for _, r := range []*runner{a, b, c} {
		f.breathe(r, now, now)
	}
	if len(f.holders) != 0 {
		t.Fatal("a call that has just begun holds a permit")
	}
	hold(f, now, a, b)
	if !a.holds || !b.holds {
		t.Fatal("two cores, and one of two calls has no permit")
	}
	done := awaits(t, f, c, now+int64(sliceTime))
	f.end(a)
	<-done
	f.mu.Lock()
	if a.holds || !c.holds || len(f.holders) != 2 {
		t.Error("the permit of a call that has ended is not the next one's")
	}
	f.mu.Unlock()
	f.end(b)
	f.end(c)
	f.close()
	if len(f.holders) != 0 {
		t.Errorf("%d permits are left", len(f.holders))
	}
}

// A permit goes to the actor that has had the least, at the next tick.
func TestFair_leastFirst(t *testing.T) {
	f, now := newFair(1), clock()
	much, some, none := &share{had: 50e6, seen: now}, &share{had: 10e6, seen: now}, &share{seen: now}
	hog, second, first := callOf(much), callOf(some), callOf(none)
	hold(f, now, hog)
	now += int64(sliceTime)
	second.first, second.asked, first.first, first.asked = now, true, now, true
	doneSecond := awaits(t, f, second, now)
	doneFirst := awaits(t, f, first, now)
	doneHog := make(chan struct{})
	go func() {
		defer close(doneHog)
		f.breathe(hog, now, now+int64(sliceTime))
	}()
	<-doneFirst
	f.end(first)
	<-doneSecond
	f.end(second)
	<-doneHog
	f.end(hog)
	f.close()
}

// Calls of one actor do not take turns, but one that has just begun goes first.
func TestFair_sameActor(t *testing.T) {
	f, now := newFair(1), clock()
	s := &share{seen: now}
	long, next, young := callOf(s), callOf(s), callOf(s)
	long.ran, next.ran = fresh, fresh
	hold(f, now, long)
	now += 2 * int64(sliceTime)
	for _, r := range []*runner{next, young} {
		r.first, r.asked = now, true
	}
	doneNext := awaits(t, f, next, now)
	f.breathe(long, now, now+int64(sliceTime))
	if !long.holds {
		t.Fatal("a call gave way to one that has gone for as long")
	}
	doneYoung := awaits(t, f, young, now)
	doneLong := make(chan struct{})
	go func() {
		defer close(doneLong)
		f.breathe(long, now, now+2*int64(sliceTime))
	}()
	<-doneYoung
	f.end(young)
	<-doneLong // it came first
	f.end(long)
	<-doneNext
	f.end(next)
	f.close()
}

// Who waits in a host call loses the permit, if somebody wants it.
func TestFair_hostCall(t *testing.T) {
	f, now := newFair(1), clock()
	a, b := callOf(&share{seen: now}), callOf(&share{seen: now})
	hold(f, now, a)
	f.enterHost(a)
	b.first, b.asked = now, true
	<-awaits(t, f, b, now)
	f.leaveHost(a)
	f.mu.Lock()
	if a.holds || !b.holds {
		t.Error("the permit did not change hands")
	}
	f.mu.Unlock()
	f.end(a)
	f.end(b)
	f.close()
}

// Nobody waits beyond the end of a call.
func TestFair_waitEnds(t *testing.T) {
	f, now := newFair(1), clock()
	hog, late, left := callOf(&share{}), callOf(&share{}), callOf(&share{})
	hold(f, now, hog)
	for _, r := range []*runner{late, left} {
		r.first, r.asked = now, true
	}
	late.deadline = now + int64(time.Millisecond) // which may be over before anybody sees it wait
	f.breathe(late, now, now)
	ctx, cancel := context.WithCancel(t.Context())
	left.ctx = ctx
	done := awaits(t, f, left, now)
	cancel()
	<-done
	if late.holds || left.holds || !hog.holds {
		t.Error("a call that is over got the permit")
	}
	f.end(late)
	f.end(left)
	f.end(hog)
	f.close()
}

// The short calls of an actor that has had much need a permit as long as anybody
// else wants much, and pay for what they take.
func TestFair_shortCalls(t *testing.T) {
	f, now := newFair(2), clock()
	much := &share{seen: now}
	f.charge(much, now, int64(time.Hour))
	short := func() *runner {
		r := callOf(much)
		f.begin(t.Context(), r, time.Hour)
		return r
	}
	if !much.greedy.Load() || !f.contended.Load() {
		t.Fatal("what an actor was charged is not seen")
	}
	if r := short(); r.asked || f.contended.Load() {
		t.Error("it needs a permit, and is alone")
	}
	other := callOf(&share{seen: now})
	hold(f, now, other)
	if !f.contended.Load() {
		t.Fatal("a long call is not seen")
	}
	r := short()
	if !r.holds {
		t.Error("it needs no permit beside another actor's long call")
	}
	other.share.had = 4 * int64(time.Hour)
	if next := short(); next.asked || !f.contended.Load() {
		t.Error("it needs a permit beside an actor that has had more")
	}
	other.share.had = 0
	f.end(other)
	if next := short(); next.asked || f.contended.Load() {
		t.Error("it needs a permit beside its own short calls")
	}
	f.end(r)
	rival := &share{seen: now}
	f.charge(rival, now, int64(time.Minute))
	if r := short(); !r.holds {
		t.Error("it needs no permit beside another actor that has had much")
	}
	f.close()
}

// Many at once, for the race detector: permits are neither lost nor made.
func TestFair_many(t *testing.T) {
	const cores = 2
	f := newFair(cores)
	var running atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		s := &share{}
		for range 4 {
			wg.Go(func() {
				for range 20 {
					r := callOf(s)
					r.first, r.asked = 1, true
					for i := range 50 {
						before := clock()
						f.breathe(r, before, before+int64(sliceTime))
						f.mu.Lock()
						holds := r.holds
						f.mu.Unlock()
						if holds {
							if n := running.Add(1); n > cores {
								t.Errorf("%d run", n)
							}
							running.Add(-1)
						}
						if i%10 == 9 {
							f.enterHost(r)
							f.leaveHost(r)
						}
					}
					f.end(r)
				}
			})
		}
	}
	wg.Wait()
	f.close()
	if len(f.holders)+len(f.queue) != 0 {
		t.Errorf("%d hold, %d wait", len(f.holders), len(f.queue))
	}
}

// What an actor sleeps is no work that it had of a core.
func TestInstance_sleep(t *testing.T) {
	began := clock()
	in := &instance{ctx: t.Context(), deadline: began + int64(time.Hour), actor: &Actor{host: &Host{fair: newFair(1)}}}
	in.short.begin(in)
	in.sleep(2 * time.Millisecond)
	if took := clock() - began; in.waited < int64(2*time.Millisecond) || in.waited > took {
		t.Errorf("has waited %d ns of %d, want what it slept", in.waited, took)
	}
}

func TestShare_forgets(t *testing.T) {
	s := share{had: 1000, seen: 100}
	for _, c := range []struct{ later, want int64 }{{0, 1000}, {int64(halfLife) - 1, 1000}, {int64(halfLife), 500}, {3 * int64(halfLife), 125}, {1000 * int64(halfLife), 0}} {
		if got := s.at(100 + c.later); got != c.want {
			t.Errorf("after %v: %d, want %d", time.Duration(c.later), got, c.want)
		}
	}
}

// An actor whose instances die waits for new ones, beyond a number.
func TestDeaths(t *testing.T) {
	var d deaths
	for i := range deathBurst {
		if p := d.pause(0); p != 0 {
			t.Fatalf("after %d deaths: wait for %v", i, p)
		}
		d.note(0, 0)
	}
	d.note(0, 0)
	if p := d.pause(0); p != deathEvery {
		t.Errorf("one more: wait for %v", p)
	}
	d.note(0, 0)
	if p := d.pause(int64(deathEvery)); p != deathEvery {
		t.Errorf("and another one: wait for %v", p)
	}
	for range 1000 {
		d.note(0, 0)
	}
	if p := d.pause(0); p > time.Second {
		t.Errorf("after a thousand more: wait for %v", p)
	}
	d.note(int64(time.Hour), 0)
	if p := d.pause(int64(time.Hour)); p != 0 {
		t.Errorf("an hour later: wait for %v", p)
	}
	const later = int64(2 * time.Hour)
	for range deathBurst / 5 {
		d.note(later, 4*deathStack)
	}
	d.note(later, deathStack/2)
	if p := d.pause(later); p != deathEvery {
		t.Errorf("after %d deaths with call stacks that are as good as four more each, and one without: wait for %v", deathBurst/5, p)
	}
}
