package meter

// effort is what the engine's compiler has to do with one function. It takes
// time with the square of the blocks, as it walks up from each to those that
// dominate it, and memory for each local in each block. A few kilobytes could
// otherwise keep it busy for minutes.
type effort struct {
	blocks int // blocks, branches, and the checks put in
	loops  int
	calls  int
}

// exert adds the effort of a function and fails where it is too much.
func (m *rewriter) exert(at, locals int) {
	e := &m.body.effort
	m.square += uint64(e.blocks) * uint64(e.blocks)
	m.carried += uint64(e.loops) * uint64(locals)
	switch r := &m.in; {
	case e.blocks > maxBlocks:
		r.fail(ErrLimit, at, "a function with %d blocks and branches, the limit is %d", e.blocks, maxBlocks)
	case e.calls > maxCalls:
		r.fail(ErrLimit, at, "a function with %d calls, the limit is %d", e.calls, maxCalls)
	case e.blocks*locals > maxLive:
		r.fail(ErrLimit, at, "a function with %d locals and %d blocks and branches, the limit of their product is %d", locals, e.blocks, maxLive)
	case m.square > maxSquare:
		r.fail(ErrLimit, at, "functions with too many blocks and branches: the limit of the sum of their squares is %d", uint64(maxSquare))
	case m.carried > maxCarried:
		r.fail(ErrLimit, at, "functions with too many loops and locals: the limit of the sum of their products is %d", maxCarried)
	}
}
