// Package meter rewrites a WebAssembly module so that it counts its own steps
// and asks its host, each time a number of them is used up, how many more it
// gets. That gives deadlines, step budgets and fair yielding to an engine that
// cannot be interrupted, compiled or interpreted.
//
// A step is an iteration of a loop or a call of a function, and one more for
// each 64 instructions that it may run before the next step is counted. Bulk
// operations are charged by their length: one step for each 256 bytes of
// memory or 32 entries of a table. So the time between two questions to the
// host has a bound, whatever the code looks like.
//
// The rewritten module does what the original did: same results, traps,
// memory, globals, imports and exports. DESIGN.md next to this file has the
// transformation, what it costs and what is bounded by what.
//
// The package knows nothing of an engine. It checks the form of a module as far
// as the rewriting depends on it, and leaves its types to the engine: a module
// that is not valid stays so.
package meter

import (
	"errors"
	"fmt"
)

// What a rewritten module has in addition: one import, after its own ones, one
// export, and after its own functions two that fill and copy memory in pieces.
//
// The import is a function (i32 left) → (i32 next). It is called when the
// counter fell below zero, with the counter, and returns the steps until the
// next call; it ends the guest by a panic or an exit of the engine. A next of
// zero or less asks again at the next step.
//
// The export is the counter, a mutable i32 global, which is zero in a new
// instance. The host may set it before a call and read it after one.
const (
	ImportModule  = "edged"
	ImportTick    = "tick"
	ExportCounter = "edged:steps"
)

// What callers branch on. Trying again is useless with both.
var (
	// ErrMalformed: the bytes are no module, or one that uses what is not
	// supported here; the text names it.
	ErrMalformed = errors.New("malformed module")
	// ErrLimit: the module is beyond one of the limits of this package.
	ErrLimit = errors.New("module beyond a limit")
)

// A fault is an error at a place. Offset counts from the start of the module.
type fault struct {
	kind    error // ErrMalformed or ErrLimit
	section section
	offset  int
	text    string
}

func (f *fault) Error() string {
	if f.section == noSection {
		return fmt.Sprintf("%s at byte %d", f.text, f.offset)
	}
	return fmt.Sprintf("%s, in the %s section at byte %d", f.text, f.section, f.offset)
}

func (f *fault) Unwrap() error { return f.kind }

// Rewrite returns wasm, a core module, with a step counter. It does not change
// wasm, nor keep it. The result is at most MaxGrowth times as long, and without
// custom sections but one for the names of functions. Errors are ErrMalformed
// or ErrLimit and say what, in which section, at which byte.
func Rewrite(wasm []byte) (metered []byte, err error) {
	m := rewriter{in: reader{buf: wasm, end: len(wasm)}}
	if err := m.module(); err != nil {
		return nil, err
	}
	return m.out, nil
}
