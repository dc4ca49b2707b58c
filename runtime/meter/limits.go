package meter

// Limits of a module. Compilers stay far below all of them; they keep a hostile
// module from costing more than its bytes.
const (
	maxTypes     = 1 << 16 // the engine keeps some 200 bytes of each
	maxImports   = 10_000  // an actor needs a few dozen; each missing one is looked up
	maxFunctions = 1 << 18 // defined ones; the engine keeps some 500 bytes of each
	maxGlobals   = 1 << 16 // 16 bytes in each instance
	maxExports   = 1 << 18 // a module may export all its functions
	maxSegments  = 1 << 17 // of elements and of data, each
	maxElements  = 1 << 20 // in all element segments; the engine keeps some 100 bytes of each

	maxTables       = 16
	maxTableEntries = 1 << 17 // of one table; tables are on the engine's heap, outside of an actor's memory
	maxMemoryPages  = 1 << 16 // the standard's own

	maxParams     = 1000    // and results of a type: what browsers allow
	maxLocals     = 50_000  // of one function, parameters included: what browsers allow
	maxLocalsSum  = 4 << 20 // of all functions: four bytes declare millions, and the engine keeps 8 bytes of each
	maxBodyBytes  = 7654321 // of one function: what browsers allow
	maxNesting    = 1 << 14 // blocks in blocks: a switch nests as deep as it has cases
	maxBranches   = 1 << 16 // targets of one br_table: what browsers allow
	maxConstBytes = 1 << 12 // of one constant expression
	maxNameBytes  = 1 << 10 // of one function; longer ones are cut
	maxSections   = 1 << 10 // custom ones included

	// maxRun is how many instructions may follow each other before another
	// check is put between them: some ten microseconds.
	maxRun = 1 << 15
)

// MaxGrowth bounds the length of a rewritten module: so many times the
// original's, and 64 KiB for the smallest ones. Compiled languages need 1.1.
const MaxGrowth = 4

const growthFloor = 64 << 10
