package meter

// scan reads the instructions of a function up to the end of its body and notes
// how to change them. It says whether that takes a scratch local.
//
// Code goes back only to the head of a loop. So between two heads that it
// passes, each instruction that belongs to a loop directly, and not to a loop
// inside it, runs at most once: the head is charged for them. The function's
// entry is charged for what is in no loop. Such a set is a region. Not all of it
// runs, where it branches: its edit has the weight of the heaviest way through
// it, from the weights of ways to where they meet.
//
// Where the entry leads to the head of a loop in any case, and little else is
// there to pay for, that head does: compilers of Go begin each function so.
func (m *rewriter) scan(locals int, t arity) (scratch bool) {
	r, b := &m.in, &m.body
	const entry = 0
	b.edits, b.effort = b.edits[:0], effort{}
	b.check(r.at)
	b.sums = false
	b.spend(entry, uint32(min(max(locals-freeLocals, 0), maxRun/2)))
	b.frames = append(b.frames[:0], frame{loop: -1, values: int32(t.results)})
	region := int32(entry)
	straight, lead := true, int32(-1) // nothing has left the way from the entry yet; the loop it leads to
	functions, types, globals, tables := m.functionSum(), len(m.types), m.globalCount(), m.tableSum()

	for r.at < r.end {
		at := r.at
		if b.edits[region].way >= maxRun {
			// Only what is in the same block lies surely behind the new check.
			region = b.check(at)
		}
		op := r.buf[at]
		r.at++
		b.spend(region, uint32(weights[op]))
		b.effort.exits += int(exits[op])
		switch shapes[op] {
		case shapePlain:
		case shapeUnreachable:
			b.left(region)
		case shapeLocal:
			r.index(locals, "local")
		case shapeI32:
			r.signed(32)
		case shapeMemory:
			r.u32()
			r.u32()
		case shapeBlock, shapeIf, shapeTryTable:
			t := m.blockType()
			f := frame{loop: -1, outer: region, values: int32(t.results)}
			switch op {
			case opTryTable:
				b.sums = true
				m.catches()
			case opIf:
				b.effort.blocks += ifBlocks - blockBlocks
				f.isIf, f.way = true, b.edits[region].way
				f.arriving = f.way
			}
			m.enter(f)
			straight = straight && op != opIf
		case shapeLoop:
			b.effort.loops++
			t := m.blockType()
			head := b.check(r.at)
			m.enter(frame{loop: head, outer: region, values: int32(t.params)})
			region = head
			if straight {
				straight, lead = false, head
			}
		case shapeElse:
			f := &b.frames[len(b.frames)-1]
			if !f.isIf {
				r.fail(ErrMalformed, at, "an else without an if")
				return false
			}
			f.isIf = false
			region = f.outer
			f.arriving = max(f.arriving, b.edits[region].way)
			if !b.sums {
				b.edits[region].way = f.way
			}
		case shapeEnd:
			f := b.frames[len(b.frames)-1]
			b.frames = b.frames[:len(b.frames)-1]
			if len(b.frames) == 0 {
				if r.at != r.end {
					r.malformed("%d bytes after the end of a function", r.end-r.at)
				}
				b.spareEntry(lead)
				return scratch
			}
			region = f.outer
			around := &b.edits[region]
			if f.loop < 0 {
				around.way = max(around.way, f.arriving, around.least)
			} else if head := &b.edits[f.loop]; !f.reached && around.way+head.weight <= maxRun {
				// Nothing goes back: it is a block, and runs as often as what is around it.
				// What has left it for a block further out did not count it.
				head.kind = editNone
				b.spend(region, head.weight)
				around.least = max(around.least, around.way)
			}
		case shapeThrow, shapeThrowRef:
			if op == 0x08 {
				r.index(m.tagSum(), "tag")
			}
			b.edits[b.check(at)].weight = throwWeight // most are never thrown: paid for here
			straight = false
			b.left(region)
		case shapeReturn:
			straight = false
			b.left(region)
		case shapeBranch:
			m.branch()
			if op == opBrIf {
				b.effort.blocks += branchBlocks // what follows is one, too
			} else {
				b.left(region)
			}
			straight = false
		case shapeBrTable:
			straight = false
			n := r.count(maxBranches, "branches")
			b.effort.blocks -= n * (branchBlocks - 1) // these are edges only
			for range n {
				m.branch()
			}
			m.branch()
			b.left(region)
		case shapeCall:
			from := r.at
			f := r.index(functions, "function")
			m.called(m.typeOf(f))
			straight = false
			b.replace(from, r.at, f, m.shifted(f))
		case shapeCallTable:
			t := r.index(types, "type")
			r.index(tables, "table")
			m.called(t)
			straight = false
		case shapeRefFunc:
			from := r.at
			f := r.index(functions, "function")
			b.replace(from, r.at, f, m.shifted(f))
		case shapeGlobal:
			r.index(globals, "global")
		case shapeIndex:
			r.u32()
		case shapeRefNull:
			r.valueType()
		case shapeSelect:
			for range r.count(maxParams, "types") {
				r.valueType()
			}
		case shapeMemorySize:
			r.byte()
		case shapeMemoryGrow:
			r.byte()
			b.charge(at, bulkPages)
			scratch = true
		case shapeI64:
			r.signed(64)
		case shapeF32:
			r.take(4)
		case shapeF64:
			r.take(8)
		case shapeMisc:
			misc := r.u32()
			if int64(misc) >= int64(len(miscOps)) || !miscOps[misc].known {
				r.fail(ErrMalformed, at, "an unknown instruction 0xfc %#x", misc)
				return false
			}
			for range miscOps[misc].indices {
				r.u32()
				b.effort.exits++
			}
			if kind := miscOps[misc].bulk; kind != notBulk {
				b.charge(at, kind)
				if kind == bulkFill || kind == bulkCopy {
					b.edits[len(b.edits)-1].cut = uint8(r.at - at)
					m.bulky = true
				}
				b.spend(region, bulkWeight)
				scratch = true
			}
		case shapeVector:
			vector := r.u32()
			memory, bytes, known := vectorLength(vector)
			if !known {
				r.fail(ErrMalformed, at, "an unknown vector instruction 0xfd %#x; relaxed ones are not supported", vector)
				return false
			}
			if memory {
				r.u32()
				r.u32()
				b.effort.exits++
				b.spend(region, memoryWeight)
			} else if vector >= vectorFloats {
				b.spend(region, arithmeticWeight)
			}
			r.take(bytes)
		default:
			r.fail(ErrMalformed, at, "an unknown instruction %#x%s", op, unsupported(op))
			return false
		}
	}
	r.malformed("a function without an end")
	return false
}

// spareEntry drops the check at the entry if the caller, or the loop that it
// leads to, can pay for it.
func (b *body) spareEntry(lead int32) {
	entry := &b.edits[0]
	switch {
	case entry.weight < callWeight:
		entry.kind = editNone
	case lead >= 0 && b.edits[lead].kind == editCheck && entry.weight <= stepInstructions:
		entry.kind = editNone
		b.edits[lead].weight += entry.weight
	}
}

func (m *rewriter) enter(f frame) {
	b := &m.body
	if len(b.frames) > maxNesting {
		m.in.fail(ErrLimit, m.in.at, "blocks nested deeper than %d", maxNesting)
		return
	}
	b.frames = append(b.frames, f)
}

// branch reads a label and notes which loop it leads back to.
func (m *rewriter) branch() {
	b := &m.body
	label := m.in.index(len(b.frames), "label")
	f := &b.frames[len(b.frames)-1-int(label)]
	f.reached = true
	f.arriving = max(f.arriving, b.edits[f.outer].way)
	b.effort.blocks += branchBlocks
	b.effort.values += int(f.values)
}

// catches reads the clauses of a try_table. Their labels count from outside of
// it.
func (m *rewriter) catches() {
	r := &m.in
	for range r.count(maxBranches, "catch clauses") {
		switch kind := r.byte(); kind {
		case 0, 1:
			r.index(m.tagSum(), "tag")
			m.branch()
		case 2, 3:
			m.branch()
		default:
			r.fail(ErrMalformed, r.at-1, "a catch clause of kind %#x", kind)
		}
		if r.err != nil {
			return
		}
	}
}

// blockType reads a type of a block: one of its own, or an index.
func (m *rewriter) blockType() (t arity) {
	r := &m.in
	at := r.at
	switch v := r.signed(33); {
	case v >= 0 && v < int64(len(m.types)):
		t = m.types[v]
	case v >= 0:
		r.fail(ErrMalformed, at, "type %d, there are %d", v, len(m.types))
	case v == blockEmpty-0x80:
	case v >= -64:
		r.checkType(byte(v)&0x7f, at)
		t.results = 1
	default:
		r.fail(ErrMalformed, at, "a block type %d", v)
	}
	m.body.effort.blocks += blockBlocks
	m.body.effort.values += int(t.params) + int(t.results)
	return t
}

// spend adds to the way through a region.
func (b *body) spend(region int32, weight uint32) {
	e := &b.edits[region]
	e.way += weight
	e.weight = max(e.weight, e.way)
}

// left is where code goes elsewhere in any case: nothing gets from here to what
// is next.
func (b *body) left(region int32) {
	if !b.sums {
		b.edits[region].way = 0
	}
}

// check notes a check before at and returns the new region.
func (b *body) check(at int) int32 {
	b.effort.blocks += ifBlocks
	b.edits = append(b.edits, edit{at: uint32(at), kind: editCheck})
	return int32(len(b.edits) - 1)
}

// charge notes that the operation at at is charged by its length.
func (b *body) charge(at int, kind bulk) {
	b.effort.blocks += bulkBlocks
	b.edits = append(b.edits, edit{at: uint32(at), kind: editBulk, bulk: kind})
}

// replace notes a new index for the one between from and to.
func (b *body) replace(from, to int, old, index uint32) {
	if old != index {
		b.edits = append(b.edits, edit{at: uint32(from), cut: uint8(to - from), kind: editIndex, index: index})
	}
}
