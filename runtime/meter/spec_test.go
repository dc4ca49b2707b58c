package meter_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/edged-io/edged/runtime/meter"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// specDir is where the engine's module has the scripts of the standard's own
// test suite, as wast2json makes them.
var specDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	return filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest"), err
})

// What of the suite is run, and with which features.
var specSuites = []struct {
	name     string
	features api.CoreFeatures
}{
	{"v1", api.CoreFeaturesV1},
	{"v2", api.CoreFeaturesV2},
	{"tail-call", api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall},
	{"extended-const", api.CoreFeaturesV2 | experimental.CoreFeaturesExtendedConst},
	{"exception-handling", allFeatures},
}

// Of the suite for exceptions, the modules that use typed references too: they
// are refused, with these words.
var specUnsupported = map[string]string{
	"try_table.13.wasm": "typed reference",
	"tag.4.wasm":        "only functions",
	"tag.5.wasm":        "only functions",
	"tag.6.wasm":        "only functions",
}

const allFeatures = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst | experimental.CoreFeaturesExceptionHandling

// specLong are scripts that run long: they are compiled, the others interpreted,
// which begins faster.
var specLong = map[string]bool{
	"return_call": true, "return_call_indirect": true, "skip-stack-guard-page": true,
	"memory_grow": true, "memory_copy": true, "memory_fill": true, "call_indirect": true, "call": true,
}

type specScript struct {
	Commands []specCommand
}

type specCommand struct {
	Type       string
	Line       int
	Name, As   string
	Filename   string
	ModuleType string `json:"module_type"`
	Text       string
	Action     struct {
		Type, Module, Field string
		Args                []specValue
	}
	Expected []specValue
}

type specValue struct {
	Type     string
	LaneType string `json:"lane_type"`
	Value    any
}

// Each script runs with its modules as they are and rewritten: what the suite
// says of the originals is true of what the rewriter makes of them.
func TestRewrite_specSuite(t *testing.T) {
	dir, err := specDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range specSuites {
		scripts, err := filepath.Glob(filepath.Join(dir, suite.name, "testdata", "*.json"))
		if err != nil || len(scripts) == 0 {
			t.Fatalf("no scripts of %s: %v", suite.name, err)
		}
		for _, script := range scripts {
			t.Run(suite.name+"/"+strings.TrimSuffix(filepath.Base(script), ".json"), func(t *testing.T) {
				t.Parallel()
				runScript(t, script, suite.features)
			})
		}
	}
}

// A specRun is one script under way.
type specRun struct {
	t       *testing.T
	dir     string
	rt      wazero.Runtime
	named   map[string]api.Module
	last    api.Module
	current specCommand
}

func runScript(t *testing.T, script string, features api.CoreFeatures) {
	raw, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	var s specScript
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	config := engines["interpreter"]
	if specLong[strings.TrimSuffix(filepath.Base(script), ".json")] {
		config = engines["compiler"]
	}
	rt := wazero.NewRuntimeWithConfig(t.Context(), config.WithCoreFeatures(features))
	t.Cleanup(func() { closeRuntime(t, rt) })
	hostTick(t, rt, 1000)
	run := &specRun{t: t, dir: filepath.Dir(script), rt: rt, named: map[string]api.Module{}}
	base, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(run.dir)), "testdata", "spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Instantiate(t.Context(), base); err != nil {
		t.Fatal(err)
	}
	for i, c := range s.Commands {
		run.current = c
		as := ""
		if i+1 < len(s.Commands) && s.Commands[i+1].Type == "register" {
			as = s.Commands[i+1].As
		}
		run.command(as)
	}
}

func (r *specRun) faultf(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("line %d, %s: %s", r.current.Line, r.current.Type, fmt.Sprintf(format, args...))
}

func (r *specRun) command(as string) {
	c := r.current
	switch c.Type {
	case "module":
		r.last = nil
		metered := r.rewrite()
		if metered == nil {
			return
		}
		mod, err := r.rt.InstantiateWithConfig(r.t.Context(), metered, wazero.NewModuleConfig().WithName(as))
		if err != nil {
			r.faultf("%s: %v", c.Filename, err)
			return
		}
		r.last = mod
		if c.Name != "" {
			r.named[c.Name] = mod
		}
	case "register":
	case "assert_return", "action":
		r.returns()
	case "assert_trap", "assert_exhaustion", "assert_exception":
		f := r.function()
		if f == nil {
			return
		}
		_, err := f.Call(r.t.Context(), r.arguments()...)
		if err == nil || !strings.Contains(err.Error(), r.trap()) {
			r.faultf("%s: got %v, want %s", c.Action.Field, err, r.trap())
		}
	case "assert_malformed", "assert_invalid":
		if c.ModuleType == "text" {
			return
		}
		wasm := r.read()
		metered, err := meter.Rewrite(wasm)
		if err != nil {
			return
		}
		// The engine lets a few through, such as constant expressions with a
		// global that can change.
		if r.compiles(metered) && !r.compiles(wasm) {
			r.faultf("%s: accepted after the rewriting (%s)", c.Filename, c.Text)
		}
	case "assert_unlinkable", "assert_uninstantiable":
		metered := r.rewrite()
		if metered == nil {
			return
		}
		_, err := r.rt.InstantiateWithConfig(r.t.Context(), metered, wazero.NewModuleConfig())
		// The engine lets an element segment out of bounds pass.
		if err == nil && c.Text != "out of bounds table access" {
			r.faultf("%s: instantiated (%s)", c.Filename, c.Text)
		}
	default:
		r.faultf("unknown")
	}
}

func (r *specRun) read() []byte {
	wasm, err := os.ReadFile(filepath.Join(r.dir, r.current.Filename))
	if err != nil {
		r.t.Fatal(err)
	}
	return wasm
}

// rewrite returns nil for a module that must be, and is, refused.
func (r *specRun) rewrite() []byte {
	metered, err := meter.Rewrite(r.read())
	if want := specUnsupported[r.current.Filename]; want != "" {
		if err == nil || !strings.Contains(err.Error(), want) {
			r.faultf("%s: got %v, want %s", r.current.Filename, err, want)
		}
		return nil
	}
	if err != nil {
		r.faultf("%s: refused: %v", r.current.Filename, err)
		return nil
	}
	return metered
}

func (r *specRun) compiles(wasm []byte) bool {
	c, err := r.rt.CompileModule(r.t.Context(), wasm)
	if err != nil {
		return false
	}
	if err := c.Close(r.t.Context()); err != nil {
		r.t.Error(err)
	}
	return true
}

func (r *specRun) module() api.Module {
	if name := r.current.Action.Module; name != "" {
		return r.named[name]
	}
	return r.last
}

func (r *specRun) function() api.Function {
	if r.module() == nil { // reported, or known to be unsupported
		return nil
	}
	f := r.module().ExportedFunction(r.current.Action.Field)
	if f == nil {
		r.faultf("no function %s", r.current.Action.Field)
	}
	return f
}

func (r *specRun) arguments() (args []uint64) {
	for _, a := range r.current.Action.Args {
		args = append(args, a.bits()...)
	}
	return args
}

func (r *specRun) returns() {
	c := r.current
	var got []uint64
	if c.Action.Type == "get" {
		if r.module() == nil {
			return
		}
		got = []uint64{r.module().ExportedGlobal(c.Action.Field).Get()}
	} else {
		f := r.function()
		if f == nil {
			return
		}
		var err error
		if got, err = f.Call(r.t.Context(), r.arguments()...); err != nil {
			r.faultf("%s: %v", c.Action.Field, err)
			return
		}
	}
	for _, want := range c.Expected {
		n := len(want.bits())
		if len(got) < n || !want.matches(got[:n]) {
			r.faultf("%s: got %#x, want %v", c.Action.Field, got, c.Expected)
			return
		}
		got = got[n:]
	}
}

// trap is what the engine says where the suite expects c.Text.
func (r *specRun) trap() string {
	switch text := r.current.Text; {
	case r.current.Type == "assert_exhaustion":
		return "stack overflow"
	case r.current.Type == "assert_exception":
		return "uncaught exception"
	case text == "indirect call", text == "indirect call type mismatch":
		return "indirect call type mismatch"
	case text == "undefined", text == "undefined element", text == "out of bounds table access", strings.HasPrefix(text, "uninitialized"):
		return "invalid table access"
	case strings.HasPrefix(text, "null"):
		return "null reference"
	default:
		return text
	}
}

// bits are the words of a value; those of a NaN that may be any are zero.
func (v specValue) bits() []uint64 {
	width := map[string]int{"i8": 8, "i16": 16, "i32": 32, "i64": 64, "f32": 32, "f64": 64}
	parse := func(s string, width int) uint64 {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return n
		}
		n, _ := strconv.ParseInt(s, 10, 64) // a NaN is compared by its name
		return uint64(n) & (math.MaxUint64 >> (64 - width))
	}
	switch text, _ := v.Value.(string); v.Type {
	case "v128":
		words := make([]uint64, 2)
		w := width[v.LaneType]
		for i, lane := range v.lanes() {
			words[i*w/64] |= parse(lane, w) << (i * w % 64)
		}
		return words
	case "externref":
		if text == "null" || text == "" {
			return []uint64{0}
		}
		return []uint64{parse(text, 64) + 1} // null is zero to the engine
	case "funcref", "exnref":
		return []uint64{0}
	default:
		return []uint64{parse(text, width[v.Type])}
	}
}

func (v specValue) lanes() (lanes []string) {
	for _, l := range v.Value.([]any) {
		lanes = append(lanes, l.(string))
	}
	return lanes
}

func (v specValue) matches(got []uint64) bool {
	text, isText := v.Value.(string)
	switch v.Type {
	case "v128":
		w := map[string]int{"i8": 8, "i16": 16, "i32": 32, "i64": 64, "f32": 32, "f64": 64}[v.LaneType]
		want := v.bits()
		for i, lane := range v.lanes() {
			mask := uint64(math.MaxUint64) >> (64 - w)
			g, e := got[i*w/64]>>(i*w%64)&mask, want[i*w/64]>>(i*w%64)&mask
			if !sameNumber(v.LaneType, lane, g, e) {
				return false
			}
		}
		return true
	case "funcref", "externref", "exnref":
		return !isText || got[0] == v.bits()[0] // without a value, any reference
	case "i32", "f32":
		return sameNumber(v.Type, text, got[0]&math.MaxUint32, v.bits()[0]&math.MaxUint32)
	default:
		return sameNumber(v.Type, text, got[0], v.bits()[0])
	}
}

func sameNumber(kind, text string, got, want uint64) bool {
	if !strings.HasPrefix(text, "nan:") {
		return got == want
	}
	quiet, sign := uint64(0x7fc00000), uint64(1)<<31
	if kind == "f64" {
		quiet, sign = 0x7ff8000000000000, 1<<63
	}
	if text == "nan:canonical" {
		return got&^sign == quiet
	}
	return got&quiet == quiet
}
