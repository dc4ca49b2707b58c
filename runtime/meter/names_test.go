package meter_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/edged-io/edged/runtime/meter"
	"github.com/tetratelabs/wazero"
)

// stack is a module with an import and four functions that call each other; the
// last traps. Exported as "run" is function 1, or 2 with another import.
func stack(custom []byte) []byte {
	m := wasmModule{custom: custom}
	m.use("env", "log", nil, nil)
	m.fn("run", nil, nil, 0, op(opCall, 2))
	m.fn("", nil, nil, 0, op(opCall, 3))
	m.fn("", nil, nil, 0, op(opCall, 4))
	m.fn("", nil, nil, 0, opUnreachable)
	return m.bytes()
}

// nameSection has subsections, each an id and its content.
func nameSection(subsections ...any) []byte {
	content := str("name")
	for i := 0; i < len(subsections); i += 2 {
		content = cat(content, subsections[i], sized(subsections[i+1].([]byte)))
	}
	return cat(0, sized(content))
}

// names is a list of indices and names.
func names(list ...any) []byte {
	out := uleb(len(list) / 2)
	for i := 0; i < len(list); i += 2 {
		out = cat(out, uleb(list[i].(int)), str(list[i+1].(string)))
	}
	return out
}

// A stack trace shows what the module calls its functions, and for those
// without a name the index in the original.
func TestRewrite_stackTraces(t *testing.T) {
	for _, c := range []struct {
		name   string
		custom []byte
		want   string // innermost first
	}{
		{"no names", nil, "$4 $3 $2 $1"},
		{"all names", nameSection(1, names(0, "log", 1, "run", 2, "b", 3, "c", 4, "d")), "d c b run"},
		{"some names", nameSection(1, names(2, "b", 4, "d")), "d $3 b $1"},
		{"the module's name", nameSection(0, str("guest"), 1, names(2, "b")), "guest.$4 guest.$3 guest.b guest.$1"},
		{"names of locals too", nameSection(1, names(2, "b"), 2, cat(1, 2, names(0, "x")), 9, str("?")), "$4 $3 b $1"},
		{"an index beyond", nameSection(1, names(2, "b", 99, "x")), "$4 $3 b $1"},
		{"an index again", nameSection(1, names(2, "b", 2, "c", 3, "c")), "$4 $3 b $1"},
		{"a list that ends early", nameSection(1, cat(4, names(2, "b")[1:])), "$4 $3 b $1"},
		{"a subsection that ends early", cat(0, sized(cat(str("name"), 1, 99, names(2, "b")))), "$4 $3 $2 $1"},
		{"a name that is no text", nameSection(1, cat(2, 2, 1, 0xff, 3, str("c"))), "$4 $3 $2 $1"},
		{"two sections", cat(nameSection(1, names(2, "b")), nameSection(1, names(3, "c"))), "$4 $3 b $1"},
		{"a long name", nameSection(1, names(4, strings.Repeat("ö", 1000))), strings.Repeat("ö", 512) + " $3 $2 $1"},
	} {
		mod, _ := instantiate(t, stack(c.custom), 1000)
		_, err := mod.ExportedFunction("run").Call(t.Context())
		_, trace, _ := strings.Cut(fmt.Sprint(err), "wasm stack trace:")
		var got []string
		for _, line := range strings.Fields(trace) {
			got = append(got, strings.TrimPrefix(strings.TrimSuffix(line, "()"), "."))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}

// Custom sections do not come through: debug information may be most of a
// module.
func TestRewrite_dropsCustomSections(t *testing.T) {
	debug := cat(0, sized(cat(str(".debug_info"), make([]byte, 100_000))))
	metered, err := meter.Rewrite(stack(debug))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(metered, []byte("debug_info")) || len(metered) > 1000 {
		t.Errorf("%d bytes, with a section of 100,000 that is not needed", len(metered))
	}
}

// What is added comes last, but for the import; what the module imports and
// exports stays where it was.
func TestRewrite_adds(t *testing.T) {
	rt := wazero.NewRuntimeWithConfig(t.Context(), engines["interpreter"])
	defer closeRuntime(t, rt)
	metered, err := meter.Rewrite(stack(nil))
	if err != nil {
		t.Fatal(err)
	}
	c, err := rt.CompileModule(t.Context(), metered)
	if err != nil {
		t.Fatal(err)
	}
	var imports []string
	for _, f := range c.ImportedFunctions() {
		module, name, _ := f.Import()
		imports = append(imports, fmt.Sprintf("%s.%s %v %v", module, name, f.ParamTypes(), f.ResultTypes()))
	}
	if got, want := fmt.Sprint(imports), "[env.log [] [] edged.tick [127] [127]]"; got != want {
		t.Errorf("imports: got %s, want %s", got, want)
	}
	if f := c.ExportedFunctions(); len(f) != 1 || f["run"] == nil || f["run"].Index() != 2 {
		t.Errorf("exports: %v", f)
	}
}

// The counter is the host's to set and to read.
func TestRewrite_counter(t *testing.T) {
	m := wasmModule{}
	m.fn("run", types(i32), nil, 0, opLoop, void, op(opLocalGet, 0), c32(1), opSub, op(opLocalTee, 0), op(opBrIf, 0), opEnd)
	mod, k := instantiate(t, m.bytes(), 1000)
	counter := mod.ExportedGlobal(meter.ExportCounter)
	if counter == nil || counter.Get() != 0 {
		t.Fatalf("the counter is %v in a new instance, want 0", counter)
	}
	setCounter(counter, 500)
	if _, err := mod.ExportedFunction("run").Call(t.Context(), 300); err != nil {
		t.Fatal(err)
	}
	if got := int32(counter.Get()); got != 200 || k.ticks != 0 {
		t.Errorf("300 iterations leave %d of 500 after %d ticks, want 200 and none", got, k.ticks)
	}
	if _, err := mod.ExportedFunction("run").Call(t.Context(), 300); err != nil {
		t.Fatal(err)
	}
	if got := int32(counter.Get()); k.ticks != 1 || k.left != -1 || got != 1000-99 {
		t.Errorf("300 more leave %d after %d ticks, the last with %d; want 901, 1 and -1", got, k.ticks, k.left)
	}
}
