package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Limits of an actor. The zero value of a field means its default.
type Limits struct {
	MemoryBytes  uint64        // of one instance; default 32 MiB
	Time         time.Duration // of one call, waiting for host calls included; default 5 s
	Steps        uint64        // of one call: loop rounds and function entries; 0 for no bound but Time
	MinInstances int           // kept warm once they were made; default 1
	MaxInstances int           // calls in progress at once; further ones wait; default 8
}

func (l Limits) withDefaults() Limits {
	if l.MemoryBytes == 0 {
		l.MemoryBytes = 32 << 20
	}
	if l.Time <= 0 {
		l.Time = 5 * time.Second
	}
	if l.MaxInstances <= 0 {
		l.MaxInstances = 8
	}
	if l.MinInstances <= 0 {
		l.MinInstances = 1
	}
	l.MinInstances = min(l.MinInstances, l.MaxInstances)
	return l
}

// Stats of an actor: totals since it was loaded, and what is there now.
type Stats struct {
	Calls       uint64 // ended, in any way
	GuestErrors uint64 // the guest answered with an error
	Traps       uint64 // in calls and while starting an instance, those for memory included
	Timeouts    uint64 // stopped at Limits.Time
	StepLimit   uint64 // stopped at Limits.Steps
	MemoryLimit uint64 // traps after a growth of memory was refused
	Cancelled   uint64 // stopped, or never begun, because the caller's context had ended
	Waited      uint64 // found all instances busy and waited for one
	Refused     uint64 // turned away without running: closed, or no room on the host
	Started     uint64 // instances made
	Discarded   uint64 // instances closed, for whatever reason
	Recycled    uint64 // of them, those that had grown close to their memory limit
	Steps       uint64 // run by all calls
	Idle        int    // instances waiting for a call
	Busy        int    // calls in progress
	MemoryBytes uint64 // linear memory of all instances
}

// An Actor is a loaded module with an identity and limits. Its methods may be
// called concurrently.
type Actor struct {
	identity string
	limits   Limits
	host     *Host
	module   *module
	output   *guestLog
	pool     *pool

	calls, guestErrors, traps, timeouts, memoryLimit, cancelled, refused, started, discarded, recycled atomic.Uint64

	released sync.Once // the module
}

// Identity is the name under which the actor was loaded.
func (a *Actor) Identity() string { return a.identity }

// Call has the actor handle an operation. It waits while MaxInstances calls are
// in progress, as long as ctx lets it; the time limit begins when the guest
// does. Whatever the guest asks of the host is done under ctx, with the call's
// deadline.
//
// Errors: a *GuestError if the actor answered with one; a *TrapError, which is
// ErrMemory where a refused growth was the reason; ErrTimeLimit; ErrClosed; the
// cause of ctx if it ended first.
func (a *Actor) Call(ctx context.Context, operation string, payload []byte) ([]byte, error) {
	in, err := a.pool.acquire(ctx)
	if err != nil {
		if errors.Is(err, ErrClosed) {
			a.refused.Add(1)
		} else {
			a.cancelled.Add(1)
		}
		return nil, fmt.Errorf("actor %s: %s: %w", a.identity, operation, err)
	}
	var keep *instance
	defer func() { a.pool.release(keep) }()
	if in == nil {
		if in, err = a.newInstance(ctx); err != nil {
			a.count(ctx, err)
			return nil, err
		}
	}
	response, err := in.serve(ctx, operation, payload)
	a.count(ctx, err)
	if in.reusable() {
		keep = in
	} else {
		if !in.dead {
			a.recycled.Add(1)
		}
		in.discard()
	}
	return response, err
}

// Healthy asks the actor for its health. An actor that does not know the
// question is healthy, as long as it answers. The error is ErrUnhealthy with
// the actor's reason, or what Call returns.
func (a *Actor) Healthy(ctx context.Context) error {
	// A map without entries: with no bytes at all, Rust actors fail.
	response, err := a.Call(ctx, "Actor.HealthRequest", []byte{0x80})
	var guest *GuestError
	switch {
	case err == nil:
	case !errors.As(err, &guest):
		return err
	case guest.Text == "" || NotHandled(err):
		return nil
	default:
		return fmt.Errorf("%w: %w", ErrUnhealthy, err)
	}
	healthy, message := true, ""
	d := msgpack.NewDecoder(response)
	for range d.Map() {
		switch string(d.Key()) {
		case "healthy":
			healthy = d.Bool()
		case "message":
			message = d.Str()
		default:
			d.Skip()
		}
	}
	// An answer in another form is an answer.
	if d.Done() == nil && !healthy {
		return fmt.Errorf("%w: actor %s: %s", ErrUnhealthy, a.identity, cleanText(message))
	}
	return nil
}

// Stats returns the actor's figures.
func (a *Actor) Stats() Stats {
	idle, busy := a.pool.len()
	return Stats{
		Calls: a.calls.Load(), GuestErrors: a.guestErrors.Load(), Traps: a.traps.Load(), Timeouts: a.timeouts.Load(),
		MemoryLimit: a.memoryLimit.Load(), Cancelled: a.cancelled.Load(), Refused: a.refused.Load(),
		Recycled: a.recycled.Load(), Started: a.started.Load(), Discarded: a.discarded.Load(), Idle: idle, Busy: busy,
	}
}

// Close refuses further calls, waits for those in progress, which their time
// limit bounds, and frees what the actor holds. When ctx ends first, Close says
// so and can be called again. Calling it after it succeeded does nothing.
func (a *Actor) Close(ctx context.Context) error {
	if err := a.pool.close(ctx); err != nil {
		return fmt.Errorf("close actor %s: %w", a.identity, err)
	}
	var err error
	a.released.Do(func() {
		a.host.forget(a)
		if err = a.host.release(ctx, a.module); err != nil {
			err = fmt.Errorf("close actor %s: %w", a.identity, err)
		}
	})
	return err
}

func (a *Actor) newInstance(ctx context.Context) (*instance, error) {
	in, err := newInstance(ctx, a)
	if err == nil {
		a.started.Add(1)
	}
	return in, err
}

// discard closes an instance that was counted as started.
func (in *instance) discard() {
	in.close()
	in.actor.discarded.Add(1)
}

func (a *Actor) count(ctx context.Context, err error) {
	a.calls.Add(1)
	var guest *GuestError
	var trap *TrapError
	switch {
	case err == nil:
	case errors.As(err, &guest):
		a.guestErrors.Add(1)
	case errors.As(err, &trap):
		a.traps.Add(1)
		if errors.Is(err, ErrMemory) {
			a.memoryLimit.Add(1)
		}
	case ctx.Err() != nil:
		a.cancelled.Add(1)
	default:
		a.timeouts.Add(1)
	}
}
