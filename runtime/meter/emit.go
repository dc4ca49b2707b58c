package meter

import "encoding/binary"

// apply appends the code from start to the reader's place to the new body, with
// the edits. scratch is the index of the scratch local, if there is one.
func (m *rewriter) apply(from, scratch int) {
	b, code := &m.body, m.in.buf
	start := uint32(from)
	t := b.text
	for i := range b.edits {
		e := &b.edits[i]
		if e.kind == editNone {
			continue
		}
		t = append(t, code[start:e.at]...)
		start = e.at + uint32(e.cut)
		switch e.kind {
		case editIndex:
			t = binary.AppendUvarint(t, uint64(e.index))
		case editCheck:
			t = m.charge(t, func(t []byte) []byte {
				return constant(t, int32(1+e.weight/stepInstructions))
			})
		case editBulk:
			t = index(t, opLocalSet, scratch)
			long := e.bulk == bulkFill || e.bulk == bulkCopy
			if long { // if the length is more than a piece, then what takes pieces, else
				t = append(constant(index(t, opLocalGet, scratch), pieceBytes), opI32GtU, opIf)
				t = signed(t, int32(m.pairType()))
				t = index(index(t, opLocalGet, scratch), opCall, m.inPieces(e.bulk))
				t = append(t, opElse)
			}
			t = m.charge(t, func(t []byte) []byte { return length(t, e.bulk, scratch) })
			t = index(t, opLocalGet, scratch)
			if long {
				t = append(append(t, code[e.at:start]...), opEnd)
			}
		}
	}
	b.text = append(t, code[start:m.in.at]...)
}

// charge takes an amount off the counter and asks the host for more where that
// is below zero.
func (m *rewriter) charge(t []byte, amount func([]byte) []byte) []byte {
	counter := m.counter()
	t = index(t, opGlobalGet, counter)
	t = amount(t)
	t = append(t, opI32Sub)
	t = index(t, opGlobalSet, counter)
	t = index(t, opGlobalGet, counter)
	t = append(t, opI32Const, 0, opI32LtS, opIf, blockEmpty)
	t = index(t, opGlobalGet, counter)
	t = index(t, opCall, m.tick())
	t = index(t, opGlobalSet, counter)
	return append(t, opEnd)
}

// length pushes what a bulk operation of the length in the scratch local costs.
func length(t []byte, kind bulk, scratch int) []byte {
	t = index(t, opLocalGet, scratch)
	switch kind {
	case bulkBytes, bulkFill, bulkCopy:
		t = append(constant(t, bulkByteShift), opI32ShrU)
	case bulkEntries:
		t = append(constant(t, bulkEntryShift), opI32ShrU)
	case bulkPages:
		// Beyond 16 bits it cannot succeed; the shift drops them.
		t = append(constant(t, 16), opI32Shl)
		t = append(constant(t, bulkByteShift), opI32ShrU)
	}
	return t
}

func index(t []byte, op byte, i int) []byte {
	return binary.AppendUvarint(append(t, op), uint64(i))
}

// constant pushes an i32.
func constant(t []byte, v int32) []byte { return signed(append(t, opI32Const), v) }

// signed appends a number in signed LEB128.
func signed(t []byte, v int32) []byte {
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
			return append(t, b)
		}
		t = append(t, b|0x80)
	}
}

// constant reads a constant expression and writes it with new indices of
// functions. globals is how many of those it may use.
func (m *rewriter) constant(globals int) {
	r := &m.in
	start := r.at
	from := start
	for r.err == nil {
		at := r.at
		if at-start > maxConstBytes {
			r.fail(ErrLimit, start, "a constant expression of more than %d bytes", maxConstBytes)
			return
		}
		switch op := r.byte(); op {
		case opEnd:
			m.copied(from)
			return
		case opI32Const:
			r.signed(32)
		case opI64Const:
			r.signed(64)
		case opF32Const:
			r.take(4)
		case opF64Const:
			r.take(8)
		case opGlobalGet:
			r.index(globals, "global")
		case opRefNull:
			r.valueType()
		case opRefFunc:
			m.copied(from)
			m.function()
			from = r.at
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e: // add, sub, mul of i32 and i64
		case opVector:
			if r.u32() != 0x0c {
				r.fail(ErrMalformed, at, "a vector instruction in a constant expression")
			}
			r.take(16)
		default:
			r.fail(ErrMalformed, at, "an instruction %#x in a constant expression", op)
		}
	}
}
