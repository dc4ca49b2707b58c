package runtime_test

import (
	"context"
	"errors"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/runtime"
)

// rounds is a module that runs a loop as often as its payload has bytes, times
// 1000, and answers with nothing.
func roundsModule() []byte {
	// local.get 1, 1000, i32.mul, local.set 1; block loop local.get 1 i32.eqz
	// br_if 1, local.get 1 1 i32.sub local.set 1, br 0 end end
	loop := slices.Concat(arg(1), num(1000), []byte{0x6c, 0x21, 1, 0x02, 0x40, 0x03, 0x40}, arg(1), []byte{0x45, 0x0d, 1},
		arg(1), num(1), []byte{0x6b, 0x21, 1, 0x0c, 0, 0x0b, 0x0b}, num(1))
	return callModule(loop, nil)
}

func TestActor_Call_stepLimit(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), roundsModule(), runtime.Limits{Steps: 50_000})
	before := a.Stats().Steps
	if _, err := a.Call(t.Context(), "Op", make([]byte, 40)); err != nil {
		t.Errorf("40,000 rounds: %v", err)
	}
	ran := a.Stats().Steps - before
	if ran < 40_000 || ran > 40_100 {
		t.Errorf("40,000 rounds: %d steps", ran)
	}
	for range 3 { // what one call has left is not the next one's
		if _, err := a.Call(t.Context(), "Op", make([]byte, 49)); err != nil {
			t.Errorf("49,000 rounds: %v", err)
		}
	}
	_, err := a.Call(t.Context(), "Op", make([]byte, 60))
	if !errors.Is(err, runtime.ErrStepLimit) || !strings.Contains(err.Error(), "step limit exceeded (50000)") {
		t.Errorf("60,000 rounds: got %v, want ErrStepLimit", err)
	}
	if s := a.Stats(); s.StepLimit != 1 || s.Traps != 0 || s.Timeouts != 0 || s.Discarded != 1 {
		t.Errorf("stats %+v", s)
	}
	if _, err := a.Call(t.Context(), "Op", make([]byte, 40)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Callers that leave cost an instance each, for which the next caller does not
// wait: with a trap each it would, after the first 20.
func TestActor_Call_callersThatLeave(t *testing.T) {
	// Loops for ever if there is a payload.
	loop := slices.Concat(arg(1), []byte{0x04, 0x40}, endless, []byte{0x0b}, num(1))
	a := load(t, newHost(t, runtime.Options{}), callModule(loop, nil), runtime.Limits{Time: time.Minute, MaxInstances: 40})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if _, err := a.Call(ctx, "Op", []byte("x")); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
	}
	eventually(t, func() bool { return a.Stats().Busy == 40 })
	cancel()
	wg.Wait()
	if _, err := a.Call(t.Context(), "Op", nil); err != nil {
		t.Error(err)
	}
	if s := a.Stats(); s.Restarts != 0 || s.Cancelled != 40 || s.Discarded != 40 {
		t.Errorf("stats %+v", s)
	}
}

// A guest that loops without a host call is stopped when its caller leaves.
func TestActor_Call_cancelledInALoop(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), callModule(append(endless, num(1)...), nil), runtime.Limits{Time: time.Minute})
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("the caller left")
	time.AfterFunc(10*time.Millisecond, func() { cancel(left) })
	_, err := a.Call(ctx, "Op", nil)
	if !errors.Is(err, left) {
		t.Errorf("got %v, want the cause", err)
	}
	if s := a.Stats(); s.Cancelled != 1 || s.Timeouts != 0 || s.Discarded != 1 {
		t.Errorf("stats %+v", s)
	}
}

// The caller's own deadline is not taken for the actor's limit.
func TestActor_Call_callersDeadline(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), callModule(append(endless, num(1)...), nil), runtime.Limits{Time: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := a.Call(ctx, "Op", nil); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, runtime.ErrTimeLimit) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
}

// What a guest asks of the host is under a context with its deadline, which
// ends with the call.
func TestActor_Call_contextOfAHostCall(t *testing.T) {
	var kept context.Context
	h := newHost(t, runtime.Options{Call: func(ctx context.Context, _, _, _, operation string, _ []byte) ([]byte, error) {
		kept = ctx
		deadline, ok := ctx.Deadline()
		if left := time.Until(deadline); !ok || left > 300*time.Millisecond {
			t.Errorf("%v left, want at most 300ms", left)
		}
		if operation == "Wait" {
			<-ctx.Done()
			if ctx.Err() == nil || !errors.Is(context.Cause(ctx), runtime.ErrTimeLimit) {
				t.Errorf("got %v, cause %v", ctx.Err(), context.Cause(ctx))
			}
		} else if ctx.Err() != nil {
			t.Errorf("%s: %v", operation, ctx.Err())
		}
		return nil, nil
	}})
	a := load(t, h, guest(t), runtime.Limits{Time: 300 * time.Millisecond})
	if _, err := a.Call(t.Context(), "Test.Call", []byte("l t Return p")); err != nil && !errors.Is(err, runtime.ErrTimeLimit) {
		t.Error(err)
	}
	if kept.Err() == nil {
		t.Error("the context of a host call lives on after the call")
	}
	child, cancel := context.WithCancel(kept)
	defer cancel()
	<-child.Done()
	if _, err := a.Call(t.Context(), "Test.Call", []byte("l t Wait p")); !errors.Is(err, runtime.ErrTimeLimit) {
		t.Errorf("got %v, want ErrTimeLimit", err)
	}
}

// Recursion is stopped while its stack is small, however large its frames are.
func TestActor_Call_recursionIsBounded(t *testing.T) {
	direct := slices.Concat(arg(0), arg(1), call(4))
	const locals = 4000
	wide := slices.Clone(direct) // all locals live across the call
	for i := range locals {
		// Above the call: its first parameter and i, each in a local; below: their sum.
		wide = slices.Concat(arg(0), []byte{0xad, 0x42, byte(i & 0x3f), 0x7c, 0x21}, uleb(2+i), wide, []byte{0xad, 0x20}, uleb(2+i), []byte{0x7c, 0xa7})
	}
	for name, c := range map[string]struct {
		code   []byte
		locals int
	}{
		"direct":      {direct, 0},
		"with a loop": {slices.Concat([]byte{0x03, 0x40, 0x0b}, direct), 0},
		"many locals": {direct, 40_000},
		"wide frames": {wide, locals},
	} {
		a := load(t, newHost(t, runtime.Options{CacheDir: none}), callModule(c.code, func(a *assembler) { a.locals = c.locals }), runtime.Limits{})
		var before, after goruntime.MemStats
		goruntime.ReadMemStats(&before)
		_, err := a.Call(t.Context(), "Op", nil)
		goruntime.ReadMemStats(&after)
		var trap *runtime.TrapError
		if !errors.As(err, &trap) || trap.Reason != "stack overflow" {
			t.Errorf("%s: got %v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 24<<20 {
			t.Errorf("%s: took %d bytes", name, took)
		}
		if s := a.Stats(); s.Traps != 1 || s.Discarded != 1 {
			t.Errorf("%s: stats %+v", name, s)
		}
	}
}

// A call that went deep and came back leaves no large call stack behind. That one
// is seen at all shows that the engine has it where it is looked for.
func TestActor_Call_deepButWell(t *testing.T) {
	// f(n) = n == 0 ? 1 : f(n-1), from the payload's length on.
	code := slices.Concat(arg(1), []byte{0x45, 0x04, 0x7f}, num(1), []byte{0x05}, arg(0), arg(1), num(1), []byte{0x6b}, call(4), []byte{0x0b})
	a := load(t, newHost(t, runtime.Options{}), callModule(code, nil), runtime.Limits{})
	least := runtime.CallStackBytes(a)
	depth := 10_000
	if runtime.Interpreted() {
		depth = 1900
	}
	for _, n := range []int{100, depth} {
		if _, err := a.Call(t.Context(), "Op", make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if now := runtime.CallStackBytes(a); now == 0 && !runtime.Interpreted() || now > 64<<10 {
			t.Errorf("%d bytes of calls after one %d deep, %d before", now, n, least)
		}
	}
	if s := a.Stats(); s.Started != 1 {
		t.Errorf("stats %+v", s)
	}
}
