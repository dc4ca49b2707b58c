package meter

import (
	"encoding/binary"
)

// A rewriter reads one module from front to back and writes it as it goes.
type rewriter struct {
	in  reader
	out []byte

	types         []arity
	imported      counts
	defined       counts
	importedTypes []uint32 // of the imported functions
	functions     []uint32 // the types of the defined ones
	codes         int      // function bodies seen
	signatures    int      // parameters and results of all types
	elements      int      // entries of all element segments
	locals        int      // of all functions
	total         effort   // of all functions
	bulky         bool     // memory is filled or copied somewhere
	names         []byte   // the name section's content, or nil
	body          body
}

// An arity is how many values a type takes and leaves.
type arity struct{ params, results uint16 }

// counts has the size of each index space.
type counts struct{ functions, tables, memories, globals, tags int }

// What is added has the last indices of its space, but for the function tick,
// which stands between the imported and the defined ones.
func (m *rewriter) tickType() int { return len(m.types) } // (i32) → (i32)

func (m *rewriter) bulkType() int { return len(m.types) + 1 } // (i32, i32, i32) → ()

func (m *rewriter) pairType() int { return len(m.types) + 2 } // (i32, i32) → ()

func (m *rewriter) tick() int { return m.imported.functions }

func (m *rewriter) counter() int { return m.globalCount() }

func (m *rewriter) globalCount() int { return m.imported.globals + m.defined.globals }

func (m *rewriter) functionSum() int { return m.imported.functions + m.defined.functions }

func (m *rewriter) tableSum() int { return m.imported.tables + m.defined.tables }

func (m *rewriter) memorySum() int { return m.imported.memories + m.defined.memories }

func (m *rewriter) tagSum() int { return m.imported.tags + m.defined.tags }

func (m *rewriter) typeIndex() uint32 { return m.in.index(len(m.types), "type") }

// typeOf is the type of a function.
func (m *rewriter) typeOf(f uint32) uint32 {
	if int(f) < m.imported.functions {
		return m.importedTypes[f]
	}
	if i := int(f) - m.imported.functions; i < len(m.functions) {
		return m.functions[i]
	}
	return 0 // a fault was found
}

// shifted is the new index of a function.
func (m *rewriter) shifted(f uint32) uint32 {
	if int(f) >= m.imported.functions {
		f++
	}
	return f
}

// function reads the index of a function and writes the new one.
func (m *rewriter) function() {
	f := m.in.index(m.functionSum(), "function")
	m.putU32(m.shifted(f))
}

func (m *rewriter) putU32(v uint32) { m.out = binary.AppendUvarint(m.out, uint64(v)) }

func (m *rewriter) put(b ...byte) { m.out = append(m.out, b...) }

func (m *rewriter) putName(s string) {
	m.putU32(uint32(len(s)))
	m.out = append(m.out, s...)
}

// copied writes what was read since from.
func (m *rewriter) copied(from int) { m.out = append(m.out, m.in.buf[from:m.in.at]...) }

// open begins a section, whose size close fills in.
func (m *rewriter) open(s section) (start int) {
	m.put(byte(s))
	m.reserve()
	return len(m.out)
}

func (m *rewriter) close(start int) { m.fill(start, uint32(len(m.out)-start)) }

// reserve leaves room for a number in as many bytes as any needs, so that
// nothing has to be moved when it is known.
func (m *rewriter) reserve() { m.put(0x80, 0x80, 0x80, 0x80, 0) }

// fill writes the number that was reserved before at.
func (m *rewriter) fill(at int, v uint32) {
	for i := range 4 {
		m.out[at-5+i] = byte(v>>(7*i)) | 0x80
	}
	m.out[at-1] = byte(v >> 28)
}
