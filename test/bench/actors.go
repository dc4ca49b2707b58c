package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/wapc/wapc-go"

	"github.com/edged-io/edged/runtime"
)

// Columns of the table actors.
const (
	callTime   = "ns/call"
	callAllocs = "allocs"
	rateOne    = "calls/s, 1"
	rateTwo    = "calls/s, 2"
)

// actorTable compares warm calls of the same guest, which answers with what it is sent.
func actorTable(ctx context.Context, s settings) (t *table, err error) {
	t = &table{Name: "actors", Columns: []string{callTime, callAllocs, rateOne, rateTwo},
		Title: fmt.Sprintf("A warm call of an actor, %d bytes in and out, from one goroutine and from two", s.size)}
	host, err := openRuntime(filepath.Join(s.dir, "actors-cache"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, host.Close(ctx)) }()
	actor, err := host.Load(ctx, "bench/echo", echoModule(), runtime.Limits{})
	if err != nil {
		return nil, err
	}
	far, cancel := context.WithTimeout(ctx, 24*time.Hour)
	defer cancel()

	bare, err := newBareHost(ctx, echoModule(), false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bare.rt.Close(ctx)) }()
	metered, err := newBareHost(ctx, echoModule(), true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, metered.rt.Close(ctx)) }()
	wm, err := newWapc(ctx, echoModule())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, wm.Close(ctx)) }()
	lossy, err := wapc.NewPool(ctx, wm, 4)
	if err != nil {
		return nil, err
	}
	pool, err := wapc.NewPool(ctx, wm, 4)
	if err != nil {
		return nil, err
	}
	ext, err := newExtism(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ext.Close(ctx)) }()

	var cases []testCase
	for _, c := range []struct {
		name string
		make caller
	}{
		{"edged", actorCaller(ctx, actor)},
		{"edged, under a context with a deadline", actorCaller(far, actor)},
		{"edged, a new context with a deadline each", deadlineCaller(ctx, actor)},
		{"bare host, metered, with deadlines", func() (echo, error) { return metered.caller(ctx) }},
		{"bare host", func() (echo, error) { return bare.caller(ctx) }},
		{"wapc-go instance", wapcCaller(ctx, wm)},
		{"wapc-go pool", wapcPoolCaller(ctx, lossy, false)},
		{"wapc-go pool, insisting", wapcPoolCaller(ctx, pool, true)},
		{"Extism, not copying", extismCaller(ctx, ext)},
	} {
		run, err := callCase(c.make, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		cases = append(cases, testCase{c.name, run})
	}
	return t, t.interleave(ctx, s.rounds, cases)
}

// callCase prepares a case that calls from one goroutine, and then from two.
func callCase(make caller, s settings) (func(context.Context) (sample, error), error) {
	var callers []echo
	for range 2 {
		e, err := make()
		if err != nil {
			return nil, err
		}
		callers = append(callers, e)
	}
	payload := bytes.Repeat([]byte{'x'}, s.size)
	return func(context.Context) (sample, error) {
		m, err := callLoad(callers[:1], payload, s.dur/4)
		if err != nil {
			return nil, err
		}
		two, err := callLoad(callers, payload, s.dur/4)
		if err != nil {
			return nil, err
		}
		return sample{callTime: 1e9 / m["rate"], callAllocs: m["allocs"], rateOne: m["rate"], rateTwo: two["rate"]}, nil
	}, nil
}

// callLoad lets each caller call on a goroutine of its own for d. It returns the calls a second of all and the allocations of a
// call.
func callLoad(callers []echo, payload []byte, d time.Duration) (sample, error) {
	for _, e := range callers { // the first call of an instance is another matter
		for range 3 {
			if err := check(e, payload); err != nil {
				return nil, err
			}
		}
	}
	var wg sync.WaitGroup
	counts, errs := make([]int, len(callers)), make([]error, len(callers))
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	start := time.Now()
	for i, e := range callers {
		wg.Go(func() {
			n, err := 0, error(nil) // its own: on one cache line two cores would be in each other's way
			// Quick calls go in lots, so that the clock costs little.
			for lot := 1; err == nil && time.Since(start) < d; {
				began := time.Now()
				for done := 0; done < lot && err == nil; done++ {
					err = check(e, payload)
				}
				n += lot
				if lot < 64 && time.Since(began) < 20*time.Microsecond {
					lot *= 2
				}
			}
			counts[i], errs[i] = n, err
		})
	}
	wg.Wait()
	took := time.Since(start)
	goruntime.ReadMemStats(&after)
	total := 0
	for _, n := range counts {
		total += n
	}
	// What a timer or the collector allocates meanwhile is not the call's.
	allocs := math.Round(100*float64(after.Mallocs-before.Mallocs)/float64(total)) / 100
	return sample{"rate": float64(total) / took.Seconds(), "allocs": allocs}, errors.Join(errs...)
}

func check(e echo, payload []byte) error {
	out, err := e(payload)
	if err == nil && !bytes.Equal(out, payload) {
		err = fmt.Errorf("the answer has %d bytes and is not the payload of %d", len(out), len(payload))
	}
	return err
}
