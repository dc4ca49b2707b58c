package broker

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// pace spreads tries out: each pause is about twice the one before, up to a
// ceiling, and nobody pauses for exactly as long as another, because a fleet
// that comes back together would knock together. For one goroutine.
type pace struct {
	least, most time.Duration
	n           int
}

// next returns how long to pause now.
func (p *pace) next() time.Duration {
	d := p.most
	if p.n < 30 && p.least<<p.n < p.most {
		d = p.least << p.n
		p.n++
	}
	return d/2 + rand.N(d/2+1)
}

func (p *pace) reset() { p.n = 0 }

// condition is a trouble that lasts: each kind of it is logged once, and its
// end, but not each try, and nothing of one that passes at once. For one
// goroutine.
type condition struct {
	log   *slog.Logger
	now   func() time.Time
	since time.Time
	tries int
	said  map[string]bool
}

const (
	// patience is how long a trouble lasts until it is worth a line.
	patience = 5 * time.Second
	// maxSaid bounds how many kinds of a trouble are logged.
	maxSaid = 8
)

// begin notes a try that failed.
func (c *condition) begin(msg string, err error) {
	if c.tries == 0 {
		c.since, c.said = c.now(), make(map[string]bool)
	}
	c.tries++
	text := err.Error()
	if c.now().Sub(c.since) < patience || c.said[text] || len(c.said) == maxSaid {
		c.log.Debug(msg, "err", err, "tries", c.tries)
		return
	}
	c.said[text] = true
	c.log.Warn(msg, "err", err)
}

// end notes that all is well.
func (c *condition) end(msg string) {
	if len(c.said) > 0 {
		c.log.Info(msg, "tries", c.tries, "took", c.now().Sub(c.since))
	}
	c.tries, c.said = 0, nil
}

// sleep returns when d is over, wake is ready, or ctx has ended.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
	}
}
