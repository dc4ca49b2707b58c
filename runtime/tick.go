package runtime

import (
	"context"
	"errors"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// A module is rewritten when it is loaded so that it counts its steps (loop
// rounds, function entries, the length of bulk operations) and calls the host
// each time a slice of them is used up. In this tick the guest is held to its
// limits and gives way to others. Nothing else interrupts a guest: to the Go
// scheduler, and so to the garbage collector, guest code is one long
// instruction.
const (
	// sliceTime is how long a guest runs between two ticks, about: short
	// enough for a message that waits for the core, long enough for a tick to
	// cost nothing.
	sliceTime = 150 * time.Microsecond

	firstSlice = 4 << 10 // steps, until it is known how fast the guest is; an eighth for the interpreter
	leastSlice = 256
	// mostSlice bounds a slice of a guest that first makes believe that its steps
	// are short. The longest take half a microsecond: 64 instructions, or four
	// loads that no cache has.
	mostSlice = 4 << 10

	// workBytes is how many bytes host functions move for a guest between two
	// looks at its deadline.
	workBytes = 256 << 10
)

// A slice is what an instance may run until its next tick. What a call leaves of
// it is the next call's.
type slice struct {
	steps int32 // how many are granted at once
	left  int32 // the counter as the host saw it last
	began int64 // by clock; 0 when time has passed outside of the guest since
}

// clock is the time since some moment before, in nanoseconds. It does not go
// back.
func clock() int64 { return int64(time.Since(clockZero)) }

var clockZero = time.Now()

// A stopError ends a guest from within a host function.
type stopError struct {
	cause error
	trap  bool // it is the guest's own doing, and told with its stack
}

func (e *stopError) Error() string { return e.cause.Error() }

func (e *stopError) Unwrap() error { return e.cause }

// errStackOverflow says what the engine says at its own, larger bound.
var errStackOverflow = errors.New("stack overflow")

// tick is the function that a rewritten module calls when its counter has fallen
// below zero, with the counter. The answer is the next slice.
func tick(ctx context.Context, _ api.Module, stack []uint64) {
	stack[0] = uint64(uint32(instanceOf(ctx).tick(int32(uint32(stack[0])))))
}

func (in *instance) tick(left int32) int32 {
	now := clock()
	in.ran(left)
	budget := in.actor.limits.Steps
	if in.starting {
		budget = 0
	}
	if budget > 0 && in.stepsOfCall > budget {
		panic(&stopError{cause: ErrStepLimit})
	}
	in.stopIfOver(now)
	if in.stackBytes() > maxStackBytes {
		panic(&stopError{cause: errStackOverflow, trap: true})
	}
	in.slice.steps = nextSlice(in.slice, now)
	in.slice.began = now
	switch {
	case in.breathed == 0: // a call that has just begun
		now = in.short.settle(in, now)
		in.slice.began, in.breathed, in.runner.first = now, now, now
	case now-in.breathed >= int64(sliceTime)/2: // of a fast guest, several slices
		in.breathe(now)
		in.slice.began = in.breathed
	}
	in.slice.left = in.slice.steps
	if budget > 0 {
		in.slice.left = int32(min(uint64(in.slice.left), budget-in.stepsOfCall))
	}
	return in.slice.left
}

// ran accounts for what the guest has run since the host saw its counter last.
func (in *instance) ran(left int32) {
	n := uint64(int64(in.slice.left) - int64(left))
	in.slice.left = left
	in.stepsOfCall += n
	in.steps.Add(n)
}

// nextSlice goes by how long the last one took, carefully: the guest may just
// have waited for its core.
func nextSlice(s slice, now int64) int32 {
	switch {
	case s.began > 0:
	case s.steps > 0:
		return s.steps
	case interpreted:
		return firstSlice / 8
	default:
		return firstSlice
	}
	next := int64(s.steps) * int64(sliceTime) / max(now-s.began, 1)
	next = min(max(next, int64(s.steps)/4), int64(s.steps)*2)
	return int32(min(max(next, leastSlice), mostSlice))
}

// breathe lets others run: who waits for a core has waited for a whole slice, and
// timers of a core that runs guests fire here only.
func (in *instance) breathe(now int64) {
	in.runner.ctx, in.runner.deadline = in.ctx, in.deadline
	now = in.short.settle(in, now)
	from := in.breathed
	if from == 0 {
		from = now - int64(sliceTime)
	}
	in.actor.host.fair.breathe(&in.runner, from, now)
	in.breathed = clock()
	in.stopIfOver(in.breathed)
}

// stopIfOver ends the guest if its time is, or its caller's.
func (in *instance) stopIfOver(now int64) {
	if in.deadline == 0 {
		// A short call never looks at the clock.
		in.deadline = now + int64(in.timeLimit())
	}
	if in.ctx.Err() != nil {
		panic(&stopError{cause: context.Cause(in.ctx)})
	}
	if now >= in.deadline {
		panic(&stopError{cause: ErrTimeLimit})
	}
}

// work accounts for n bytes that a host function has moved or is about to. What
// the host does for a guest takes no steps of it.
func (in *instance) work(n uint64) {
	if in.worked += n + 64; in.worked >= workBytes {
		in.lookUp()
	}
}

// lookUp is a tick for who works in host functions.
func (in *instance) lookUp() {
	in.worked, in.slice.began = 0, 0
	now := clock()
	in.stopIfOver(now)
	in.breathe(now)
}

// timeLimit is of what runs.
func (in *instance) timeLimit() time.Duration {
	if in.starting {
		return startLimit
	}
	return in.actor.limits.Time
}
