package runtime

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
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
	mod       api.Module
	call      api.Function // __guest_call; looking it up anew costs 5 µs
	memory    *guestMemory
	startSize uint32 // bytes of memory after the initialisers
	stdout    *lineWriter
	stderr    *lineWriter
	idleSince time.Time
	starting  bool // the initialisers are running
	dead      bool // may not be called again

	// The slots of the call in progress.
	ctx          context.Context // ends with the call's deadline
	operation    string
	payload      []byte
	response     []byte
	guestError   string
	guestFailed  bool // __guest_error was called
	hostResponse []byte
	hostError    string
	stack        [2]uint64

	_ [64]byte
}

// newInstance makes an instance of a's module and runs its initialisers.
func newInstance(ctx context.Context, a *Actor) (*instance, error) {
	in := &instance{
		actor:    a,
		memory:   &guestMemory{limit: a.limits.MemoryBytes},
		stdout:   &lineWriter{log: a.output, level: slog.LevelInfo, stream: "stdout"},
		stderr:   &lineWriter{log: a.output, level: slog.LevelWarn, stream: "stderr"},
		starting: true,
	}
	limited, cancel := context.WithTimeoutCause(ctx, startLimit, ErrTimeLimit)
	defer cancel()
	in.begin(limited, "start", nil)
	err := in.start(limited)
	if err != nil {
		err = in.failure(ctx, err)
		in.close()
		return nil, err
	}
	in.end()
	in.starting = false
	in.startSize = in.mod.Memory().Size()
	return in, nil
}

func (in *instance) start(limited context.Context) error {
	config := wazero.NewModuleConfig().WithName("").WithArgs("main.wasm").
		WithStdout(in.stdout).WithStderr(in.stderr).
		WithSysWalltime().WithSysNanotime().WithNanosleep(in.sleep).WithOsyield(goruntime.Gosched).
		WithRandSource(rand.Reader).
		WithStartFunctions() // ours to call: see below
	ctx := &callContext{limited, in}
	m := in.actor.module
	mod, err := m.runtime.InstantiateModule(experimental.WithMemoryAllocator(ctx, in.memory), m.compiled, config)
	if err != nil {
		if !strings.Contains(err.Error(), stackMark) {
			// Nothing has run: a segment out of bounds, an import that is no
			// function.
			return faultf("the module cannot be instantiated: %v", err)
		}
		return err
	}
	in.mod = mod
	for _, name := range m.initialisers {
		_, err := mod.ExportedFunction(name).Call(ctx)
		var exit *exitError
		if errors.As(err, &exit) && exit.code == 0 {
			continue // TinyGo leaves _start this way
		}
		if err != nil {
			return err
		}
	}
	in.call = mod.ExportedFunction("__guest_call")
	return nil
}

// begin clears the slots for a call under ctx.
func (in *instance) begin(ctx context.Context, operation string, payload []byte) {
	in.ctx, in.operation, in.payload = ctx, operation, payload
	in.response, in.guestError, in.guestFailed = nil, "", false
	in.hostResponse, in.hostError = nil, ""
	in.stdout.reset()
	in.stderr.reset()
}

// end lets go of what the call was given.
func (in *instance) end() {
	in.ctx, in.payload, in.response, in.hostResponse = nil, nil, nil, nil
	in.stdout.flush()
	in.stderr.flush()
}

// serve has the guest handle one operation. The response is the caller's.
func (in *instance) serve(ctx context.Context, operation string, payload []byte) ([]byte, error) {
	limited, cancel := context.WithTimeoutCause(ctx, in.actor.limits.Time, ErrTimeLimit)
	defer cancel()
	in.begin(limited, operation, payload)
	defer in.end()
	in.stack[0], in.stack[1] = uint64(len(operation)), uint64(len(payload))
	err := in.call.CallWithStack(&callContext{limited, in}, in.stack[:])
	// A deadline that fires as the call ends closes the module a moment after
	// the engine has reported success.
	in.dead = err != nil || limited.Err() != nil
	switch {
	case err != nil:
		return nil, in.failure(ctx, err)
	case in.guestFailed || uint32(in.stack[0]) != 1:
		return nil, &GuestError{Actor: in.actor.identity, Operation: operation, Text: in.guestError}
	}
	return in.response, nil
}

// failure says why the engine stopped the guest. outer is the caller's context.
func (in *instance) failure(outer context.Context, err error) error {
	where := fmt.Sprintf("actor %s: %s", in.actor.identity, in.operation)
	if outer.Err() != nil {
		return fmt.Errorf("%s: %w", where, context.Cause(outer))
	}
	if in.ctx.Err() != nil {
		limit := in.actor.limits.Time
		if in.starting {
			limit = startLimit
		}
		return fmt.Errorf("%s: %w (%v)", where, ErrTimeLimit, limit)
	}
	var fault *moduleFault
	if errors.As(err, &fault) {
		return fault
	}
	trap := &TrapError{Actor: in.actor.identity, Operation: in.operation, Output: strings.ToValidUTF8(string(in.stderr.tail), "\uFFFD")}
	trap.Reason, trap.Stack = splitTrap(err)
	if in.memory.denied {
		trap.cause = ErrMemory
		trap.Reason = fmt.Sprintf("%v (%d bytes): %s", ErrMemory, in.actor.limits.MemoryBytes, trap.Reason)
	}
	return trap
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
		lines[i] = strings.TrimSpace(l)
	}
	return strings.Join(strings.Fields(reason), " "), strings.TrimSpace(strings.Join(lines, "\n"))
}

// callHost performs what the guest asks for.
func (in *instance) callHost(binding, namespace, operation string, payload []byte) ([]byte, error) {
	if in.starting {
		return nil, fmt.Errorf("%s: an actor cannot call while it starts", operation)
	}
	return in.actor.host.call(in.ctx, in.actor.identity, binding, namespace, operation, payload)
}

// sleep is the guest's, and ends with the call's deadline.
func (in *instance) sleep(ns int64) {
	t := time.NewTimer(time.Duration(ns))
	defer t.Stop()
	select {
	case <-t.C:
	case <-in.ctx.Done():
	}
}

// reusable says whether the next call may have this instance. Memory only
// grows, so one that has come close to the limit makes room for a fresh one
// before a call fails in it; one that starts there is used all the same.
func (in *instance) reusable() bool {
	if in.dead {
		return false
	}
	size := in.mod.Memory().Size()
	return size == in.startSize || uint64(size) <= in.actor.limits.MemoryBytes/4*3
}

// close frees what the instance holds. Nothing that wazero does here waits or
// looks at the context.
func (in *instance) close() {
	in.stdout.flush()
	in.stderr.flush()
	if in.mod != nil {
		if err := in.mod.Close(context.Background()); err != nil {
			in.actor.host.log.Warn("close instance", "actor", in.actor.identity, "err", err)
		}
	}
	in.memory.Free()
}
