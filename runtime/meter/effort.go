package meter

// effort is what the engine's compiler has to do with a function. It takes time
// with the square of the blocks, as it walks up from each to those that dominate
// it, and memory for each value that a call, a block or a branch takes along and
// for each local in each block. A few kilobytes could otherwise keep it busy for
// minutes, or take gigabytes. So could instructions that may trap, each of which
// becomes a check and a way out of the function.
type effort struct {
	blocks int // blocks and branches, as the engine has them
	loops  int
	calls  int
	values int
	exits  int // instructions that may trap

	square  uint64 // of blocks
	carried uint64 // loops times locals
}

// How many blocks and edges between them the engine makes of what there is.
const (
	blockBlocks  = 2
	ifBlocks     = 4
	branchBlocks = 2
	bulkBlocks   = 16 // with its check
)

// exits is how many ways out of a function the engine makes of an opcode; for a
// reference to a function, and for segments that are dropped, it takes as much.
var exits = func() (n [256]uint8) {
	set := func(to uint8, from, through byte) {
		for op := int(from); op <= int(through); op++ {
			n[op] = to
		}
	}
	n[0x11], n[0x13] = 3, 3 // call_indirect, return_call_indirect
	set(1, 0x25, 0x26)      // table.get, table.set
	set(1, 0x28, 0x3e)      // loads, stores
	set(1, 0x6d, 0x70)      // divisions of i32
	set(1, 0x7f, 0x82)      // divisions of i64
	set(2, 0xa8, 0xab)      // truncations to i32
	set(2, 0xae, 0xb1)      // truncations to i64
	n[opRefFunc] = 1
	return n
}()

// called adds a call of a function of type t.
func (m *rewriter) called(t uint32) {
	if m.in.err != nil {
		return
	}
	e := &m.body.effort
	e.calls++
	e.values += int(m.types[t].params) + int(m.types[t].results)
}

// exert adds the effort of a function and fails where it is too much.
func (m *rewriter) exert(at, locals int) {
	e, total, r := &m.body.effort, &m.total, &m.in
	e.square = uint64(e.blocks) * uint64(e.blocks)
	e.carried = uint64(e.loops) * uint64(locals)
	total.square += e.square
	total.carried += e.carried
	total.values += e.values
	size := uint64(len(r.buf)) // large modules may take longer
	switch {
	case e.blocks > maxBlocks:
		r.fail(ErrLimit, at, "a function with some %d blocks and branches, the limit is %d", e.blocks, maxBlocks)
	case e.calls > maxCalls:
		r.fail(ErrLimit, at, "a function with %d calls, the limit is %d", e.calls, maxCalls)
	case e.exits > maxExits:
		r.fail(ErrLimit, at, "a function with some %d instructions that may trap, such as loads and divisions, the limit is %d", e.exits, maxExits)
	case e.values > maxValues:
		r.fail(ErrLimit, at, "a function whose calls, blocks and branches take %d values along, the limit is %d", e.values, maxValues)
	case e.blocks*locals > maxLive:
		r.fail(ErrLimit, at, "a function with %d locals and some %d blocks and branches, the limit of their product is %d", locals, e.blocks, maxLive)
	case e.carried > maxCarried:
		r.fail(ErrLimit, at, "a function with %d loops and %d locals, the limit of their product is %d", e.loops, locals, maxCarried)
	case total.square > maxSquareSum+squarePerByte*size:
		r.fail(ErrLimit, at, "functions with too many blocks and branches: the sum of their squares is %d", total.square)
	case total.carried > maxCarriedSum+carriedPerByte*size:
		r.fail(ErrLimit, at, "functions with too many loops and locals: the sum of their products is %d", total.carried)
	case uint64(total.values) > maxValuesSum+size:
		r.fail(ErrLimit, at, "functions whose calls, blocks and branches take too many values along: %d", total.values)
	}
}
