package broker

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// firstWindow is how many bytes may be on their way before anything is known of
	// the link.
	firstWindow = 16 << 10
	leastWindow = 1 << 10
	mostWindow  = 4 << 20
	// wideWindow is from where on several lanes send at a time. Below it one batch
	// is on its way, so that what is urgent waits for no more than that.
	wideWindow = 256 << 10
	// aimTransit is how long the link is to be busy with what is on its way.
	aimTransit = time.Second
	// staleBatch is how long a batch keeps others waiting at most.
	staleBatch = 5 * time.Second
	// lowerShare: of so many bytes one goes to whoever has waited longest, whatever
	// its priority.
	lowerShare = 16
)

// linkQueue decides which lane sends next, and how much: the highest priority that
// waits, and of those the one that has waited longest. Of what is sent while lower
// priorities wait, one byte in lowerShare is theirs. It bounds what is on its way to
// what the link carries in about a second, so that an alarm does not wait behind
// minutes of telemetry, and all of it to the rate that the owner allows. Its
// methods may be called from any goroutine.
type linkQueue struct {
	rate int // bytes per second; 0 for no bound

	mu      sync.Mutex    // guards the fields below
	window  int           // bytes that may be on their way
	used    int           // that are
	base    time.Duration // how long the hub takes at least to answer; 0 if not known
	tokens  float64       // bytes that the rate allows now
	at      time.Time
	waiting []*place // in the order of their coming
	owed    int      // bytes sent while lower priorities waited, since one of them had its turn
	timer   *time.Timer
}

// place is a lane that waits.
type place struct {
	priority int
	turn     chan *permit // gets one, at most
}

// permit allows a lane to send once.
type permit struct {
	bytes  int // at most, unless it is a single message
	passes bool
	began  time.Time
	stale  *time.Timer
	back   bool // its bytes do not count any more
}

func newLinkQueue(rate int) *linkQueue {
	return &linkQueue{rate: rate, window: firstWindow, tokens: float64(rate), at: time.Now()}
}

// quantum is what the rate lets go at a time: half a second's worth.
func (q *linkQueue) quantum() int { return max(1, q.rate/2) }

// up notes that the link has come up, and may be another one.
func (q *linkQueue) up() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.window, q.base = min(q.window, firstWindow), 0
}

// answered notes how long the hub took for a question.
func (q *linkQueue) answered(took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.quickest(took)
}

func (q *linkQueue) quickest(took time.Duration) {
	took = min(took, aimTransit) // the way to a satellite and back is less
	if q.base == 0 || took < q.base {
		q.base = took
	}
}

// wait returns when it is a lane's turn. The permit must be given back with done.
func (q *linkQueue) wait(ctx context.Context, priority int) (*permit, error) {
	p := &place{priority: priority, turn: make(chan *permit, 1)}
	q.mu.Lock()
	q.waiting = append(q.waiting, p)
	q.dispatch()
	q.mu.Unlock()
	select {
	case turn := <-p.turn:
		return turn, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	q.waiting = slices.DeleteFunc(q.waiting, func(o *place) bool { return o == p })
	q.mu.Unlock()
	select {
	case turn := <-p.turn: // it came meanwhile
		q.done(turn, 0, false)
	default:
	}
	return nil, context.Cause(ctx)
}

// done gives a permit back. sent is how many bytes went out; ok says that the hub has
// them.
func (q *linkQueue) done(p *permit, sent int, ok bool) {
	took := time.Since(p.began)
	q.mu.Lock()
	defer q.mu.Unlock()
	p.stale.Stop()
	q.giveBack(p)
	q.tokens += float64(p.bytes - sent)
	if p.passes {
		q.owed += sent
	}
	if sent > 0 {
		q.adapt(p, sent, took, ok)
	}
	q.dispatch()
}

func (q *linkQueue) giveBack(p *permit) {
	if !p.back {
		p.back = true
		q.used -= p.bytes
	}
}

// adapt fits the window to what the link has carried.
func (q *linkQueue) adapt(p *permit, sent int, took time.Duration, ok bool) {
	if !ok {
		q.window = max(leastWindow, q.window/2)
		return
	}
	q.quickest(took)
	transit := took - q.base
	switch {
	case transit <= aimTransit/2 && sent >= p.bytes/2:
		q.window = min(2*q.window, mostWindow)
	case transit > aimTransit && sent >= q.window/4:
		fit := int(float64(q.window) * float64(aimTransit) / float64(transit))
		q.window = max(leastWindow, q.window/4, min(q.window, fit))
	}
}

// dispatch lets go who may. Call it with q.mu held.
func (q *linkQueue) dispatch() {
	for len(q.waiting) > 0 && q.room() > 0 && q.allowed() {
		i, passes := q.next()
		w := q.waiting[i]
		q.waiting = slices.Delete(q.waiting, i, i+1)
		p := &permit{bytes: q.room(), passes: passes, began: time.Now()}
		if q.rate > 0 {
			p.bytes = min(p.bytes, q.quantum())
			q.tokens -= float64(p.bytes)
		}
		q.used += p.bytes
		p.stale = time.AfterFunc(staleBatch, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.giveBack(p)
			q.dispatch()
		})
		w.turn <- p
	}
}

// room returns how many bytes may go out on top of those on their way.
func (q *linkQueue) room() int {
	if q.used > 0 && q.window < wideWindow {
		return 0
	}
	return min(q.window-q.used, maxBatchBytes)
}

// allowed says whether the rate lets something go now; if not, dispatch comes
// again when it does.
func (q *linkQueue) allowed() bool {
	if q.rate == 0 {
		return true
	}
	now := time.Now()
	q.tokens = min(float64(q.rate), q.tokens+float64(q.rate)*now.Sub(q.at).Seconds())
	q.at = now
	missing := float64(q.quantum()) - q.tokens
	if missing <= 0 {
		return true
	}
	if q.timer != nil {
		q.timer.Stop()
	}
	q.timer = time.AfterFunc(time.Duration(missing/float64(q.rate)*float64(time.Second))+time.Millisecond, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.dispatch()
	})
	return false
}

// next returns whose turn it is. passes says that lower priorities wait on.
func (q *linkQueue) next() (i int, passes bool) {
	lowest := q.waiting[0].priority
	for j, w := range q.waiting {
		if w.priority > q.waiting[i].priority {
			i = j
		}
		lowest = min(lowest, w.priority)
	}
	passes = lowest < q.waiting[i].priority
	if !passes || q.owed < (lowerShare-1)*q.window {
		return i, passes
	}
	q.owed, i = 0, -1
	top := slices.MaxFunc(q.waiting, func(a, b *place) int { return a.priority - b.priority }).priority
	for j, w := range q.waiting {
		if w.priority < top {
			i = j
			break
		}
	}
	return i, false
}
