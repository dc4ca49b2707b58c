package meter

import (
	"fmt"
)

// A section is the id of a section of the binary format.
type section byte

const (
	customSection section = iota
	typeSection
	importSection
	functionSection
	tableSection
	memorySection
	globalSection
	exportSection
	startSection
	elementSection
	codeSection
	dataSection
	dataCountSection
	tagSection
	noSection // the header, and what is between sections
)

var sectionNames = [...]string{
	"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count", "tag",
}

func (s section) String() string {
	if int(s) < len(sectionNames) {
		return sectionNames[s]
	}
	return fmt.Sprintf("%d", byte(s))
}

// sectionOrder is the order in which sections come, each at most once.
var sectionOrder = [...]section{
	typeSection, importSection, functionSection, tableSection, memorySection, tagSection, globalSection,
	exportSection, startSection, elementSection, dataCountSection, codeSection, dataSection,
}

func (m *rewriter) module() error {
	r := &m.in
	r.section = noSection
	if len(r.buf) > maxModuleBytes {
		r.fail(ErrLimit, 0, "a module of %d bytes, the limit is %d", len(r.buf), maxModuleBytes)
		return r.err
	}
	if string(r.take(8)) != "\x00asm\x01\x00\x00\x00" {
		r.err = nil
		r.fail(ErrMalformed, 0, "not a WebAssembly module of version 1")
		return r.err
	}
	m.out = make([]byte, 0, len(r.buf)+len(r.buf)/6+512)
	m.put(r.buf[:8]...)
	end := r.end
	done := 0 // how many of sectionOrder were written or passed
	for n := 0; r.at < end; n++ {
		r.section, r.end = noSection, end
		at := r.at
		if n == maxSections {
			r.fail(ErrLimit, at, "more than %d sections", maxSections)
			return r.err
		}
		s := section(r.byte())
		size := r.u32()
		if r.err == nil && uint64(size) > uint64(end-r.at) {
			r.fail(ErrMalformed, at, "a section of %d bytes, where %d are left", size, end-r.at)
		}
		if r.err != nil {
			return r.err
		}
		r.section, r.end = s, r.at+int(size)
		if s == customSection {
			m.custom()
		} else {
			i := done
			for i < len(sectionOrder) && sectionOrder[i] != s {
				i++
			}
			if i == len(sectionOrder) {
				r.section = noSection
				r.fail(ErrMalformed, at, "a section with id %d (%s) that is unknown, twice there or out of order", byte(s), s)
				return r.err
			}
			for ; done < i; done++ {
				m.absent(sectionOrder[done])
			}
			done++
			m.rewrite(s)
		}
		if r.err == nil && r.at != r.end {
			r.malformed("%d bytes too many", r.end-r.at)
		}
		m.checkGrowth(at)
		if r.err != nil {
			return r.err
		}
	}
	for ; done < len(sectionOrder); done++ {
		m.absent(sectionOrder[done])
	}
	if m.codes != m.defined.functions {
		r.section = codeSection
		r.fail(ErrMalformed, end, "%d function bodies for %d functions", m.codes, m.defined.functions)
		return r.err
	}
	m.putNames()
	m.checkGrowth(end)
	return r.err
}

// absent writes a section that the original does not have and the rewritten one
// needs.
func (m *rewriter) absent(s section) {
	switch s {
	case typeSection, importSection, globalSection, exportSection:
		start := m.open(s)
		added := 1
		if s == typeSection {
			added = addedTypes
		}
		m.putU32(uint32(added))
		m.putAdded(s)
		m.close(start)
	}
}

const addedTypes = 3

// putAdded writes the last items of a section, which are ours.
func (m *rewriter) putAdded(s section) {
	switch s {
	case typeSection:
		m.put(0x60, 1, typeI32, 1, typeI32)
		m.put(0x60, 3, typeI32, typeI32, typeI32, 0)
		m.put(0x60, 2, typeI32, typeI32, 0)
	case importSection:
		m.putName(ImportModule)
		m.putName(ImportTick)
		m.put(externFunction)
		m.putU32(uint32(m.tickType()))
	case globalSection:
		m.put(typeI32, 1, opI32Const, 0, opEnd)
	case exportSection:
		m.putName(ExportCounter)
		m.put(externGlobal)
		m.putU32(uint32(m.counter()))
	}
}

// rewrite reads one section and writes it.
func (m *rewriter) rewrite(s section) {
	start := m.open(s)
	switch s {
	case typeSection:
		m.list(maxTypes, addedTypes, "types", m.functionType)
		m.putAdded(s)
	case importSection:
		m.list(maxImports, 1, "imports", m.importItem)
		m.putAdded(s)
	case functionSection:
		m.functionTypes()
	case tableSection:
		m.list(maxTables, 0, "tables", m.table)
	case memorySection:
		m.list(1, 0, "memories", m.memory)
	case tagSection:
		m.list(maxTypes, 0, "tags", m.tag)
	case globalSection:
		m.list(maxGlobals, 1, "globals", m.global)
		m.putAdded(s)
	case exportSection:
		at := m.in.at
		if n := m.list(maxExports, 1, "exports", m.export); uint64(n)*uint64(m.functionSum()) > maxExported {
			m.in.fail(ErrLimit, at, "%d exports beside %d functions, the limit of their product is %d", n, m.functionSum(), maxExported)
		}
		m.putAdded(s)
	case startSection:
		m.function()
	case elementSection:
		m.list(maxSegments, 0, "element segments", m.element)
	case dataCountSection:
		from := m.in.at
		m.in.u32()
		m.copied(from)
	case codeSection:
		m.code()
	case dataSection:
		m.list(maxSegments, 0, "data segments", m.data)
	}
	m.close(start)
}

// list reads a list of n items and writes it with added more, which the caller does.
func (m *rewriter) list(limit, added int, what string, item func()) (n int) {
	n = m.in.count(limit, what)
	m.putU32(uint32(n + added))
	for range n {
		if m.in.err != nil {
			break
		}
		item()
	}
	return n
}

func (m *rewriter) custom() {
	r := &m.in
	name := r.name()
	if string(name) == "name" && m.names == nil {
		m.names = r.buf[r.at:r.end:r.end]
	}
	r.at = r.end
}

func (m *rewriter) functionType() {
	r := &m.in
	from := r.at
	if form := r.byte(); form != 0x60 {
		r.fail(ErrMalformed, from, "a type of form %#x; only functions (0x60) are supported", form)
		return
	}
	params := r.count(maxParams, "parameters")
	for range params {
		r.valueType()
	}
	results := r.count(maxParams, "results")
	for range results {
		r.valueType()
	}
	if m.signatures += params + results; m.signatures > maxSignatures {
		r.fail(ErrLimit, from, "more than %d parameters and results of all types", maxSignatures)
	}
	m.types = append(m.types, arity{uint16(params), uint16(results)})
	m.copied(from)
}

func (m *rewriter) importItem() {
	r := &m.in
	from := r.at
	module := r.name()
	r.name()
	if string(module) == ImportModule {
		r.fail(ErrMalformed, from, "the module imports from %q, which is the host's own", ImportModule)
		return
	}
	switch kind := r.byte(); kind {
	case externFunction:
		m.importedTypes = append(m.importedTypes, m.typeIndex())
		m.imported.functions++
	case externTable:
		r.valueType()
		r.limits("table")
		m.imported.tables++
	case externMemory:
		r.limits("memory")
		m.imported.memories++
	case externGlobal:
		r.valueType()
		r.byte()
		m.imported.globals++
	case externTag:
		r.tagAttribute()
		m.typeIndex()
		m.imported.tags++
	default:
		r.fail(ErrMalformed, r.at-1, "an import of kind %#x", kind)
	}
	m.copied(from)
}

func (m *rewriter) functionTypes() {
	r := &m.in
	n := r.count(maxFunctions, "functions")
	from := r.at
	m.functions = make([]uint32, n)
	for i := range m.functions {
		m.functions[i] = m.typeIndex()
	}
	m.defined.functions = n
	m.putU32(uint32(n + m.added()))
	m.copied(from)
	for range m.added() {
		m.putU32(uint32(m.bulkType()))
	}
}

// table gives every table a maximum: the engine has them on its own heap,
// outside of an actor's memory limit, and would let one grow to a gigabyte.
func (m *rewriter) table() {
	r := &m.in
	at := r.at
	kind := r.valueType()
	least, most, bounded := r.limits("table")
	if least > maxTableEntries {
		r.fail(ErrLimit, at, "a table of %d entries, the limit is %d", least, maxTableEntries)
	}
	if !bounded || most > maxTableEntries {
		most = maxTableEntries
	}
	m.put(kind, 1)
	m.putU32(least)
	m.putU32(most)
	m.defined.tables++
}

func (m *rewriter) memory() {
	r := &m.in
	from := r.at
	if least, _, _ := r.limits("memory"); least > maxMemoryPages {
		r.fail(ErrMalformed, from, "a memory of %d pages, %d are possible", least, maxMemoryPages)
	}
	m.defined.memories++
	m.copied(from)
}

func (m *rewriter) tag() {
	from := m.in.at
	m.in.tagAttribute()
	m.typeIndex()
	m.defined.tags++
	m.copied(from)
}

func (m *rewriter) global() {
	r := &m.in
	from := r.at
	r.valueType()
	r.byte() // mutable or not
	m.copied(from)
	m.constant(m.globalCount())
	m.defined.globals++
}

func (m *rewriter) export() {
	r := &m.in
	from := r.at
	name := r.name()
	if string(name) == ExportCounter {
		r.fail(ErrMalformed, from, "the module exports %q, which is the host's own", ExportCounter)
		return
	}
	kind := r.byte()
	m.copied(from)
	from = r.at
	switch kind {
	case externFunction:
		m.function()
		return
	case externTable:
		r.index(m.tableSum(), "table")
	case externMemory:
		r.index(m.memorySum(), "memory")
	case externGlobal:
		r.index(m.globalCount(), "global")
	case externTag:
		r.index(m.tagSum(), "tag")
	default:
		r.fail(ErrMalformed, from-1, "an export of kind %#x", kind)
	}
	m.copied(from)
}

// An element segment begins with three bits: passive or declarative; with a
// table index (or declarative); with expressions instead of indices.
func (m *rewriter) element() {
	r := &m.in
	from := r.at
	flags := r.u32()
	if flags > 7 {
		r.fail(ErrMalformed, from, "an element segment of kind %d", flags)
		return
	}
	active := flags&1 == 0
	if active && flags&2 != 0 {
		r.index(m.tableSum(), "table")
	}
	m.copied(from)
	if active {
		m.constant(m.globalCount())
	}
	if flags&3 != 0 { // a kind of element, or a type
		from = r.at
		if flags&4 != 0 {
			r.valueType()
		} else if kind := r.byte(); kind != 0 {
			r.fail(ErrMalformed, r.at-1, "elements of kind %#x", kind)
		}
		m.copied(from)
	}
	at := r.at
	item := m.function
	if flags&4 != 0 {
		item = func() { m.constant(m.globalCount()) }
	}
	before := r.at
	n := r.count(maxElements, "elements")
	if m.elements += n; m.elements > maxElements {
		r.fail(ErrLimit, at, "more than %d elements in all segments", maxElements)
		return
	}
	r.at = before
	m.list(maxElements, 0, "elements", item)
}

func (m *rewriter) data() {
	r := &m.in
	from := r.at
	flags := r.u32()
	switch flags {
	case 0, 1:
	case 2:
		r.index(m.memorySum(), "memory")
	default:
		r.fail(ErrMalformed, from, "a data segment of kind %d", flags)
		return
	}
	m.copied(from)
	if flags != 1 {
		m.constant(m.globalCount())
	}
	from = r.at
	n := r.u32()
	switch {
	case uint64(n) > uint64(r.end-r.at):
		r.fail(ErrMalformed, from, "a data segment of %d bytes in %d", n, r.end-r.at)
		return
	case flags == 1 && n > maxPassiveBytes:
		r.fail(ErrLimit, from, "a passive data segment of %d bytes, the limit is %d; an active one may be larger", n, maxPassiveBytes)
		return
	}
	r.take(int(n))
	m.copied(from)
}
