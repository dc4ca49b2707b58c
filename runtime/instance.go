package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/edged-io/edged/runtime/meter"
)

// startLimit is how long a module's initialisers may run. It is not the actor's
// time limit, which is meant for one message on a warm instance.
const startLimit = 10 * time.Second

// An instance of a module with a memory of its own, for one call at a time.
type instance struct {
	// The padding keeps two instances off one cache line: sharing one costs two
	// cores a quarter of their calls.
	_ [64]byte

	actor     *Actor
	slot      int // in the pool
	mod       api.Module
	call      api.Function      // __guest_call; looking it up anew costs 5 µs
	counter   api.MutableGlobal // of steps that are left of the slice
	engine    engineContext
	callStack callStack // of what runs
	memory    guestMemory
	tables    tables
	startSize uint32 // bytes of memory after the initialisers
	stdout    lineWriter
	stderr    lineWriter
	starting  bool // the initialisers are running
	dead      bool // may not be called again
	left      bool // because its caller did not wait

	calls uint64 // that it has served; told to others in its slot
	short shortCalls

	// What the statistics read; it is written here only.
	guestErrors, steps atomic.Uint64

	// The limits of the call in progress.
	slice       slice
	stepsOfCall uint64 // up to the last tick
	deadline    int64  // by clock; 0 until somebody looks at it
	worked      uint64 // bytes moved by host functions since the last look
	runner      runner
	breathed    int64 // by clock, when it was given the core last; 0 before
	hosted      int64 // nanoseconds in host calls since
	waited      int64 // nanoseconds asleep, and in long host calls beyond hostTime of each

	// The slots of the call in progress.
	ctx          context.Context // the caller's
	host         *hostContext    // for what the guest asks of the host; nil until it does
	operation    string
	payload      []byte
	response     []byte // what the caller gave, and the guest's response behind it
	given        int    // bytes that the caller gave
	guestError   string
	guestFailed  bool // __guest_error was called
	hostResponse []byte
	hostError    string
	names        [3]string // binding, namespace and operation of the last host call
	stack        [2]uint64

	_ [64]byte
}

// newInstance makes an instance of a's module for a slot of its pool and runs
// its initialisers.
func newInstance(ctx context.Context, a *Actor, slot int) (*instance, error) {
	in := &instance{
		actor: a, slot: slot, starting: true,
		memory: guestMemory{limit: a.limits.MemoryBytes, tables: a.module.tables, budget: &a.host.memory, actor: &a.memory},
	}
	in.runner.share = &a.share
	in.stdout = lineWriter{in: in, level: slog.LevelInfo, stream: "stdout"}
	in.stderr = lineWriter{in: in, level: slog.LevelWarn, stream: "stderr"}
	began := clock()
	defer func() {
		now := clock()
		a.host.fair.charge(&a.share, now, min(now-began, int64(keepEvery)))
	}()
	in.begin(ctx, nil, "start", nil)
	if err := in.start(); err != nil {
		in.actor.host.fair.end(&in.runner)
		err = in.failure(err)
		in.close()
		return nil, err
	}
	in.ran(int32(in.counter.Get()))
	in.end()
	in.starting, in.dead = false, false
	in.startSize = in.mod.Memory().Size()
	return in, nil
}

func (in *instance) start() error {
	m := in.actor.module
	if err := in.memory.open(m.leastMemory); err != nil {
		return err
	}
	in.engine = engineContext{in: in, options: experimental.WithMemoryAllocator(context.Background(), &in.memory)}
	mod, err := m.instantiate(&in.engine)
	in.engine.options = nil
	if err != nil {
		// Nothing has run: a segment out of bounds, an import that is no function.
		return faultf("the module cannot be instantiated: %v", err)
	}
	in.mod = mod
	in.tables = tablesOf(mod)
	in.counter = mod.ExportedGlobal(meter.ExportCounter).(api.MutableGlobal)
	for _, name := range m.initialisers {
		f := mod.ExportedFunction(name)
		in.callStack = callStackOf(f)
		err := f.CallWithStack(&in.engine, nil)
		var exit *exitError
		if errors.As(err, &exit) && exit.code == 0 {
			continue // TinyGo leaves _start this way
		}
		if err != nil {
			return err
		}
	}
	in.ready()
	return nil
}

// ready makes the function that serves calls, with a call stack of its own.
func (in *instance) ready() {
	in.call = in.mod.ExportedFunction("__guest_call")
	in.callStack = callStackOf(in.call)
}

// begin clears the slots for a call under ctx. It is dead until the call has
// ended well.
func (in *instance) begin(ctx context.Context, dst []byte, operation string, payload []byte) {
	in.dead = true
	in.ctx, in.operation, in.payload = ctx, operation, payload
	in.response, in.given = dst, len(dst)
	in.guestError, in.guestFailed = "", false
	in.hostResponse, in.hostError = nil, ""
	in.memory.denied = nil
	in.slice.began, in.stepsOfCall, in.deadline, in.worked = 0, 0, 0, 0
	in.breathed, in.hosted = 0, 0
	// Without a budget the counter is read in ticks only.
	if budget := in.actor.limits.Steps; budget > 0 && !in.starting && uint64(in.slice.left) > budget {
		in.slice.left = int32(budget)
		in.counter.Set(budget)
	}
}

// end lets go of what the call was given.
func (in *instance) end() {
	in.actor.host.fair.end(&in.runner)
	if in.host != nil {
		in.host.end()
		in.host = nil
	}
	in.stdout.end() // under the context of the call
	in.stderr.end()
	in.ctx, in.payload, in.response, in.hostResponse = nil, nil, nil, nil
}

// serve has the guest handle one operation. The response is appended to dst. It is
// followed by end.
func (in *instance) serve(ctx context.Context, dst []byte, operation string, payload []byte) ([]byte, error) {
	in.begin(ctx, dst, operation, payload)
	if in.runner.share.greedy.Load() && in.actor.host.fair.contended.Load() {
		in.actor.host.fair.begin(ctx, &in.runner, in.actor.limits.Time)
	}
	if in.short.sample {
		in.short.begin(in)
	}
	in.stack[0], in.stack[1] = uint64(len(operation)), uint64(len(payload))
	err := in.call.CallWithStack(&in.engine, in.stack[:])
	in.calls++
	if in.short.began != 0 {
		in.short.end(in)
	}
	if in.runner.asked {
		in.short.settled++
	}
	if in.actor.limits.Steps > 0 {
		in.ran(int32(in.counter.Get()))
	}
	if err != nil {
		in.left = ctx.Err() != nil
		err = in.failure(err)
		in.actor.meters.failed(ctx, err)
		return nil, err
	}
	in.dead = false
	if in.guestFailed || uint32(in.stack[0]) != 1 {
		in.guestErrors.Add(1)
		return nil, &GuestError{Actor: in.actor.identity, Operation: operation, Text: in.guestError}
	}
	return in.response, nil
}

// failure says why a guest was stopped, or why it could not begin.
func (in *instance) failure(err error) error {
	where := fmt.Sprintf("actor %s: %s", in.actor.identity, in.operation)
	var stop *stopError
	var fault *moduleFault
	switch {
	case errors.As(err, &stop) && errors.Is(stop.cause, ErrTimeLimit) && in.ctx.Err() == nil:
		return in.where(err, fmt.Errorf("%s: %w (%v)", where, ErrTimeLimit, in.timeLimit()))
	case errors.As(err, &stop) && stop.cause == ErrStepLimit:
		return in.where(err, fmt.Errorf("%s: %w (%d)", where, ErrStepLimit, in.actor.limits.Steps))
	case errors.As(err, &stop) && !stop.trap:
		return fmt.Errorf("%s: %w", where, stop.cause)
	case errors.As(err, &fault):
		return fault
	case in.mod == nil && errors.Is(err, ErrHostMemory):
		return fmt.Errorf("%s: %w", where, err)
	}
	trap := &TrapError{Actor: in.actor.identity, Operation: in.operation, Output: strings.ToValidUTF8(string(in.stderr.said()), "\uFFFD")}
	if in.guestError != "" { // AssemblyScript says so before it traps
		trap.Output = in.guestError + "\n" + trap.Output
	}
	trap.Reason, trap.Stack = splitTrap(err)
	if denied := in.memory.denied; denied != nil {
		trap.cause = denied
		trap.Reason = fmt.Sprintf("%v: %s", denied, trap.Reason)
	}
	return trap
}

// where adds to an error where the guest was when it was stopped.
func (in *instance) where(stopped, err error) error {
	_, stack := splitTrap(stopped)
	return &tracedError{err, stack}
}

// stackMark is what the engine writes before a guest's stack.
const stackMark = "\nwasm stack trace:\n"

// splitTrap takes the engine's words apart into the reason and the stack.
func splitTrap(err error) (reason, stack string) {
	reason, stack, _ = strings.Cut(err.Error(), stackMark)
	reason = strings.TrimSuffix(reason, " (recovered by wazero)")
	if _, after, ok := strings.Cut(reason, "wasm error: "); ok {
		reason = after
	}
	lines := strings.Split(stack, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(strings.TrimSpace(l), ".") // of a module without a name
	}
	return strings.Join(strings.Fields(reason), " "), strings.TrimSpace(strings.Join(lines, "\n"))
}

// callHost performs what the guest asks for, and ends the guest if its time has
// passed meanwhile.
func (in *instance) callHost(binding, namespace, operation string, payload []byte) ([]byte, error) {
	if in.starting {
		return nil, fmt.Errorf("%s: an actor cannot call while it starts", operation)
	}
	now := clock()
	in.stopIfOver(now)
	if in.host == nil {
		in.host = &hostContext{parent: in.ctx, in: in, deadline: time.Now().Add(time.Duration(in.deadline - now))}
	}
	fair := in.actor.host.fair
	fair.enterHost(&in.runner)
	response, err := in.actor.host.call(in.host, in.actor.identity, binding, namespace, operation, payload)
	fair.leaveHost(&in.runner)
	in.slice.began, in.worked = 0, 0
	after := clock()
	in.stopIfOver(after)
	// A guest that does nothing but ask comes here more often than to a tick.
	in.waited += max(after-now-int64(hostTime), 0)
	if in.hosted += min(after-now, int64(sliceTime)); in.hosted >= int64(sliceTime) {
		in.hosted = 0
		in.breathe(after)
	}
	return response, err
}

// sleep is the guest's, and ends with the call.
func (in *instance) sleep(d time.Duration) {
	now := clock()
	in.stopIfOver(now)
	fair := in.actor.host.fair
	fair.enterHost(&in.runner)
	defer fair.leaveHost(&in.runner)
	t := time.NewTimer(min(d, time.Duration(in.deadline-now)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-in.ctx.Done():
	}
	in.slice.began = 0
	after := clock()
	in.waited += after - now
	in.stopIfOver(after)
}

// outgrown says whether the instance makes room for a fresh one: a memory never
// shrinks, so one that has come close to the limit is given back before a call
// fails in it. One that starts there is used all the same. A call stack that a
// call has made large is given back alone.
func (in *instance) outgrown() bool {
	if in.stackBytes() > keptStackBytes {
		in.ready()
	}
	size := in.mod.Memory().Size()
	return size != in.startSize && uint64(size) > in.actor.limits.MemoryBytes/4*3
}

// usedUp says whether it has served as many calls as an instance may.
func (in *instance) usedUp() bool {
	most := in.actor.limits.CallsPerInstance
	return most > 0 && in.calls >= uint64(most)
}

// close frees what the instance holds. Nothing that wazero does here waits or
// looks at the context.
func (in *instance) close() {
	in.stdout.end()
	in.stderr.end()
	if in.mod != nil {
		if err := in.mod.Close(context.Background()); err != nil {
			in.actor.host.log.Warn("close instance", "actor", in.actor.identity, "err", err)
		}
	}
	in.tables.free()
	in.memory.Free()
}
