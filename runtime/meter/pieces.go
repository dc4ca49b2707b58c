package meter

// addedFunctions are the functions that come last in a rewritten module: they do
// what a bulk operation does to more than pieceBytes, a piece at a time, with a
// check before each. Go could not stop a guest, nor collect garbage, while it
// fills all of its memory in one instruction.
var addedFunctions = [...]string{"memory.fill", "memory.copy"}

// added is how many of them there are: none where nobody could call them.
func (m *rewriter) added() int {
	if m.defined.functions == 0 {
		return 0
	}
	return len(addedFunctions)
}

// inPieces is the index of the function for that operation.
func (m *rewriter) inPieces(kind bulk) int {
	i := m.functionSum() + 1
	if kind == bulkCopy {
		i++
	}
	return i
}

// pieces writes the bodies of addedFunctions.
func (m *rewriter) pieces() {
	for _, kind := range []bulk{bulkFill, bulkCopy} {
		t := []byte{0}                    // no locals
		if m.bulky && m.memorySum() > 0 { // else nobody calls it
			t = m.piecewise(t, kind)
		}
		t = append(t, opEnd)
		m.putU32(uint32(len(t)))
		m.put(t...)
	}
}

// piecewise is the code for an operation on memory from (or, of a copy, to) local
// 0 and with local 1, of the length in local 2, which is above pieceBytes. Out of
// bounds it does all at once, which traps before anything is changed.
func (m *rewriter) piecewise(t []byte, kind bulk) []byte {
	const to, from, left = 0, 1, 2
	t = beyond(t, to, left)
	if kind == bulkCopy {
		t = append(beyond(t, from, left), opI32Or)
	}
	t = append(t, opIf, blockEmpty)
	t = append(operation(t, kind, to, from, left), opEnd)

	up := func(t []byte) []byte {
		t = index(index(t, opLocalGet, to), opLocalGet, from)
		t = op(constant(t, pieceBytes), kind)
		t = move(t, to, opI32Add)
		if kind == bulkCopy {
			t = move(t, from, opI32Add)
		}
		return move(t, left, opI32Sub)
	}
	if kind == bulkFill {
		t = m.pieceLoop(t, left, up)
	} else { // what is copied must not be overwritten before
		t = index(index(t, opLocalGet, to), opLocalGet, from)
		t = append(t, opI32LeU, opIf, blockEmpty)
		t = append(m.pieceLoop(t, left, up), opElse)
		t = append(m.pieceLoop(t, left, func(t []byte) []byte {
			t = move(t, left, opI32Sub)
			for _, local := range []int{to, from} {
				t = append(index(index(t, opLocalGet, local), opLocalGet, left), opI32Add)
			}
			return op(constant(t, pieceBytes), kind)
		}), opEnd)
	}
	t = m.charge(t, func(t []byte) []byte { return length(t, kind, left) })
	return operation(t, kind, to, from, left)
}

// pieceLoop does piece as long as there is more than one left.
func (m *rewriter) pieceLoop(t []byte, left int, piece func([]byte) []byte) []byte {
	t = append(t, opLoop, blockEmpty)
	t = append(constant(index(t, opLocalGet, left), pieceBytes), opI32GtU, opIf, blockEmpty)
	t = m.charge(t, func(t []byte) []byte { return constant(t, pieceBytes>>bulkByteShift) })
	return append(piece(t), opBr, 1, opEnd, opEnd)
}

// beyond says whether so many bytes from there are not all in the memory.
func beyond(t []byte, from, n int) []byte {
	t = append(index(t, opLocalGet, from), opI64Extend)
	t = append(index(t, opLocalGet, n), opI64Extend, opI64Add)
	return append(t, opMemSize, 0, opI64Extend, opI64Const, 16, opI64Shl, opI64GtU)
}

// move adds a piece to a local, or takes it off.
func move(t []byte, local int, how byte) []byte {
	t = append(constant(index(t, opLocalGet, local), pieceBytes), how)
	return index(t, opLocalSet, local)
}

func operation(t []byte, kind bulk, to, from, n int) []byte {
	return op(index(index(index(t, opLocalGet, to), opLocalGet, from), opLocalGet, n), kind)
}

func op(t []byte, kind bulk) []byte {
	if kind == bulkFill {
		return append(t, opMisc, 11, 0)
	}
	return append(t, opMisc, 10, 0, 0)
}
