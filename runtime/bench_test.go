package runtime_test

import (
	"bytes"
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/edged-io/edged/runtime"
	"github.com/edged-io/edged/runtime/meter"
)

// A minimalHost is the least that a host of waPC guests can be: one instance of
// the same rewritten module, no limits, no pool, no errors.
type minimalHost struct {
	call              api.Function
	ctx               context.Context
	operation         string
	payload, response []byte
	stack             [2]uint64
}

func newMinimalHost(b *testing.B, wasm []byte) *minimalHost {
	b.Helper()
	h := &minimalHost{ctx: b.Context()}
	wasm, err := meter.Rewrite(wasm)
	if err != nil {
		b.Fatal(err)
	}
	rt := wazero.NewRuntime(h.ctx)
	b.Cleanup(func() { rt.Close(context.WithoutCancel(h.ctx)) })
	export := func(module, name string, params, results []api.ValueType, code api.GoModuleFunc) wazero.HostModuleBuilder {
		return rt.NewHostModuleBuilder(module).NewFunctionBuilder().WithGoModuleFunction(code, params, results).Export(name)
	}
	i32 := []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}
	wapc := export("wapc", "__guest_request", i32, nil, func(_ context.Context, m api.Module, stack []uint64) {
		m.Memory().WriteString(uint32(stack[0]), h.operation)
		m.Memory().Write(uint32(stack[1]), h.payload)
	}).NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, stack []uint64) {
		response, _ := m.Memory().Read(uint32(stack[0]), uint32(stack[1]))
		h.response = append(h.response[:0], response...)
	}), i32, nil).Export("__guest_response")
	tick := export(meter.ImportModule, meter.ImportTick, i32[:1], i32[:1], func(_ context.Context, _ api.Module, stack []uint64) {
		stack[0] = math.MaxInt32
	})
	for _, m := range []wazero.HostModuleBuilder{wapc, tick} {
		if _, err := m.Instantiate(h.ctx); err != nil {
			b.Fatal(err)
		}
	}
	mod, err := rt.InstantiateWithConfig(h.ctx, wasm, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		b.Fatal(err)
	}
	h.call = mod.ExportedFunction("__guest_call")
	return h
}

func (h *minimalHost) Call(operation string, payload []byte) ([]byte, error) {
	h.operation, h.payload = operation, payload
	h.stack[0], h.stack[1] = uint64(len(operation)), uint64(len(payload))
	err := h.call.CallWithStack(h.ctx, h.stack[:])
	return h.response, err
}

// A warm call with a deadline, from the pool, against the same module in the
// minimal host, in turns: x-minimal is the median of their ratios.
func BenchmarkActor_CallAppend_minimal(b *testing.B) {
	const turn = 2000
	a := load(b, newHost(b, runtime.Options{}), echoModule(), runtime.Limits{})
	h := newMinimalHost(b, echoModule())
	payload, buf := bytes.Repeat([]byte{1}, 128), make([]byte, 0, 128)
	timed := func(call func() error) time.Duration {
		began := time.Now()
		for range turn {
			if err := call(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(began)
	}
	var ratios, times []float64
	b.ReportAllocs()
	for b.Loop() {
		ours := timed(func() error {
			_, err := a.CallAppend(b.Context(), buf, "Echo", payload)
			return err
		})
		least := timed(func() error {
			_, err := h.Call("Echo", payload)
			return err
		})
		ratios = append(ratios, float64(ours)/float64(least))
		times = append(times, float64(ours)/turn)
	}
	slices.Sort(ratios)
	slices.Sort(times)
	b.ReportMetric(ratios[len(ratios)/2], "x-minimal")
	b.ReportMetric(times[len(times)/2], "ns/call")
}

// One warm call with 128 bytes in and out, the limits in force.
func BenchmarkActor_Call(b *testing.B) {
	for _, c := range []struct {
		name, operation string
		wasm            []byte
	}{{"assembled", "Echo", echoModule()}, {"go", "Test.Echo", guest(b)}} {
		a := load(b, newHost(b, runtime.Options{}), c.wasm, runtime.Limits{})
		payload := bytes.Repeat([]byte{1}, 128)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Call(b.Context(), c.operation, payload); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"-parallel", func(b *testing.B) {
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := a.Call(b.Context(), c.operation, payload); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// A fresh instance for each call, and what an instance takes.
func BenchmarkActor_Call_freshInstance(b *testing.B) {
	for _, c := range []struct {
		name, operation string
		wasm            []byte
	}{{"assembled", "Echo", echoModule()}, {"go", "Test.Echo", guest(b)}} {
		a := load(b, newHost(b, runtime.Options{}), c.wasm, runtime.Limits{CallsPerInstance: 1})
		payload := bytes.Repeat([]byte{1}, 128)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Call(b.Context(), c.operation, payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A load ends with a started instance.
func BenchmarkHost_Load(b *testing.B) {
	for name, wasm := range map[string][]byte{"assembled": echoModule(), "go": guest(b)} {
		b.Run(name+"-cold", func(b *testing.B) {
			b.ReportMetric(float64(len(wasm)), "module-bytes")
			for b.Loop() {
				h := newHost(b, runtime.Options{CacheDir: b.TempDir()})
				a := load(b, h, wasm, runtime.Limits{})
				if err := a.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"-cached", func(b *testing.B) {
			h := newHost(b, runtime.Options{CacheDir: b.TempDir()})
			if err := load(b, h, wasm, runtime.Limits{}).Close(b.Context()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				a := load(b, h, wasm, runtime.Limits{})
				if err := a.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
