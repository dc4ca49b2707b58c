package meter_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/edged-io/edged/runtime/meter"
	"github.com/tetratelabs/wazero"
)

// accepts says whether the engine takes a module. It has panicked on some.
func accepts(t testing.TB, wasm []byte) (ok bool) {
	t.Helper()
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	rt := wazero.NewRuntimeWithConfig(t.Context(), engines["interpreter"])
	defer rt.Close(context.Background())
	_, err := rt.CompileModule(t.Context(), wasm)
	return err == nil
}

// withoutCustom leaves custom sections out: the engine refuses a module whose
// names are malformed, and the rewriter drops them.
func withoutCustom(wasm []byte) []byte {
	out := slices.Clone(wasm[:8])
	for rest := wasm[8:]; len(rest) > 0; {
		size, n := 0, 1
		for shift := 0; ; shift += 7 {
			b := rest[n]
			n++
			size |= int(b&0x7f) << shift
			if b < 0x80 {
				break
			}
		}
		if rest[0] != 0 {
			out = append(out, rest[:n+size]...)
		}
		rest = rest[n+size:]
	}
	return out
}

// The rewriter survives all bytes, and what it lets through is valid exactly if
// the original is.
func FuzzRewrite(f *testing.F) {
	for seed := range uint64(10) {
		wasm, _ := randomModule(seed)
		f.Add(wasm)
	}
	for _, fault := range faults {
		if len(fault.wasm) < 1000 {
			f.Add(fault.wasm)
		}
	}
	for _, build := range endless {
		var m wasmModule
		build(&m)
		f.Add(m.bytes())
	}
	f.Add(stack(nameSection(0, str("guest"), 1, names(2, "b"))))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		before := slices.Clone(wasm)
		metered, err := meter.Rewrite(wasm)
		if !slices.Equal(before, wasm) {
			t.Fatal("the module was changed in place")
		}
		if err != nil || len(wasm) > 100_000 {
			return
		}
		if was, is := accepts(t, withoutCustom(wasm)), accepts(t, metered); was != is {
			t.Errorf("the engine accepts the original: %v, and the rewritten module: %v\n%x\n%x", was, is, wasm, metered)
		}
	})
}

// A random module does the same after the rewriting.
func FuzzSame(f *testing.F) {
	for seed := range uint64(5) {
		f.Add(1000 + seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		sameModule(t, engines["interpreter"], seed)
	})
}

// Modules of proposals that are not supported go through what the fuzzer holds.
func TestRewrite_suiteValidity(t *testing.T) {
	dir, err := specDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []string{"threads", "typed-function-references"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			files, err := filepath.Glob(filepath.Join(dir, suite, "testdata", "*.wasm"))
			if err != nil || len(files) == 0 {
				t.Fatalf("no modules: %v", err)
			}
			passed := 0
			for _, file := range files {
				wasm, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				metered, err := meter.Rewrite(wasm)
				if err != nil {
					continue
				}
				passed++
				if was, is := accepts(t, withoutCustom(wasm)), accepts(t, metered); was != is {
					t.Errorf("%s: the engine accepts the original: %v, and the rewritten module: %v", filepath.Base(file), was, is)
				}
			}
			t.Logf("%d of %d modules were rewritten", passed, len(files))
		})
	}
}
