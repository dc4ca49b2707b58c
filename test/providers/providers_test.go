package providers_test

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/providers/providertest"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// patience is how long a test waits for what has to come.
const patience = 60 * time.Second

// startServer runs a NATS server with JetStream in this process.
func startServer(t *testing.T) string {
	t.Helper()
	s := broker.NewHubServer(t.TempDir(), slog.New(slog.DiscardHandler))
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s.ClientURL()
}

// example is the path of a file of an example.
func example(t *testing.T, path ...string) string {
	t.Helper()
	abs, err := filepath.Abs(filepath.Join(append([]string{"..", "..", "examples", "providers"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// conforms runs the suite, which all of o has to pass. Names are of checks that must be
// among them, or, after "WARN ", of one that may end so.
func conforms(t *testing.T, o providertest.Options, names ...string) {
	t.Helper()
	var said bytes.Buffer
	o.URL, o.Timeout, o.Start, o.Output = startServer(t), patience, patience, &said
	results, err := providertest.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, r := range results {
		there[r.Check] = true
		if r.Status != providertest.Pass && !slices.Contains(names, string(r.Status)+" "+r.Check) {
			t.Errorf("%s %s: %s", r.Status, r.Check, r.Detail)
		}
	}
	for _, name := range names {
		if !there[strings.TrimPrefix(name, "WARN ")] {
			t.Errorf("%s was not checked", name)
		}
	}
	if t.Failed() {
		t.Logf("the provider says:\n%s", said.String())
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// build builds a package or file with this module and returns the path of the program.
func build(t *testing.T, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "provider")
	if out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// startDevice runs the Modbus device and returns its address.
func startDevice(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", "modbus-server.cjs")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // it ends with that
		_ = cmd.Wait()
	})
	port, err := bufio.NewReader(io.LimitReader(stdout, 100)).ReadString('\n')
	if err != nil {
		t.Fatalf("the Modbus device does not start; test/providers/install.sh installs it: %v", err)
	}
	return "127.0.0.1:" + strings.TrimSpace(port)
}

// The provider in Go, against a Modbus device made with a library that is not ours. What
// it says to the actor on its own is checked too.
func TestModbus_conforms(t *testing.T) {
	type read struct {
		Table   string `msgpack:"table"`
		Address uint16 `msgpack:"address"`
		Count   uint16 `msgpack:"count"`
	}
	type write struct {
		Table   string `msgpack:"table"`
		Address uint16 `msgpack:"address"`
		Value   uint16 `msgpack:"value"`
	}
	conforms(t, providertest.Options{
		Command: []string{build(t, "../../examples/providers/modbus")}, Contract: "example:modbus",
		Values: map[string]string{"address": startDevice(t), "watch": "input:0-1 coils:3", "poll": "20ms", "timeout": "30s"},
		Calls: []providertest.Call{
			{Operation: "Modbus.Read", Payload: marshal(t, read{"input", 3, 2}), Want: marshal(t, []uint16{1003, 1004})},
			{Operation: "Modbus.Read", Payload: marshal(t, read{"discrete", 0, 10}), Want: marshal(t, []uint16{0, 1, 0, 1, 0, 1, 0, 1, 0, 1})},
			{Operation: "Modbus.Write", Payload: marshal(t, write{"holding", 7, 65535}), Want: []byte{}},
			{Operation: "Modbus.Read", Payload: marshal(t, read{"holding", 6, 3}), Want: marshal(t, []uint16{0, 65535, 0})},
			{Operation: "Modbus.Write", Payload: marshal(t, write{"coils", 3, 1}), Want: []byte{}},
			{Operation: "Modbus.Read", Payload: marshal(t, read{"coils", 2, 3}), Want: marshal(t, []uint16{0, 1, 0})},
		},
	}, "call Modbus.Write", "calls-of-actors")
}

// The provider in JavaScript keeps wasmcloud:keyvalue in an SQLite file.
func TestSQLite_conforms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	conforms(t, providertest.Options{
		Command:  []string{example(t, "keyvalue-sqlite", "keyvalue.js")},
		Contract: "wasmcloud:keyvalue", Values: map[string]string{"path": path},
	}, "keyvalue-sets", "keyvalue-large")
	head, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(head, []byte("SQLite format 3\x00")) {
		t.Errorf("%s: %.20q, %v", path, head, err)
	}
}

// The SDK for JavaScript has tests of its own.
func TestJavaScript_sdk(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=tap", "sdk.test.js")
	cmd.Dir = filepath.Join("..", "..", "sdk", "js")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v; test/providers/install.sh installs what it needs\n%s", err, out)
	}
}

// A provider that is written after the page, without any library, is one. It leaves out
// what the page says may be left out.
func TestPlain_conforms(t *testing.T) {
	type sum struct {
		A int `msgpack:"a"`
		B int `msgpack:"b"`
	}
	path, err := filepath.Abs("plain.py")
	if err != nil {
		t.Fatal(err)
	}
	conforms(t, providertest.Options{Command: []string{path}, Contract: "example:plain", Calls: []providertest.Call{
		{Operation: "Plain.Add", Payload: marshal(t, sum{2, 40}), Want: marshal(t, 42)},
		{Operation: "Plain.Tell", Payload: marshal(t, "hello")},
	}}, "calls-of-actors", "WARN large-request")
}

// The programs on the page about writing a provider work as they are.
func TestDocs_writeAProvider(t *testing.T) {
	page, err := os.ReadFile("../../docs/write-a-provider.md")
	if err != nil {
		t.Fatal(err)
	}
	o := providertest.Options{
		Contract: "example:thermometer", Values: map[string]string{"room": "hall"},
		Calls: []providertest.Call{{Operation: "Thermometer.Read", Payload: marshal(t, map[string]string{"unit": "C"}), Want: marshal(t, 21.5)}},
	}
	for _, language := range []string{"go", "js"} {
		t.Run(language, func(t *testing.T) {
			m := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```$").FindSubmatch(page)
			if m == nil {
				t.Fatal("the page has no program")
			}
			o, dir := o, t.TempDir()
			path := filepath.Join(dir, map[string]string{"go": "main.go", "js": "main.mjs"}[language])
			if err := os.WriteFile(path, m[1], 0o700); err != nil {
				t.Fatal(err)
			}
			if language == "go" {
				path = build(t, path)
			} else if err := os.Symlink(example(t, "keyvalue-sqlite", "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
				t.Fatal(err)
			}
			o.Command = []string{path}
			conforms(t, o)
		})
	}
}
