package runtime

import (
	"context"
	"sync"
	"time"
)

// deaths slows down an actor whose instances die. A trap costs the host more than
// the guest: an instance, its call stack, a trace. Each death entitles to the next
// one some time later; so many may come at once, and nobody waits
// for longer than it takes to make up for as many.
type deaths struct {
	mu   sync.Mutex
	made int64 // by clock, when all that died is made up for
}

const (
	deathEvery = 50 * time.Millisecond
	deathBurst = 20
	deathStack = 512 << 10 // a call stack of so many bytes is as good as a death
)

// note is the death of an instance that had a call stack of so many bytes. The
// engine makes it by doubling, on the Go heap: twice as much is left to collect.
func (d *deaths) note(now int64, stackBytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := int64(1 + stackBytes/deathStack)
	d.made = min(max(d.made, now)+n*int64(deathEvery), now+2*deathBurst*int64(deathEvery))
}

// MaxRestarts is how many instances of an actor may be made in a second for those
// that died.
const MaxRestarts = int64(time.Second / deathEvery)

// pause is how long to wait before a new instance is made.
func (d *deaths) pause(now int64) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(max(d.made-deathBurst*int64(deathEvery)-now, 0))
}

// wait waits until another instance may be made, and says whether it had to.
func (d *deaths) wait(ctx context.Context) (waited bool, err error) {
	for {
		pause := d.pause(clock())
		if pause == 0 {
			return waited, nil
		}
		waited = true
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return true, context.Cause(ctx)
		}
	}
}
