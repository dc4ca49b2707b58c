package node

import (
	"sync"
	"time"
)

// bucket holds something to a rate. It fills with so many tokens a second, up
// to burst, and may be charged below nothing: that is a debt, which takes time.
type bucket struct {
	mu     sync.Mutex // guards all below
	rate   float64    // tokens a second
	burst  float64
	tokens float64
	at     time.Time // when tokens was right; zero before the first use
}

// set changes the rate. What was used stays used.
func (b *bucket) set(rate, burst float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rate, b.burst = rate, burst
}

// take takes n tokens if they are there.
func (b *bucket) take(now time.Time, n float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now)
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}

// charge takes n tokens, whether they are there or not.
func (b *bucket) charge(now time.Time, n float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now)
	b.tokens -= n
}

// debt returns how long it takes until nothing is owed.
func (b *bucket) debt(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at.IsZero() {
		return 0
	}
	b.fill(now)
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens/b.rate*float64(time.Second)) + time.Nanosecond
}

// fill adds what came since. Call it with b.mu held.
func (b *bucket) fill(now time.Time) {
	if b.at.IsZero() {
		b.tokens = b.burst
	} else if d := now.Sub(b.at); d > 0 {
		b.tokens += d.Seconds() * b.rate
	}
	b.tokens, b.at = min(b.tokens, b.burst), now
}
