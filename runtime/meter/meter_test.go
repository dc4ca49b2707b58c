package meter_test

import (
	"context"
	"testing"

	"github.com/edged-io/edged/runtime/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// A ticker is what a host does when a slice is used up.
type ticker struct {
	slice int32
	ticks int
	left  int32 // of the last tick
	limit int   // ends the guest after so many; 0 for never
}

type limitReached struct{}

func (limitReached) Error() string { return "limit reached" }

// hostTick provides meter.ImportTick with slices of that many steps.
func hostTick(t testing.TB, rt wazero.Runtime, slice int32) *ticker {
	t.Helper()
	k := &ticker{slice: slice}
	_, err := rt.NewHostModuleBuilder(meter.ImportModule).NewFunctionBuilder().WithGoFunction(
		api.GoFunc(func(_ context.Context, stack []uint64) {
			k.ticks++
			k.left = int32(stack[0])
			if k.limit > 0 && k.ticks >= k.limit {
				panic(limitReached{})
			}
			stack[0] = uint64(uint32(k.slice))
		}), []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}).
		Export(meter.ImportTick).Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func closeRuntime(t testing.TB, rt wazero.Runtime) {
	t.Helper()
	if err := rt.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// instantiate rewrites a module and makes an instance of it.
func instantiate(t testing.TB, wasm []byte, slice int32) (api.Module, *ticker) {
	t.Helper()
	metered, err := meter.Rewrite(wasm)
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntimeWithConfig(t.Context(), engines["compiler"])
	t.Cleanup(func() { closeRuntime(t, rt) })
	k := hostTick(t, rt, slice)
	_, err = rt.NewHostModuleBuilder("env").NewFunctionBuilder().WithFunc(func() {}).Export("log").Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mod, err := rt.Instantiate(t.Context(), metered)
	if err != nil {
		t.Fatal(err)
	}
	return mod, k
}

func setCounter(g api.Global, v int32) { g.(api.MutableGlobal).Set(uint64(uint32(v))) }
