package meter_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/edged-io/edged/runtime/meter"
	"github.com/tetratelabs/wazero"
)

// A wanderer writes functions that branch at random and count what they do, in
// instructions, in the global 0. Global 1 decides, global 2 bounds the loops.
type wanderer struct {
	*rand.Rand
	labels []byte // of the open blocks, whether each is a loop
	left   int    // statements to write
	throws bool
}

// coin leaves 0 or 1.
var coin = cat(op(opGlobalGet, 1), c32(1103515245), 0x6c, c32(12345), opAdd, op(opGlobalSet, 1), op(opGlobalGet, 1), c32(16), 0x76, c32(1), 0x71)

// tired leaves 1 where no loop is to go on.
var tired = cat(op(opGlobalGet, 2), c32(1), opAdd, op(opGlobalSet, 2), op(opGlobalGet, 2), c32(3000), 0x4a)

func (w *wanderer) statements() (code []byte) {
	for range 1 + w.IntN(4) {
		code = append(code, w.statement()...)
	}
	return code
}

func (w *wanderer) inside(label byte) []byte {
	w.labels = append(w.labels, label)
	defer func() { w.labels = w.labels[:len(w.labels)-1] }()
	return w.statements()
}

// inTry is for a try_table in a block.
func (w *wanderer) inTry() []byte {
	w.labels = append(w.labels, opBlock)
	defer func() { w.labels = w.labels[:len(w.labels)-1] }()
	return cat(w.inside(opBlock), coin, opIf, void, 0x08, 0, opEnd, w.inside(opBlock))
}

// label is one to go to, of a block or, where back is said, of any.
func (w *wanderer) label(back bool) int {
	for {
		if n := w.IntN(len(w.labels)); back || w.labels[len(w.labels)-1-n] != opLoop {
			return n
		}
	}
}

func (w *wanderer) statement() []byte {
	if w.left--; w.left < 0 || len(w.labels) > 8 {
		return slices.Repeat(work(4), 1+w.IntN(400))
	}
	switch w.IntN(13) {
	case 0, 1:
		return cat(opBlock, void, w.inside(opBlock), opEnd)
	case 2:
		return cat(coin, opIf, void, w.inside(opIf), opEnd)
	case 3:
		return cat(coin, opIf, void, w.inside(opIf), opElse, w.inside(opIf), opEnd)
	case 4: // perhaps nobody goes back
		return cat(opLoop, void, w.inside(opLoop), opEnd)
	case 5:
		return cat(opLoop, void, w.inside(opLoop), tired, 0x45, coin, 0x71, op(opBrIf, 0), opEnd)
	case 6:
		return cat(coin, op(opBrIf, w.label(false)))
	case 7:
		return cat(tired, opIf, void, opReturn, opEnd, coin, op(opBrIf, w.label(true)))
	case 8:
		return cat(coin, opIf, void, op(opBr, w.label(false)+1), opEnd)
	case 9:
		return cat(opBlock, void, w.inside(opBlock), coin, coin, opAdd, opBrTable, 2, uleb(w.label(false)+1), 0, uleb(w.label(false)+1), opEnd)
	case 10: // what follows in the block is never reached
		return op(opBr, w.label(false))
	case 11:
		if w.throws {
			return cat(opBlock, void, 0x1f, void, 1, 2, 0, w.inTry(), opEnd, opEnd)
		}
	}
	return slices.Repeat(work(4), 1+w.IntN(400))
}

// Whatever way code goes, it was paid for before: one step for 64 instructions at
// least. That the heaviest way is paid for, and not all of them, is what the
// second half looks at: of many ways that exclude each other, one.
func TestRewrite_paysForEveryWay(t *testing.T) {
	for seed := range uint64(1200) {
		w := &wanderer{Rand: rand.New(rand.NewPCG(seed, 1)), labels: []byte{opBlock}, left: 3 + int(seed%12), throws: seed%3 == 0}
		var m wasmModule
		m.globals = [][]byte{cat(i32, 1, c32(0), opEnd), cat(i32, 1, c32(int(seed)), opEnd), cat(i32, 1, c32(0), opEnd)}
		m.tags = [][]byte{cat(0, uleb(m.typeIndex(nil, nil)))}
		m.fn("run", nil, nil, 0, op(opCall, m.fn("", nil, nil, 0, opBlock, void, w.statements(), opEnd)))
		calls(t, m, 10, func(work, paid int64) {
			if work > 64*paid {
				t.Errorf("seed %d: %d instructions for %d steps", seed, work, paid)
			}
		})
	}
	for name, out := range map[string][]byte{ // of a block before whose end nothing gets otherwise
		"out of a loop that nobody goes back to": cat(opLoop, void, slices.Repeat(work(4), 6000), c32(1), op(opBrIf, 1), opEnd, opReturn),
		"out by an exception":                    cat(0x1f, void, 1, 2, 0, slices.Repeat(work(4), 6000), c32(1), opIf, void, 0x08, 0, opEnd, opReturn, opEnd),
	} {
		var m wasmModule
		m.globals = [][]byte{cat(i32, 1, c32(0), opEnd)}
		m.tags = [][]byte{cat(0, uleb(m.typeIndex(nil, nil)))}
		m.fn("run", nil, nil, 0, opBlock, void, out, opEnd, slices.Repeat(work(4), 1000))
		calls(t, m, 1, func(work, paid int64) {
			if work != 28_000 || work > 64*paid {
				t.Errorf("%s: %d instructions for %d steps", name, work, paid)
			}
		})
	}
	const ways, instructions = 60, 6400
	code := cat(coin, opBrTable, ways-1)
	for n := range ways {
		code = append(code, uleb(n)...)
	}
	code = append(slices.Repeat([]byte{opBlock, void}, ways), code...)
	for n := range ways {
		code = cat(code, opEnd, slices.Repeat(work(4), instructions/4), op(opBr, ways-1-n))
	}
	var m wasmModule
	m.globals = [][]byte{cat(i32, 1, c32(0), opEnd), cat(i32, 1, c32(0), opEnd)}
	m.fn("run", nil, nil, 0, opBlock, void, code, opEnd)
	calls(t, m, 10, func(work, paid int64) {
		if work != instructions || paid < work/64 || paid > work/64+3 {
			t.Errorf("one of %d ways: %d steps for %d instructions", ways, paid, work)
		}
	})
}

// What may take long counts as more, so that no step is longer than others by
// orders of magnitude.
func TestRewrite_dearInstructions(t *testing.T) {
	for name, test := range map[string]struct {
		code   []byte
		inStep int64 // so many of them in a step, at most
	}{
		"loads":             {cat(0x28, 2, 0), 4},
		"divisions":         {cat(c32(3), 0x6d), 8},
		"remainders":        {cat(0xac, c64(3), 0x81, 0xa7), 8},
		"square roots":      {cat(0xb7, 0x9f, 0xaa), 8},
		"vectors":           {cat(0xfd, 0x11, op(opLocalTee, 0), op(opLocalGet, 0), 0xfd, uleb(0xe4), 0xfd, 0x1b, 0), 8}, // splat, f32x4.add, extract
		"loads of a vector": {cat(0xfd, 0, 4, 0, 0xfd, 0x1b, 0), 4},
		"a table":           {cat(0x25, 0, 0xd1), 4}, // table.get, ref.is_null
	} {
		const n = 400
		var m wasmModule
		m.memories, m.tables = [][]byte{{0, 1}}, [][]byte{{funcref, 0, 2}}
		m.globals = [][]byte{cat(i32, 1, c32(0), opEnd)}
		m.functions = append(m.functions, uleb(m.typeIndex(nil, nil)))
		m.codes = append(m.codes, sized(cat(1, 1, v128, c32(0), slices.Repeat(test.code, n), opDrop, opEnd)))
		m.export("run", 0, 0)
		calls(t, m, 1, func(_, paid int64) {
			if paid < n/test.inStep || paid > 3*n/test.inStep {
				t.Errorf("%s: %d of them are %d steps, want %d", name, n, paid, n/test.inStep)
			}
		})
	}
}

// calls calls a module's "run" some times and tells each time what it did and
// paid for.
func calls(t *testing.T, m wasmModule, times int, told func(work, paid int64)) {
	t.Helper()
	m.export("work", 3, 0)
	metered, err := meter.Rewrite(m.bytes())
	if err != nil {
		t.Fatal(err)
	}
	rt := wazero.NewRuntimeWithConfig(t.Context(), engines["interpreter"])
	defer closeRuntime(t, rt)
	const slice = 1000
	granted := int64(0)
	_, err = rt.NewHostModuleBuilder(meter.ImportModule).NewFunctionBuilder().WithFunc(func(_ context.Context, left int32) int32 {
		granted += slice - int64(left)
		return slice
	}).Export(meter.ImportTick).Instantiate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mod, err := rt.Instantiate(t.Context(), metered)
	if err != nil {
		t.Fatal(err)
	}
	sums := func() (work, paid int64) {
		return int64(mod.ExportedGlobal("work").Get()), granted - int64(int32(mod.ExportedGlobal(meter.ExportCounter).Get()))
	}
	for range times {
		workBefore, paidBefore := sums()
		if _, err := mod.ExportedFunction("run").Call(t.Context()); err != nil {
			t.Fatal(err)
		}
		work, paid := sums()
		told(work-workBefore, paid-paidBefore)
	}
}
