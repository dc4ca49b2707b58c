package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/runtime"
)

func TestActor_Call_concurrently(t *testing.T) {
	const instances, callers, each = 4, 16, 20
	var mu sync.Mutex
	inside, most := 0, 0
	h := newHost(t, runtime.Options{Call: func(_ context.Context, _, _, _, _ string, payload []byte) ([]byte, error) {
		mu.Lock()
		inside++
		most = max(most, inside)
		mu.Unlock()
		defer func() {
			mu.Lock()
			inside--
			mu.Unlock()
		}()
		return payload, nil
	}})
	a := load(t, h, guest(t), runtime.Limits{MaxInstances: instances})
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for j := range each {
				if i == 0 && j%5 == 0 {
					if _, err := a.Call(t.Context(), "Test.Panic", nil); err == nil {
						t.Error("no trap")
					}
				}
				payload := fmt.Sprintf("%d/%d", i, j)
				out, err := a.Call(t.Context(), "Test.Call", []byte("l t o "+payload))
				if err != nil || string(out) != payload {
					t.Errorf("got %q, %v, want %q", out, err, payload)
				}
			}
		})
	}
	wg.Wait()
	s := a.Stats()
	if s.Calls != callers*each+each/5 || s.Busy != 0 || s.Started-s.Discarded != uint64(s.Idle) || s.Idle > instances || most > instances {
		t.Errorf("stats %+v, %d at once", s, most)
	}
}

func TestActor_Call_waitsForAnInstance(t *testing.T) {
	release := make(chan struct{})
	h := newHost(t, runtime.Options{Call: func(ctx context.Context, _, _, _, _ string, _ []byte) ([]byte, error) {
		<-release
		return nil, nil
	}})
	a := load(t, h, guest(t), runtime.Limits{MaxInstances: 1})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := a.Call(t.Context(), "Test.Call", []byte("l t o p")); err != nil {
			t.Errorf("first: %v", err)
		}
	})
	eventually(t, func() bool { return a.Stats().Busy == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := a.Call(ctx, "Test.Echo", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second: got %v, want DeadlineExceeded", err)
	}
	wg.Go(func() {
		if _, err := a.Call(t.Context(), "Test.Echo", nil); err != nil {
			t.Errorf("third: %v", err)
		}
	})
	close(release)
	wg.Wait()
}

func TestActor_idleInstancesAreReleased(t *testing.T) {
	arrived := make(chan struct{})
	h := newHost(t, runtime.Options{IdleInstance: time.Millisecond, Call: func(context.Context, string, string, string, string, []byte) ([]byte, error) {
		arrived <- struct{}{}
		return nil, nil
	}})
	a := load(t, h, guest(t), runtime.Limits{MaxInstances: 3})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := a.Call(t.Context(), "Test.Call", []byte("l t o p")); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, func() bool { return a.Stats().Started == 3 })
	for range 3 {
		<-arrived
	}
	wg.Wait()
	eventually(t, func() bool { s := a.Stats(); return s.Idle == 1 && s.Discarded == 2 })
}

func TestActor_Close_waitsForCalls(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{})
	h := newHost(t, runtime.Options{Call: func(context.Context, string, string, string, string, []byte) ([]byte, error) {
		close(started)
		<-release
		return []byte("done"), nil
	}})
	a := load(t, h, guest(t), runtime.Limits{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if out, err := a.Call(t.Context(), "Test.Call", []byte("l t o p")); err != nil || string(out) != "done" {
			t.Errorf("call in progress: got %q, %v", out, err)
		}
	})
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close with a call in progress: got %v", err)
	}
	if _, err := a.Call(t.Context(), "Test.Echo", nil); !errors.Is(err, runtime.ErrClosed) {
		t.Errorf("call while closing: got %v, want ErrClosed", err)
	}
	close(release)
	for range 2 {
		if err := a.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	wg.Wait()
	if s := a.Stats(); s.Started != s.Discarded || s.Idle != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestActor_Healthy(t *testing.T) {
	h := newHost(t, runtime.Options{})
	say := func(answer string) []byte { // answers by writing four bytes at a time
		var code []byte
		for i := 0; i < len(answer); i++ {
			code = append(code, append(append(num(i), num(int(answer[i]))...), 0x3a, 0, 0)...)
		}
		return append(append(append(append(code, num(0)...), num(len(answer))...), call(1)...), num(1)...)
	}
	complain := func(text string) []byte {
		var code []byte
		for i := 0; i < len(text); i++ {
			code = append(code, append(append(num(i), num(int(text[i]))...), 0x3a, 0, 0)...)
		}
		return append(append(append(append(code, num(0)...), num(len(text))...), call(2)...), num(0)...)
	}
	asked := func(health, other []byte) []byte { // by the length of the operation
		code := append([]byte{0x20, 0}, num(len("Actor.HealthRequest"))...)
		code = append(append(code, 0x46, 0x04, 0x7f), health...)
		return append(append(append(code, 0x05), other...), 0x0b)
	}
	for _, c := range []struct {
		name string
		wasm []byte
		want error
	}{
		{"the SDK's answer", guest(t), nil},
		{"healthy", callModule(say("\x81\xa7healthy\xc3"), nil), nil},
		{"no bytes", callModule(num(1), nil), nil},
		{"something else", callModule(say("pong"), nil), nil},
		{"0 without a word", callModule(num(0), nil), nil},
		{"not handled", callModule(complain("Guest call failed for method Actor.HealthRequest: method not handled Actor.HealthRequest - unknown method"), nil), nil},
		{"not healthy", callModule(say("\x82\xa7healthy\xc2\xa7message\xa4sick"), nil), runtime.ErrUnhealthy},
		{"an error", callModule(asked(complain("sick"), complain("what?")), nil), runtime.ErrUnhealthy},
		{"an error, and else an answer", callModule(asked(complain("sick"), say("pong")), nil), runtime.ErrUnhealthy},
		{"the same error for whatever it is asked", callModule(complain("missing field method"), nil), nil},
		{"words of its own, with the name", callModule(asked(complain("HealthRequest: what?"), complain("NoSuchOperation: what?")), nil), nil},
		{"endless", callModule(append(endless, num(1)...), nil), runtime.ErrTimeLimit},
	} {
		a := load(t, h, c.wasm, runtime.Limits{Time: 200 * time.Millisecond})
		if err := a.Healthy(t.Context()); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	a := load(t, h, callModule(unreachable, nil), runtime.Limits{})
	var trap *runtime.TrapError
	if err := a.Healthy(t.Context()); !errors.As(err, &trap) {
		t.Errorf("trap: got %v", err)
	}
}

func TestActor_outputGoesToTheLog(t *testing.T) {
	var j journal
	a := load(t, newHost(t, runtime.Options{Logger: j.logger()}), guest(t), runtime.Limits{})
	if _, err := a.Call(t.Context(), "Test.Print", []byte("one\ntwo\nno end")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"text=one", "text=two", `text="no end"`, "actor=lab/guest", "stream=stdout"} {
		if !strings.Contains(j.String(), want) {
			t.Errorf("no %s in %s", want, j.String())
		}
	}
	var lines []string
	a = load(t, newHost(t, runtime.Options{Output: func(ctx context.Context, actor string, level slog.Level, stream string, text []byte) {
		if ctx == nil {
			t.Errorf("%s has no context", text)
		}
		lines = append(lines, actor+" "+level.String()+" "+stream+" "+string(text))
	}}), guest(t), runtime.Limits{})
	if _, err := a.Call(t.Context(), "Test.Print", append(bytes.Repeat([]byte("line\n"), 4999), "line"...)); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 5000 || lines[4999] != "lab/guest INFO stdout line" {
		t.Errorf("%d lines, the first is %q", len(lines), lines[0])
	}
}

// Closing while calls come in: each is served or refused, none is lost.
func TestActor_Close_underLoad(t *testing.T) {
	for range 5 {
		h := newHost(t, runtime.Options{})
		a := load(t, h, echoModule(), runtime.Limits{MaxInstances: 3})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					out, err := a.Call(t.Context(), "Echo", []byte("x"))
					if errors.Is(err, runtime.ErrClosed) {
						return
					}
					if err != nil || string(out) != "x" {
						t.Errorf("got %q, %v", out, err)
						return
					}
				}
			})
		}
		eventually(t, func() bool { return a.Stats().Calls > 100 })
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if s := a.Stats(); s.Started != s.Discarded || s.Idle != 0 {
			t.Errorf("stats %+v", s)
		}
	}
}
