package meter

import (
	"strconv"
	"unicode/utf8"
)

// Subsections of the name section.
const (
	namesOfModule    = 0
	namesOfFunctions = 1
)

// putNames writes a name section: the name of the module and those of its
// functions. A function without a name gets "$" and the index that it has in
// the original: what the engine's stack traces show is what other tools show
// for the original.
//
// Names are no part of what a module means: what is malformed here is left out,
// and no error.
func (m *rewriter) putNames() {
	module, functions := splitNames(m.names)
	start := m.open(customSection)
	m.putName("name")
	if module != "" {
		sub := m.open(namesOfModule)
		m.putName(module)
		m.close(sub)
	}
	sub := m.open(namesOfFunctions)
	m.reserve()
	count := len(m.out)
	m.fill(count, m.functionNames(&functions))
	m.close(sub)
	m.close(start)
}

// splitNames finds the subsections that are kept.
func splitNames(content []byte) (module string, functions reader) {
	r := reader{buf: content, end: len(content)}
	for r.more() {
		id := r.byte()
		size := r.u32()
		if r.err != nil || uint64(size) > uint64(r.end-r.at) {
			break
		}
		sub := reader{buf: r.take(int(size)), end: int(size)}
		switch id {
		case namesOfModule:
			if name := sub.name(); sub.err == nil {
				module = cut(name)
			}
		case namesOfFunctions:
			functions = sub
		}
	}
	return module, functions
}

// functionNames writes the names of all functions and returns how many it
// wrote. Those that it reads come with increasing indices.
func (m *rewriter) functionNames(r *reader) (written uint32) {
	var name string
	at := -1 // the function that has name
	left := r.u32()
	next := func() {
		before := at
		at, name = -1, ""
		if left == 0 || r.err != nil {
			return
		}
		left--
		i, text := r.u32(), r.name()
		if r.err == nil && int64(i) > int64(before) {
			at, name = int(i), cut(text)
		}
	}
	next()
	for i := range m.functionSum() {
		switch {
		case i == at:
			m.putU32(m.shifted(uint32(i)))
			m.putName(name)
			written++
			next()
		case i >= m.imported.functions: // imported ones have the name of what is imported
			m.putU32(m.shifted(uint32(i)))
			m.putName("$" + strconv.Itoa(i))
			written++
		}
	}
	for i := range m.added() {
		m.putU32(uint32(m.functionSum() + 1 + i))
		m.putName(addedFunctions[i])
		written++
	}
	return written
}

// cut shortens a name to maxNameBytes.
func cut(name []byte) string {
	if len(name) > maxNameBytes {
		name = name[:maxNameBytes]
		for len(name) > 0 && !utf8.Valid(name) {
			name = name[:len(name)-1]
		}
	}
	return string(name)
}
