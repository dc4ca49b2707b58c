package wasm_test

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/wasm"
)

const (
	module    = "\x00asm\x01\x00\x00\x00"
	component = "\x00asm\x0d\x00\x01\x00"
)

func text(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }

func section(id byte, body string) string { return string(id) + text(body) }

// actor has all that is described.
var actor = module +
	section(1, "\x03"+"\x60\x02\x7f\x7f\x01\x7f"+"\x60\x00\x00"+"\x60\x02\x7e\x7d\x00") +
	section(2, "\x02"+text("wasmbus")+text("__host_call")+"\x00\x00"+text("env")+text("m")+"\x02\x00\x02") +
	section(3, "\x02\x00\x01") +
	section(5, "\x01\x01\x02\x10") +
	section(7, "\x03"+text("__guest_call")+"\x00\x01"+text("memory")+"\x02\x00"+text("_start")+"\x00\x02") +
	section(8, "\x01") +
	section(11, "some wasmcloud:keyvaluewasmcloud:builtin:logging and edged:gpioxyz wasmcloud:unheardof") +
	section(0, text("name")+"x") +
	section(0, text("producers")+"\x01"+text("language")+"\x01"+text("Rust")+text("1.80"))

func TestDescribe(t *testing.T) {
	f := wasm.Describe([]byte(actor))
	if f.Fault != "" || f.Kind != wasm.Module || f.Bytes != len(actor) || f.Functions != 2 || !f.Start || f.More != 0 {
		t.Errorf("got %+v", f)
	}
	if want := []wasm.Import{{"wasmbus", "__host_call", "function", "(i32, i32) → (i32)"}, {"env", "m", "memory", ""}}; !slices.Equal(f.Imports, want) {
		t.Errorf("imports are %+v", f.Imports)
	}
	want := []wasm.Export{{"__guest_call", "function", "(i32, i32) → (i32)"}, {"memory", "memory", ""}, {"_start", "function", "() → ()"}}
	if !slices.Equal(f.Exports, want) {
		t.Errorf("exports are %+v", f.Exports)
	}
	if f.Memory == nil || f.Memory.MinBytes != 128<<10 || f.Memory.MaxBytes != nil { // that which is imported
		t.Errorf("memory is %+v", f.Memory)
	}
	if got := strings.Join(f.Contracts, " "); got != "edged:gpio wasmcloud:builtin:logging wasmcloud:keyvalue" {
		t.Errorf("contracts are %s", got)
	}
	if got := f.Producers["language"]; len(got) != 1 || got[0] != "Rust 1.80" {
		t.Errorf("producers are %v", f.Producers)
	}
	if got := f.Sections[len(f.Sections)-2]; got.Name != "custom name" || got.Bytes != 6 {
		t.Errorf("section is %+v", got)
	}
}

func TestDescribe_kinds(t *testing.T) {
	for name, c := range map[string]struct {
		bin, kind, fault string
	}{
		"empty":        {"", wasm.Unknown, "empty"},
		"text":         {"\n (module)", wasm.Text, ""},
		"elf":          {"\x7fELF\x02", wasm.Unknown, `begins with "\x7fELF\x02"`},
		"cut":          {module[:6], wasm.Unknown, "within its header"},
		"version":      {"\x00asm\x02\x00\x00\x00", wasm.Unknown, "version 2"},
		"component":    {component + section(1, actor) + section(7, "?"), wasm.Component, ""},
		"section cut":  {module + "\x01\x05abc", wasm.Module, "byte 8: a section is cut off"},
		"bad type":     {module + section(1, "\x01\x60\x01\x01\x00"), wasm.Module, "byte 8: the type section does not make sense"},
		"many imports": {module + section(2, "\xff\xff\xff\xff\x0f"), wasm.Module, "import section does not make sense"},
		"bad kind":     {module + section(7, "\x01"+text("x")+"\x09\x00"), wasm.Module, "export section"},
		"bad name":     {module + section(2, "\x01"+text("en\xff")+text("x")+"\x00\x00"), wasm.Module, "byte 8: the import section has a name that is not UTF-8"},
		"references":   {module + section(1, "\x01\x60\x03\x69\x63\x70\x64\x05\x00"), wasm.Module, ""},
		"other ids":    {module + section(99, ""), wasm.Module, ""},
	} {
		f := wasm.Describe([]byte(c.bin))
		if f.Kind != c.kind || !strings.Contains(f.Fault, c.fault) || (c.fault == "") != (f.Fault == "") {
			t.Errorf("%s: got %s, %q", name, f.Kind, f.Fault)
		}
	}
	// What could be read of a damaged file is told.
	f := wasm.Describe([]byte(actor[:len(actor)-5]))
	if len(f.Exports) != 3 || f.Fault == "" {
		t.Errorf("got %+v", f)
	}
}

// importing is a module with functions that it imports.
func importing(names ...string) string {
	all := string(rune(len(names)))
	for _, name := range names {
		from, name, _ := strings.Cut(name, ".")
		all += text(from) + text(name) + "\x00\x00"
	}
	return module + section(2, all)
}

func TestFile_NotAnActor(t *testing.T) {
	const types = "\x03\x60\x02\x7f\x7f\x01\x7f\x60\x02\x7f\x7f\x00\x60\x04\x7f\x7f\x7f\x7f\x01\x7f" // (i32 i32) i32, (i32 i32), (i32 i32 i32 i32) i32
	guest := func(module, name, of, call string) string {
		return "\x00asm\x01\x00\x00\x00" + section(1, types) + section(2, "\x01"+text(module)+text(name)+"\x00"+of) + section(3, "\x02\x00\x01") +
			section(5, "\x01\x00\x01") + section(7, "\x02"+text("__guest_call")+"\x00"+call+text("memory")+"\x02\x00")
	}
	for name, c := range map[string]struct{ bin, want string }{
		"an actor":     {guest("wapc", "__guest_request", "\x01", "\x01"), ""},
		"WASI":         {guest(wasm.WASI, "fd_write", "\x02", "\x01"), ""},
		"waSCC":        {guest("wapc", "__host_call", "\x02", "\x01"), "as waSCC modules of 2019 and 2020 do"},
		"another type": {guest("wasmbus", "__guest_request", "\x00", "\x01"), "it imports wasmbus.__guest_request as (i32, i32) → (i32), and hosts have it as (i32, i32) → ()"},
		"another call": {guest("wapc", "__guest_request", "\x01", "\x02"), "its __guest_call is (i32, i32) → (), and has to be (i32, i32) → (i32)"},
		"unknown":      {guest("env", "abort", "\x02", "\x01"), "it imports env.abort, which no host of actors has"},
		"control":      {guest("e\x1b[31mv", "x\n", "\x02", "\x01"), "it imports e\uFFFD[31mv.x\uFFFD, which no host of actors has"},
		"no WASI":      {guest(wasm.WASI, "fd_fly", "\x02", "\x01"), "it imports wasi_snapshot_preview1.fd_fly, which no host of actors has"},
		"two":          {importing("env.a", "env.b"), "it imports env.a, env.b, which no host of actors has"},
		"ten":          {importing(strings.Fields(strings.Repeat("env.a ", 10))...), "env.a, env.a and 2 more, which no host of actors has"},
		"broken name":  {importing("env.\xff"), "it is damaged: byte 8: the import section has a name that is not UTF-8"},
		"component":    {component, "it is a component"},
		"no call":      {module, "it has no export __guest_call"},
		"long":         {module + section(7, "\xe9\x07"+strings.Repeat("\x01x\x01\x00", 1001)), ""},
	} {
		if got := wasm.Describe([]byte(c.bin)).NotAnActor(); !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestDescribe_bounded(t *testing.T) {
	many := module + section(7, string(binary.AppendUvarint(nil, 100_000))+strings.Repeat("\x01x\x00\x00", 100_000))
	if f := wasm.Describe([]byte(many)); len(f.Exports) != wasm.MaxListed || f.More != 99_000 {
		t.Errorf("%d exports, %d more", len(f.Exports), f.More)
	}
	huge := module + section(5, "\x01\x05"+strings.Repeat("\xff", 9)+"\x01"+strings.Repeat("\xff", 9)+"\x01")
	if f := wasm.Describe([]byte(huge)); f.Fault != "" || f.Memory.MinBytes != 1<<63 {
		t.Errorf("got %+v, %+v", f, f.Memory)
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add([]byte(actor))
	f.Add([]byte(component + section(1, actor)))
	f.Add([]byte(module + section(2, "\x01\x01a\x01b\x01\x70\x00\x01")))
	f.Fuzz(func(t *testing.T, bin []byte) {
		d := wasm.Describe(bin)
		if len(d.Imports) > wasm.MaxListed || len(d.Exports) > wasm.MaxListed || len(d.Sections) > wasm.MaxListed {
			t.Errorf("too much is listed")
		}
		if _, err := json.Marshal(d); err != nil {
			t.Error(err)
		}
	})
}
