package meter_test

import (
	"encoding/binary"
	"slices"
)

// Value types and a few instructions, in the binary format.
const (
	i32, i64, f64, v128, funcref = 0x7f, 0x7e, 0x7c, 0x7b, 0x70
	void                         = 0x40

	opUnreachable, opNop               = 0x00, 0x01
	opBlock, opLoop, opIf, opElse      = 0x02, 0x03, 0x04, 0x05
	opEnd, opBr, opBrIf, opBrTable     = 0x0b, 0x0c, 0x0d, 0x0e
	opReturn, opCall, opCallIndirect   = 0x0f, 0x10, 0x11
	opReturnCall, opDrop, opSelect     = 0x12, 0x1a, 0x1b
	opLocalGet, opLocalSet, opLocalTee = 0x20, 0x21, 0x22
	opGlobalGet, opGlobalSet           = 0x23, 0x24
	opAdd, opSub, opLtS                = 0x6a, 0x6b, 0x48
)

// A wasmModule is put together section by section; each item has its bytes.
type wasmModule struct {
	types, imports, functions, tables, memories, tags, globals, exports, elements, codes, datas [][]byte

	imported int    // functions
	start    []byte // the section's content
	custom   []byte // at the end, with id and size
}

func typ(params, results []byte) []byte {
	return cat(0x60, uleb(len(params)), params, uleb(len(results)), results)
}

// typeIndex adds a type, unless it is there.
func (m *wasmModule) typeIndex(params, results []byte) int {
	t := typ(params, results)
	for i, have := range m.types {
		if slices.Equal(have, t) {
			return i
		}
	}
	m.types = append(m.types, t)
	return len(m.types) - 1
}

// use imports a function; call it before the first fn.
func (m *wasmModule) use(module, name string, params, results []byte) int {
	m.imports = append(m.imports, cat(str(module), str(name), 0, uleb(m.typeIndex(params, results))))
	m.imported++
	return m.imported - 1
}

// fn adds a function, exported unless export is "", with i32 locals beside its
// parameters. It returns its index.
func (m *wasmModule) fn(export string, params, results []byte, locals int, code ...any) int {
	index := m.imported + len(m.functions)
	m.functions = append(m.functions, uleb(m.typeIndex(params, results)))
	groups := []byte{0}
	if locals > 0 {
		groups = cat(1, uleb(locals), i32)
	}
	m.codes = append(m.codes, sized(cat(groups, cat(code...), opEnd)))
	if export != "" {
		m.export(export, 0, index)
	}
	return index
}

func (m *wasmModule) export(name string, kind byte, index int) {
	m.exports = append(m.exports, cat(str(name), kind, uleb(index)))
}

func (m *wasmModule) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	list := func(id byte, items [][]byte) {
		if len(items) > 0 {
			out = append(out, id)
			out = append(out, sized(cat(uleb(len(items)), slices.Concat(items...)))...)
		}
	}
	list(1, m.types)
	list(2, m.imports)
	list(3, m.functions)
	list(4, m.tables)
	list(5, m.memories)
	list(13, m.tags)
	list(6, m.globals)
	list(7, m.exports)
	if m.start != nil {
		out = append(out, cat(8, sized(m.start))...)
	}
	list(9, m.elements)
	if len(m.datas) > 0 {
		out = append(out, cat(12, sized(uleb(len(m.datas))))...)
	}
	list(10, m.codes)
	list(11, m.datas)
	return append(out, m.custom...)
}

// cat joins bytes and slices of them.
func cat(parts ...any) (out []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			out = append(out, byte(p))
		case byte:
			out = append(out, p)
		case []byte:
			out = append(out, p...)
		case []any:
			out = append(out, cat(p...)...)
		default:
			panic(p)
		}
	}
	return out
}

func uleb[N int | uint32](n N) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func sized(b []byte) []byte { return cat(uleb(len(b)), b) }

func str(s string) []byte { return sized([]byte(s)) }

// sleb is a signed LEB128 number.
func sleb(n int64) (out []byte) {
	for {
		b := byte(n & 0x7f)
		n >>= 7
		if n == 0 && b&0x40 == 0 || n == -1 && b&0x40 != 0 {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

func c32(n int) []byte { return cat(0x41, sleb(int64(n))) }

func c64(n int64) []byte { return cat(0x42, sleb(n)) }

func op(code byte, index int) []byte { return cat(code, uleb(index)) }

func types(t ...byte) []byte { return t }
