package keyvalue

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// What has expired is gone for whoever reads it, and takes room until it is
// removed. All values are looked at for that: when the first of them is due, and
// not at all while none expires.
const (
	sweepPause = time.Minute // between two passes, and before the first
	sweepShare = 100         // a pass may take one part in so many of the time
	sweepLater = time.Hour   // at the latest, since the time a box was off may become known later
	sweepKeys  = 64          // removed in one turn
)

// never is when nothing expires.
const never = time.Duration(math.MaxInt64)

// sweeper knows when the next pass is worth it.
type sweeper struct {
	mu   sync.Mutex // guards due
	due  time.Time  // when the first value expires; zero for never
	wake chan struct{}
}

func newSweeper() sweeper { return sweeper{wake: make(chan struct{}, 1)} }

// expect says that something expires after left.
func (s *sweeper) expect(left time.Duration) {
	due := time.Now().Add(left)
	s.mu.Lock()
	earlier := s.due.IsZero() || due.Before(s.due)
	if earlier {
		s.due = due
	}
	s.mu.Unlock()
	if earlier {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// until is how long there is to wait for the next pass, if there may be none
// before earliest.
func (s *sweeper) until(earliest time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.due.IsZero() {
		return never
	}
	at := s.due
	if later := time.Now().Add(sweepLater); at.After(later) {
		at = later
	}
	if at.Before(earliest) {
		at = earliest
	}
	return time.Until(at)
}

// Run removes what has expired, until ctx ends.
func (p *Provider) Run(ctx context.Context) error {
	s := &p.sweeper
	earliest := time.Now().Add(sweepPause)
	s.expect(sweepPause) // what was there before
	for {
		timer := time.NewTimer(s.until(earliest))
		select {
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
			continue
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		begun := time.Now()
		s.mu.Lock()
		s.due = time.Time{}
		s.mu.Unlock()
		next, err := p.Sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrFull), errors.Is(err, store.ErrConflict):
			next = 0 // again, when it may
		case err != nil:
			return err
		}
		if next != never {
			s.expect(next)
		}
		earliest = time.Now().Add(max(sweepPause, sweepShare*time.Since(begun)))
	}
}

// Sweep looks at all values once and removes those that have expired. It returns
// after how long the next one expires, or the longest time there is.
func (p *Provider) Sweep(ctx context.Context) (next time.Duration, err error) {
	next = never
	for _, info := range p.db.Spaces(Space) {
		var gone []string
		err := p.db.List(info.Name, "", func(key string, value []byte) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			_, l, err := decodeHead(msgpack.NewDecoder(value))
			switch {
			case err != nil || l.ttl == 0 && l.until == 0: // what makes no sense is told to who reads it
				return nil
			case !p.over(l):
				next = min(next, p.left(l))
				return nil
			}
			if gone = append(gone, key); len(gone) < sweepKeys {
				return nil
			}
			defer func() { gone = gone[:0] }()
			return p.forget(ctx, info.Name, gone)
		})
		if err == nil {
			err = p.forget(ctx, info.Name, gone)
		}
		if err != nil {
			return next, err
		}
	}
	return next, nil
}

// forget removes keys, if they are still expired.
func (p *Provider) forget(ctx context.Context, space string, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	return p.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		for _, key := range keys {
			v, ok, err := t.Get(space, key)
			if err != nil {
				return err
			}
			if _, l, err := decodeHead(msgpack.NewDecoder(v)); !ok || err != nil || !p.over(l) {
				continue
			}
			if err := t.Delete(space, key); err != nil {
				return err
			}
		}
		return nil
	})
}
