package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edged-io/edged/runtime"
)

func TestActor_CallAppend(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), echoModule(), runtime.Limits{})
	out, err := a.CallAppend(t.Context(), []byte("so: "), "Echo", []byte("x"))
	if err != nil || string(out) != "so: x" {
		t.Errorf("got %q, %v", out, err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err = a.CallAppend(t.Context(), []byte("kept"), "Echo", nil); err == nil || string(out) != "kept" {
		t.Errorf("got %q, %v", out, err)
	}
}

// A warm call allocates nothing, its limits in force; the interpreter needs three
// allocations of its own.
func TestActor_CallAppend_allocatesNothing(t *testing.T) {
	a := load(t, newHost(t, runtime.Options{}), echoModule(), runtime.Limits{Steps: 1 << 20})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	payload, buf := bytes.Repeat([]byte{1}, 128), make([]byte, 0, 128)
	most := 0.
	if runtime.Interpreted() {
		most = 3
	}
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := a.CallAppend(ctx, buf, "Echo", payload); err != nil {
			t.Error(err)
		}
	}); n >= most+1 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// An actor that calls itself holds an instance for each call. When there are no
// more, the next one is refused at once: nobody could ever end the wait.
func TestActor_Call_itself(t *testing.T) {
	const instances = 3
	var a *runtime.Actor
	depth := 0
	h := newHost(t, runtime.Options{Call: func(ctx context.Context, _, _, _, _ string, _ []byte) ([]byte, error) {
		depth++
		return a.Call(ctx, "Test.Call", []byte("l t o p"))
	}})
	a = load(t, h, guest(t), runtime.Limits{MaxInstances: instances})
	_, err := a.Call(t.Context(), "Test.Call", []byte("l t o p"))
	var guestErr *runtime.GuestError
	if !errors.As(err, &guestErr) || !strings.Contains(err.Error(), runtime.ErrDeadlock.Error()+": allow more than 3 ") || depth != instances {
		t.Errorf("depth %d: got %v", depth, err)
	}
	if s := a.Stats(); s.Refused != 1 || s.Waited != 1 || s.Timeouts != 0 || s.Started != instances {
		t.Errorf("stats %+v", s)
	}
	used := int64(a.Stats().MemoryBytes) / instances
	// Where there is memory for one only, that is what has to change.
	small := newHost(t, runtime.Options{MemoryBytes: uint64(used + used/2), Call: func(ctx context.Context, _, _, _, _ string, _ []byte) ([]byte, error) {
		return a.Call(ctx, "Test.Call", []byte("l t o p"))
	}})
	a = load(t, small, guest(t), runtime.Limits{MaxInstances: instances})
	if _, err = a.Call(t.Context(), "Test.Call", []byte("l t o p")); err == nil || !strings.Contains(err.Error(), runtime.ErrDeadlock.Error()+", and the host has no memory for one more") {
		t.Errorf("got %v", err)
	}
}

// Two actors that call each other, each with one instance: of two calls that
// would wait for one another for ever, one is refused and the other served.
func TestActor_Call_eachOther(t *testing.T) {
	actors := map[string]*runtime.Actor{}
	both := make(chan struct{})
	var met sync.WaitGroup
	met.Add(2)
	h := newHost(t, runtime.Options{Call: func(ctx context.Context, _, _, target, operation string, _ []byte) ([]byte, error) {
		if operation == "Meet" {
			met.Done()
			<-both
			return actors[target].Call(ctx, "Test.Echo", []byte("served"))
		}
		return nil, errors.New("who is that")
	}})
	for _, name := range []string{"a", "b"} {
		var err error
		if actors[name], err = h.Load(t.Context(), name, guest(t), runtime.Limits{MaxInstances: 1}); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		met.Wait()
		close(both)
	}()
	var wg sync.WaitGroup
	var mu sync.Mutex
	served, refused := 0, 0
	for from, to := range map[string]string{"a": "b", "b": "a"} {
		wg.Go(func() {
			out, err := actors[from].Call(t.Context(), "Test.Call", []byte("l "+to+" Meet p"))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && string(out) == "served":
				served++
			case err != nil && strings.Contains(err.Error(), runtime.ErrDeadlock.Error()):
				refused++
			default:
				t.Errorf("%s: got %q, %v", from, out, err)
			}
		})
	}
	wg.Wait()
	if served != 1 || refused != 1 {
		t.Errorf("%d served and %d refused, want one of each", served, refused)
	}
}

// A call from within another waits like any other as long as somebody can end
// the wait.
func TestActor_Call_nestedWaits(t *testing.T) {
	var inner *runtime.Actor
	hold, held := make(chan struct{}), make(chan struct{})
	h := newHost(t, runtime.Options{Call: func(ctx context.Context, _, _, _, operation string, _ []byte) ([]byte, error) {
		if operation == "Hold" {
			close(held)
			<-hold
			return nil, nil
		}
		return inner.Call(ctx, "Test.Echo", []byte("served"))
	}})
	inner = load(t, h, guest(t), runtime.Limits{MaxInstances: 1})
	outer := load(t, h, guest(t), runtime.Limits{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := inner.Call(t.Context(), "Test.Call", []byte("l t Hold p")); err != nil {
			t.Error(err)
		}
	})
	<-held
	wg.Go(func() {
		if out, err := outer.Call(t.Context(), "Test.Call", []byte("l t Inner p")); err != nil || string(out) != "served" {
			t.Errorf("got %q, %v", out, err)
		}
	})
	eventually(t, func() bool { return inner.Stats().Waited == 1 })
	close(hold)
	wg.Wait()
}

// With a budget for the host, idle instances make room for an actor that has none.
// One that has waits for it, when there is no memory for more.
func TestHost_memoryBudget(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	h := newHost(t, runtime.Options{MemoryBytes: 17 << 20, Call: func(context.Context, string, string, string, string, []byte) ([]byte, error) {
		arrived <- struct{}{}
		<-release
		return nil, nil
	}})
	a, b := load(t, h, guest(t), runtime.Limits{}), load(t, h, guest(t), runtime.Limits{}) // of 4 MiB each
	var wg sync.WaitGroup
	for range 2 { // and with b's they leave a quarter
		wg.Go(func() {
			if _, err := a.Call(t.Context(), "Test.Call", []byte("l t o p")); err != nil {
				t.Error(err)
			}
		})
		<-arrived
	}
	wg.Go(func() {
		if _, err := a.Call(t.Context(), "Test.Echo", nil); err != nil {
			t.Errorf("one that has to wait: %v", err)
		}
	})
	eventually(t, func() bool { return a.Stats().Waited == 1 })
	if s := b.Stats(); s.Discarded != 0 || s.Idle != 1 {
		t.Errorf("the last instance of another actor was given up: %+v", s)
	}
	c := load(t, h, guest(t), runtime.Limits{})
	if _, err := h.Load(t.Context(), "lab/fourth", guest(t), runtime.Limits{}); err != nil {
		t.Fatalf("with idle instances to give up: %v", err)
	}
	if sb, sc := b.Stats(), c.Stats(); sb.Discarded+sc.Discarded != 1 {
		t.Errorf("stats %+v, %+v", sb, sc)
	}
	close(release)
	wg.Wait()
	for _, actor := range []*runtime.Actor{b, c} {
		if _, err := actor.Call(t.Context(), "Test.Echo", nil); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// Where memory is short a call waits for the instance that there is, and does not
// begin in another one that could not grow as that one has, be it at its start or
// in a call.
func TestHost_memoryBudget_growth(t *testing.T) {
	growBy := func(pages int) []byte { // or die
		return slices.Concat(num(pages), grow, num(-1), []byte{0x46, 0x04, 0x40}, unreachable, []byte{0x0b})
	}
	const mostPages = 17
	for name, c := range map[string]struct{ start, call []byte }{
		"at its start": {growBy(mostPages - 1), nil},
		"in a call":    {nil, slices.Concat([]byte{0x3f, 0}, num(mostPages), []byte{0x48, 0x04, 0x40}, growBy(mostPages-1), []byte{0x0b})},
	} {
		arrived, release := make(chan struct{}, 2), make(chan struct{})
		h := newHost(t, runtime.Options{MemoryBytes: 2 << 20, Call: func(context.Context, string, string, string, string, []byte) ([]byte, error) {
			arrived <- struct{}{}
			<-release
			return nil, nil
		}})
		open := sync.OnceFunc(func() { close(release) })
		t.Cleanup(open)
		code := slices.Concat(c.call, bytes.Repeat(num(0), 8), call(3))
		a := load(t, h, callModule(code, func(a *assembler) { a.fn("wapc_init", 0, 0, c.start...) }), runtime.Limits{})
		var wg sync.WaitGroup
		serve := func() {
			if _, err := a.Call(t.Context(), "Op", nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		wg.Go(serve)
		<-arrived
		wg.Go(serve)
		eventually(t, func() bool { return a.Stats().Waited > 0 })
		open()
		wg.Wait()
		if s := a.Stats(); s.Started != 1 || s.Calls != 2 {
			t.Errorf("%s: stats %+v", name, s)
		}
	}
}

// Calls that trap, that are cancelled while they wait or run, instances that are
// swept, given up and replaced, all at once: nobody waits for ever, no instance
// is lost or served twice.
func TestActor_Call_everythingAtOnce(t *testing.T) {
	h := newHost(t, runtime.Options{IdleInstance: time.Millisecond, MemoryBytes: 6 * 2 << 16, Call: func(context.Context, string, string, string, string, []byte) ([]byte, error) {
		return nil, nil
	}})
	// Traps if its payload has 13 bytes, loops for ever if it has 14, and else
	// answers with it.
	code := slices.Concat(
		arg(1), num(13), []byte{0x46, 0x04, 0x40}, unreachable, []byte{0x0b},
		arg(1), num(14), []byte{0x46, 0x04, 0x40}, endless, []byte{0x0b},
		num(16), num(4096), call(0), num(4096), arg(1), call(1), num(1))
	more := func(a *assembler) { a.mem(2) }
	actors := []*runtime.Actor{
		load(t, h, callModule(code, more), runtime.Limits{MaxInstances: 3, Time: 5 * time.Second}),
		load(t, h, callModule(code, more), runtime.Limits{MaxInstances: 3, MinInstances: 2, CallsPerInstance: 5}),
	}
	var wg sync.WaitGroup
	var served atomic.Uint64
	for i := range 12 {
		a := actors[i%2]
		wg.Go(func() {
			for j := range 150 {
				ctx, cancel := context.WithCancel(t.Context())
				n := (i*31 + j) % 40
				if n == 14 || j%7 == 0 {
					time.AfterFunc(time.Duration(j%5)*time.Millisecond, cancel)
				}
				payload := bytes.Repeat([]byte{byte(i)}, n)
				out, err := a.Call(ctx, "Op", payload)
				var trap *runtime.TrapError
				switch {
				case err == nil && bytes.Equal(out, payload):
					served.Add(1)
				case errors.Is(err, context.Canceled), errors.Is(err, runtime.ErrHostMemory), errors.As(err, &trap) && n == 13:
				default:
					t.Errorf("%d bytes: got %x, %v", n, out, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	for _, a := range actors {
		eventually(t, func() bool {
			s := a.Stats()
			return s.Busy == 0 && s.Started-s.Discarded == uint64(s.Idle) && s.MemoryBytes == uint64(s.Idle)*2<<16
		})
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if s := a.Stats(); s.Started != s.Discarded || s.Idle != 0 || s.MemoryBytes != 0 {
			t.Errorf("closed: stats %+v", s)
		}
	}
	if served.Load() == 0 {
		t.Error("nothing was served")
	}
}
