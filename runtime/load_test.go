package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/runtime"
)

// oddModules by name, with what the error must say when they are loaded with
// 4 MiB of memory.
func oddModules() map[string]struct {
	wasm []byte
	want string
} {
	build := func(make func(*assembler)) []byte {
		a := &assembler{}
		make(a)
		return a.bytes()
	}
	one := num(1)
	return map[string]struct {
		wasm []byte
		want string
	}{
		"nothing":        {nil, "the module is empty"},
		"a shell script": {[]byte("#!/bin/sh\nexit 1\n"), `not a wasm module: it begins with "#!/bin/s"`},
		"text form":      {[]byte("\n (module)"), "wat2wasm"},
		"four bytes":     {[]byte("\x00asm"), "ends after 4 bytes"},
		"a component":    {[]byte("\x00asm\x0d\x00\x01\x00\x00"), "a WebAssembly component; actors are core modules"},
		"version 2":      {[]byte("\x00asm\x02\x00\x00\x00"), "wasm version 2 (layer 0) is not known"},
		"too large":      {make([]byte, runtime.MaxModuleBytes+1), "the limit is 67108864"},
		"nonsense":       {[]byte("\x00asm\x01\x00\x00\x00\xff\xff\xff"), "invalid module"},
		"waSCC": {build(func(a *assembler) {
			a.use("wapc", "__host_call", 4, 1)
			a.mem(1)
			a.fn("__guest_call", 2, 1, one...)
		}), "imports wapc.__host_call with 4 parameters: a waSCC module"},
		"unknown import": {callModule(one, func(a *assembler) {
			a.use("env", "abort", 4, 0)
			a.use("wasmbus", "__host_dance", 0, 0)
		}), "imports what no host provides: env.abort (AssemblyScript: build with --use abort=), wasmbus.__host_dance;"},
		"wrong signature": {callModule(one, func(a *assembler) { a.use("wapc", "__console_log", 3, 0) }),
			"wapc.__console_log as (i32, i32, i32) → () (it is (i32, i32) → ())"},
		"imported memory": {build(func(a *assembler) {
			a.imports = append(a.imports, asmImport{"env", "memory", []byte{2, 0, 1}})
			a.exports = append(a.exports, asmExport{"memory", 2, 0})
		}), "imports what no host provides: env.memory (a memory; an actor has its own)"},
		"imported global": {callModule(one, func(a *assembler) {
			a.imports = append(a.imports, asmImport{"env", "base", []byte{3, 0x7f, 0}})
		}), "env.base (a global; an actor has its own)"},
		"many unknown imports": {callModule(one, func(a *assembler) {
			for range 20 {
				a.use("gojs", "runtime.x", 1, 0)
			}
		}), "and 12 more"},
		"no memory": {build(func(a *assembler) { a.fn("__guest_call", 2, 1, one...) }), `no memory is exported as "memory"`},
		"hidden memory": {build(func(a *assembler) {
			a.memory = []byte{0, 1}
			a.fn("__guest_call", 2, 1, one...)
		}), `no memory is exported as "memory"`},
		"no __guest_call": {build(func(a *assembler) {
			a.mem(1)
			a.fn("run", 0, 0)
		}), "no export __guest_call, by which actors are called"},
		"a command": {build(func(a *assembler) {
			a.mem(1)
			a.fn("_start", 0, 0)
		}), "-buildmode=c-shared"},
		"__guest_call of another type": {build(func(a *assembler) {
			a.mem(1)
			a.fn("__guest_call", 1, 1, one...)
		}), "__guest_call is (i32) → (i32), not (i32, i32) → (i32)"},
		"a giant table": {callModule(one, func(a *assembler) { a.tables = []byte{1, 0x70, 0, 0x80, 0x80, 0x80, 0x20} }),
			"a table of 67108864 entries, the limit is 131072"},
		"many tables": {callModule(one, func(a *assembler) { a.tables = append([]byte{17}, bytes.Repeat([]byte{0x70, 0, 1}, 17)...) }),
			"17 tables, the limit is 16, in the table section at byte"},
		"more memory than allowed": {callModule(one, func(a *assembler) { a.mem(65) }),
			"begins with 4259840 bytes of memory, the actor's limit is 4194304"},
	}
}

func TestHost_Load_errors(t *testing.T) {
	h := newHost(t, runtime.Options{})
	for name, c := range oddModules() {
		_, err := h.Load(t.Context(), "lab/odd", c.wasm, runtime.Limits{MemoryBytes: 4 << 20})
		if !errors.Is(err, runtime.ErrModule) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "load actor lab/odd: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

func TestHost_Load_trapInInitialiser(t *testing.T) {
	h := newHost(t, runtime.Options{})
	for name, wasm := range map[string][]byte{
		"export": callModule(num(1), func(a *assembler) { a.fn("wapc_init", 0, 0, unreachable...) }),
		"section": callModule(num(1), func(a *assembler) {
			a.raw = append(a.raw, []byte{8, 1, a.fn("", 0, 0, unreachable...)})
		}),
	} {
		_, err := h.Load(t.Context(), "lab/odd", wasm, runtime.Limits{})
		var trap *runtime.TrapError
		if !errors.As(err, &trap) || trap.Operation != "start" || !strings.Contains(trap.Reason, "unreachable") || trap.Stack == "" {
			t.Errorf("%s: got %v, %+v", name, err, trap)
		}
	}
}

// _start, _initialize, start and wapc_init run in this order, once for each
// instance, and may exit with 0, but not with another code, nor call the host.
func TestHost_Load_initialisers(t *testing.T) {
	h := newHost(t, runtime.Options{Call: func(context.Context, string, string, string, string, []byte) ([]byte, error) {
		t.Error("an initialiser reached the host")
		return nil, nil
	}})
	// Each appends its digit to the number at address 0, which is the answer.
	digit := func(n int) []byte {
		return slices.Concat(num(0), num(0), []byte{0x28, 2, 0}, num(10), []byte{0x6c}, num(n), []byte{0x6a, 0x36, 2, 0})
	}
	build := func(code int) []byte {
		return callModule(slices.Concat(num(0), num(4), call(1), num(1)), func(a *assembler) {
			exit := a.use("wasi_snapshot_preview1", "proc_exit", 1, 0)
			a.fn("wapc_init", 0, 0, slices.Concat(digit(4), slices.Repeat(num(0), 8), call(3), drop)...)
			a.fn("start", 0, 0, digit(3)...)
			a.fn("_initialize", 0, 0, digit(2)...)
			a.fn("_start", 0, 0, slices.Concat(digit(1), num(code), call(exit))...)
		})
	}
	a := load(t, h, build(0), runtime.Limits{})
	for range 2 {
		if out, err := a.Call(t.Context(), "Op", nil); err != nil || !bytes.Equal(out, []byte{0xd2, 0x04, 0, 0}) { // 1234
			t.Errorf("got %x, %v", out, err)
		}
	}
	_, err := h.Load(t.Context(), "lab/odd", build(7), runtime.Limits{})
	if err == nil || !strings.Contains(err.Error(), "exited with code 7") {
		t.Errorf("exit 7: got %v", err)
	}
}

func TestHost_Load_truncated(t *testing.T) {
	h := newHost(t, runtime.Options{CacheDir: t.TempDir()})
	half := func(wasm []byte, n int) {
		t.Helper()
		if _, err := h.Load(t.Context(), "lab/half", wasm[:n], runtime.Limits{}); !errors.Is(err, runtime.ErrModule) {
			t.Errorf("%d of %d bytes: got %v, want ErrModule", n, len(wasm), err)
		}
	}
	small := callModule(num(1), func(a *assembler) { a.fn("wapc_init", 0, 0) })
	for n := range small {
		half(small, n)
	}
	large := guest(t)
	for i := range 40 {
		half(large, len(large)*i/40)
	}
}

func TestHost_Load_contextEnded(t *testing.T) {
	h := newHost(t, runtime.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Load(ctx, "lab/late", echoModule(), runtime.Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestHost_Load_sharesCode(t *testing.T) {
	h := newHost(t, runtime.Options{})
	one, two := load(t, h, echoModule(), runtime.Limits{}), load(t, h, echoModule(), runtime.Limits{MemoryBytes: 1 << 20})
	if err := one.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := two.Call(t.Context(), "Echo", []byte("x")); err != nil || string(out) != "x" {
		t.Errorf("after the other was closed: got %q, %v", out, err)
	}
}

func TestHost_Close(t *testing.T) {
	h := newHost(t, runtime.Options{})
	a := load(t, h, echoModule(), runtime.Limits{})
	for range 2 {
		if err := h.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Call(t.Context(), "Echo", nil); !errors.Is(err, runtime.ErrClosed) {
		t.Errorf("call: got %v", err)
	}
	if _, err := h.Load(t.Context(), "lab/late", echoModule(), runtime.Limits{}); !errors.Is(err, runtime.ErrClosed) {
		t.Errorf("load: got %v", err)
	}
}

const fuzzPatience = 50 * time.Millisecond

// FuzzLoad: whatever the bytes are, loading ends with an actor or an error, and
// an actor can be called and closed.
func FuzzLoad(f *testing.F) {
	f.Add(echoModule())
	f.Add(callModule(unreachable, nil))
	f.Add(callModule(num(1), func(a *assembler) { a.fn("wapc_init", 0, 0, endless...) }))
	for _, odd := range oddModules() {
		if len(odd.wasm) < 4<<10 {
			f.Add(odd.wasm)
		}
	}
	f.Fuzz(func(t *testing.T, wasm []byte) {
		if len(wasm) > 4<<10 {
			return
		}
		h := newHost(t, runtime.Options{CacheDir: none})
		ctx, cancel := context.WithTimeout(t.Context(), fuzzPatience)
		defer cancel()
		a, err := h.Load(ctx, "fuzz", wasm, runtime.Limits{MemoryBytes: 1 << 20, Time: fuzzPatience})
		if err != nil {
			return
		}
		// Any answer and any error will do.
		_, _ = a.Call(ctx, "Fuzz.Op", []byte("payload"))
	})
}

// An element segment out of its table: the engine leaves it out, or, with 32
// bits, cannot make an instance. The host goes on.
func TestHost_Load_elementsFarOut(t *testing.T) {
	h := newHost(t, runtime.Options{})
	_, err := h.Load(t.Context(), "lab/guest", callModule(num(1), func(a *assembler) {
		a.tables = []byte{1, 0x70, 0, 10}
		a.raw = append(a.raw, slices.Concat([]byte{9, 7, 1, 0}, num(-1), []byte{0x0b, 1, 0}))
	}), runtime.Limits{})
	if err != nil && !errors.Is(err, runtime.ErrModule) {
		t.Errorf("got %v", err)
	}
	load(t, h, echoModule(), runtime.Limits{})
}
