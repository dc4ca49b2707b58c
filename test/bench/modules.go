package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/edged-io/edged/runtime"
)

// warmInstances is how many instances of an actor are made to see what one takes.
const warmInstances = 64

// Columns of the table modules.
const (
	readyMS    = "ready ms"
	freshUS    = "fresh call µs"
	instanceKB = "instance KiB"
)

// moduleTable compares what a module costs before and between its calls: until its first instance is ready, for an instance that
// serves one call, and in memory for one that waits.
func moduleTable(ctx context.Context, s settings) (t *table, err error) {
	t = &table{Name: "modules", Columns: []string{readyMS, freshUS, instanceKB},
		Title: fmt.Sprintf("A module until an instance of it is ready; an instance for one call of %d bytes; memory of an instance that waits", s.size)}
	actor, payload := actorModule(), bytes.Repeat([]byte{'x'}, s.size)
	golang, err := buildGoActor(ctx, s.dir)
	if err != nil {
		return nil, err
	}
	var cases []testCase
	for _, m := range []struct {
		name string
		wasm []byte
	}{{"100 KB actor", actor}, {"Go actor", golang}} {
		cache := filepath.Join(s.dir, "modules-cache-"+m.name)
		if _, err := loadOnce(ctx, cache, m.wasm); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		for _, c := range []struct{ name, dir string }{{"compiled", ""}, {"from cache", cache}} {
			cases = append(cases, testCase{m.name + ", " + c.name, func(ctx context.Context) (sample, error) {
				took, err := loadOnce(ctx, c.dir, m.wasm)
				return sample{readyMS: float64(took.Microseconds()) / 1e3}, err
			}})
		}
	}

	host, err := openRuntime("")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, host.Close(ctx)) }()
	if _, err := host.Load(ctx, "bench/kept", actor, runtime.Limits{}); err != nil { // so that its code stays
		return nil, err
	}
	wm, err := newWapc(ctx, actor)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, wm.Close(ctx)) }()
	fresh, err := host.Load(ctx, "bench/fresh", actor, runtime.Limits{CallsPerInstance: 1})
	if err != nil {
		return nil, err
	}
	instantiate := func() (echo, func() error, error) {
		in, err := wm.Instantiate(ctx)
		if err != nil {
			return nil, nil, err
		}
		return func(p []byte) ([]byte, error) { return in.Invoke(ctx, "Echo", p) }, func() error { return in.Close(ctx) }, nil
	}
	for _, c := range []struct {
		name       string
		fresh, one maker // an instance for one call, and one that stays
	}{
		{"edged", func() (echo, func() error, error) {
			return func(p []byte) ([]byte, error) { return fresh.Call(ctx, "Echo", p) }, func() error { return nil }, nil
		}, func() (echo, func() error, error) {
			a, err := host.Load(ctx, "bench/warm", actor, runtime.Limits{})
			if err != nil {
				return nil, nil, err
			}
			return func(p []byte) ([]byte, error) { return a.Call(ctx, "Echo", p) }, func() error { return a.Close(ctx) }, nil
		}},
		{"wapc-go", instantiate, instantiate},
	} {
		cases = append(cases, testCase{c.name + ", instances of the 100 KB actor", func(context.Context) (sample, error) {
			fresh, err := freshCall(c.fresh, payload, s.dur/4)
			if err != nil {
				return nil, err
			}
			kib, err := instanceMemory(c.one, payload)
			return sample{freshUS: fresh, instanceKB: kib}, err
		}})
	}
	return t, t.interleave(ctx, s.rounds, cases)
}

// A maker makes an instance, and what gives it back.
type maker func() (call echo, stop func() error, err error)

// loadOnce takes a module from its bytes to its first instance in a host of its own.
func loadOnce(ctx context.Context, cache string, wasm []byte) (took time.Duration, err error) {
	host, err := openRuntime(cache)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, host.Close(ctx)) }()
	start := time.Now()
	_, err = host.Load(ctx, "bench/module", wasm, runtime.Limits{})
	return time.Since(start), err
}

// freshCall makes an instance for each call, for d, and returns the microseconds of one.
func freshCall(make maker, payload []byte, d time.Duration) (float64, error) {
	more, n := until(d), 0
	start := time.Now()
	for ; more(); n++ {
		call, stop, err := make()
		if err == nil {
			err = errors.Join(check(call, payload), stop())
		}
		if err != nil {
			return 0, err
		}
	}
	return float64(time.Since(start).Nanoseconds()) / 1e3 / float64(n), nil
}

// instanceMemory makes instances that each have served a call, and returns the KiB of memory that one takes.
func instanceMemory(make maker, payload []byte) (kib float64, err error) {
	before, err := ownMemory()
	if err != nil {
		return 0, err
	}
	for range warmInstances {
		call, stop, err := make()
		if err == nil {
			defer func() { err = errors.Join(err, stop()) }()
			err = check(call, payload)
		}
		if err != nil {
			return 0, err
		}
	}
	after, err := ownMemory()
	return (after - before) * 1024 / warmInstances, err
}

// ownMemory is the anonymous memory of this process in MiB, after all that can be is given back.
func ownMemory() (float64, error) {
	debug.FreeOSMemory()
	m, err := memoryOf(os.Getpid())
	return m["anonymous MiB"], err
}

// buildGoActor builds an example of edged's, and returns the module.
func buildGoActor(ctx context.Context, dir string) ([]byte, error) {
	out := filepath.Join(dir, "thermostat.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-C", "../..", "-trimpath", "-buildvcs=false", "-buildmode=c-shared",
		"-ldflags", "-s -w", "-o", out, "./examples/thermostat")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=wasip1", "GOARCH=wasm")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build an actor: %w: %s", err, b)
	}
	return os.ReadFile(out)
}
