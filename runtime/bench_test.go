package runtime_test

import (
	"bytes"
	"testing"

	"github.com/edged-io/edged/runtime"
)

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
