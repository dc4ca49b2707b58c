package meter_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/edged-io/edged/runtime/meter"
	"github.com/tetratelabs/wazero"
)

// A module that ends early is malformed, wherever it ends; but for the ends of
// its sections, and there it lacks what comes later.
func TestRewrite_truncated(t *testing.T) {
	for seed := range uint64(4) {
		wasm, _ := randomModule(seed)
		whole := 0
		for n := range wasm {
			_, err := meter.Rewrite(wasm[:n])
			switch {
			case err == nil:
				whole++
			case !errors.Is(err, meter.ErrMalformed):
				t.Fatalf("seed %d, %d of %d bytes: %v", seed, n, len(wasm), err)
			}
		}
		if whole > 13 {
			t.Errorf("seed %d: %d truncated modules were accepted, more than there are sections", seed, whole)
		}
	}
}

// with has one function of that code, a table, a memory and a global.
func with(code ...any) []byte {
	m := wasmModule{
		tables: [][]byte{{funcref, 0, 1}}, memories: [][]byte{{0, 1}}, globals: [][]byte{cat(i32, 1, c32(0), opEnd)},
	}
	m.fn("run", nil, nil, 0, code...)
	return m.bytes()
}

// sections puts a module together of ids and contents.
func sections(parts ...any) []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for i := 0; i < len(parts); i += 2 {
		out = append(out, byte(parts[i].(int)))
		out = append(out, sized(parts[i+1].([]byte))...)
	}
	return out
}

var emptyType = typ(nil, nil)

// faults are modules that are refused, and parts of the reason.
var faults = []struct {
	name string
	wasm []byte
	kind error
	want string
}{
	{"nothing", nil, meter.ErrMalformed, "not a WebAssembly module of version 1 at byte 0"},
	{"a component", []byte("\x00asm\x0d\x00\x01\x00"), meter.ErrMalformed, "not a WebAssembly module"},
	{"an unknown section", sections(14, cat()), meter.ErrMalformed, "id 14"},
	{"a section twice", sections(1, cat(0), 1, cat(0)), meter.ErrMalformed, "twice there or out of order"},
	{"sections out of order", sections(3, cat(0), 1, cat(0)), meter.ErrMalformed, "id 1 (type)"},
	{"a section beyond the end", []byte("\x00asm\x01\x00\x00\x00\x01\x7f"), meter.ErrMalformed, "a section of 127 bytes, where 0 are left"},
	{"too much in a section", sections(1, cat(0, 0)), meter.ErrMalformed, "1 bytes too many, in the type section at byte 11"},
	{"a count beyond the section", sections(1, cat(uleb(1<<30))), meter.ErrMalformed, "1073741824 types in 0 bytes"},
	{"a number beyond 32 bits", sections(1, cat(0xff, 0xff, 0xff, 0xff, 0x1f)), meter.ErrMalformed, "beyond 32 bits, in the type section at byte 10"},
	{"a custom section without a name", sections(0, cat(9)), meter.ErrMalformed, "in the custom section"},
	{"bodies without functions", sections(1, cat(1, emptyType), 10, cat(1, 2, 0, opEnd)), meter.ErrMalformed, "1 function bodies for 0 functions"},
	{"functions without bodies", sections(1, cat(1, emptyType), 3, cat(1, 0)), meter.ErrMalformed, "0 function bodies for 1 functions"},

	{"the host's import", sections(1, cat(1, emptyType), 2, cat(1, str("edged"), str("other"), 0, 0)), meter.ErrMalformed, `imports from "edged"`},
	{"the host's export", sections(6, cat(1, i32, 0, c32(0), opEnd), 7, cat(1, str(meter.ExportCounter), 3, 0)), meter.ErrMalformed, `exports "edged:steps"`},

	// One past the end of a space is what is added to it.
	{"our type, of an import", sections(1, cat(1, emptyType), 2, cat(1, str("a"), str("b"), 0, 1)), meter.ErrMalformed, "type 1, there are 1"},
	{"our type, of a function", sections(1, cat(1, emptyType), 3, cat(1, 1)), meter.ErrMalformed, "type 1, there are 1"},
	{"our type, of a block", with(opBlock, 1, opEnd), meter.ErrMalformed, "type 1, there are 1"},
	{"our type, of a call", with(c32(0), opCallIndirect, 1, 0), meter.ErrMalformed, "type 1, there are 1"},
	{"our type, of a tag", sections(1, cat(0), 13, cat(1, 0, 0)), meter.ErrMalformed, "type 0, there are 0"},
	{"our function, called", with(op(opCall, 1)), meter.ErrMalformed, "function 1, there are 1"},
	{"our function, referred to", with(op(0xd2, 1), opDrop), meter.ErrMalformed, "function 1, there are 1"},
	{"our function, exported", sections(7, cat(1, str("x"), 0, 0)), meter.ErrMalformed, "function 0, there are 0"},
	{"our function, started", sections(8, cat(0)), meter.ErrMalformed, "function 0, there are 0, in the start section"},
	{"our function, in a table", sections(4, cat(1, funcref, 0, 1), 9, cat(1, 0, c32(0), opEnd, 1, 0)), meter.ErrMalformed, "function 0, there are 0"},
	{"our function, in an expression", sections(6, cat(1, funcref, 0, op(0xd2, 0), opEnd)), meter.ErrMalformed, "function 0, there are 0"},
	{"our global", with(op(opGlobalGet, 1), opDrop), meter.ErrMalformed, "global 1, there are 1"},
	{"our global, set", with(c32(1), op(opGlobalSet, 1)), meter.ErrMalformed, "global 1, there are 1"},
	{"our global, exported", sections(7, cat(1, str("x"), 3, 0)), meter.ErrMalformed, "global 0, there are 0"},
	{"our global, in an expression", sections(5, cat(1, 0, 1), 11, cat(1, 0, op(opGlobalGet, 0), opEnd, 0)), meter.ErrMalformed, "global 0, there are 0"},
	{"our local", with(c32(0), c32(0), op(opLocalGet, 0), 0xfc, 11, 0), meter.ErrMalformed, "local 0, there are 0"},

	{"threads", with(0xfe, 3, 0), meter.ErrMalformed, "unknown instruction 0xfe (threads; the proposal is not supported), in the code section at byte"},
	{"former exceptions", with(0x06, void, opEnd), meter.ErrMalformed, "build with the present one, try_table"},
	{"garbage collection", with(0xfb, 0), meter.ErrMalformed, "garbage collection"},
	{"typed references", with(0x14, 0), meter.ErrMalformed, "typed references"},
	{"a relaxed vector", with(0xfd, uleb(0x100)), meter.ErrMalformed, "0xfd 0x100; relaxed ones"},
	{"an unknown bulk operation", with(0xfc, 18), meter.ErrMalformed, "0xfc 0x12"},
	{"an unknown instruction", with(0x27), meter.ErrMalformed, "unknown instruction 0x27"},
	{"a shared memory", sections(5, cat(1, 3, 1, 1)), meter.ErrMalformed, "threads are not supported"},
	{"a memory of 64 bits", sections(5, cat(1, 4, 1)), meter.ErrMalformed, "64-bit addresses"},
	{"a type of a structure", sections(1, cat(1, 0x5f, 0)), meter.ErrMalformed, "a type of form 0x5f"},
	{"else without if", with(opBlock, void, opElse, opEnd), meter.ErrMalformed, "an else without an if"},
	{"else twice", with(c32(0), opIf, void, opElse, opElse, opEnd), meter.ErrMalformed, "an else without an if"},
	{"else of a function", with(opElse), meter.ErrMalformed, "an else without an if"},
	{"a block without an end", with(opBlock, void), meter.ErrMalformed, "a function without an end"},
	{"an end too many", with(opEnd), meter.ErrMalformed, "1 bytes after the end of a function"},
	{"a label beyond", with(op(opBr, 1)), meter.ErrMalformed, "label 1, there are 1"},
	{"a type of nothing", with(opBlock, 0x41, opEnd), meter.ErrMalformed, "a value type 0x41"},
	{"an instruction in an expression", sections(6, cat(1, i32, 0, opNop, opEnd)), meter.ErrMalformed, "an instruction 0x1 in a constant expression"},
	{"a name that is no text", sections(7, cat(1, 1, 0xff, 3, 0)), meter.ErrMalformed, "not UTF-8"},
	{"a memory of 4 GiB and more", sections(5, cat(1, 0, uleb(65537))), meter.ErrMalformed, "a memory of 65537 pages"},
	{"a maximum below the minimum", sections(4, cat(1, funcref, 1, 2, 1)), meter.ErrMalformed, "minimum of 2 and a maximum of 1"},

	{"tables", sections(4, cat(17, slices.Repeat([]byte{funcref, 0, 1}, 17))), meter.ErrLimit, "17 tables, the limit is 16"},
	{"a large table", sections(4, cat(1, funcref, 0, uleb(1<<17+1))), meter.ErrLimit, "a table of 131073 entries, the limit is 131072"},
	{"types", sections(1, cat(uleb(1<<16+1), slices.Repeat(emptyType, 1<<16+1))), meter.ErrLimit, "65537 types, the limit is 65536"},
	{"parameters", sections(1, cat(1, 0x60, uleb(1001), slices.Repeat(types(i32), 1001), 0)), meter.ErrLimit, "1001 parameters, the limit is 1000"},
	{"imports", sections(1, cat(1, emptyType), 2, cat(uleb(10001), slices.Repeat(cat(str("a"), str("b"), 0, 0), 10001))), meter.ErrLimit, "10001 imports"},
	{"globals", sections(6, cat(uleb(1<<16+1), slices.Repeat(cat(i32, 0, c32(0), opEnd), 1<<16+1))), meter.ErrLimit, "65537 globals"},
	{"functions times exports", sections(1, cat(1, emptyType), 3, cat(uleb(8193), make([]byte, 8193)), 7, cat(uleb(8192), slices.Repeat(cat(str("x"), 0, 0), 8192))), meter.ErrLimit, "8192 exports beside 8193 functions, the limit of their product is 67108864"},
	{"memories", sections(5, cat(2, 0, 1, 0, 1)), meter.ErrLimit, "2 memories, the limit is 1"},
	{"elements", sections(9, cat(1, 1, 0, uleb(1<<18+1), make([]byte, 1<<18+1))), meter.ErrLimit, "262145 elements"},
	{"elements in all", sections(1, cat(1, emptyType), 2, cat(1, str("a"), str("b"), 0, 0), 9, cat(2, slices.Repeat(cat(1, 0, uleb(1<<17+1), make([]byte, 1<<17+1)), 2))), meter.ErrLimit, "more than 262144 elements in all"},
	{"passive data", sections(5, cat(1, 0, 17), 12, uleb(1), 11, cat(1, 1, uleb(1<<20+1), make([]byte, 1<<20+1))), meter.ErrLimit, "a passive data segment of 1048577 bytes, the limit is 1048576"},
	{"locals", sections(1, cat(1, emptyType), 3, cat(1, 0), 10, cat(1, sized(cat(1, uleb(50001), i32, opEnd)))), meter.ErrLimit, "more than 50000 locals"},
	{"locals by the billion", sections(1, cat(1, emptyType), 3, cat(1, 0), 10, cat(1, sized(cat(2, uleb(uint32(math.MaxUint32)), i32, uleb(uint32(math.MaxUint32)), i32, opEnd)))), meter.ErrLimit, "more than 50000 locals"},
	{"locals and ours", sections(1, cat(1, emptyType), 3, cat(1, 0), 5, cat(1, 0, 1), 10, cat(1, sized(cat(1, uleb(50000), i32, c32(0), c32(0), c32(0), 0xfc, 11, 0, opEnd)))), meter.ErrLimit, "50000 locals and a bulk operation"},
	{"locals in all", functionsOf(85, cat(1, uleb(50000), i32, opEnd)), meter.ErrLimit, "more than 4194304 locals in all"},
	{"a large body", functionsOf(1, cat(0, bytes.Repeat([]byte{opNop}, 1<<20-1), opEnd)), meter.ErrLimit, "a function body of 1048577 bytes"},
	{"nesting", with(bytes.Repeat([]byte{opBlock, void}, 1<<14+1), bytes.Repeat([]byte{opEnd}, 1<<14+1)), meter.ErrLimit, "nested deeper than 16384"},
	{"branches", with(c32(0), opBrTable, uleb(1<<15+1), make([]byte, 1<<15+2)), meter.ErrLimit, "32769 branches"},
	{"a long expression", sections(6, cat(1, i32, 0, slices.Repeat(c32(0), 2100), opEnd)), meter.ErrLimit, "expression of more than 4096 bytes"},
	{"custom sections", sections(slices.Repeat([]any{0, str("x")}, 1025)...), meter.ErrLimit, "more than 1024 sections"},
	{"bulk operations and nothing else", sections(1, cat(1, emptyType), 3, cat(30, make([]byte, 30)), 5, cat(1, 0, 1), 10, cat(30, bytes.Repeat(sized(cat(0, c32(0), bytes.Repeat([]byte{0x40, 0}, 300), opDrop, opEnd)), 30))), meter.ErrLimit, "grow to more than 8 times its size"},
	{"blocks", with(bytes.Repeat([]byte{opBlock, void, opEnd}, 1<<15)), meter.ErrLimit, "blocks and branches, the limit is 32768"},
	{"branches of a table", with(c32(0), opBrTable, uleb(1<<15), make([]byte, 1<<15+1)), meter.ErrLimit, "some 32774 blocks and branches"},
	{"loops", with(bytes.Repeat([]byte{opLoop, void, opBr, 0, opEnd}, 10_000)), meter.ErrLimit, "blocks and branches"},
	{"blocks of all", functionsOf(16, cat(0, bytes.Repeat([]byte{opBlock, void, opEnd}, 6000), opEnd)), meter.ErrLimit, "sum of their squares"},
	{"calls of a function", with(bytes.Repeat([]byte{opCall, 0}, 1<<16+1)), meter.ErrLimit, "65537 calls"},
	{"loads of a function", with(c32(0), bytes.Repeat([]byte{0x28, 2, 0}, 1<<16+1), opDrop), meter.ErrLimit, "some 65537 instructions that may trap"},
	{"loads of vectors", with(bytes.Repeat([]byte{0x41, 0, 0xfd, 0, 0, 0, opDrop}, 1<<16+1)), meter.ErrLimit, "some 65537 instructions that may trap"},
	{"divisions of a function", with(c32(1), bytes.Repeat([]byte{0x41, 1, 0x6e}, 1<<16+1), opDrop), meter.ErrLimit, "some 65537 instructions that may trap"},
	{"truncations of a function", with(bytes.Repeat([]byte{0x43, 0, 0, 0, 0, 0xa8, opDrop}, 1<<15+1)), meter.ErrLimit, "some 65538 instructions that may trap"},
	{"indirect calls of a function", with(bytes.Repeat([]byte{0x41, 0, opCallIndirect, 0, 0}, 1<<16/3+1)), meter.ErrLimit, "some 65538 instructions that may trap"},
	{"segments dropped", with(bytes.Repeat([]byte{0xfc, 13, 0}, 1<<16+1)), meter.ErrLimit, "some 65537 instructions that may trap"},
	{"references of a function", with(bytes.Repeat([]byte{0xd2, 0, opDrop}, 1<<16+1)), meter.ErrLimit, "some 65537 instructions that may trap"},
	{"locals in blocks", functionsOf(1, cat(1, uleb(50_000), i32, bytes.Repeat([]byte{opBlock, void, opEnd}, 200), opEnd)), meter.ErrLimit, "a function with 50000 locals and some 404 blocks"},
	{"locals in loops", functionsOf(1, cat(1, uleb(1000), i32, bytes.Repeat([]byte{opLoop, void, opBr, 0, opEnd}, 1050), opEnd)), meter.ErrLimit, "1050 loops and 1000 locals"},
	{"locals in loops of all", functionsOf(40, cat(1, uleb(1000), i32, bytes.Repeat([]byte{opLoop, void, opBr, 0, opEnd}, 120), opEnd)), meter.ErrLimit, "too many loops and locals"},
	{"values of calls", thousands(1, 132, op(opCall, 0)), meter.ErrLimit, "take 264000 values along"},
	{"values of calls of all", thousands(37, 120, op(opCall, 0)), meter.ErrLimit, "take too many values along: 8640000"},
	{"values of blocks", thousands(1, 132, cat(opBlock, 0, opEnd)), meter.ErrLimit, "take 264000 values along"},
	{"values of branches", thousands(1, 263, cat(c32(1), opBrIf, 0)), meter.ErrLimit, "take 263000 values along"},
	{"parameters of all types", sections(1, cat(uleb(1050), slices.Repeat(typ(bytes.Repeat(types(i32), 1000), nil), 1050))), meter.ErrLimit, "1048576 parameters and results"},
}

// functionsOf has n functions of that body.
func functionsOf(n int, body []byte) []byte {
	return sections(1, cat(1, emptyType), 3, cat(uleb(n), make([]byte, n)), 10, cat(uleb(n), bytes.Repeat(sized(body), n)))
}

// thousands has n functions that take and leave a thousand values, and so many
// times that code.
func thousands(n, times int, code []byte) []byte {
	body := sized(cat(0, bytes.Repeat(op(opLocalGet, 0), 1000), bytes.Repeat(code, times), opEnd))
	values := bytes.Repeat(types(i32), 1000)
	return sections(1, cat(1, typ(values, values)), 3, cat(uleb(n), make([]byte, n)), 10, cat(uleb(n), bytes.Repeat(body, n)))
}

func TestRewrite_refuses(t *testing.T) {
	for _, f := range faults {
		_, err := meter.Rewrite(f.wasm)
		if !errors.Is(err, f.kind) || !strings.Contains(fmt.Sprint(err), f.want) || !strings.Contains(fmt.Sprint(err), "at byte ") {
			t.Errorf("%s: got %v, want %s", f.name, err, f.want)
		}
	}
}

// What is at a limit goes through, and the engine takes it.
func TestRewrite_atLimits(t *testing.T) {
	for name, wasm := range map[string][]byte{
		"nothing":   sections(),
		"nesting":   with(bytes.Repeat([]byte{opBlock, void}, 1<<14-8), bytes.Repeat([]byte{opEnd}, 1<<14-8)),
		"branches":  with(c32(0), opBrTable, uleb(1<<15-8), make([]byte, 1<<15-7)),
		"locals":    functionsOf(1, cat(1, uleb(50000), i32, opEnd)),
		"scratch":   sections(1, cat(1, emptyType), 3, cat(1, 0), 5, cat(1, 0, 1), 10, cat(1, sized(cat(1, uleb(49999), i32, c32(0), c32(0), c32(0), 0xfc, 11, 0, opEnd)))),
		"functions": functionsOf(100_000, cat(0, op(opCall, 99_999), opEnd)),
		"types":     sections(1, cat(uleb(1<<16), slices.Repeat(emptyType, 1<<16))),
		"tables":    sections(4, cat(16, slices.Repeat(cat(funcref, 0, uleb(1<<17)), 16))),
	} {
		metered, err := meter.Rewrite(wasm)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if most := meter.MaxGrowth*len(wasm) + 64<<10; len(metered) > most {
			t.Errorf("%s: %d bytes of %d, the limit is %d", name, len(metered), len(wasm), most)
		}
		rt := wazero.NewRuntimeWithConfig(t.Context(), engines["interpreter"])
		if _, err := rt.CompileModule(t.Context(), metered); err != nil {
			t.Errorf("%s: the engine: %v", name, err)
		}
		closeRuntime(t, rt)
	}
}

// A table without a maximum gets one; growing beyond it fails as growing does.
func TestRewrite_tablesHaveAMaximum(t *testing.T) {
	m := wasmModule{tables: [][]byte{{funcref, 0, 1}, cat(funcref, 1, 1, uleb(uint32(math.MaxUint32))), {funcref, 1, 1, 2}}}
	for i, name := range []string{"open", "huge", "small"} {
		m.fn(name, types(i32), types(i32), 0, 0xd0, funcref, op(opLocalGet, 0), 0xfc, 15, i)
	}
	mod, _ := instantiate(t, m.bytes(), 1000)
	for _, c := range []struct {
		table string
		grow  int
		want  int32
	}{{"open", 1<<17 - 1, 1}, {"open", 1, -1}, {"huge", 1 << 17, -1}, {"huge", 5, 1}, {"small", 2, -1}, {"small", 1, 1}} {
		got, err := mod.ExportedFunction(c.table).Call(t.Context(), uint64(c.grow))
		if err != nil || int32(got[0]) != c.want {
			t.Errorf("%s by %d: got %d, %v, want %d", c.table, c.grow, got, err, c.want)
		}
	}
}
