package broker

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// testLane sends batches over a link of so many bytes per second until ctx ends; with
// each it wants as much as it may have.
func testLane(ctx context.Context, q *linkQueue, priority int, link chan struct{}, rate int, sent func(bytes int)) {
	for ctx.Err() == nil {
		p, err := q.wait(ctx, priority)
		if err != nil {
			return
		}
		link <- struct{}{} // a mutex would stop the clock
		<-time.After(time.Duration(float64(p.bytes) / float64(rate) * float64(time.Second)))
		<-link
		<-time.After(20 * time.Millisecond) // to the hub's answer
		sent(p.bytes)
		q.done(p, p.bytes, true)
	}
}

func TestLinkQueue_Priority_goesNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 8 << 10
		q := newLinkQueue(0)
		q.answered(20 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		link := make(chan struct{}, 1)
		var wg sync.WaitGroup
		for _, priority := range []int{0, 5} {
			wg.Go(func() { testLane(ctx, q, priority, link, rate, func(int) {}) })
		}
		time.Sleep(time.Minute) // the queue gets to know the link
		for range 20 {
			began := time.Now()
			p, err := q.wait(ctx, 9)
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 2*aimTransit {
				t.Errorf("an alarm waited %s for its turn", took)
			}
			time.Sleep(40 * time.Millisecond)
			q.done(p, 200, true)
			time.Sleep(3 * time.Second)
		}
		cancel()
		wg.Wait()
	})
}

func TestLinkQueue_Lower_isNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 64 << 10
		q := newLinkQueue(0)
		ctx, cancel := context.WithCancel(t.Context())
		link := make(chan struct{}, 1)
		var mu sync.Mutex
		var wg sync.WaitGroup
		got := make([]int, 10)
		for _, priority := range []int{9, 9, 3, 0} {
			wg.Go(func() {
				testLane(ctx, q, priority, link, rate, func(n int) {
					mu.Lock()
					defer mu.Unlock()
					got[priority] += n
				})
			})
		}
		time.Sleep(10 * time.Minute)
		cancel()
		wg.Wait()
		all := got[9] + got[3] + got[0]
		if got[9] < all*8/10 {
			t.Errorf("got %v, want nine tenths for the highest", got)
		}
		for _, p := range []int{3, 0} {
			if got[p] < all/(3*lowerShare) {
				t.Errorf("got %v, want more for priority %d", got, p)
			}
		}
	})
}

func TestLinkQueue_Rate_isKept(t *testing.T) {
	for _, rate := range []int{1 << 10, 64 << 10, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			q := newLinkQueue(rate)
			ctx, cancel := context.WithCancel(t.Context())
			link := make(chan struct{}, 1)
			var mu sync.Mutex
			var wg sync.WaitGroup
			all := 0
			for range 3 {
				wg.Go(func() {
					testLane(ctx, q, 0, link, 100<<20, func(n int) {
						if n > rate/2 {
							t.Errorf("got a batch of %d bytes at %d a second", n, rate)
						}
						mu.Lock()
						defer mu.Unlock()
						all += n
					})
				})
			}
			const seconds = 100
			time.Sleep(seconds * time.Second)
			cancel()
			wg.Wait()
			if all > rate*(seconds+2) || all < rate*seconds*8/10 {
				t.Errorf("sent %d bytes in %d s, want about %d a second", all, seconds, rate)
			}
		})
	}
}

func TestLinkQueue_Window_fitsTheLink(t *testing.T) {
	for _, c := range []struct{ rate, least, most int }{
		{2 << 10, leastWindow, 4 << 10},
		{32 << 10, 12 << 10, 64 << 10},
		{100 << 20, mostWindow, mostWindow},
	} {
		synctest.Test(t, func(t *testing.T) {
			q := newLinkQueue(0)
			q.answered(600 * time.Millisecond) // a satellite: slow to answer, whatever it carries
			ctx, cancel := context.WithCancel(t.Context())
			link := make(chan struct{}, 1)
			var wg sync.WaitGroup
			wg.Go(func() { testLane(ctx, q, 0, link, c.rate, func(int) { time.Sleep(580 * time.Millisecond) }) })
			time.Sleep(5 * time.Minute)
			cancel()
			wg.Wait()
			if q.window < c.least || q.window > c.most {
				t.Errorf("link of %d bytes per second: got a window of %d, want %d to %d", c.rate, q.window, c.least, c.most)
			}
		})
	}
}

// TestLinkQueue_Stale_letsOthersGo has a lane that has no answer.
func TestLinkQueue_Stale_letsOthersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newLinkQueue(0)
		stuck, err := q.wait(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		p, err := q.wait(t.Context(), 9)
		if took := time.Since(began); err != nil || took > staleBatch {
			t.Errorf("waited %s, %v", took, err)
		}
		q.done(p, 10, true)
		q.done(stuck, 10, false)
		if q.used != 0 {
			t.Errorf("%d bytes are still on their way", q.used)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p, _ = q.wait(t.Context(), 0)
		if _, err := q.wait(ctx, 0); err == nil || len(q.waiting) != 0 {
			t.Errorf("got %v, %d wait on", err, len(q.waiting))
		}
		q.done(p, 0, true)
	})
}
