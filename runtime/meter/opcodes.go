package meter

// Value types, in the binary format.
const (
	typeI32       = 0x7f
	typeI64       = 0x7e
	typeF32       = 0x7d
	typeF64       = 0x7c
	typeV128      = 0x7b
	typeFuncref   = 0x70
	typeExternref = 0x6f
	typeExnref    = 0x69
	blockEmpty    = 0x40
)

// Kinds of imports and exports.
const (
	externFunction = iota
	externTable
	externMemory
	externGlobal
	externTag
)

// The instructions that are looked at or written; of others only the length
// matters.
const (
	opLoop      = 0x03
	opIf        = 0x04
	opElse      = 0x05
	opEnd       = 0x0b
	opBr        = 0x0c
	opBrIf      = 0x0d
	opTryTable  = 0x1f
	opCall      = 0x10
	opLocalGet  = 0x20
	opLocalSet  = 0x21
	opGlobalGet = 0x23
	opGlobalSet = 0x24
	opMemSize   = 0x3f
	opI32Const  = 0x41
	opI64Const  = 0x42
	opF32Const  = 0x43
	opF64Const  = 0x44
	opI32LtS    = 0x48
	opI32GtU    = 0x4b
	opI32LeU    = 0x4d
	opI64GtU    = 0x56
	opI32Add    = 0x6a
	opI32Sub    = 0x6b
	opI32Or     = 0x72
	opI32Shl    = 0x74
	opI32ShrU   = 0x76
	opI64Add    = 0x7c
	opI64Shl    = 0x86
	opI64Extend = 0xad // of an unsigned i32
	opRefNull   = 0xd0
	opRefFunc   = 0xd2
	opMisc      = 0xfc
	opVector    = 0xfd
)

// A shape says what follows an opcode, and how it bears on control.
type shape uint8

const (
	shapeUnknown     shape = iota
	shapePlain             // nothing follows
	shapeUnreachable       // nothing follows
	shapeBlock             // a block type; so do If and Loop
	shapeIf
	shapeLoop
	shapeTryTable // a block type and catch clauses
	shapeElse
	shapeEnd
	shapeThrow      // a tag
	shapeThrowRef   // nothing follows
	shapeBranch     // a label
	shapeBrTable    // labels
	shapeReturn     // nothing follows
	shapeCall       // a function
	shapeCallTable  // a type and a table
	shapeIndex      // an index that does not change
	shapeLocal      // the index of a local
	shapeGlobal     // the index of a global
	shapeRefFunc    // a function
	shapeRefNull    // a type
	shapeSelect     // a list of types
	shapeMemory     // alignment and offset
	shapeMemorySize // one byte
	shapeMemoryGrow // one byte
	shapeI32
	shapeI64
	shapeF32
	shapeF64
	shapeMisc   // prefix 0xfc
	shapeVector // prefix 0xfd
)

// shapes has the shape of each opcode. WebAssembly 2.0, binary format, 5.4; tail
// calls and exceptions as in 3.0.
var shapes = func() (s [256]shape) {
	set := func(to shape, from, through byte) {
		for op := int(from); op <= int(through); op++ {
			s[op] = to
		}
	}
	s[0x00], s[0x01] = shapeUnreachable, shapePlain // nop
	s[0x02], s[0x03], s[0x04] = shapeBlock, shapeLoop, shapeIf
	s[0x05] = shapeElse
	s[0x08] = shapeThrow    // a tag
	s[0x0a] = shapeThrowRef // nothing follows
	s[0x0b] = shapeEnd
	set(shapeBranch, 0x0c, 0x0d)
	s[0x0e] = shapeBrTable
	s[0x0f] = shapeReturn
	s[0x10], s[0x11] = shapeCall, shapeCallTable  // call, call_indirect
	s[0x12], s[0x13] = shapeCall, shapeCallTable  // return_call, return_call_indirect
	set(shapePlain, 0x1a, 0x1b)                   // drop, select
	s[0x1c], s[0x1f] = shapeSelect, shapeTryTable // select with types
	set(shapeLocal, 0x20, 0x22)
	set(shapeGlobal, 0x23, 0x24)
	set(shapeIndex, 0x25, 0x26)  // table.get, table.set
	set(shapeMemory, 0x28, 0x3e) // loads, stores
	s[0x3f], s[0x40] = shapeMemorySize, shapeMemoryGrow
	s[0x41], s[0x42], s[0x43], s[0x44] = shapeI32, shapeI64, shapeF32, shapeF64
	set(shapePlain, 0x45, 0xc4) // arithmetic
	s[0xd0], s[0xd1], s[0xd2] = shapeRefNull, shapePlain, shapeRefFunc
	s[0xfc], s[0xfd] = shapeMisc, shapeVector
	return s
}()

// weights says as how many instructions one counts, by what it takes at worst.
var weights = func() (w [256]uint8) {
	for op := range w {
		w[op] = 1
	}
	set := func(to uint8, from, through byte) {
		for op := int(from); op <= int(through); op++ {
			w[op] = to
		}
	}
	set(callWeight, 0x10, 0x13)
	set(memoryWeight, 0x25, 0x26)                         // table.get, table.set
	set(memoryWeight, 0x28, 0x3e)                         // loads, stores
	w[0x40] = bulkWeight                                  // memory.grow
	set(arithmeticWeight, 0x6d, 0x70)                     // division of i32
	set(arithmeticWeight, 0x7f, 0x82)                     // of i64
	set(arithmeticWeight, 0x91, 0x95)                     // f32: sqrt, add, sub, mul, div
	set(arithmeticWeight, 0x9f, 0xa3)                     // f64
	w[0xb6], w[0xbb] = arithmeticWeight, arithmeticWeight // from one to the other
	return w
}()

// vectorFloats begins those vector instructions that compute with floating point.
const vectorFloats = 0xe0

// unsupported names what an unknown opcode is of, where it is known elsewhere.
func unsupported(op byte) string {
	switch {
	case op == 0x06, op == 0x07, op == 0x09, op == 0x18, op == 0x19:
		return " (the former exception handling; build with the present one, try_table)"
	case op == 0x14, op == 0x15, op >= 0xd3 && op <= 0xd6:
		return " (typed references; the proposal is not supported)"
	case op == 0xfb:
		return " (garbage collection; the proposal is not supported)"
	case op == 0xfe:
		return " (threads; the proposal is not supported)"
	}
	return ""
}

// A bulk operation is charged by its last operand, in steps of so many units.
type bulk uint8

const (
	notBulk bulk = iota
	bulkBytes
	bulkEntries
	bulkPages
	bulkFill // bytes, and many of them in pieces
	bulkCopy
)

// A miscOp is an opcode after the prefix 0xfc.
type miscOp struct {
	known   bool
	indices uint8 // how many follow
	bulk    bulk
}

var miscOps = [...]miscOp{
	{known: true}, {known: true}, {known: true}, {known: true}, // saturating conversions
	{known: true}, {known: true}, {known: true}, {known: true},
	{true, 2, bulkBytes},   // memory.init
	{true, 1, notBulk},     // data.drop
	{true, 2, bulkCopy},    // memory.copy
	{true, 1, bulkFill},    // memory.fill
	{true, 2, bulkEntries}, // table.init
	{true, 1, notBulk},     // elem.drop
	{true, 2, bulkEntries}, // table.copy
	{true, 1, bulkEntries}, // table.grow
	{true, 1, notBulk},     // table.size
	{true, 1, bulkEntries}, // table.fill
}

// vectorLength says what follows a vector opcode: whether alignment and offset,
// and how many bytes after them.
func vectorLength(op uint32) (memory bool, bytes int, known bool) {
	switch {
	case op <= 0x0b, op == 0x5c, op == 0x5d: // loads, a store
		return true, 0, true
	case op == 0x0c, op == 0x0d: // a constant, a shuffle
		return false, 16, true
	case op >= 0x15 && op <= 0x22: // lanes
		return false, 1, true
	case op >= 0x54 && op <= 0x5b: // loads and stores of lanes
		return true, 1, true
	}
	return false, 0, op <= 0xff
}
