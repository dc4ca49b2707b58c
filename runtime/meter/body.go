package meter

import "encoding/binary"

// What is charged.
const (
	stepInstructions = 64      // so many instructions are one step more
	callWeight       = 64      // a call counts as so many instructions: it pays for a callee that has fewer
	memoryWeight     = 16      // a load or a store: 0.1 microseconds, where no cache has what it needs
	arithmeticWeight = 8       // of floating point, and divisions: 50 nanoseconds, with the smallest numbers there are
	freeLocals       = 32      // each local beyond counts as an instruction: a call takes memory for all of them
	bulkWeight       = 32      // a bulk operation, beside its length
	throwWeight      = 1 << 14 // an exception: the engine unwinds in some 50 microseconds

	bulkByteShift  = 8 // memory: 256 bytes are a step
	bulkEntryShift = 5 // tables: 32 entries
)

// A body is how a function's code is changed. It is used for one function after
// the other and keeps its memory.
type body struct {
	edits  []edit
	frames []frame
	effort effort
	sums   bool   // code leaves blocks where nobody sees it: by exceptions
	text   []byte // the new body
}

// An edit replaces cut bytes of the code, or puts something before at.
type edit struct {
	at     uint32
	cut    uint8
	kind   editKind
	bulk   bulk
	weight uint32 // of editCheck: what may run until the next one
	way    uint32 // likewise: the heaviest way from it to what is read now
	least  uint32 // likewise: what way is where blocks end, whoever comes there
	index  uint32 // of editIndex: the new one
}

type editKind uint8

const (
	editNone editKind = iota
	editIndex
	editCheck
	editBulk
)

// pieceBytes is how much memory.fill and memory.copy do at once: 20 microseconds
// for memory that was never touched.
const pieceBytes = 1 << 16

// A frame is a block that is open.
type frame struct {
	loop     int32  // the edit of its check, if it is a loop; else -1
	outer    int32  // the region around it
	values   int32  // that a branch to it takes along
	way      uint32 // to an if, in the region around it
	arriving uint32 // the heaviest way there that leads to its end
	isIf     bool
	reached  bool // a branch goes back to this loop
}

func (m *rewriter) code() {
	r := &m.in
	n := r.count(maxFunctions, "function bodies")
	if n != m.defined.functions {
		r.malformed("%d function bodies for %d functions", n, m.defined.functions)
		return
	}
	m.codes = n
	m.putU32(uint32(n + m.added()))
	end := r.end
	for i := range n {
		at := r.at
		size := r.u32()
		switch {
		case uint64(size) > uint64(end-r.at):
			r.fail(ErrMalformed, at, "a function body of %d bytes in %d", size, end-r.at)
		case size > maxBodyBytes:
			r.fail(ErrLimit, at, "a function body of %d bytes, the limit is %d", size, maxBodyBytes)
		}
		if r.err != nil {
			return
		}
		r.end = r.at + int(size)
		m.functionBody(m.types[m.functions[i]])
		if r.err != nil {
			return
		}
		r.end = end
	}
	if m.added() > 0 {
		m.pieces()
	}
}

// functionBody rewrites the body that the reader has before it.
func (m *rewriter) functionBody(t arity) {
	r, b := &m.in, &m.body
	groups := r.count(maxLocals, "groups of locals")
	declared := r.at
	locals := m.declarations(groups, int(t.params))
	start := r.at
	scratch := m.scan(locals, t)
	if r.err != nil {
		return
	}
	if scratch && locals == maxLocals {
		r.fail(ErrLimit, declared, "%d locals and a bulk operation, which needs one more; the limit is %d", locals, maxLocals)
		return
	}
	if m.exert(declared, locals); r.err != nil {
		return
	}
	b.text = b.text[:0]
	if scratch {
		b.text = binary.AppendUvarint(b.text, uint64(groups+1))
		b.text = append(b.text, r.buf[declared:start]...)
		b.text = append(b.text, 1, typeI32)
	} else {
		b.text = binary.AppendUvarint(b.text, uint64(groups))
		b.text = append(b.text, r.buf[declared:start]...)
	}
	m.apply(start, locals)
	m.putU32(uint32(len(b.text)))
	m.put(b.text...)
	m.checkGrowth(declared)
}

// declarations passes the groups of locals and returns how many locals there
// are, parameters included.
func (m *rewriter) declarations(groups, params int) (locals int) {
	r := &m.in
	locals = params
	for range groups {
		at := r.at
		n := r.u32()
		r.valueType()
		if uint64(n) > uint64(maxLocals-locals) {
			r.fail(ErrLimit, at, "a function with more than %d locals", maxLocals)
			return 0
		}
		locals += int(n)
	}
	if m.locals += locals; m.locals > maxLocalsSum {
		r.fail(ErrLimit, r.at, "more than %d locals in all functions", maxLocalsSum)
	}
	return locals
}
