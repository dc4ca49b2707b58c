// Package wasm says what a WebAssembly file is, without running it and without
// taking it for what it claims to be: for people who look at a file.
//
// Describe reads as far as the file makes sense and says where that ends, so that a
// damaged file is described too. Nothing is validated; a module that is described
// without a fault may still be refused when it is loaded.
package wasm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of what a description holds. More is counted and not listed.
const (
	MaxListed = 1000    // imports, exports and sections each
	maxName   = 1 << 10 // bytes of a name that is shown
	pageBytes = 64 << 10
)

// Kinds of files.
const (
	Module    = "module"    // a core module, version 1
	Component = "component" // of the component model
	Text      = "text"      // the text form of a module
	Unknown   = "unknown"   // something else
)

// A File is what Describe found.
type File struct {
	Kind      string   `json:"kind"`
	Bytes     int      `json:"bytes"`
	Imports   []Import `json:"imports"`
	Exports   []Export `json:"exports"`
	Memory    *Memory  `json:"memory"` // the first one, nil for none
	Functions int      `json:"functions"`
	Start     bool     `json:"start"` // it has a start function
	Sections  []Part   `json:"sections"`
	// Producers are what made it, as the section "producers" has it: field to
	// "name version".
	Producers map[string][]string `json:"producers,omitempty"`
	// Contracts are the capability contract ids whose names are in the file. That
	// does not mean that it uses them all, nor that there are no more.
	Contracts []string `json:"contracts"`
	// More is how many imports, exports and sections are not listed.
	More int `json:"more,omitempty"`
	// Fault is where the file stops to make sense, "" for nowhere.
	Fault string `json:"fault,omitempty"`
}

// An Import is what a module needs of its host.
type Import struct {
	Module string `json:"module"`
	Name   string `json:"name"`
	Kind   string `json:"kind"` // "function", "table", "memory", "global" or "tag"
	Type   string `json:"type,omitempty"`
}

// An Export is what a module offers.
type Export struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Type string `json:"type,omitempty"`
}

// Memory is the linear memory a module declares or imports.
type Memory struct {
	MinBytes uint64  `json:"min_bytes"`
	MaxBytes *uint64 `json:"max_bytes"` // nil for no limit of its own
}

// A Part is a section.
type Part struct {
	Name  string `json:"name"` // "custom NAME" of a custom section
	Bytes int    `json:"bytes"`
}

var sectionNames = []string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count", "tag"}

var kinds = []string{"function", "table", "memory", "global", "tag"}

// Contracts are the ids of known contracts.
var Contracts = []string{
	"wasmcloud:httpserver", "wasmcloud:httpclient", "wasmcloud:keyvalue", "wasmcloud:messaging", "wasmcloud:blobstore",
	"wasmcloud:builtin:logging", "wasmcloud:builtin:numbergen", "wasmcloud:sqldb", "wasmcloud:latticecontrol",
	"edged:pubsub", "edged:gpio",
}

// Describe says what bin is.
func Describe(bin []byte) File {
	f := File{Kind: Unknown, Bytes: len(bin), Imports: []Import{}, Exports: []Export{}, Sections: []Part{}, Contracts: []string{}}
	switch {
	case len(bin) == 0:
		f.Fault = "the file is empty"
		return f
	case !bytes.HasPrefix(bin, []byte("\x00asm")):
		f.Fault = fmt.Sprintf("it begins with %q, a WebAssembly module with %q", bin[:min(len(bin), 8)], "\x00asm")
		if bytes.HasPrefix(bytes.TrimSpace(bin[:min(len(bin), 256)]), []byte("(")) {
			f.Kind, f.Fault = Text, ""
		}
		return f
	case len(bin) < 8:
		f.Fault = fmt.Sprintf("it ends after %d bytes, within its header", len(bin))
		return f
	}
	switch version, layer := binary.LittleEndian.Uint16(bin[4:]), binary.LittleEndian.Uint16(bin[6:]); {
	case layer == 1:
		f.Kind = Component
	case version == 1 && layer == 0:
		f.Kind = Module
	default:
		f.Fault = fmt.Sprintf("version %d (layer %d) of WebAssembly is not known", version, layer)
		return f
	}
	f.contracts(bin)
	d := describer{File: &f}
	d.sections(bin)
	return f
}

func (f *File) contracts(bin []byte) {
	for _, id := range Contracts {
		if bytes.Contains(bin, []byte(id)) {
			f.Contracts = append(f.Contracts, id)
		}
	}
	slices.Sort(f.Contracts)
}

// describer reads the sections of a core module, and lists those of a component.
type describer struct {
	*File
	types     []string // of functions, as text
	functions []uint32 // types of all functions, imported ones first
}

func (d *describer) sections(bin []byte) {
	for at := 8; at < len(bin); {
		c := cursor{data: bin, at: at}
		id, size := c.byte(), c.leb()
		if c.bad || uint64(size) > uint64(len(bin)-c.at) {
			d.Fault = fmt.Sprintf("byte %d: a section is cut off", at)
			return
		}
		body := cursor{data: bin[:c.at+int(size)], at: c.at}
		d.section(id, &body)
		if body.bad && d.Fault == "" {
			fault := "does not make sense"
			if body.noText {
				fault = "has a name that is not UTF-8"
			}
			d.Fault = fmt.Sprintf("byte %d: the %s section %s", at, sectionName(id), fault)
		}
		at = c.at + int(size)
	}
}

func sectionName(id byte) string {
	if int(id) < len(sectionNames) {
		return sectionNames[id]
	}
	return fmt.Sprintf("unknown (%d)", id)
}

func (d *describer) section(id byte, c *cursor) {
	part := Part{Name: sectionName(id), Bytes: len(c.data) - c.at}
	if d.Kind == Component && id != 0 {
		part.Name = fmt.Sprintf("component section %d", id)
	}
	if id == 0 {
		name := c.name()
		part.Name += " " + name
		if name == "producers" {
			d.producers(c)
		}
	}
	if len(d.Sections) < MaxListed {
		d.Sections = append(d.Sections, part)
	} else {
		d.More++
	}
	if d.Kind == Component {
		return
	}
	switch id {
	case 1:
		d.typeSection(c)
	case 2:
		d.importSection(c)
	case 3:
		n := c.count()
		for range n {
			d.functions = append(d.functions, c.leb())
		}
		d.Functions = n
	case 5:
		for i := range c.count() {
			if m := c.memory(); i == 0 && d.Memory == nil && !c.bad {
				d.Memory = m
			}
		}
	case 7:
		d.exportSection(c)
	case 8:
		d.Start = true
	}
}

func (d *describer) typeSection(c *cursor) {
	for range c.count() {
		if c.byte() != 0x60 { // what else there is has no functions of an actor
			c.at = len(c.data)
			return
		}
		params := c.valueTypes()
		results := c.valueTypes()
		d.types = append(d.types, "("+params+") → ("+results+")")
	}
}

func (d *describer) importSection(c *cursor) {
	for range c.count() {
		i := Import{Module: c.name(), Name: c.name()}
		kind := c.byte()
		if c.bad || int(kind) >= len(kinds) {
			c.bad = true
			return
		}
		i.Kind = kinds[kind]
		switch kind {
		case 0:
			t := c.leb()
			i.Type = d.typeOf(t)
			d.functions = append(d.functions, t)
		case 1:
			c.valueType()
			c.limits()
		case 2:
			if m := c.memory(); d.Memory == nil {
				d.Memory = m
			}
		case 3:
			c.valueType()
			c.byte()
		case 4:
			c.byte()
			c.leb()
		}
		if c.bad {
			return
		}
		if len(d.Imports) < MaxListed {
			d.Imports = append(d.Imports, i)
		} else {
			d.More++
		}
	}
}

func (d *describer) exportSection(c *cursor) {
	for range c.count() {
		e := Export{Name: c.name()}
		kind, index := c.byte(), c.leb()
		if c.bad || int(kind) >= len(kinds) {
			c.bad = true
			return
		}
		e.Kind = kinds[kind]
		if kind == 0 && uint64(index) < uint64(len(d.functions)) {
			e.Type = d.typeOf(d.functions[index])
		}
		if len(d.Exports) < MaxListed {
			d.Exports = append(d.Exports, e)
		} else {
			d.More++
		}
	}
}

func (d *describer) typeOf(t uint32) string {
	if uint64(t) < uint64(len(d.types)) {
		return d.types[t]
	}
	return ""
}

// producers reads the section of that name: fields of names with versions.
func (d *describer) producers(c *cursor) {
	found := make(map[string][]string)
	for range min(c.count(), 8) {
		field := c.name()
		for range c.count() {
			name, version := c.name(), c.name()
			if !c.bad && len(found[field]) < 16 {
				found[field] = append(found[field], strings.TrimSpace(name+" "+version))
			}
		}
	}
	if c.bad = false; len(found) > 0 { // it is only a note
		d.Producers = found
	}
}

// cursor reads bytes up to the end of a section. Reading beyond it yields zero and
// sets bad.
type cursor struct {
	data   []byte
	at     int
	bad    bool
	noText bool // why it is bad: a name that is not UTF-8
}

func (c *cursor) byte() byte {
	if c.bad || c.at >= len(c.data) {
		c.bad = true
		return 0
	}
	c.at++
	return c.data[c.at-1]
}

// leb reads an unsigned LEB128 of 32 bits.
func (c *cursor) leb() uint32 { return uint32(c.long(5, 32)) }

func (c *cursor) long(most, bits int) (v uint64) {
	for i := range most {
		b := c.byte()
		if 7*i+7 > bits && b>>(bits-7*i) != 0 {
			c.bad = true
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			break
		}
	}
	if c.bad {
		return 0
	}
	return v
}

// count reads how many elements there are, each of which takes a byte at least.
func (c *cursor) count() int {
	n := c.leb()
	if uint64(n) > uint64(len(c.data)-c.at) {
		c.bad = true
		return 0
	}
	return int(n)
}

func (c *cursor) name() string {
	n := c.count()
	if c.bad {
		return ""
	}
	text := c.data[c.at : c.at+n]
	c.at += n
	if !utf8.Valid(text) {
		c.bad, c.noText = true, true
	}
	if len(text) > maxName {
		text = append(slices.Clone(text[:maxName]), "…"...)
	}
	return strings.ToValidUTF8(string(text), "\uFFFD")
}

var valueTypes = map[byte]string{
	0x7f: "i32", 0x7e: "i64", 0x7d: "f32", 0x7c: "f64", 0x7b: "v128", 0x70: "funcref", 0x6f: "externref", 0x6e: "anyref", 0x6d: "eqref", 0x6c: "i31ref",
	0x6b: "structref", 0x6a: "arrayref", 0x69: "exnref", 0x71: "nullref", 0x72: "nullexternref", 0x73: "nullfuncref", 0x74: "nullexnref", 0x64: "ref", 0x63: "ref null",
}

func (c *cursor) valueType() string {
	b := c.byte()
	name, ok := valueTypes[b]
	if c.bad = c.bad || !ok; b == 0x64 || b == 0x63 {
		c.long(5, 35) // the heap type, a number with sign
	}
	return name
}

func (c *cursor) valueTypes() string {
	n := c.count()
	names := make([]string, 0, min(n, 16))
	for i := range n {
		name := c.valueType()
		switch {
		case c.bad:
			return ""
		case i < 16:
			names = append(names, name)
		case i == 16:
			names = append(names, "…")
		}
	}
	return strings.Join(names, ", ")
}

// limits reads those of a table or memory, in their own unit.
func (c *cursor) limits() (least uint64, most *uint64) {
	flags := c.byte()
	bytes, bits := 5, 32
	if flags&4 != 0 { // 64-bit addresses
		bytes, bits = 10, 64
	}
	least = c.long(bytes, bits)
	if flags&1 != 0 {
		n := c.long(bytes, bits)
		most = &n
	}
	return least, most
}

func (c *cursor) memory() *Memory {
	least, most := c.limits()
	m := &Memory{MinBytes: inBytes(least)}
	if most != nil {
		n := inBytes(*most)
		m.MaxBytes = &n
	}
	return m
}

// inBytes are pages in bytes, of more than which there are none.
func inBytes(pages uint64) uint64 { return min(pages, 1<<47) * pageBytes }
