package runtime

import (
	"context"
	"errors"
	"sync/atomic"
)

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
	Restarts    uint64 // waited for a new instance because too many had died
	Refused     uint64 // turned away without running: closed, or no room on the host
	Started     uint64 // instances made
	Discarded   uint64 // instances closed, for whatever reason
	Recycled    uint64 // of them, those that had grown close to their memory limit or served their number of calls
	Steps       uint64 // run by all instances; what is left of a slice is counted with it, unless Limits.Steps is set
	Idle        int    // instances waiting for a call
	Busy        int    // calls in progress
	MemoryBytes uint64 // linear memory of all instances
}

// meters count what happens rarely, or to no instance. What happens at each call
// is counted in the instance, on no other core's way.
type meters struct {
	traps, timeouts, stepLimit, memoryLimit, cancelled, restarts, refused, started, discarded, recycled atomic.Uint64
}

// Stats returns the actor's figures.
func (a *Actor) Stats() Stats {
	sum, idle, busy, waited := a.pool.figures()
	m := &a.meters
	return Stats{
		Calls: sum.calls, GuestErrors: sum.guestErrors,
		Traps: m.traps.Load(), Timeouts: m.timeouts.Load(), StepLimit: m.stepLimit.Load(), MemoryLimit: m.memoryLimit.Load(),
		Cancelled: m.cancelled.Load(), Waited: waited, Restarts: m.restarts.Load(), Refused: m.refused.Load(),
		Started: m.started.Load(), Discarded: m.discarded.Load(), Recycled: m.recycled.Load(),
		Steps: sum.steps, Idle: idle, Busy: busy, MemoryBytes: uint64(sum.memory),
	}
}

// failed counts a call, or a start, that ended badly and not by the guest's own
// word.
func (m *meters) failed(ctx context.Context, err error) {
	var trap *TrapError
	switch {
	case errors.As(err, &trap):
		m.traps.Add(1)
		if errors.Is(err, ErrMemory) {
			m.memoryLimit.Add(1)
		}
	case errors.Is(err, ErrStepLimit):
		m.stepLimit.Add(1)
	case errors.Is(err, ErrClosed), errors.Is(err, ErrDeadlock), errors.Is(err, ErrHostMemory):
		m.refused.Add(1)
	case ctx.Err() != nil:
		m.cancelled.Add(1)
	default:
		m.timeouts.Add(1)
	}
}
