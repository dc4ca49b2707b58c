package runtime

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/edged-io/edged/runtime/meter"
)

const maxErrorBytes = 4 << 10 // of an error text, in either direction

// abiModules are the names under which guests import the same nine functions:
// wasmCloud's and waPC's.
var abiModules = []string{"wasmbus", "wapc"}

// A hostFunc is a function that a guest may import; parameters and results are
// on the stack.
type hostFunc struct {
	name            string
	params, results []api.ValueType
	code            api.GoModuleFunc
}

var hostFuncs = []hostFunc{
	{"__guest_request", i32s(2), i32s(0), guestRequest},
	{"__guest_response", i32s(2), i32s(0), guestResponse},
	{"__guest_error", i32s(2), i32s(0), guestError},
	{"__host_call", i32s(8), i32s(1), hostCall},
	{"__host_response_len", i32s(0), i32s(1), hostResponseLen},
	{"__host_response", i32s(1), i32s(0), hostResponse},
	{"__host_error_len", i32s(0), i32s(1), hostErrorLen},
	{"__host_error", i32s(1), i32s(0), hostError},
	{"__console_log", i32s(2), i32s(0), consoleLog},
}

// instantiateABI puts the functions that the guest imports into rt, as far as
// they exist, and returns their definitions by module and name. To make all of
// them would take as long as loading a small guest from the cache.
func instantiateABI(ctx context.Context, rt wazero.Runtime, guest wazero.CompiledModule) (map[string]map[string]api.FunctionDefinition, error) {
	used := map[string]map[string]bool{}
	for _, f := range guest.ImportedFunctions() {
		module, name, _ := f.Import()
		if used[module] == nil {
			used[module] = map[string]bool{}
		}
		used[module][name] = true
	}
	provided := map[string]map[string]api.FunctionDefinition{}
	for _, module := range append([]string{meter.ImportModule, wasiModule}, abiModules...) {
		if used[module] == nil {
			continue
		}
		b := rt.NewHostModuleBuilder(module)
		for _, f := range hostFuncsOf(module) {
			if used[module][f.name] {
				b.NewFunctionBuilder().WithGoModuleFunction(f.code, f.params, f.results).Export(f.name)
			}
		}
		compiled, err := b.Compile(ctx)
		if err == nil {
			_, err = rt.InstantiateModule(ctx, compiled, instanceConfig.WithName(module))
		}
		if err != nil {
			return nil, fmt.Errorf("host functions %s: %w", module, err)
		}
		provided[module] = compiled.ExportedFunctions()
	}
	return provided, nil
}

func hostFuncsOf(module string) []hostFunc {
	switch module {
	case meter.ImportModule:
		return []hostFunc{{meter.ImportTick, i32s(1), i32s(1), tick}}
	case wasiModule:
		return wasiHostFuncs()
	}
	return hostFuncs
}

func i32s(n int) []api.ValueType {
	return bytes.Repeat([]byte{api.ValueTypeI32}, n)
}

// A boundsError is a guest's pointer to where it has no memory. Host functions
// panic with it; the engine turns that into a trap with the guest's stack.
type boundsError struct {
	fn       string
	ptr, len uint64
	size     uint32
}

func (e *boundsError) Error() string {
	return fmt.Sprintf("%s: %d bytes at %#x are outside of the guest's %d bytes of memory", e.fn, e.len, e.ptr, e.size)
}

// read gives a part of the guest's memory, valid until the guest runs again. No
// bytes may be anywhere: guests in Zig have them at the end of the address space.
func read(m api.Module, fn string, ptr, n uint64) []byte {
	if uint32(n) == 0 {
		return nil
	}
	b, ok := m.Memory().Read(uint32(ptr), uint32(n))
	if !ok {
		panic(&boundsError{fn, uint64(uint32(ptr)), uint64(uint32(n)), m.Memory().Size()})
	}
	return b
}

func (in *instance) write(m api.Module, fn string, ptr uint64, b []byte) {
	if len(b) == 0 {
		in.work(0)
		return
	}
	to, ok := m.Memory().Read(uint32(ptr), uint32(len(b)))
	if !ok {
		panic(&boundsError{fn, uint64(uint32(ptr)), uint64(len(b)), m.Memory().Size()})
	}
	in.copy(to, b)
}

// copy copies as much at once as the host moves between two looks at the clock:
// nobody can interrupt a copy, neither who waits for the core nor the garbage
// collector, for which the whole program would stand still.
func (in *instance) copy(to, from []byte) {
	for {
		n := copy(to, from[:min(len(from), workBytes)])
		in.work(uint64(n))
		if to, from = to[n:], from[n:]; len(from) == 0 {
			return
		}
	}
}

// append appends b to dst.
func (in *instance) append(dst, b []byte) []byte {
	n := len(dst) + len(b)
	if len(b) <= workBytes {
		in.work(uint64(len(b)))
		return append(dst, b...)
	}
	if cap(dst) < n {
		dst = append(make([]byte, 0, n), dst...)
	}
	in.copy(dst[len(dst):n], b)
	return dst[:n]
}

func guestRequest(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	in.work(uint64(len(in.operation)))
	if in.operation != "" && !m.Memory().WriteString(uint32(stack[0]), in.operation) {
		panic(&boundsError{"__guest_request", uint64(uint32(stack[0])), uint64(len(in.operation)), m.Memory().Size()})
	}
	in.write(m, "__guest_request", stack[1], in.payload)
}

// guestResponse may be called again: the last response counts.
func guestResponse(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	b := read(m, "__guest_response", stack[0], stack[1])
	in.hand("response", len(b))
	in.response = in.append(in.response[:in.given], b)
}

func guestError(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	b := read(m, "__guest_error", stack[0], stack[1])
	in.work(0)
	in.guestError = cleanText(b)
	in.guestFailed = true
}

// hand accounts for n bytes that leave the guest's memory for the host's. The
// guest is held to its memory limit with them included: what is in flight for
// an actor is never more than that.
func (in *instance) hand(what string, n int) {
	if size := uint64(in.memory.held.Load()); size+uint64(n) > in.memory.limit && n > leastHanded {
		in.memory.denied = fmt.Errorf("%w (%d bytes)", ErrMemory, in.memory.limit)
		panic(&stopError{cause: fmt.Errorf("a %s of %d bytes beside %d bytes of memory", what, n, size), trap: true})
	}
}

// leastHanded can be handed over in any case: a memory may be as large as its
// limit.
const leastHanded = 1 << 20

// hostCall answers exactly 0 or 1: guest libraries differ in which other values
// they take for a success.
func hostCall(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	var name [3]string
	for i := range name {
		b := read(m, "__host_call", stack[2*i], stack[2*i+1])
		in.work(uint64(len(b)))
		if string(b) != in.names[i] { // a guest says the same again and again
			if len(b) > maxNameBytes {
				panic(&stopError{cause: fmt.Errorf("__host_call: a name of %d bytes, at most %d", len(b), maxNameBytes), trap: true})
			}
			in.names[i] = string(b)
		}
	}
	payload := read(m, "__host_call", stack[6], stack[7])
	in.hand("payload", len(payload))
	in.hostResponse, in.hostError = nil, ""
	response, err := in.callHost(in.names[0], in.names[1], in.names[2], in.append(nil, payload))
	if err != nil {
		in.hostError = cleanText([]byte(err.Error()))
		stack[0] = 0
		return
	}
	in.hostResponse = response
	stack[0] = 1
}

// maxNameBytes is how long a binding, a namespace or an operation may be.
const maxNameBytes = 4 << 10

func hostResponseLen(ctx context.Context, _ api.Module, stack []uint64) {
	stack[0] = uint64(uint32(len(instanceOf(ctx).hostResponse)))
}

func hostResponse(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	in.write(m, "__host_response", stack[0], in.hostResponse)
}

func hostErrorLen(ctx context.Context, _ api.Module, stack []uint64) {
	stack[0] = uint64(uint32(len(instanceOf(ctx).hostError)))
}

func hostError(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	in.write(m, "__host_error", stack[0], []byte(in.hostError))
}

// consoleLog is for debug text and never fails, whatever the pointer.
func consoleLog(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	in.work(lineWork)
	if b, ok := m.Memory().Read(uint32(stack[0]), uint32(stack[1])); ok {
		b = bytes.TrimRight(b[:min(len(b), maxLineBytes)], "\r\n")
		in.stderr.keep(b)
		in.stderr.keep([]byte{'\n'})
		in.actor.output.line(in.ctx, slog.LevelInfo, "console", b)
	}
}

// cleanText makes a text from outside fit for a log line and an error.
func cleanText(b []byte) string {
	return strings.ToValidUTF8(string(b[:min(len(b), maxErrorBytes)]), "\uFFFD")
}
