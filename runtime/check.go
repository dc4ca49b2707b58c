package runtime

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/edged-io/edged/internal/wasm"
)

// MaxModuleBytes is the largest module that is loaded.
const MaxModuleBytes = 64 << 20

var wasmMagic = []byte("\x00asm")

// Check says why wasm can not be an actor under limits, in the words of Host.Load,
// without making code of it or running any: an error that is ErrModule. What is met
// when an instance is made, in segments of data and in initialisers, is not looked at.
func Check(ctx context.Context, wasm []byte, limits Limits) (err error) {
	if err := checkHeader(wasm); err != nil {
		return err
	}
	metered, err := rewrite(wasm)
	if err != nil {
		return err
	}
	m, err := newModuleIn(ctx, wazero.NewRuntimeConfigInterpreter(), "", metered, nil)
	if err != nil {
		return err
	}
	return errors.Join(checkMemory(m, limits.withDefaults().MemoryBytes), m.close(ctx))
}

// checkHeader says what is wrong with bytes that are no core module.
func checkHeader(wasm []byte) error {
	switch {
	case len(wasm) > MaxModuleBytes:
		return faultf("the module has %d bytes, the limit is %d", len(wasm), MaxModuleBytes)
	case len(wasm) == 0:
		return faultf("the module is empty")
	case !bytes.HasPrefix(wasm, wasmMagic[:min(len(wasm), len(wasmMagic))]):
		if bytes.HasPrefix(bytes.TrimSpace(wasm[:min(len(wasm), 256)]), []byte("(")) {
			return faultf("not a wasm module but its text form; assemble it first, with wat2wasm")
		}
		return faultf("not a wasm module: it begins with %q, not with %q", wasm[:min(len(wasm), 8)], wasmMagic)
	case len(wasm) < 8:
		return faultf("the module ends after %d bytes", len(wasm))
	}
	// The version: 16 bits of version and 16 bits of layer.
	version, layer := binary.LittleEndian.Uint16(wasm[4:]), binary.LittleEndian.Uint16(wasm[6:])
	switch {
	case layer == 1:
		return faultf("a WebAssembly component; actors are core modules: build for wasm32-unknown-unknown or wasip1, not for wasip2, and leave out the step that makes a component")
	case version != 1 || layer != 0:
		return faultf("wasm version %d (layer %d) is not known, only version 1", version, layer)
	}
	return nil
}

// checkImports names everything that the module needs and nobody provides. bin
// is the rewritten module.
func checkImports(bin []byte, c wazero.CompiledModule, provided map[string]map[string]api.FunctionDefinition) error {
	var missing []string
	for _, f := range c.ImportedFunctions() {
		module, name, _ := f.Import()
		have, ok := provided[module][name]
		switch {
		case !ok:
			missing = append(missing, wasm.Import{Module: module, Name: name}.Title()+hintFor(module, name))
		case slices.Equal(have.ParamTypes(), f.ParamTypes()) && slices.Equal(have.ResultTypes(), f.ResultTypes()):
		case name == "__host_call" && len(f.ParamTypes()) == 4:
			return faultf("imports %s.__host_call with 4 parameters: a waSCC module of 2019 or 2020; build it again with a waPC or wasmCloud library, whose __host_call has 8", module)
		default:
			missing = append(missing, fmt.Sprintf("%s as %s (it is %s)", wasm.Import{Module: module, Name: name}.Title(), signature(f), signature(have)))
		}
	}
	missing = append(missing, importedData(bin)...)
	if len(missing) == 0 {
		return nil
	}
	const most = 8
	more := ""
	if len(missing) > most {
		more = fmt.Sprintf(" and %d more", len(missing)-most)
		missing = missing[:most]
	}
	return faultf("imports what no host provides: %s%s; an actor may import %s and %s", strings.Join(missing, ", "), more, strings.Join(abiModules, ", "), wasiModule)
}

// importedData names the imports that are no functions. The engine tells only
// some of them. bin has been rewritten and is therefore well-formed up to here.
func importedData(bin []byte) (names []string) {
	kinds := map[byte]string{1: "a table", 2: "a memory", 3: "a global", 4: "a tag"}
	in := section(bin, 2)
	for range in.uint() {
		module, name := string(in.bytes(in.uint())), string(in.bytes(in.uint()))
		kind := in.byte()
		switch kind {
		case 0: // a function: its type
			in.uint()
		case 1: // type and limits
			in.byte()
			in.limits()
		case 2:
			in.limits()
		default: // a type and whether it changes; an attribute and a type
			in.byte()
			in.uint()
		}
		if what := kinds[kind]; what != "" {
			names = append(names, fmt.Sprintf("%s (%s; an actor has its own)", wasm.Import{Module: module, Name: name}.Title(), what))
		}
	}
	return names
}

// What the engine keeps on its own heap for each instance, in bytes, measured.
const (
	tableEntryBytes = 8
	elementBytes    = 40 // of a segment, in a table or not: a function that is referred to
	globalBytes     = 88
)

// tableBytes is what the tables of an instance of a rewritten module may grow
// to, with the elements that they are filled from and the globals.
func tableBytes(wasm []byte) (sum uint64) {
	tables, globals := section(wasm, 4), section(wasm, 6)
	for range tables.uint() {
		tables.byte() // type
		sum += tableEntryBytes * tables.limits()
	}
	return sum + globalBytes*(globals.uint()-1) + elementBytes*elements(wasm) // less the counter
}

// elements is how many entries all element segments of a rewritten module have.
func elements(wasm []byte) (sum uint64) {
	in := section(wasm, 9)
	for range in.uint() {
		flags := in.uint()
		if flags&3 == 2 { // the table
			in.uint()
		}
		if flags&1 == 0 { // where in it
			in.constant()
		}
		if flags&3 != 0 { // kind or type
			in.byte()
		}
		n := in.uint()
		for range n {
			if flags&4 == 0 {
				in.uint()
			} else {
				in.constant()
			}
		}
		sum += n
	}
	return sum
}

// section is the body of that section of a rewritten module.
func section(wasm []byte, id byte) wasmReader {
	in := wasmReader{wasm[8:]}
	for len(in.buf) > 0 {
		this := in.byte()
		body := in.bytes(in.uint())
		if this == id {
			return wasmReader{body}
		}
	}
	return wasmReader{}
}

// A wasmReader reads what is known to be well-formed; what is not reads as
// nothing.
type wasmReader struct{ buf []byte }

func (r *wasmReader) byte() byte {
	if b := r.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

func (r *wasmReader) bytes(n uint64) []byte {
	n = min(n, uint64(len(r.buf)))
	b := r.buf[:n]
	r.buf = r.buf[n:]
	return b
}

func (r *wasmReader) uint() uint64 {
	v, n := binary.Uvarint(r.buf)
	r.bytes(uint64(max(n, 0)))
	return v
}

// int is a signed number.
func (r *wasmReader) int() (v int64) {
	for shift := 0; ; shift += 7 {
		b := r.byte()
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			return v << (57 - min(shift, 57)) >> (57 - min(shift, 57))
		}
	}
}

// constant passes a constant expression.
func (r *wasmReader) constant() {
	for len(r.buf) > 0 {
		switch r.byte() {
		case 0x0b: // end
			return
		case 0x23, 0x41, 0x42, 0xd0, 0xd2: // an index, a number, a type
			r.uint()
		case 0x43: // a float
			r.bytes(4)
		case 0x44:
			r.bytes(8)
		case 0xfd: // a vector
			r.bytes(17)
		}
	}
}

// limits returns the maximum; without one, the minimum.
func (r *wasmReader) limits() uint64 {
	bounded := r.uint()&1 == 1
	most := r.uint()
	if bounded {
		most = r.uint()
	}
	return most
}

func hintFor(module, name string) string {
	switch {
	case module == "env" && name == "abort":
		return " (AssemblyScript: build with --use abort=)"
	case module == "wasi_unstable":
		return " (WASI before preview 1)"
	case strings.HasPrefix(module, "__wbindgen") || module == "wbg":
		return " (made for a browser by wasm-bindgen)"
	case module == "gojs" || module == "go":
		return " (Go for a browser: build with GOOS=wasip1)"
	}
	return ""
}

// checkExports looks for what every actor exports, and returns the initialisers
// that are there.
func checkExports(c wazero.CompiledModule) (starts []string, err error) {
	functions := c.ExportedFunctions()
	call, ok := functions["__guest_call"]
	switch {
	case !ok && functions["_start"] != nil:
		return nil, faultf("no export __guest_call: a WASI command, which runs once; an actor in Go is built with -buildmode=c-shared")
	case !ok:
		return nil, faultf("no export __guest_call, by which actors are called")
	case imported(call):
		return nil, faultf("__guest_call is an import, not a function of the module")
	case !slices.Equal(call.ParamTypes(), i32s(2)) || !slices.Equal(call.ResultTypes(), i32s(1)):
		return nil, faultf("__guest_call is %s, not %s", signature(call), "(i32, i32) → (i32)")
	}
	if _, ok := c.ExportedMemories()["memory"]; !ok {
		return nil, faultf("no memory is exported as %q", "memory")
	}
	if f := functions[startExport]; f != nil && len(f.ParamTypes())+len(f.ResultTypes()) > 0 {
		return nil, faultf("invalid module: its start function is %s, not () → ()", signature(f))
	}
	for _, name := range initialisers {
		if f := functions[name]; f != nil && !imported(f) && len(f.ParamTypes()) == 0 && len(f.ResultTypes()) == 0 {
			starts = append(starts, name)
		}
	}
	return starts, nil
}

// checkMemory says whether a module fits into an actor's memory at all.
func checkMemory(m *module, limit uint64) error {
	if m.leastMemory+m.tables > limit {
		beside := ""
		if m.tables > 0 {
			beside = fmt.Sprintf(" and %d of tables and globals", m.tables)
		}
		return faultf("the module begins with %d bytes of memory%s, the actor's limit is %d", m.leastMemory, beside, limit)
	}
	return nil
}

// imported says whether an export is a function of the host, which has nobody's
// memory when it is called from outside.
func imported(f api.FunctionDefinition) bool {
	_, _, is := f.Import()
	return is
}

func signature(f api.FunctionDefinition) string {
	list := func(types []api.ValueType) string {
		names := make([]string, len(types))
		for i, t := range types {
			names[i] = api.ValueTypeName(t)
		}
		return "(" + strings.Join(names, ", ") + ")"
	}
	return list(f.ParamTypes()) + " → " + list(f.ResultTypes())
}
