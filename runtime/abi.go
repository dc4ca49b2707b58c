package runtime

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

const maxErrorBytes = 4 << 10 // of an error text, in either direction

// abiModules are the names under which guests import the same nine functions:
// wasmCloud's and waPC's.
var abiModules = []string{"wasmbus", "wapc"}

const wasiModule = wasi_snapshot_preview1.ModuleName

// A hostFunc is one function of the guest ABI: params i32 parameters, results
// i32 results, both on the stack.
type hostFunc struct {
	name            string
	params, results int
	code            api.GoModuleFunc
}

var hostFuncs = []hostFunc{
	{"__guest_request", 2, 0, guestRequest},
	{"__guest_response", 2, 0, guestResponse},
	{"__guest_error", 2, 0, guestError},
	{"__host_call", 8, 1, hostCall},
	{"__host_response_len", 0, 1, hostResponseLen},
	{"__host_response", 1, 0, hostResponse},
	{"__host_error_len", 0, 1, hostErrorLen},
	{"__host_error", 1, 0, hostError},
	{"__console_log", 2, 0, consoleLog},
}

// instantiateABI puts the functions that a guest may import into rt, as far as
// it does, and returns their definitions by module and name. To make all of them
// would take as long as loading a small guest from the cache.
func instantiateABI(ctx context.Context, rt wazero.Runtime, guest wazero.CompiledModule) (map[string]map[string]api.FunctionDefinition, error) {
	used := map[string]bool{}
	for _, f := range guest.ImportedFunctions() {
		module, _, _ := f.Import()
		used[module] = true
	}
	provided := map[string]map[string]api.FunctionDefinition{}
	for _, name := range append([]string{wasiModule}, abiModules...) {
		if !used[name] {
			continue
		}
		b := rt.NewHostModuleBuilder(name)
		if name == wasiModule {
			wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
			b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(procExit), i32s(1), nil).Export("proc_exit")
		} else {
			for _, f := range hostFuncs {
				b.NewFunctionBuilder().WithGoModuleFunction(f.code, i32s(f.params), i32s(f.results)).Export(f.name)
			}
		}
		m, err := b.Instantiate(ctx)
		if err != nil {
			return nil, fmt.Errorf("host functions %s: %w", name, err)
		}
		provided[name] = m.ExportedFunctionDefinitions()
	}
	return provided, nil
}

func i32s(n int) []api.ValueType {
	return bytes.Repeat([]byte{api.ValueTypeI32}, n)
}

// callContext tells the host functions which instance is calling. It is made
// anew for each call: the engine's watcher may look at it a moment after the
// call has ended.
type callContext struct {
	context.Context
	in *instance
}

type instanceKey struct{}

func (c *callContext) Value(key any) any {
	if key == (instanceKey{}) {
		return c.in
	}
	return c.Context.Value(key)
}

func instanceOf(ctx context.Context) *instance { return ctx.Value(instanceKey{}).(*instance) }

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

func write(m api.Module, fn string, ptr uint64, b []byte) {
	if len(b) > 0 && !m.Memory().Write(uint32(ptr), b) {
		panic(&boundsError{fn, uint64(uint32(ptr)), uint64(len(b)), m.Memory().Size()})
	}
}

func guestRequest(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	if in.operation != "" && !m.Memory().WriteString(uint32(stack[0]), in.operation) {
		panic(&boundsError{"__guest_request", uint64(uint32(stack[0])), uint64(len(in.operation)), m.Memory().Size()})
	}
	write(m, "__guest_request", stack[1], in.payload)
}

func guestResponse(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	in.response = append([]byte{}, read(m, "__guest_response", stack[0], stack[1])...)
}

func guestError(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	in.guestError = cleanText(string(read(m, "__guest_error", stack[0], stack[1])))
	in.guestFailed = true
}

// hostCall answers exactly 0 or 1: guest libraries differ in which other values
// they take for a success.
func hostCall(ctx context.Context, m api.Module, stack []uint64) {
	in := instanceOf(ctx)
	binding := string(read(m, "__host_call", stack[0], stack[1]))
	namespace := string(read(m, "__host_call", stack[2], stack[3]))
	operation := string(read(m, "__host_call", stack[4], stack[5]))
	payload := bytes.Clone(read(m, "__host_call", stack[6], stack[7]))

	in.hostResponse, in.hostError = nil, ""
	response, err := in.callHost(binding, namespace, operation, payload)
	if stopped := in.ctx.Err(); stopped != nil {
		// The engine looks at the deadline in loops only; here it can be kept
		// at once.
		panic(stopped)
	}
	if err != nil {
		in.hostError = cleanText(err.Error())
		stack[0] = 0
		return
	}
	in.hostResponse = response
	stack[0] = 1
}

func hostResponseLen(ctx context.Context, _ api.Module, stack []uint64) {
	stack[0] = uint64(uint32(len(instanceOf(ctx).hostResponse)))
}

func hostResponse(ctx context.Context, m api.Module, stack []uint64) {
	write(m, "__host_response", stack[0], instanceOf(ctx).hostResponse)
}

func hostErrorLen(ctx context.Context, _ api.Module, stack []uint64) {
	stack[0] = uint64(uint32(len(instanceOf(ctx).hostError)))
}

func hostError(ctx context.Context, m api.Module, stack []uint64) {
	write(m, "__host_error", stack[0], []byte(instanceOf(ctx).hostError))
}

// consoleLog is for debug text and never fails, whatever the pointer.
func consoleLog(ctx context.Context, m api.Module, stack []uint64) {
	if b, ok := m.Memory().Read(uint32(stack[0]), uint32(stack[1])); ok {
		instanceOf(ctx).actor.output.line(ctx, slog.LevelInfo, "console", bytes.TrimRight(b, "\r\n"))
	}
}

// procExit replaces WASI's, which closes the module: guests of TinyGo leave
// _start by proc_exit(0) and are called afterwards. It ends what is running,
// with the guest's stack, and what that means is decided by who called.
func procExit(_ context.Context, _ api.Module, stack []uint64) {
	panic(&exitError{uint32(stack[0])})
}

// exitError is not the engine's own, for which it would drop the stack.
type exitError struct{ code uint32 }

func (e *exitError) Error() string { return fmt.Sprintf("the guest exited with code %d", e.code) }

// cleanText makes a text from outside fit for a log line and an error.
func cleanText(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxErrorBytes)], "\uFFFD")
}
