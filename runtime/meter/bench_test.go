package meter_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/goguest"
	"github.com/edged-io/edged/runtime/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// goGuest is testdata/guest, built once.
var goGuest = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "edged-guest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "guest.wasm")
	if err := goguest.Build(out, "./testdata/guest"); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
})

func guest(t testing.TB) []byte {
	t.Helper()
	wasm, err := goGuest()
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// tight has the shortest loops and calls there are: functions of n that return
// an i32.
func tight() []byte {
	const n, i, sum = 0, 1, 2
	next := cat(op(opLocalGet, i), c32(1), opAdd, op(opLocalTee, i), op(opLocalGet, n), opLtS, op(opBrIf, 0), opEnd, op(opLocalGet, sum))
	m := wasmModule{memories: [][]byte{{0, 16}}}
	one := types(i32)
	m.fn("sum", one, one, 2, opLoop, void, op(opLocalGet, sum), op(opLocalGet, i), opAdd, op(opLocalSet, sum), next)
	m.fn("hash", one, one, 2, opLoop, void, op(opLocalGet, sum), op(opLocalGet, i), c32(0xffff), 0x71, 0x2d, 0, 0, 0x73,
		c32(16777619), 0x6c, op(opLocalSet, sum), next)
	m.fn("store", one, one, 2, opLoop, void, op(opLocalGet, i), c32(2), 0x74, c32(0xffffc), 0x71, op(opLocalGet, i), 0x36, 2, 0, next)
	leaf := m.fn("", types(i32, i32), one, 0, op(opLocalGet, 0), op(opLocalGet, 1), 0x73, c32(31), 0x6c)
	m.fn("leaf", one, one, 2, opLoop, void, op(opLocalGet, sum), op(opLocalGet, i), op(opCall, leaf), op(opLocalSet, sum), next)
	fib := len(m.functions)
	m.fn("fib", one, one, 0, op(opLocalGet, n), c32(2), opLtS, opIf, i32, op(opLocalGet, n), opElse,
		op(opLocalGet, n), c32(1), opSub, op(opCall, fib), op(opLocalGet, n), c32(2), opSub, op(opCall, fib), opAdd, opEnd)
	return m.bytes()
}

// BenchmarkRewritten runs guests as they are and rewritten, in turns, and
// reports how many times as long the rewritten one takes, best against best:
// calls of about a millisecond, so that some go undisturbed.
func BenchmarkRewritten(b *testing.B) {
	for _, g := range []struct {
		kind      string
		wasm      []byte
		functions map[string]uint64
	}{
		{"tight", tight(), map[string]uint64{"sum": 5e5, "hash": 5e5, "store": 5e5, "leaf": 5e5, "fib": 22}},
		{"go", guest(b), map[string]uint64{"sha256": 1, "sort": 1, "json": 20, "map": 1000, "words": 2, "sieve": 1, "fib": 20}},
	} {
		metered, err := meter.Rewrite(g.wasm)
		if err != nil {
			b.Fatal(err)
		}
		was, is := started(b, g.wasm), started(b, metered)
		for name, n := range g.functions {
			b.Run(g.kind+"/"+name, func(b *testing.B) {
				once := func(mod api.Module) time.Duration {
					began := time.Now()
					if _, err := mod.ExportedFunction(name).Call(b.Context(), n); err != nil {
						b.Fatal(err)
					}
					return time.Since(began)
				}
				bestWas, bestIs := once(was), once(is)
				for b.Loop() {
					bestWas, bestIs = min(bestWas, once(was)), min(bestIs, once(is))
				}
				b.ReportMetric(float64(bestIs)/float64(bestWas), "times")
			})
		}
	}
}

func started(b *testing.B, wasm []byte) api.Module {
	rt := wazero.NewRuntime(b.Context())
	b.Cleanup(func() { closeRuntime(b, rt) })
	wasi_snapshot_preview1.MustInstantiate(b.Context(), rt)
	hostTick(b, rt, 32<<10)
	mod, err := rt.InstantiateWithConfig(b.Context(), wasm, wazero.NewModuleConfig().WithStartFunctions("_initialize"))
	if err != nil {
		b.Fatal(err)
	}
	return mod
}

func BenchmarkRewrite(b *testing.B) {
	for name, wasm := range map[string][]byte{"go": guest(b), "functions": functionsOf(100_000, cat(0, op(opCall, 99_999), opEnd))} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(wasm)))
			b.ReportAllocs()
			for b.Loop() {
				metered, err := meter.Rewrite(wasm)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(metered))/float64(len(wasm)), "growth")
			}
		})
	}
}

// BenchmarkCompile is what the rewriting stands beside.
func BenchmarkCompile(b *testing.B) {
	wasm := guest(b)
	metered, err := meter.Rewrite(wasm)
	if err != nil {
		b.Fatal(err)
	}
	for name, wasm := range map[string][]byte{"original": wasm, "rewritten": metered} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rt := wazero.NewRuntime(b.Context())
				if _, err := rt.CompileModule(b.Context(), wasm); err != nil {
					b.Fatal(err)
				}
				closeRuntime(b, rt)
			}
		})
	}
}

// What compilers make is far from all limits, and grows little. The engine's
// module has guests of several.
func TestRewrite_compilers(t *testing.T) {
	dir, err := specDir()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "..", "..", "..")
	modules := map[string][]byte{"go": guest(t)}
	for _, pattern := range []string{"examples/*/testdata/*.wasm", "examples/*/*/testdata/*.wasm", "imports/*/testdata/*/*.wasm", "imports/*/example/testdata/*/*.wasm", "internal/integration_test/*/testdata/*.wasm"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			wasm, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(wasm) > 20_000 {
				modules[file] = wasm
			}
		}
	}
	if len(modules) < 5 {
		t.Errorf("%d modules, want more", len(modules))
	}
	for name, wasm := range modules {
		metered, err := meter.Rewrite(wasm)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		growth := float64(len(metered)) / float64(len(withoutCustom(wasm)))
		t.Logf("%s: %d bytes, %.3f times as many", filepath.Base(name), len(wasm), growth)
		if growth > 1.5 {
			t.Errorf("%s: %.2f times as long", name, growth)
		}
		if !accepts(t, metered) {
			t.Errorf("%s: the engine does not take it", name)
		}
	}
}
