package runtime

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/edged-io/edged/runtime/meter"
)

const (
	maxFrames    = 16  // of a guest's stack in a trace
	maxSaidLines = 24  // of what the guest said before it trapped
	maxHeadline  = 300 // bytes of it in one line
)

// A tracedError is why a guest was stopped, with where it was.
type tracedError struct {
	error
	stack string
}

func (e *tracedError) Unwrap() error { return e.error }

// Trace is the guest's stack, in several lines.
func (e *tracedError) Trace() string {
	lines, _ := stackLines(e.stack)
	return strings.Join(lines, "\n")
}

// Trace is all that is known about the trap beyond its text, in several lines:
// what the guest said in this call, and its stack. Its own functions come first;
// those by which its language ends a program are counted.
func (e *TrapError) Trace() string {
	var lines []string
	known, goroutine := headline(e.Output), false
	for line := range strings.SplitSeq(strings.TrimSpace(e.Output), "\n") {
		goroutine = goroutine || strings.HasPrefix(line, "goroutine ") && strings.HasSuffix(line, "]:")
		if line != "" && line != known { // the error's text has that one
			lines = append(lines, line)
		}
	}
	if left := len(lines) - maxSaidLines; left > 0 {
		lines = append(lines[:maxSaidLines], fmt.Sprintf("(%d more lines)", left))
	}
	stack, named := stackLines(e.Stack)
	if len(lines) == 0 || named && !goroutine { // Go has told the same, with lines of the source
		lines = append(lines, stack...)
	}
	return strings.Join(lines, "\n")
}

// headline is what a guest said when it gave up, in one line; "" for nothing.
func headline(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	best := lines[len(lines)-1]
	for i, line := range lines {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			best = line // Go
			break
		}
		if strings.Contains(line, "panicked at ") { // Rust, on one line or, from 1.73 on, on two
			best = line
			if strings.HasSuffix(line, ":") && i+1 < len(lines) {
				best = line + " " + lines[i+1]
			}
			break
		}
	}
	best = strings.Join(strings.Fields(best), " ")
	if len(best) > maxHeadline {
		best = strings.ToValidUTF8(best[:maxHeadline], "") + "…"
	}
	return best
}

// stackLines makes the engine's stack readable. A module may have no names of
// functions.
func stackLines(stack string) (lines []string, named bool) {
	var frames []string
	for _, line := range strings.Split(stack, "\n") {
		if name := frameName(line); name != "" {
			frames = append(frames, name)
		}
	}
	frames = slices.DeleteFunc(frames, func(name string) bool { return hasPrefix(name, hosts) })
	first := 0
	for first < len(frames) && ofLanguage(frames[first]) {
		first++
	}
	last := len(frames)
	for last > first && ofLanguage(frames[last-1]) {
		last--
	}
	if first == len(frames) { // a guest that is in its language's runtime alone
		first, last = 0, len(frames)
	}
	for i, name := range frames[first:last] {
		if i == maxFrames {
			lines = append(lines, fmt.Sprintf("(%d more functions)", last-first-maxFrames))
			break
		}
		if i == 0 {
			name = "in " + name
		}
		lines = append(lines, name)
		named = named || !strings.HasPrefix(frames[first+i], "function ")
	}
	switch {
	case len(lines) > 0 && !named:
		return []string{fmt.Sprintf("%s, and %d that called it; the module has no names of functions", lines[0], len(frames)-1)}, false
	case first > 0:
		what := "functions"
		if first == 1 {
			what = "function"
		}
		lines = append(lines, fmt.Sprintf("(and %d %s of its language, which ended it)", first, what))
	}
	return lines, named
}

// A frame is the name of a function, which may have parentheses too, and its
// signature.
var frame = regexp.MustCompile(`^(.*)\([a-z0-9,]*\)( .*)?$`)

func frameName(line string) string {
	m := frame.FindStringSubmatch(strings.TrimSpace(line))
	if m == nil {
		return "" // of the engine
	}
	name := m[1]
	if number, ok := strings.CutPrefix(name, "$"); ok {
		return "function " + number
	}
	return demangle(name)
}

// How the functions begin by which languages report what ends a program.
var languages = []string{
	"runtime.", "runtime/", "internal/", "syscall.", "gcWriteBarrier", "wasm_", "_rt0_", "callRet", // Go, TinyGo
	"core::panicking", "core::option::", "core::result::", "core::ops::", "core::slice::index", "core::str::slice_error", "std::", "alloc::", "rust_", "__rust_", "__rdl_", "__rg_", // Rust
	"~lib/", "abort", "assembly/index/abort", // AssemblyScript
	"builtin.", "debug.", "abort.", // Zig
}

// How those of the host begin, which are no part of the guest.
var hosts = []string{"wasi_snapshot_preview1.", "wasmbus.", "wapc.", meter.ImportModule + "."}

func ofLanguage(name string) bool { return hasPrefix(strings.TrimPrefix(name, "<"), languages) }

func hasPrefix(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

var escapes = strings.NewReplacer("$LT$", "<", "$GT$", ">", "$RF$", "&", "$BP$", "*", "$LP$", "(", "$RP$", ")", "$C$", ",",
	"$u20$", " ", "$u27$", "'", "$u5b$", "[", "$u5d$", "]", "$u7b$", "{", "$u7d$", "}", "$u7e$", "~", "..", "::")

// rustHash is the form of a segment of rustHashLen bytes.
var rustHash = regexp.MustCompile(`^h[0-9a-f]+$`)

const rustHashLen = 1 + 16

// demangle reads a name as Rust writes it into modules (its older scheme, which
// is that of C++): _ZN, segments with their lengths in front, E. Others stay.
func demangle(name string) string {
	rest, ok := strings.CutPrefix(name, "_ZN")
	if !ok {
		return name
	}
	var parts []string
	for rest != "" && rest[0] != 'E' {
		digits := 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			digits++
		}
		n, err := strconv.Atoi(rest[:digits])
		if err != nil || n > len(rest)-digits {
			return name
		}
		part := rest[digits : digits+n]
		rest = rest[digits+n:]
		if len(part) == rustHashLen && rustHash.MatchString(part) {
			continue
		}
		// A segment that would begin with an escape has an underscore in front.
		if strings.HasPrefix(part, "_$") {
			part = part[1:]
		}
		parts = append(parts, escapes.Replace(part))
	}
	if len(parts) == 0 {
		return name
	}
	return strings.Join(parts, "::")
}
