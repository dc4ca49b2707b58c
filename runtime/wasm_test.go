package runtime_test

import (
	"encoding/binary"
	"slices"
	"strings"
)

// An assembler puts modules together byte by byte, for guests that no compiler
// would make.
type assembler struct {
	types   [][2]string // parameters and results, a byte for each
	imports []asmImport
	funcs   []asmFunc
	exports []asmExport
	tables  []byte // body of the section; nil for none
	globals []byte // likewise
	memory  []byte // limits; nil for none
	raw     [][]byte
	locals  int // of the last function
	data    []asmData
}

type asmData struct {
	at    int
	bytes []byte
}

type asmImport struct {
	module, name string
	kind         []byte
}

type asmFunc struct {
	typ    int
	locals int // beside the parameters, i64
	code   []byte
}

type asmExport struct {
	name  string
	kind  byte
	index int
}

// typ is the index of a type of so many i32.
func (a *assembler) typ(params, results int) int {
	return a.typeOf(strings.Repeat("\x7f", params), strings.Repeat("\x7f", results))
}

func (a *assembler) typeOf(params, results string) int {
	t := [2]string{params, results}
	if i := slices.Index(a.types, t); i >= 0 {
		return i
	}
	a.types = append(a.types, t)
	return len(a.types) - 1
}

// use imports a function; call it before fn. It returns its index.
func (a *assembler) use(module, name string, params, results int) byte {
	a.imports = append(a.imports, asmImport{module, name, []byte{0, byte(a.typ(params, results))}})
	return byte(len(a.imports) - 1)
}

// fn adds a function and exports it, unless export is "".
func (a *assembler) fn(export string, params, results int, code ...byte) byte {
	index := len(a.funcs)
	for _, i := range a.imports {
		if i.kind[0] == 0 {
			index++
		}
	}
	a.funcs = append(a.funcs, asmFunc{typ: a.typ(params, results), code: append(code, 0x0b)})
	if export != "" {
		a.exports = append(a.exports, asmExport{export, 0, index})
	}
	return byte(index)
}

// mem adds a memory of that many pages and exports it.
func (a *assembler) mem(pages byte) {
	a.memory = []byte{0, pages}
	a.exports = append(a.exports, asmExport{"memory", 2, 0})
}

func (a *assembler) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, items [][]byte) {
		if len(items) == 0 {
			return
		}
		body := uleb(len(items))
		for _, i := range items {
			body = append(body, i...)
		}
		out = append(append(append(out, id), uleb(len(body))...), body...)
	}
	var types, imports, funcs, exports, codes [][]byte
	for _, t := range a.types {
		types = append(types, slices.Concat([]byte{0x60}, str(t[0]), str(t[1])))
	}
	for _, i := range a.imports {
		imports = append(imports, slices.Concat(str(i.module), str(i.name), i.kind))
	}
	for i, f := range a.funcs {
		if i == len(a.funcs)-1 {
			f.locals = a.locals
		}
		funcs = append(funcs, uleb(f.typ))
		body := []byte{0}
		if f.locals > 0 {
			body = append(append([]byte{1}, uleb(f.locals)...), 0x7e)
		}
		body = append(body, f.code...)
		codes = append(codes, append(uleb(len(body)), body...))
	}
	for _, e := range a.exports {
		exports = append(exports, append(append(str(e.name), e.kind), uleb(e.index)...))
	}
	section(1, types)
	section(2, imports)
	section(3, funcs)
	if a.tables != nil {
		out = append(append(append(out, 4), uleb(len(a.tables))...), a.tables...)
	}
	if a.memory != nil {
		section(5, [][]byte{a.memory})
	}
	if a.globals != nil {
		out = append(append(append(out, 6), uleb(len(a.globals))...), a.globals...)
	}
	section(7, exports)
	for _, r := range a.raw {
		out = append(out, r...)
	}
	section(10, codes)
	var data [][]byte
	for _, d := range a.data {
		data = append(data, slices.Concat([]byte{0}, num(d.at), []byte{0x0b}, str(string(d.bytes))))
	}
	section(11, data)
	return out
}

func uleb(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func str(s string) []byte { return append(uleb(len(s)), s...) }

// num pushes a constant.
func num(n int) []byte {
	b := []byte{0x41}
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// call calls a function.
func call(index byte) []byte { return []byte{0x10, index} }

// arg pushes a parameter.
func arg(index byte) []byte { return []byte{0x20, index} }

var (
	unreachable = []byte{0x00}
	endless     = []byte{0x03, 0x40, 0x0c, 0x00, 0x0b} // loop br 0 end
	drop        = []byte{0x1a}
	grow        = []byte{0x40, 0x00}
)

// echoModule answers every operation with its payload, with memory for 60 KiB.
func echoModule() []byte {
	a := &assembler{}
	request, response := a.use("wapc", "__guest_request", 2, 0), a.use("wapc", "__guest_response", 2, 0)
	a.mem(2)
	a.fn("__guest_call", 2, 1, slices.Concat(
		num(16), num(4096), call(request), num(4096), arg(1), call(response), num(1))...)
	return a.bytes()
}

// callModule has one function, __guest_call, with that code, after what more
// adds. Its imports are guest_request, guest_response, guest_error and
// host_call, 0 to 3, of wasmbus.
func callModule(code []byte, more func(*assembler)) []byte {
	a := &assembler{}
	a.use("wasmbus", "__guest_request", 2, 0)
	a.use("wasmbus", "__guest_response", 2, 0)
	a.use("wasmbus", "__guest_error", 2, 0)
	a.use("wasmbus", "__host_call", 8, 1)
	if more != nil {
		more(a)
	}
	if a.memory == nil {
		a.mem(1)
	}
	a.fn("__guest_call", 2, 1, code...)
	return a.bytes()
}
