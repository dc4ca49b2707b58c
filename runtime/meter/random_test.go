package meter_test

import (
	"math/rand/v2"
	"slices"
)

// A generator makes valid modules at random. They end: a global has fuel, each
// call and each iteration of a loop takes one off, and without any left they
// return. They may trap.
type generator struct {
	*rand.Rand
	m         wasmModule
	host      int
	functions []signature // all, the imported one too
	f         *generated
	size      int // instructions left for this function
}

type signature struct{ params, results []byte }

// generated is the function being made.
type generated struct {
	signature
	locals []byte // types, parameters included
	labels []label
}

// A label is a block that a branch can leave; a loop takes no values.
type label struct{ results []byte }

const (
	fuelGlobal = iota
	countGlobal
	wideGlobal
	floatGlobal
	functionGlobal
)

var valueTypes = []byte{i32, i32, i64, f64}

// randomModule exports its functions as f0, f1 …, its memory, and globals.
func randomModule(seed uint64) (wasm []byte, functions []signature) {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1))}
	m := &g.m
	g.host = m.use("env", "twice", types(i32), types(i32))
	g.functions = []signature{{types(i32), types(i32)}}
	for range 3 + g.IntN(4) {
		g.functions = append(g.functions, signature{g.types(3), g.types(2)})
	}
	for _, s := range g.functions {
		m.typeIndex(s.params, s.results)
	}
	for i := range 1 + g.IntN(3) {
		m.typeIndex(slices.Repeat(types(i64), i+3), nil) // nobody's
	}
	m.tables = [][]byte{{funcref, 1, 8, 20}, {funcref, 0, 2}}
	m.memories = [][]byte{{1, 1, 3}}
	m.tags = [][]byte{cat(0, uleb(m.typeIndex(types(i32), nil)))}
	m.globals = [][]byte{
		cat(i32, 1, c32(150+g.IntN(200)), opEnd),
		cat(i32, 1, c32(g.IntN(100)), opEnd),
		cat(i64, 1, c64(g.Int64N(1<<40)), opEnd),
		cat(f64, 1, 0x44, make([]byte, 8), opEnd),
		cat(funcref, 0, op(0xd2, g.IntN(len(g.functions))), opEnd),
	}
	for i, name := range []string{"fuel", "count", "wide", "float"} {
		m.export(name, 3, i)
	}
	m.export("memory", 2, 0)
	g.segments()
	for i, s := range g.functions[1:] {
		g.function(i, s)
	}
	if g.IntN(4) == 0 {
		i := m.fn("", nil, nil, 0, op(opGlobalGet, countGlobal), c32(3), opAdd, op(opGlobalSet, countGlobal))
		m.start = uleb(i)
	}
	return m.bytes(), g.functions[1:]
}

func (g *generator) types(most int) (t []byte) {
	for range g.IntN(most + 1) {
		t = append(t, valueTypes[g.IntN(len(valueTypes))])
	}
	return t
}

func (g *generator) segments() {
	m := &g.m
	var indices, expressions []byte
	for range 6 {
		indices = append(indices, uleb(g.IntN(len(g.functions)))...)
		expressions = append(expressions, cat(op(0xd2, g.IntN(len(g.functions))), opEnd)...)
	}
	m.elements = [][]byte{
		cat(0, c32(g.IntN(3)), opEnd, 6, indices),               // active
		cat(1, 0, 6, indices),                                   // passive
		cat(5, funcref, 6, expressions),                         // passive
		cat(2, 1, c32(0), opEnd, 0, 1, uleb(g.host)),            // active, table 1
		cat(3, 0, 6, indices),                                   // declared
		cat(6, 1, c32(1), opEnd, funcref, 1, 0xd0, 0x70, opEnd), // active, table 1
	}
	all := []byte{}
	for i := range g.functions {
		all = append(all, uleb(i)...)
	}
	m.elements = append(m.elements, cat(3, 0, uleb(len(g.functions)), all))
	m.datas = [][]byte{cat(0, c32(g.IntN(60000)), opEnd, str("active")), cat(1, str("a passive segment of data"))}
}

func (g *generator) function(i int, s signature) {
	g.f = &generated{signature: s, locals: slices.Clone(s.params)}
	var groups []byte
	n := g.IntN(4)
	for range n {
		t := append(valueTypes, v128)[g.IntN(5)]
		k := 1 + g.IntN(2)
		groups = append(groups, cat(uleb(k), t)...)
		g.f.locals = append(g.f.locals, slices.Repeat([]byte{t}, k)...)
	}
	g.size = 10 + g.IntN(150)
	if g.IntN(5) == 0 {
		g.size = 5
	}
	body := cat(uleb(n), groups)
	if g.IntN(4) > 0 { // else a leaf may be without a check; it calls nobody then
		body = cat(body, g.spend(s.results))
	} else {
		g.size = 3
	}
	for g.size > 3 {
		body = append(body, g.statement(3)...)
	}
	body = append(body, g.values(s.results, 2)...)
	if g.IntN(3) == 0 {
		body = append(body, opReturn)
	}
	index := g.m.imported + len(g.m.functions)
	g.m.functions = append(g.m.functions, uleb(g.m.typeIndex(s.params, s.results)))
	g.m.codes = append(g.m.codes, sized(append(body, opEnd)))
	g.m.export("f"+string(rune('0'+i)), 0, index)
}

// spend takes one off the fuel, or returns.
func (g *generator) spend(results []byte) []byte {
	var zeros []byte
	for _, t := range results {
		zeros = append(zeros, g.constant(t)...)
	}
	return cat(op(opGlobalGet, fuelGlobal), c32(1), opSub, op(opGlobalSet, fuelGlobal),
		op(opGlobalGet, fuelGlobal), c32(0), opLtS, opIf, void, zeros, opReturn, opEnd)
}

func (g *generator) constant(t byte) []byte {
	switch t {
	case i32:
		return c32([]int{0, 1, -1, 7, 300, 70000, g.IntN(1 << 20)}[g.IntN(7)])
	case i64:
		return c64([]int64{0, 1, -1, 1 << 40, g.Int64N(1 << 50)}[g.IntN(5)])
	case f64:
		return cat(c32(g.IntN(1000)-500), 0xb7)
	default:
		return cat(0xfd, 0x0c, make([]byte, 15), 1)
	}
}

func (g *generator) values(ts []byte, depth int) (out []byte) {
	for _, t := range ts {
		out = append(out, g.value(t, depth)...)
	}
	return out
}

// pick runs one of the choices.
func (g *generator) pick(choices ...func() []byte) []byte {
	return choices[g.IntN(len(choices))]()
}

// local finds one of type t, or -1.
func (g *generator) local(t byte) int {
	var found []int
	for i, have := range g.f.locals {
		if have == t {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return -1
	}
	return found[g.IntN(len(found))]
}

// address is mostly in bounds.
func (g *generator) address() []byte {
	if g.IntN(40) == 0 {
		return g.value(i32, 1)
	}
	return cat(g.value(i32, 1), c32(0x7fff), 0x71)
}

// length is for bulk operations.
func (g *generator) length(most int) []byte {
	if g.IntN(40) == 0 {
		return c32(-1)
	}
	return c32(g.IntN(most))
}

// value leaves one value of type t.
func (g *generator) value(t byte, depth int) []byte {
	g.size--
	if i := g.local(t); i >= 0 && g.IntN(3) == 0 {
		return op(opLocalGet, i)
	}
	if depth <= 0 || g.size <= 0 {
		return g.constant(t)
	}
	depth--
	if g.IntN(6) == 0 {
		return g.block(t, depth)
	}
	if g.IntN(6) == 0 {
		if code := g.call(t, depth); code != nil {
			return code
		}
	}
	two := func(ops ...byte) func() []byte {
		return func() []byte { return cat(g.value(t, depth), g.value(t, depth), ops[g.IntN(len(ops))]) }
	}
	one := func(from byte, ops ...byte) func() []byte {
		return func() []byte { return cat(g.value(from, depth), ops) }
	}
	choose := func() []byte { return cat(g.value(t, depth), g.value(t, depth), g.value(i32, depth), opSelect) }
	switch t {
	case i32:
		return g.pick(two(0x6a, 0x6b, 0x6c, 0x6d, 0x70, 0x71, 0x72, 0x73, 0x74, 0x76, 0x46, 0x48, 0x4d), choose,
			one(i32, 0x45), one(i32, 0xc0), one(i64, 0xa7), one(i64, 0x50), one(f64, 0xfc, 2), one(v128, 0xfd, 0x1b, 2), one(f64, 0xaa),
			func() []byte { return op(opGlobalGet, countGlobal) },
			func() []byte { return cat(g.address(), 0x28, 2, 0) },
			func() []byte { return cat(g.address(), 0x2d, 0, uleb(g.IntN(300))) },
			func() []byte { return cat(0x3f, 0) },
			func() []byte { return cat(c32(g.IntN(3)), 0x40, 0) },
			func() []byte { return cat(0xfc, 16, g.IntN(2)) },
			func() []byte { return cat(op(0xd2, g.IntN(len(g.functions))), c32(g.IntN(3)), 0xfc, 15, 1) },
			func() []byte { return cat(c32(g.IntN(9)), 0x25, 0, 0xd1) },
			func() []byte { return cat(op(opGlobalGet, functionGlobal), 0xd1) })
	case i64:
		return g.pick(two(0x7c, 0x7d, 0x7e, 0x80, 0x83, 0x84, 0x85, 0x86), choose,
			one(i32, 0xac), one(i64, 0xc2), one(f64, 0xfc, 6),
			func() []byte { return op(opGlobalGet, wideGlobal) },
			func() []byte { return cat(g.address(), 0x29, 3, 0) })
	case f64:
		return g.pick(two(0xa0, 0xa1), one(i32, 0xb7), one(f64, 0x9a), choose,
			func() []byte { return op(opGlobalGet, floatGlobal) })
	default:
		return g.pick(one(i32, 0xfd, 0x11), two2(g, depth),
			func() []byte { return cat(g.address(), 0xfd, 0, 0, 8) },
			func() []byte { return cat(g.address(), g.value(v128, depth), 0xfd, 0x56, 0, 4, 1) })
	}
}

func two2(g *generator, depth int) func() []byte {
	return func() []byte {
		ops := [][]byte{{0xfd, 0xae, 1}, {0xfd, 0x51}, append([]byte{0xfd, 0x0d}, 0, 17, 2, 19, 4, 21, 6, 23, 8, 25, 10, 27, 12, 29, 14, 31)}
		return cat(g.value(v128, depth), g.value(v128, depth), ops[g.IntN(len(ops))])
	}
}

// block leaves one value of type t by a block, an if or a try_table.
func (g *generator) block(t byte, depth int) []byte {
	inside := func(results ...byte) []byte {
		g.f.labels = append(g.f.labels, label{results})
		var out []byte
		if g.IntN(2) == 0 {
			out = g.statement(depth)
		}
		out = append(out, g.values(results, depth)...)
		g.f.labels = g.f.labels[:len(g.f.labels)-1]
		return out
	}
	switch g.IntN(4) {
	case 0:
		condition := g.value(i32, depth)
		return cat(condition, opIf, t, inside(t), opElse, inside(t), opEnd)
	case 1:
		return cat(opLoop, t, g.spend(g.f.results), inside(t), opEnd)
	case 2:
		// A thrown value is caught, and is an i32.
		g.f.labels = append(g.f.labels, label{types(i32)}) // of the block
		try := cat(0x1f, void, 1, 0, 0, 0, inside(), g.maybeThrow(depth), opEnd)
		g.f.labels = g.f.labels[:len(g.f.labels)-1]
		return cat(opBlock, i32, try, c32(5), opEnd, opDrop, g.value(t, depth))
	default:
		return cat(opBlock, t, inside(t), opEnd)
	}
}

func (g *generator) maybeThrow(depth int) []byte {
	return cat(g.value(i32, depth), opIf, void, c32(9), 0x08, 0, opEnd)
}

// call leaves one value of type t; nil if there is no such function.
func (g *generator) call(t byte, depth int) []byte {
	at := g.IntN(len(g.functions))
	for i := range g.functions {
		f := (at + i) % len(g.functions)
		if s := g.functions[f]; slices.Equal(s.results, types(t)) {
			return cat(g.values(s.params, depth), g.callCode(f))
		}
	}
	return nil
}

// callCode calls f, or whoever is in the table, with the same parameters.
func (g *generator) callCode(f int) []byte {
	if g.IntN(4) > 0 {
		return op(opCall, f)
	}
	s := g.functions[f]
	return cat(c32(g.IntN(9)), opCallIndirect, uleb(g.m.typeIndex(s.params, s.results)), 0)
}

// statement leaves nothing.
func (g *generator) statement(depth int) []byte {
	g.size--
	if depth <= 0 || g.size <= 0 {
		return []byte{opNop}
	}
	depth--
	f := g.f
	return g.pick(
		func() []byte {
			if len(f.locals) == 0 {
				return []byte{opNop}
			}
			i := g.IntN(len(f.locals))
			return cat(g.value(f.locals[i], depth), op(opLocalSet, i))
		},
		func() []byte { return cat(g.value(i32, depth), op(opGlobalSet, countGlobal)) },
		func() []byte { return cat(g.value(i64, depth), op(opGlobalSet, wideGlobal)) },
		func() []byte { return cat(g.value(f64, depth), op(opGlobalSet, floatGlobal)) },
		func() []byte { return cat(g.address(), g.value(i32, depth), 0x36, 2, 0) },
		func() []byte { return cat(g.address(), g.value(i64, depth), 0x3c, 0, 5) },
		func() []byte { return cat(g.address(), g.value(v128, depth), 0xfd, 0x0b, 4, 0) },
		func() []byte { return cat(g.address(), g.value(i32, depth), g.length(30000), 0xfc, 11, 0) },
		func() []byte { return cat(g.address(), g.address(), g.length(30000), 0xfc, 10, 0, 0) },
		func() []byte { return cat(g.address(), c32(g.IntN(9)), g.length(16), 0xfc, 8, 1, 0) },
		func() []byte { return cat(c32(g.IntN(4)), c32(g.IntN(4)), g.length(4), 0xfc, 12, 1+g.IntN(2), 0) },
		func() []byte { return cat(c32(g.IntN(4)), c32(g.IntN(4)), g.length(4), 0xfc, 14, 0, 0) },
		func() []byte {
			return cat(c32(g.IntN(4)), op(0xd2, g.IntN(len(g.functions))), g.length(4), 0xfc, 17, 0)
		},
		func() []byte { return cat(c32(g.IntN(8)), op(0xd2, g.IntN(len(g.functions))), 0x26, 0) },
		func() []byte { return g.loop(depth) },
		func() []byte { return g.loop(depth) },
		func() []byte { return g.leave(depth) },
		func() []byte { return g.branchTable(depth) },
		func() []byte { return cat(g.value(valueTypes[g.IntN(4)], depth), opDrop) },
		func() []byte { return g.tailCall(depth) },
	)
}

// loop runs some statements several times.
func (g *generator) loop(depth int) []byte {
	g.f.labels = append(g.f.labels, label{}, label{}) // the block around it, and the loop
	inside := cat(op(opGlobalGet, fuelGlobal), c32(1), opSub, op(opGlobalSet, fuelGlobal),
		op(opGlobalGet, fuelGlobal), c32(0), opLtS, op(opBrIf, 1))
	for range 1 + g.IntN(3) {
		inside = append(inside, g.statement(depth)...)
	}
	again := cat(op(opGlobalGet, fuelGlobal), c32(7), 0x70, op(opBrIf, 0))
	if g.IntN(4) == 0 {
		again = nil
	}
	g.f.labels = g.f.labels[:len(g.f.labels)-2]
	return cat(opBlock, void, opLoop, void, inside, again, opEnd, opEnd)
}

// leave is a branch out, always or sometimes, or a return.
func (g *generator) leave(depth int) []byte {
	condition := g.value(i32, depth)
	if n := len(g.f.labels); n > 0 && g.IntN(3) > 0 {
		l := g.IntN(n)
		results := g.values(g.f.labels[n-1-l].results, depth)
		if g.IntN(2) == 0 && len(g.f.labels[n-1-l].results) == 0 {
			return cat(condition, op(opBrIf, l))
		}
		return cat(condition, opIf, void, results, op(opBr, l+1), g.dead(), opEnd)
	}
	if g.IntN(12) == 0 {
		return cat(condition, c32(-100), opLtS, opIf, void, opUnreachable, g.dead(), opEnd)
	}
	return cat(condition, c32(500), 0x4a, opIf, void, g.values(g.f.results, depth), opReturn, g.dead(), opEnd)
}

// dead is code that nothing reaches; the stack there is any.
func (g *generator) dead() []byte {
	return g.pick(
		func() []byte { return nil },
		func() []byte { return cat(0xfc, 11, 0) },
		func() []byte { return cat(opAdd, opDrop) },
		func() []byte { return cat(opLoop, void, op(opBr, 0), opEnd) },
		func() []byte { return cat(0x40, 0, opDrop) })
}

func (g *generator) branchTable(depth int) []byte {
	n := 1 + g.IntN(4)
	var open, after []byte
	targets := uleb(n)
	for i := range n + 1 {
		open = append(open, opBlock, void)
		if i < n {
			targets = append(targets, uleb(g.IntN(n+1))...)
		}
	}
	targets = append(targets, uleb(g.IntN(n+1))...)
	value := g.value(i32, depth)
	for range n + 1 {
		g.f.labels = append(g.f.labels, label{})
	}
	for range n + 1 {
		g.f.labels = g.f.labels[:len(g.f.labels)-1]
		after = cat(after, opEnd, g.statement(depth))
	}
	return cat(open, value, opBrTable, targets, after)
}

func (g *generator) tailCall(depth int) []byte {
	for i, s := range g.functions[1:] {
		if slices.Equal(s.results, g.f.results) && g.IntN(2) == 0 {
			return cat(g.value(i32, depth), c32(200), 0x4a, opIf, void, g.values(s.params, depth), op(opReturnCall, i+1), opEnd)
		}
	}
	return []byte{opNop}
}
