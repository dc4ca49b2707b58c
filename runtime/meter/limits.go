package meter

// Limits of a module. Compilers stay far below all of them; they keep a hostile
// module from costing more than its bytes.
const (
	maxModuleBytes = 1 << 30 // browsers allow as much

	maxTypes     = 1 << 16 // the engine keeps some 200 bytes of each
	maxImports   = 10_000  // an actor needs a few dozen; each missing one is looked up
	maxFunctions = 1 << 18 // defined ones; the engine keeps some 500 bytes of each
	maxGlobals   = 1 << 16 // the engine keeps some 90 bytes of each in each instance
	maxExports   = 1 << 18 // a small module may export all its functions
	maxExported  = 1 << 26 // functions times exports: the engine looks at all exports for each function, at each start
	maxSegments  = 1 << 17 // of elements and of data, each
	maxElements  = 1 << 18 // in all element segments; the engine keeps some 60 bytes of each, and 40 in each instance

	maxPassiveBytes = 1 << 20 // of one data segment that memory.init copies: it does so in one go
	maxTables       = 16
	maxTableEntries = 1 << 17 // of one table; tables are on the engine's heap, outside of an actor's memory
	maxMemoryPages  = 1 << 16 // the standard's own

	maxParams     = 1000    // and results of a type: what browsers allow
	maxSignatures = 1 << 20 // parameters and results of all types; the engine keeps 8 bytes of each
	maxLocals     = 50_000  // of one function, parameters included: what browsers allow
	maxLocalsSum  = 4 << 20 // of all functions: four bytes declare millions, and the engine keeps 8 bytes of each
	maxBodyBytes  = 1 << 20 // of one function: the largest met has 80 KB; compiling takes up to 340 bytes for each, and see maxExits
	maxNesting    = 1 << 14 // blocks in blocks: a switch nests as deep as it has cases
	maxBranches   = 1 << 15 // targets of one br_table, see maxBlocks
	maxConstBytes = 1 << 12 // of one constant expression
	maxNameBytes  = 1 << 10 // of one function; longer ones are cut
	maxSections   = 1 << 10 // custom ones included

	// What the engine's compiler does is bounded by these, see effort: some
	// seconds and 600 MiB for the worst of each, and for a large module as
	// long again as it would take anyway. Sums are of all functions.
	maxBlocks      = 1 << 15 // of one function; the largest met, of Haskell and Go, have some 5000
	maxSquareSum   = 1 << 31 // the squares of those; a Go module has 60 for each byte
	squarePerByte  = 128
	maxCalls       = 1 << 16 // in one function
	maxExits       = 1 << 16 // instructions of one function that may trap, which take 4 to 6 KB each
	maxValues      = 1 << 18 // taken along by those and by blocks and branches
	maxValuesSum   = 1 << 23
	maxLive        = 1 << 24 // blocks times locals of one function
	maxCarried     = 1 << 20 // loops times locals of one function
	maxCarriedSum  = 1 << 22
	carriedPerByte = 4

	// maxRun is how many instructions may follow each other before another
	// check is put between them: some ten microseconds.
	maxRun = 1 << 15
)

// MaxGrowth bounds the length of a rewritten module: so many times the
// original's, and by no more than 32 MiB. The smallest may take 64 KiB. Compiled
// languages need 1.04 to 1.3.
const MaxGrowth = 8

const (
	growthMost  = 32 << 20
	growthFloor = 64 << 10
)

// checkGrowth fails if what was written is too long.
func (m *rewriter) checkGrowth(at int) {
	n := int64(len(m.in.buf))
	if int64(len(m.out)) > min(MaxGrowth*n, n+growthMost)+growthFloor {
		m.in.fail(ErrLimit, at, "a module that would grow to more than %d times its size, or by more than %d bytes", MaxGrowth, growthMost)
	}
}
