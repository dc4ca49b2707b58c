package meter_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/edged-io/edged/runtime/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// engines are the two of wazero; the first is the second where it has no compiler.
var engines = map[string]wazero.RuntimeConfig{
	"compiler":    wazero.NewRuntimeConfig().WithCoreFeatures(allFeatures),
	"interpreter": wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(allFeatures),
}

// endless are the ways to run for ever, or for very long: functions "run"
// without parameters.
var endless = map[string]func(m *wasmModule){
	"loop": func(m *wasmModule) {
		m.fn("run", nil, nil, 0, opLoop, void, op(opBr, 0), opEnd)
	},
	"loop by br_if": func(m *wasmModule) {
		m.fn("run", nil, nil, 0, opLoop, void, c32(1), op(opBrIf, 0), opEnd)
	},
	"loop by br_table from two blocks below": func(m *wasmModule) {
		m.fn("run", nil, nil, 0, opLoop, void, opBlock, void, opBlock, void, c32(9), opBrTable, 2, 0, 1, 2, opEnd, opEnd, opEnd)
	},
	"loop with a value": func(m *wasmModule) {
		m.fn("run", nil, nil, 0, c32(1), opLoop, uleb(m.typeIndex(types(i32), types(i32))), c32(1), opAdd, op(opBr, 0), opEnd, opDrop)
	},
	"loop by a catch": func(m *wasmModule) {
		m.tags = [][]byte{cat(0, uleb(m.typeIndex(nil, nil)))}
		m.fn("run", nil, nil, 0, opLoop, void, 0x1f, void, 1, 2, 0, 0x08, 0, opEnd, opEnd)
	},
	"loop around a call of a leaf": func(m *wasmModule) {
		leaf := m.fn("", nil, nil, 0, opNop)
		m.fn("run", nil, nil, 0, opLoop, void, op(opCall, leaf), op(opBr, 0), opEnd)
	},
	"recursion that returns": func(m *wasmModule) { // 2^40 calls, 40 deep
		m.fn("down", types(i32), nil, 0, op(opLocalGet, 0), opIf, void,
			op(opLocalGet, 0), c32(1), opSub, op(opCall, 0), op(opLocalGet, 0), c32(1), opSub, op(opCall, 0), opEnd)
		m.fn("run", nil, nil, 0, c32(40), op(opCall, 0))
	},
	"mutual recursion": func(m *wasmModule) {
		for other := range 2 {
			m.fn("", types(i32), nil, 0, op(opLocalGet, 0), opIf, void,
				op(opLocalGet, 0), c32(1), opSub, op(opCall, 1-other), op(opLocalGet, 0), c32(1), opSub, op(opCall, 1-other), opEnd)
		}
		m.fn("run", nil, nil, 0, c32(40), op(opCall, 0))
	},
	"recursion through a table": func(m *wasmModule) {
		m.tables = [][]byte{{funcref, 0, 1}}
		m.elements = [][]byte{cat(0, c32(0), opEnd, 1, 0)}
		self := cat(op(opLocalGet, 0), c32(1), opSub, c32(0), opCallIndirect, 0, 0)
		m.fn("down", types(i32), nil, 0, op(opLocalGet, 0), opIf, void, self, self, opEnd)
		m.fn("run", nil, nil, 0, c32(40), op(opCall, 0))
	},
	"recursion behind a loop": func(m *wasmModule) {
		once := cat(opLoop, void, c32(0), op(opBrIf, 0), opEnd)
		m.fn("down", types(i32), nil, 0, once, op(opLocalGet, 0), opIf, void,
			op(opLocalGet, 0), c32(1), opSub, op(opCall, 0), op(opLocalGet, 0), c32(1), opSub, op(opCall, 0), opEnd)
		m.fn("run", nil, nil, 0, c32(40), op(opCall, 0))
	},
	"recursion before a loop": func(m *wasmModule) {
		once := cat(opLoop, void, c32(0), op(opBrIf, 0), opEnd)
		m.fn("down", types(i32), nil, 0, op(opLocalGet, 0), 0x45, opIf, void, opReturn, opEnd,
			op(opLocalGet, 0), c32(1), opSub, op(opCall, 0), op(opLocalGet, 0), c32(1), opSub, op(opReturnCall, 0), once)
		m.fn("run", nil, nil, 0, c32(40), op(opCall, 0))
	},
	"recursion in a loop": func(m *wasmModule) {
		m.fn("down", types(i32), nil, 0, opLoop, void, op(opLocalGet, 0), opIf, void,
			op(opLocalGet, 0), c32(1), opSub, op(opCall, 0), op(opLocalGet, 0), c32(1), opSub, op(opCall, 0), c32(0), op(opBrIf, 1), opEnd, opEnd)
		m.fn("run", nil, nil, 0, c32(40), op(opCall, 0))
	},
	"recursion in a block called loop": func(m *wasmModule) {
		m.fn("down", types(i32), nil, 0, opLoop, void, op(opLocalGet, 0), opIf, void,
			op(opLocalGet, 0), c32(1), opSub, op(opCall, 0), op(opLocalGet, 0), c32(1), opSub, op(opCall, 0), opEnd, opEnd)
		m.fn("run", nil, nil, 0, c32(40), op(opCall, 0))
	},
	"tail call of itself": func(m *wasmModule) {
		m.fn("run", nil, nil, 0, op(opReturnCall, 0))
	},
	"tail calls in a ring": func(m *wasmModule) {
		m.fn("run", nil, nil, 0, op(opReturnCall, 1))
		m.fn("", nil, nil, 0, op(opReturnCall, 2))
		m.fn("", nil, nil, 0, op(opReturnCall, 0))
	},
	"tail call through a table": func(m *wasmModule) {
		m.tables = [][]byte{{funcref, 0, 1}}
		m.elements = [][]byte{cat(0, c32(0), opEnd, 1, 0)}
		m.fn("run", nil, nil, 0, c32(0), 0x13, 0, 0)
	},
	"a tree of calls without a loop": func(m *wasmModule) { // 40^8 calls of a leaf
		callee := m.fn("", nil, nil, 0, opNop)
		for range 8 {
			callee = m.fn("", nil, nil, 0, slices.Repeat(op(opCall, callee), 40))
		}
		m.export("run", 0, callee)
	},
	"memory.fill": func(m *wasmModule) {
		m.memories = [][]byte{{0, 16}}
		m.fn("run", nil, nil, 0, opLoop, void, c32(0), c32(0), c32(1<<20), 0xfc, 11, 0, op(opBr, 0), opEnd)
	},
	"table.fill": func(m *wasmModule) {
		m.tables = [][]byte{cat(funcref, 0, uleb(100000))}
		m.fn("run", nil, nil, 0, opLoop, void, c32(0), 0xd0, funcref, c32(100000), 0xfc, 17, 0, op(opBr, 0), opEnd)
	},
}

// Whatever runs for ever asks its host, again and again, and ends when the host
// says so.
func TestRewrite_everythingEnds(t *testing.T) {
	for name, build := range endless {
		var m wasmModule
		build(&m)
		metered, err := meter.Rewrite(m.bytes())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for engine, config := range engines {
			t.Run(name+"/"+engine, func(t *testing.T) {
				t.Parallel()
				rt := wazero.NewRuntimeWithConfig(t.Context(), config)
				defer closeRuntime(t, rt)
				k := hostTick(t, rt, 1000)
				k.limit = 50
				mod, err := rt.Instantiate(t.Context(), metered)
				if err != nil {
					t.Fatal(err)
				}
				_, err = mod.ExportedFunction("run").Call(t.Context())
				if !errors.Is(err, limitReached{}) || k.ticks != k.limit {
					t.Errorf("got %v after %d ticks, want the limit after %d", err, k.ticks, k.limit)
				}
			})
		}
	}
}

// laborious are modules whose "run" does a lot and counts it itself: it adds to
// the global "work" what it did since it last did so, in instructions.
var laborious = map[string]func(m *wasmModule){
	"straight code": func(m *wasmModule) {
		m.fn("run", nil, nil, 0, slices.Repeat(work(4), 60_000))
	},
	"straight code in a loop": func(m *wasmModule) {
		m.fn("run", nil, nil, 1, opLoop, void, slices.Repeat(work(4), 20_000), again(5), opEnd)
	},
	"straight code in blocks and branches": func(m *wasmModule) {
		arm := slices.Repeat(work(4), 1500)
		m.fn("run", nil, nil, 0, slices.Repeat(cat(c32(1), opIf, void, arm, opElse, arm, opEnd, opBlock, void, arm, opEnd), 30))
	},
	"a short loop": func(m *wasmModule) {
		m.fn("run", nil, nil, 1, opLoop, void, work(9), again(50_000), opEnd)
	},
	"loops in loops": func(m *wasmModule) {
		m.fn("run", nil, nil, 2, opLoop, void, c32(0), op(opLocalSet, 1),
			opLoop, void, work(8), op(opLocalGet, 1), c32(1), opAdd, op(opLocalTee, 1), c32(300), opLtS, op(opBrIf, 0), opEnd,
			work(4), again(200), opEnd)
	},
	"many leaves": func(m *wasmModule) {
		leaf := m.fn("", nil, nil, 0, slices.Repeat([]byte{opNop}, 23), work(32))
		m.fn("run", nil, nil, 1, opLoop, void, slices.Repeat(op(opCall, leaf), 2000), again(50), opEnd)
	},
	"calls of calls": func(m *wasmModule) {
		callee := m.fn("", nil, nil, 0, work(4))
		for range 4 {
			callee = m.fn("", nil, nil, 0, slices.Repeat(op(opCall, callee), 18), work(22))
		}
		m.export("run", 0, callee)
	},
}

// work adds n to the global of that name, in 4 instructions.
func work(n int) []byte { return cat(op(opGlobalGet, 0), c32(n), opAdd, op(opGlobalSet, 0)) }

// again goes back to the loop until it was n times there; it counts in local 0.
func again(n int) []byte {
	return cat(op(opLocalGet, 0), c32(1), opAdd, op(opLocalTee, 0), c32(n), opLtS, op(opBrIf, 0))
}

// Between two ticks a guest does no more than the slice allows: 64 instructions
// for a step, and what one check pays for in advance.
func TestRewrite_ticksInTime(t *testing.T) {
	const slice = 100
	const most = 64*slice + 1<<15 + 100
	for name, build := range laborious {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var m wasmModule
			m.globals = [][]byte{cat(i32, 1, c32(0), opEnd)}
			build(&m)
			m.export("work", 3, 0)
			metered, err := meter.Rewrite(m.bytes())
			if err != nil {
				t.Fatal(err)
			}
			rt := wazero.NewRuntimeWithConfig(t.Context(), engines["interpreter"])
			defer closeRuntime(t, rt)
			var mod api.Module
			var before, longest, ticks uint64
			_, err = rt.NewHostModuleBuilder(meter.ImportModule).NewFunctionBuilder().WithFunc(func(_ context.Context, left int32) int32 {
				now := mod.ExportedGlobal("work").Get()
				longest = max(longest, now-before)
				before = now
				ticks++
				return slice
			}).Export(meter.ImportTick).Instantiate(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if mod, err = rt.Instantiate(t.Context(), metered); err != nil {
				t.Fatal(err)
			}
			if _, err := mod.ExportedFunction("run").Call(t.Context()); err != nil {
				t.Fatal(err)
			}
			all := mod.ExportedGlobal("work").Get()
			longest = max(longest, all-before)
			t.Logf("%d instructions, %d ticks, at most %d instructions between two", all, ticks, longest)
			if all < 100_000 || longest > most {
				t.Errorf("of %d instructions %d ran without a tick, the limit is %d", all, longest, most)
			}
		})
	}
}
