package ota

import (
	"math/rand/v2"
	"time"
)

// backoff is the waiting time between tries: it doubles from least to most, and
// half of each is random, so that boxes which lost one hub do not return together.
type backoff struct {
	least, most time.Duration
	tries       int
}

// next is how long to wait before the next try.
func (b *backoff) next() time.Duration {
	d := b.most
	if b.tries < 30 {
		d = min(b.most, b.least<<b.tries)
	}
	b.tries++
	return jitter(d)
}

func (b *backoff) reset() { b.tries = 0 }

// jitter is between half of d and d.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}
