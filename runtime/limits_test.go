package runtime_test

import (
	"context"
	"errors"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/runtime"
)

func TestActor_Call_trap(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), guest(t), runtime.Limits{})
	for _, c := range []struct{ operation, reason, stack, output string }{
		{"Test.Panic", "unreachable", "main.init", "panic: on fire"},
		{"Test.Exit", "the guest exited with code 3", "os.Exit", ""},
	} {
		_, err := a.Call(t.Context(), c.operation, []byte("on fire"))
		var trap *runtime.TrapError
		if !errors.As(err, &trap) {
			t.Errorf("%s: got %v", c.operation, err)
			continue
		}
		if trap.Reason != c.reason || !strings.Contains(trap.Stack, c.stack) || !strings.Contains(trap.Output, c.output) || !strings.Contains(trap.Trace(), c.stack) {
			t.Errorf("%s: got reason %q, stack %q, output %q", c.operation, trap.Reason, trap.Stack, trap.Output)
		}
		if errors.Is(err, runtime.ErrMemory) || errors.Is(err, runtime.ErrTimeLimit) {
			t.Errorf("%s: taken for another error: %v", c.operation, err)
		}
	}
	if s := a.Stats(); s.Traps != 2 || s.Discarded != 2 {
		t.Errorf("stats %+v", s)
	}
	a = load(t, newHost(t, runtime.Options{}), callModule(unreachable, nil), runtime.Limits{})
	_, err := a.Call(t.Context(), "Op", nil)
	if want := "actor lab/guest: Op: trap: unreachable"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Functions without a name are told by their number in the original module, as
// other tools show it, and not in the one that was made of it.
func TestActor_Call_trapOfNamelessFunctions(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), callModule(slices.Concat(num(0), call(4)), func(a *assembler) {
		a.fn("", 1, 1, slices.Concat(arg(0), call(5))...)
		a.fn("", 1, 1, unreachable...)
	}), runtime.Limits{})
	_, err := a.Call(t.Context(), "Op", nil)
	var trap *runtime.TrapError
	if want := "$5(i32) i32\n$4(i32) i32\n$6(i32,i32) i32"; !errors.As(err, &trap) || trap.Stack != want {
		t.Errorf("got %v, %q, want %q", err, trap.Stack, want)
	}
}

func TestActor_Call_pointersOutOfBounds(t *testing.T) {
	h := newHost(t, runtime.Options{Call: func(context.Context, string, string, string, string, []byte) ([]byte, error) { return nil, nil }})
	eight := func(ptr, n int) []byte {
		var code []byte
		for range 3 {
			code = append(code, append(num(0), num(0)...)...)
		}
		return append(append(append(code, num(ptr)...), num(n)...), call(3)...)
	}
	for name, code := range map[string][]byte{
		"request":            append(append(append(num(70000), num(0)...), call(0)...), num(1)...),
		"response":           append(append(append(num(65000), num(1000)...), call(1)...), num(1)...),
		"response wraps":     append(append(append(num(-1), num(-1)...), call(1)...), num(1)...),
		"error":              append(append(append(num(0), num(65537)...), call(2)...), num(1)...),
		"host call":          eight(65536, 1),
		"host call by a lot": eight(-8, 16),
	} {
		a := load(t, h, callModule(code, nil), runtime.Limits{})
		_, err := a.Call(t.Context(), "Operation", []byte("payload"))
		var trap *runtime.TrapError
		if !errors.As(err, &trap) || !strings.Contains(trap.Reason, "outside of the guest's 65536 bytes of memory") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestActor_Call_timeLimit(t *testing.T) {
	h := newHost(t, runtime.Options{Call: func(ctx context.Context, _, _, _, _ string, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	a := load(t, h, guest(t), runtime.Limits{Time: 50 * time.Millisecond})
	for operation, payload := range map[string]string{"Test.Loop": "", "Test.Sleep": "1h", "Test.Call": "a b c d", "Test.CallTwice": "a b c d"} {
		_, err := a.Call(t.Context(), operation, []byte(payload))
		if !errors.Is(err, runtime.ErrTimeLimit) {
			t.Errorf("%s: got %v, want ErrTimeLimit", operation, err)
		}
	}
	if s := a.Stats(); s.Timeouts != 4 || s.Discarded != 4 || s.Started != 4 {
		t.Errorf("stats %+v", s)
	}
	if _, err := a.Call(t.Context(), "Test.Echo", nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestActor_Call_callersContextEnds(t *testing.T) {
	started := make(chan struct{})
	h := newHost(t, runtime.Options{Call: func(ctx context.Context, _, _, _, _ string, _ []byte) ([]byte, error) {
		close(started)
		<-ctx.Done()
		return nil, nil
	}})
	a := load(t, h, guest(t), runtime.Limits{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	_, err := a.Call(ctx, "Test.Call", []byte("a b c d"))
	if !errors.Is(err, context.Canceled) || errors.Is(err, runtime.ErrTimeLimit) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if s := a.Stats(); s.Cancelled != 1 || s.Timeouts != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestActor_Call_memoryLimit(t *testing.T) {
	const limit = 8 << 20
	a := load(t, newHost(t, runtime.Options{}), guest(t), runtime.Limits{MemoryBytes: limit})
	_, err := a.Call(t.Context(), "Test.Grow", []byte("67108864"))
	var trap *runtime.TrapError
	if !errors.As(err, &trap) || !errors.Is(err, runtime.ErrMemory) || !strings.Contains(err.Error(), "8388608 bytes") {
		t.Errorf("got %v, want ErrMemory", err)
	}
	if _, err := a.Call(t.Context(), "Test.Echo", nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// The guest that takes a refusal well goes on.
	b := load(t, newHost(t, runtime.Options{}), callModule(append(append(append(num(1000), grow...), drop...), num(1)...), nil), runtime.Limits{MemoryBytes: limit})
	if _, err := b.Call(t.Context(), "Op", nil); err != nil {
		t.Errorf("refusal taken well: %v", err)
	}
}

// A growth that was refused in one call is not why a later one traps.
func TestActor_Call_refusalIsForgotten(t *testing.T) {
	code := slices.Concat(arg(1), []byte{0x04, 0x40}, unreachable, []byte{0x0b}, num(1000), grow, drop, num(1))
	a := load(t, newHost(t, runtime.Options{}), callModule(code, nil), runtime.Limits{MemoryBytes: 1 << 20})
	if _, err := a.Call(t.Context(), "Op", nil); err != nil {
		t.Errorf("the refusal: %v", err)
	}
	if _, err := a.Call(t.Context(), "Op", []byte("x")); err == nil || errors.Is(err, runtime.ErrMemory) {
		t.Errorf("the trap: got %v", err)
	}
}

func TestActor_Call_grownInstanceIsReplaced(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), guest(t), runtime.Limits{MemoryBytes: 16 << 20})
	for range 20 {
		if _, err := a.Call(t.Context(), "Test.Grow", []byte("3000000")); err != nil {
			t.Fatal(err)
		}
	}
	if s := a.Stats(); s.Discarded == 0 || s.Traps != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A table grows to its limit and not beyond, whatever the module declares.
func TestActor_Call_tableLimit(t *testing.T) {
	h := newHost(t, runtime.Options{})
	// table.grow 0 by n with null; answers 1 if it was refused.
	code := func(n int) []byte {
		return slices.Concat([]byte{0xd0, 0x70}, num(n), []byte{0xfc, 0x0f, 0}, num(-1), []byte{0x46})
	}
	for name, tables := range map[string][]byte{"no maximum": {1, 0x70, 0, 4}, "a large one": {1, 0x70, 1, 4, 0x80, 0x80, 0x80, 0x20}} {
		for n, refused := range map[int]bool{1: false, 100_000: false, 1 << 17: true, 100_000_000: true} {
			a := load(t, h, callModule(code(n), func(a *assembler) { a.tables = tables }), runtime.Limits{})
			if _, err := a.Call(t.Context(), "Op", nil); (err == nil) != refused {
				t.Errorf("%s, by %d: refused %v, want %v (%v)", name, n, err == nil, refused, err)
			}
		}
	}
}

// What tables grow to is not on the Go heap: an actor that grows them in each new
// instance leaves nothing to collect.
func TestActor_Call_tableOffTheHeap(t *testing.T) {
	const far, calls = 100_000, 10
	code := slices.Concat([]byte{0xd2, 4}, num(far), []byte{0xfc, 0x0f, 0}, drop, // table.grow 0 with function 4
		arg(0), arg(1), num(far), []byte{0x11, 0, 0}) // call_indirect of the last entry
	a := load(t, newHost(t, runtime.Options{}), callModule(code, func(a *assembler) {
		if a.fn("", 2, 1, num(1)...) != 4 || a.funcs[0].typ != a.typ(2, 1) {
			t.Fatal("other indices")
		}
		code[len(code)-2] = byte(a.typ(2, 1))
		a.tables = []byte{1, 0x70, 0, 1}
		a.raw = append(a.raw, []byte{9, 7, 1, 0, 0x41, 0, 0x0b, 1, 4})
	}), runtime.Limits{CallsPerInstance: 1})
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	for range calls {
		if _, err := a.Call(t.Context(), "Op", nil); err != nil {
			t.Fatal(err)
		}
	}
	goruntime.ReadMemStats(&after)
	// Raced, the engine makes what it appends to a table first.
	if each := (after.TotalAlloc - before.TotalAlloc) / calls; each > far*4 && !raceEnabled {
		t.Errorf("%d bytes of the Go heap for a table of %d entries", each, far)
	}
}

// Endless recursion ends by the engine's limit of its stack, with a trap.
func TestActor_Call_endlessRecursion(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), callModule(slices.Concat(arg(0), arg(1), call(4)), nil), runtime.Limits{})
	_, err := a.Call(t.Context(), "Op", nil)
	var trap *runtime.TrapError
	if !errors.As(err, &trap) || trap.Reason != "stack overflow" {
		t.Errorf("got %v", err)
	}
}
