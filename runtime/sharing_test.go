package runtime_test

import (
	"context"
	"fmt"
	goruntime "runtime"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/runtime"
)

// sharingTests is where sharing has to work: with a processor to spare, as in a
// box, and without; compiled and interpreted.
func sharingTests(t *testing.T, test func(t *testing.T)) {
	for _, processors := range []int{1, 2} {
		for _, interpret := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d processors, interpreted %v", processors, interpret), func(t *testing.T) {
				defer goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(processors))
				if interpret {
					defer runtime.Interpret()()
				}
				test(t)
			})
		}
	}
}

// An actor with many callers gets no more of a core than one with a single long
// call, however short its calls are, and a third one, which wants little, gets
// that.
func TestHost_Call_sharesCores(t *testing.T) {
	for _, lot := range []struct {
		name         string
		rounds, slow int // thousands in a call; interpreted
	}{{"shorter than a slice", 10, 1}, {"longer than a slice", 1000, 20}} {
		t.Run(lot.name, func(t *testing.T) {
			sharingTests(t, func(t *testing.T) {
				rounds := lot.rounds
				if runtime.Interpreted() {
					rounds = lot.slow
				}
				h := newHost(t, runtime.Options{Cores: 1})
				limits := runtime.Limits{Time: time.Hour, MaxInstances: 8}
				many, long := load(t, h, roundsModule(), limits), load(t, h, roundsModule(), limits)
				quick := load(t, h, echoModule(), runtime.Limits{Time: time.Hour})
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				defer wg.Wait()
				defer cancel()
				callers := func(n int, a *runtime.Actor, payload int) {
					for range n {
						wg.Go(func() {
							for ctx.Err() == nil {
								if _, err := a.Call(ctx, "Op", make([]byte, payload)); err != nil && ctx.Err() == nil {
									t.Error(err)
									return
								}
								goruntime.Gosched()
							}
						})
					}
				}
				callers(8, many, rounds)
				callers(1, long, 60_000)
				for range 20 {
					if _, err := quick.Call(ctx, "Echo", []byte("x")); err != nil {
						t.Fatal(err)
					}
				}
				// What actors have had is known after a while, and counts for a while.
				const while = 200 * time.Millisecond
				began, many0, long0 := time.Now(), many.Stats().Steps, long.Stats().Steps
				eventually(t, func() bool {
					if time.Since(began) < while {
						return false
					}
					m, l := many.Stats().Steps-many0, long.Stats().Steps-long0
					began, many0, long0 = time.Now(), many0+m, long0+l
					t.Logf("in %v many calls have run %d steps and one call %d, of which each should be half", while, m, l)
					return min(m, l) > (m+l)/3
				})
			})
		})
	}
}

// An actor that is gone is not kept in memory for what it has had.
func TestActor_Close_isForgotten(t *testing.T) {
	h := newHost(t, runtime.Options{})
	a := load(t, h, echoModule(), runtime.Limits{})
	runtime.Charge(a, time.Second)
	if n := runtime.Greedy(h); n != 1 {
		t.Fatalf("%d are greedy, want 1", n)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := runtime.Greedy(h); n != 0 {
		t.Errorf("%d are greedy, want none", n)
	}
}
