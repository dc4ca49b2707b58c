package meter_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/edged-io/edged/runtime/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Random modules do the same after the rewriting, compiled and interpreted:
// same results or the same trap, same memory, same globals.
func TestRewrite_randomModulesSame(t *testing.T) {
	for _, engine := range []struct {
		name    string
		modules int
	}{{"compiler", 45}, {"interpreter", 90}} {
		for part := range 3 {
			t.Run(fmt.Sprintf("%s-%d", engine.name, part), func(t *testing.T) {
				t.Parallel()
				traps, ticks := 0, 0
				for seed := part; seed < engine.modules; seed += 3 {
					trapped, ticked := sameModule(t, engines[engine.name], uint64(seed))
					traps += trapped
					ticks += ticked
				}
				if traps == 0 || ticks == 0 {
					t.Errorf("%d traps and %d ticks: the modules are too tame", traps, ticks)
				}
			})
		}
	}
}

func sameModule(t *testing.T, config wazero.RuntimeConfig, seed uint64) (traps, ticks int) {
	wasm, functions := randomModule(seed)
	metered, err := meter.Rewrite(wasm)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	want, _ := trace(t, config, seed, wasm, functions)
	got, ticks := trace(t, config, seed, metered, functions)
	for i, w := range want {
		if i >= len(got) || got[i] != w {
			t.Fatalf("seed %d, step %d: got\n%s\nwant\n%s", seed, i, got[min(i, len(got)-1)], w)
		}
		if strings.Contains(w, "wasm error") {
			traps++
		}
	}
	return traps, ticks
}

// trace instantiates a module and calls each function with a few arguments. It
// returns what came of each call and what the state was after it.
func trace(t *testing.T, config wazero.RuntimeConfig, seed uint64, wasm []byte, functions []signature) (steps []string, ticks int) {
	rt := wazero.NewRuntimeWithConfig(t.Context(), config.WithMemoryLimitPages(16))
	defer closeRuntime(t, rt)
	k := hostTick(t, rt, 10)
	_, err := rt.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func(_ context.Context, x uint32) uint32 { return 2 * x }).
		Export("twice").Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mod, err := rt.Instantiate(t.Context(), wasm)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	random := rand.New(rand.NewPCG(seed, 2))
	for range 3 {
		for i, f := range functions {
			args := make([]uint64, len(f.params))
			for j, p := range f.params {
				args[j] = random.Uint64N(1000)
				if p == f64 {
					args[j] = api.EncodeF64(float64(args[j]))
				}
			}
			mod.ExportedGlobal("fuel").(api.MutableGlobal).Set(300)
			results, err := mod.ExportedFunction(fmt.Sprintf("f%d", i)).Call(t.Context(), args...)
			if err != nil {
				reason, _, _ := strings.Cut(err.Error(), "\n")
				steps = append(steps, fmt.Sprintf("f%d%v: %s; %s", i, args, reason, state(mod)))
				continue
			}
			for j, r := range f.results {
				if r == i32 {
					results[j] &= 1<<32 - 1
				}
			}
			steps = append(steps, fmt.Sprintf("f%d%v = %v; %s", i, args, results, state(mod)))
		}
	}
	return steps, k.ticks
}

func state(mod api.Module) string {
	memory, _ := mod.Memory().Read(0, mod.Memory().Size())
	s := fmt.Sprintf("memory %d %08x", len(memory), crc32.ChecksumIEEE(memory))
	for _, g := range []string{"fuel", "count", "wide", "float"} {
		s += fmt.Sprintf(" %s=%#x", g, mod.ExportedGlobal(g).Get())
	}
	return s
}
