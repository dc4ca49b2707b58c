package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/wasm"
	"github.com/edged-io/edged/runtime"
)

// Modules that are hard to load, and what comes of it: "" if they run.
func TestHost_Load_hardModules(t *testing.T) {
	h := newHost(t, runtime.Options{CacheDir: none})
	one := num(1)
	junk := make([]byte, runtime.MaxModuleBytes)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(junk)
	copy(junk, "\x00asm\x01\x00\x00\x00")
	custom := append([]byte{0}, append(uleb(40<<20), append(str("junk"), junk[:40<<20-5]...)...)...)
	for name, c := range map[string]struct {
		wasm []byte
		want string
	}{
		"64 MiB of nonsense":               {junk, "invalid module"},
		"64 MiB of zeros":                  {append([]byte("\x00asm\x01\x00\x00\x00"), make([]byte, runtime.MaxModuleBytes-8)...), "invalid module"},
		"40 MiB of a custom section":       {append(echoModule(), custom...), ""},
		"a section longer than the module": {append(echoModule()[:8:8], 1, 0xff, 0xff, 0xff, 0xff, 0x0f), "invalid module"},
		"a section twice":                  {append(echoModule(), 1, 1, 0), "invalid module"},
		"an export twice":                  {callModule(one, func(a *assembler) { a.mem(1); a.mem(1) }), `memory`},
		"memory of up to 4 GiB":            {callModule(one, func(a *assembler) { a.mem(1); a.memory = []byte{1, 1, 0x80, 0x80, 4} }), ""},
		"memory of 4 GiB":                  {callModule(one, func(a *assembler) { a.mem(1); a.memory = []byte{1, 0x80, 0x80, 4, 0x80, 0x80, 4} }), "begins with 4294967296 bytes of memory, the actor's limit is 33554432"},
		"memory beyond 4 GiB":              {callModule(one, func(a *assembler) { a.mem(1); a.memory = []byte{0, 0x81, 0x80, 4} }), "invalid module"},
		"two memories":                     {callModule(one, func(a *assembler) { a.raw = [][]byte{{5, 5, 2, 0, 1, 0, 1}} }), "invalid module"},
		"a function called memory": {callModule(one, func(a *assembler) {
			a.memory = []byte{0, 1}
			a.fn("memory", 0, 0)
		}), `no memory is exported as "memory"`},
		"a memory called __guest_call": {callModule(nil, func(a *assembler) { a.memory, a.exports = []byte{0, 1}, []asmExport{{"__guest_call", 2, 0}} }), "invalid module"},
		"an imported table": {callModule(one, func(a *assembler) {
			a.imports = append(a.imports, asmImport{"env", "t", []byte{1, 0x70, 0, 1}})
			a.use("env", "f", 1, 0)
		}), "env.f, env.t (a table; an actor has its own)"},
		"a data segment beyond the memory":   {callModule(one, func(a *assembler) { a.data = []asmData{{65530, []byte("0123456789")}} }), "cannot be instantiated"},
		"a start function of another type":   {callModule(one, func(a *assembler) { a.raw = append(a.raw, []byte{8, 1, a.fn("", 1, 0)}) }), "invalid module"},
		"a start function that is not there": {callModule(one, func(a *assembler) { a.raw = append(a.raw, []byte{8, 1, 99}) }), "invalid module"},
		"the host's own import":              {callModule(one, func(a *assembler) { a.use("edged", "tick", 1, 1) }), "edged"},
		"a name in broken UTF-8":             {callModule(one, func(a *assembler) { a.fn("\xff\xfe", 0, 0) }), "invalid module"},
	} {
		a, err := h.Load(t.Context(), "lab/odd", c.wasm, runtime.Limits{})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want == "":
			if err := a.Close(t.Context()); err != nil {
				t.Error(err)
			}
		case !errors.Is(err, runtime.ErrModule) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 1000:
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		if c.want == "cannot be instantiated" {
			continue // which Check leaves out
		}
		switch err := runtime.Check(t.Context(), c.wasm, runtime.Limits{}); {
		case c.want == "" && err != nil:
			t.Errorf("check %s: %v", name, err)
		case c.want != "" && (!errors.Is(err, runtime.ErrModule) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("check %s: got %v, want %s", name, err, c.want)
		}
	}
}

// A name in a module can not write to the terminal of who reads the error.
func TestCheck_namesAreText(t *testing.T) {
	err := runtime.Check(t.Context(), callModule(num(1), func(a *assembler) { a.use("en\x1b[31mv", "f\n", 1, 0) }), runtime.Limits{})
	if !errors.Is(err, runtime.ErrModule) || !strings.Contains(err.Error(), "en\uFFFD[31mv.f\uFFFD;") {
		t.Errorf("got %q", err)
	}
}

// Who looks at a file knows what each function is that hosts provide.
func TestHostFunctions_areDescribed(t *testing.T) {
	for _, f := range runtime.HostFunctions() {
		if (wasm.Import{Module: f.Module, Name: f.Name, Kind: "function"}).Means() == "" {
			t.Errorf("%s.%s", f.Module, f.Name)
		}
	}
}

// 100,000 functions are a large module and not an error.
func TestHost_Load_manyFunctions(t *testing.T) {
	defer runtime.Interpret()() // a compiler takes a second
	h := newHost(t, runtime.Options{CacheDir: none})
	a := load(t, h, callModule(num(1), func(a *assembler) {
		for range 100_000 {
			a.fn("", 0, 0)
		}
		// callModule expects __guest_call to be the last.
	}), runtime.Limits{})
	if _, err := a.Call(t.Context(), "Op", nil); err != nil {
		t.Error(err)
	}
}

// Initialisers that never end are stopped with whoever loads the module, and at
// a limit of their own.
func TestHost_Load_endlessInitialisers(t *testing.T) {
	h := newHost(t, runtime.Options{})
	for name, more := range map[string]func(*assembler){
		"section":                  func(a *assembler) { a.raw = append(a.raw, []byte{8, 1, a.fn("", 0, 0, endless...)}) },
		"recursion in the section": func(a *assembler) { a.raw = append(a.raw, []byte{8, 1, a.fn("", 0, 0, call(4)...)}) },
		"_start":                   func(a *assembler) { a.fn("_start", 0, 0, endless...) },
		"recursion": func(a *assembler) {
			a.fn("wapc_init", 0, 0, slices.Concat(num(0), num(0), call(5), drop)...)
			a.fn("", 2, 1, slices.Concat(arg(0), arg(1), call(5))...)
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := h.Load(ctx, "lab/odd", callModule(num(1), more), runtime.Limits{})
		cancel()
		var trap *runtime.TrapError
		if !errors.Is(err, context.DeadlineExceeded) && !(errors.As(err, &trap) && trap.Reason == "stack overflow") {
			t.Errorf("%s: got %v", name, err)
		}
		if n := strings.Count(err.Error(), "lab/odd"); n != 1 {
			t.Errorf("%s: names the actor %d times: %v", name, n, err)
		}
	}
}

// The last response counts; an operation may be any bytes; nothing is left from
// the call before.
func TestActor_Call_slots(t *testing.T) {
	h := newHost(t, runtime.Options{})
	twice := load(t, h, callModule(slices.Concat(num(0), num(60000), call(1), num(8), num(3), call(1), num(1)), nil), runtime.Limits{})
	if out, err := twice.Call(t.Context(), "Op", nil); err != nil || !bytes.Equal(out, make([]byte, 3)) {
		t.Errorf("two responses: got %d bytes, %v", len(out), err)
	}
	// Answers with its operation.
	operation := load(t, h, callModule(slices.Concat(num(16), num(4096), call(0), num(16), arg(0), call(1), num(1)), nil), runtime.Limits{})
	for _, op := range []string{"", "\x00\xff\xfe", strings.Repeat("long", 900)} {
		if out, err := operation.Call(t.Context(), op, nil); err != nil || string(out) != op {
			t.Errorf("operation %.10q: got %.10q, %v", op, out, err)
		}
	}
	// Answers with a response if it is asked for more than 3 bytes.
	some := load(t, h, callModule(slices.Concat(arg(1), num(3), []byte{0x4b, 0x04, 0x40}, num(0), num(9), call(1), []byte{0x0b}, num(1)), nil), runtime.Limits{})
	for _, c := range []struct{ in, out int }{{5, 9}, {0, 0}, {4, 9}, {1, 0}} {
		if out, err := some.Call(t.Context(), "Op", make([]byte, c.in)); err != nil || len(out) != c.out {
			t.Errorf("%d bytes: got %d, %v, want %d", c.in, len(out), err, c.out)
		}
	}
}

// Lengths and pointers that a guest makes up.
func TestActor_Call_violations(t *testing.T) {
	h := newHost(t, runtime.Options{Call: func(context.Context, string, string, string, string, []byte) ([]byte, error) {
		return []byte("an answer"), nil
	}})
	eight := slices.Concat(slices.Repeat(num(0), 8), call(3), drop)
	for name, c := range map[string]struct {
		code []byte
		want string
	}{
		"a response of 1 GiB":            {slices.Concat(num(0), num(1<<30), call(1), num(1)), "outside of the guest's"},
		"an error of 1 GiB":              {slices.Concat(num(0), num(1<<30), call(2), num(0)), "outside of the guest's"},
		"a name of 60,000 bytes":         {slices.Concat(num(0), num(60000), slices.Repeat(num(0), 6), call(3)), "a name of 60000 bytes, at most 4096"},
		"an answer to nowhere":           {slices.Concat(eight, num(-4), call(4), num(1)), "outside of the guest's"},
		"an answer at the end of memory": {slices.Concat(eight, num(65530), call(4), num(1)), "outside of the guest's"},
	} {
		a := load(t, h, callModule(c.code, func(a *assembler) { a.use("wasmbus", "__host_response", 1, 0) }), runtime.Limits{})
		_, err := a.Call(t.Context(), "Op", nil)
		var trap *runtime.TrapError
		if !errors.As(err, &trap) || !strings.Contains(trap.Reason, c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

// Tables are on the engine's heap and count in the memory limit.
func TestHost_Load_tablesCount(t *testing.T) {
	h := newHost(t, runtime.Options{})
	wasm := callModule(num(1), func(a *assembler) { a.tables = []byte{2, 0x70, 0, 4, 0x70, 1, 0, 0x80, 0x20} }) // 131072 and 4096 entries
	_, err := h.Load(t.Context(), "lab/odd", wasm, runtime.Limits{MemoryBytes: 1 << 20})
	if !errors.Is(err, runtime.ErrModule) || !strings.Contains(err.Error(), "65536 bytes of memory and 1081344 of tables and globals, the actor's limit is 1048576") {
		t.Errorf("got %v", err)
	}
	if s := load(t, h, wasm, runtime.Limits{}).Stats(); s.MemoryBytes != 65536+1081344 {
		t.Errorf("%d bytes", s.MemoryBytes)
	}
}

// So do globals, and what element segments refer to, in tables or not.
func TestHost_Load_elementsAndGlobalsCount(t *testing.T) {
	h := newHost(t, runtime.Options{})
	for name, c := range map[string]struct {
		more  func(*assembler)
		bytes uint64
	}{
		"passive": {func(a *assembler) { a.raw = append(a.raw, []byte{9, 6, 1, 1, 0, 2, 0, 0}) }, 2 * 40},
		"expressions": {func(a *assembler) {
			a.raw = append(a.raw, []byte{9, 10, 1, 5, 0x70, 2, 0xd2, 0, 0x0b, 0xd0, 0x70, 0x0b})
		}, 2 * 40},
		"in a table": {func(a *assembler) {
			a.tables = []byte{1, 0x70, 1, 5, 5}
			a.raw = append(a.raw, []byte{9, 14, 2, 0, 0x41, 0, 0x0b, 2, 0, 0, 1, 0, 3, 0, 0, 0})
		}, 5*8 + 5*40},
		"globals": {func(a *assembler) { a.globals = []byte{2, 0x7e, 1, 0x42, 0x80, 0x01, 0x0b, 0x7f, 0, 0x41, 0, 0x0b} }, 2 * 88},
	} {
		if s := load(t, h, callModule(num(1), c.more), runtime.Limits{}).Stats(); s.MemoryBytes != 65536+c.bytes {
			t.Errorf("%s: %d bytes beside the memory, want %d", name, s.MemoryBytes-65536, c.bytes)
		}
	}
}

// A function of the host that a module passes on as its own has no memory to
// work on.
func TestHost_Load_guestCallOfTheHost(t *testing.T) {
	a := &assembler{}
	a.use("wasi_snapshot_preview1", "random_get", 2, 1)
	a.mem(1)
	a.exports = append(a.exports, asmExport{"__guest_call", 0, 0})
	_, err := newHost(t, runtime.Options{}).Load(t.Context(), "lab/odd", a.bytes(), runtime.Limits{})
	if !errors.Is(err, runtime.ErrModule) || !strings.Contains(err.Error(), "__guest_call is an import") {
		t.Errorf("got %v", err)
	}
}

// What is handed to the host counts in the memory limit.
func TestActor_Call_largeResponse(t *testing.T) {
	const limit = 8 << 20
	a := load(t, newHost(t, runtime.Options{}), callModule(slices.Concat(num(0), arg(1), num(10), []byte{0x74}, call(1), num(1)),
		func(a *assembler) { a.mem(96) }), runtime.Limits{MemoryBytes: limit}) // 6 MiB, and a response of 1 KiB for each byte
	if out, err := a.Call(t.Context(), "Op", make([]byte, 2<<10)); err != nil || len(out) != 2<<20 {
		t.Errorf("2 MiB: got %d bytes, %v", len(out), err)
	}
	_, err := a.Call(t.Context(), "Op", make([]byte, 3<<10))
	if !errors.Is(err, runtime.ErrMemory) || !strings.Contains(err.Error(), "a response of 3145728 bytes beside 6291456 bytes of memory") {
		t.Errorf("3 MiB: got %v, want ErrMemory", err)
	}
}
