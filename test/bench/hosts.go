package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	goruntime "runtime"
	"time"

	extism "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/wapc/wapc-go"
	wapcwazero "github.com/wapc/wapc-go/engines/wazero"

	"github.com/edged-io/edged/runtime"
	"github.com/edged-io/edged/runtime/meter"
)

// An echo sends its payload through a guest and returns what comes back, good until the next call.
type echo func(payload []byte) ([]byte, error)

// A caller makes what one goroutine calls again and again.
type caller func() (echo, error)

// --- edged

// openRuntime opens edged's actor host as a box does, with a compilation cache in dir ("" for none).
func openRuntime(dir string) (*runtime.Host, error) {
	return runtime.New(runtime.Options{CacheDir: dir, Logger: slog.New(slog.DiscardHandler),
		Call: func(context.Context, string, string, string, string, []byte) ([]byte, error) {
			return nil, errors.New("the guests of the benchmark do not call")
		}})
}

// actorCaller calls a from its pool, each call under ctx, with a buffer for the answers.
func actorCaller(ctx context.Context, a *runtime.Actor) caller {
	return func() (echo, error) {
		own := new(struct { // two callers on one cache line cost two cores a third of their calls
			_   [128]byte
			buf []byte
			_   [128]byte
		})
		return func(payload []byte) (_ []byte, err error) {
			own.buf, err = a.CallAppend(ctx, own.buf[:0], "Echo", payload)
			return own.buf, err
		}, nil
	}
}

// deadlineCaller is actorCaller for callers that have a deadline of their own for each call.
func deadlineCaller(ctx context.Context, a *runtime.Actor) caller {
	return func() (echo, error) {
		return func(payload []byte) ([]byte, error) {
			limited, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return a.Call(limited, "Echo", payload)
		}, nil
	}
}

// --- the least that a waPC host can be

// A bareHost is wazero with the functions that the echo guest imports, and nothing that a host of foreign actors needs. It is
// what there is to reach.
type bareHost struct {
	rt       wazero.Runtime
	compiled wazero.CompiledModule
	metered  bool // the module counts its steps, and each call has a deadline
}

type bareInstance struct {
	_         [64]byte // two instances on one cache line cost two cores a quarter of their calls
	metered   bool
	deadline  time.Time
	ctx       context.Context
	call      api.Function
	operation string
	payload   []byte
	response  []byte
	stack     [2]uint64
	_         [64]byte
}

type bareKey struct{}

func bareOf(ctx context.Context) *bareInstance { return ctx.Value(bareKey{}).(*bareInstance) }

// newBareHost takes the module as it is, or metered as edged does.
func newBareHost(ctx context.Context, wasm []byte, metered bool) (*bareHost, error) {
	h := &bareHost{rt: wazero.NewRuntime(ctx), metered: metered}
	pair := []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}
	_, err := h.rt.NewHostModuleBuilder("wapc").
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(bareRequest), pair, nil).Export("__guest_request").
		NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(bareResponse), pair, nil).Export("__guest_response").
		Instantiate(ctx)
	if err == nil && metered {
		one := pair[:1]
		_, err = h.rt.NewHostModuleBuilder(meter.ImportModule).
			NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(bareTick), one, one).Export(meter.ImportTick).
			Instantiate(ctx)
		if err == nil {
			wasm, err = meter.Rewrite(wasm)
		}
	}
	if err == nil {
		h.compiled, err = h.rt.CompileModule(ctx, wasm)
	}
	if err != nil {
		return nil, errors.Join(err, h.rt.Close(ctx))
	}
	return h, nil
}

func bareRequest(ctx context.Context, m api.Module, s []uint64) {
	in := bareOf(ctx)
	if !m.Memory().WriteString(uint32(s[0]), in.operation) || !m.Memory().Write(uint32(s[1]), in.payload) {
		panic("out of bounds")
	}
}

func bareResponse(ctx context.Context, m api.Module, s []uint64) {
	b, ok := m.Memory().Read(uint32(s[0]), uint32(s[1]))
	if !ok {
		panic("out of bounds")
	}
	in := bareOf(ctx)
	in.response = append(in.response[:0], b...)
}

func bareTick(ctx context.Context, _ api.Module, s []uint64) {
	if time.Now().After(bareOf(ctx).deadline) {
		panic("time limit")
	}
	s[0] = 100_000
}

// caller has an instance of its own.
func (h *bareHost) caller(ctx context.Context) (echo, error) {
	in := &bareInstance{metered: h.metered}
	in.ctx = context.WithValue(ctx, bareKey{}, in)
	m, err := h.rt.InstantiateModule(in.ctx, h.compiled, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		return nil, err
	}
	in.call = m.ExportedFunction("__guest_call")
	return in.echo, nil
}

func (in *bareInstance) echo(payload []byte) ([]byte, error) {
	in.operation, in.payload = "Echo", payload
	if in.metered {
		in.deadline = time.Now().Add(time.Second)
	}
	in.stack[0], in.stack[1] = uint64(len(in.operation)), uint64(len(payload))
	if err := in.call.CallWithStack(in.ctx, in.stack[:]); err != nil {
		return nil, err
	}
	if uint32(in.stack[0]) != 1 {
		return nil, errors.New("the guest failed")
	}
	return in.response, nil
}

// --- wapc-go

func newWapc(ctx context.Context, wasm []byte) (wapc.Module, error) {
	none := func(context.Context, string, string, string, []byte) ([]byte, error) { return nil, nil }
	return wapcwazero.Engine().New(ctx, none, wasm, &wapc.ModuleConfig{Logger: func(string) {}, Stdout: io.Discard, Stderr: io.Discard})
}

// wapcCaller has an instance of its own.
func wapcCaller(ctx context.Context, m wapc.Module) caller {
	return func() (echo, error) {
		in, err := m.Instantiate(ctx)
		if err != nil {
			return nil, err
		}
		return func(payload []byte) ([]byte, error) { return in.Invoke(ctx, "Echo", payload) }, nil
	}
}

// wapcPoolCaller takes an instance from p for each call. Return refuses one now and then when two goroutines return at once,
// though there is room: wapc-go's example drops the error, and with it the instance; insist tries again.
func wapcPoolCaller(ctx context.Context, p *wapc.Pool, insist bool) caller {
	return func() (echo, error) {
		return func(payload []byte) ([]byte, error) {
			in, err := p.Get(time.Second)
			if err != nil {
				return nil, err
			}
			out, err := in.Invoke(ctx, "Echo", payload)
			for p.Return(in) != nil && insist {
				goruntime.Gosched()
			}
			return out, err
		}, nil
	}
}

// --- Extism

func newExtism(ctx context.Context) (*extism.CompiledPlugin, error) {
	return extism.NewCompiledPlugin(ctx, extism.Manifest{Wasm: []extism.Wasm{extism.WasmData{Data: extismModule()}}},
		extism.PluginConfig{RuntimeConfig: wazero.NewRuntimeConfigCompiler()}, nil)
}

// extismCaller has an instance of its own.
func extismCaller(ctx context.Context, c *extism.CompiledPlugin) caller {
	return func() (echo, error) {
		p, err := c.Instance(ctx, extism.PluginInstanceConfig{ModuleConfig: wazero.NewModuleConfig()})
		if err != nil {
			return nil, err
		}
		return func(payload []byte) ([]byte, error) {
			code, out, err := p.CallWithContext(ctx, "echo", payload)
			if err == nil && code != 0 {
				err = fmt.Errorf("the guest failed with %d", code)
			}
			return out, err
		}, nil
	}
}
