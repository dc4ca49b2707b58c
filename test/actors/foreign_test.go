//go:build foreign

package actors

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// foreignDir has what build.sh built.
var foreignDir string

func prepare(dir string) error {
	foreignDir = filepath.Join(dir, "foreign")
	if text, err := exec.Command("./build.sh", foreignDir).CombinedOutput(); err != nil {
		return fmt.Errorf("build.sh: %w\n%s", err, text)
	}
	return nil
}

func foreign(t *testing.T, name string) []byte {
	return read(t, filepath.Join(foreignDir, name+".wasm"))
}

// panics are what the log has of a panic in each language.
var panics = map[string]string{
	"c":      "the box is stuck\"\n    in open_the_box\n    __guest_call\n",
	"rust":   "panicked at 'index out of bounds: the len is 0 but the index is 0', rust/actor.rs:157:5\"\n    in actor::open_the_box\n    __guest_call\n",
	"as":     "Index out of range; ~lib/array.ts (",
	"tinygo": "panic: runtime error: index out of range [0] with length 0\"\n    goroutine 1 [running]:\n    main.openTheBox(",
}

// Every language does the same things, signed in every way.
func TestForeign(t *testing.T) {
	for name, s := range map[string]signer{"c": sign2021, "rust": sign2021, "as": sign, "tinygo": sign} {
		t.Run(name, func(t *testing.T) {
			m := mandate{caps: all, alias: "edged/" + name}
			a := newActor(t, s, foreign(t, name), name, m)
			ponger := newActor(t, sign, wat(t, "ponger"), "ponger", mandate{alias: "wasmcloud/ponger"})
			b := start(t, a, ponger)
			get := func(path, body, want string) {
				t.Helper()
				same(t, path, b.get(path, body), want)
			}
			get("/echo", "", "200 ")
			get("/echo", "hello", "200 hello")
			get("/echo", strings.Repeat("x", 20000), "200 "+strings.Repeat("x", 20000))
			for n := 1; n <= 200; n += 1 {
				get("/count/cars", "", fmt.Sprint("200 ", n))
			}
			get("/ping/wasmcloud/ponger", "", "200 pong")
			get("/ping/"+ponger.key, "", "200 pong")
			get("/ping/edged/"+name, "", "200 pong") // itself
			has(t, "ping of nobody", b.get("/ping/nobody", ""), "500 ")
			has(t, "ping of nobody", b.log.String(), "Invocation not authorized: missing link definition for nobody on plant")
			get("/random", "", "200 6")
			if guid := b.get("/guid", ""); len(guid) != len("200 ")+36 {
				t.Errorf("guid: %q", guid)
			}
			get("/log/hello-from-"+name, "", "200 ")
			has(t, "log", b.log.String(), "hello-from-"+name)
			get("/nowhere", "", "404 no such path")
			has(t, "fail", b.get("/fail", ""), "500 ")
			has(t, "panic", b.get("/panic", ""), "500 ")
			has(t, "log", b.log.String(), `message="GET /fail" outcome="answered 500"`, "planned failure",
				`message="GET /panic" outcome="answered 500"`, "trap: ", panics[name])
			get("/echo", "again", "200 again")
			has(t, "unknown", b.call(a.key, "No.Such", ""), "error: ", "No.Such")
			if name != "as" { // it has no handler for that, which is as well
				has(t, "health", b.call(a.key, "Actor.HealthRequest", "\x80"), "\xa7healthy\xc3")
			}
		})
	}
}

// The guest in the test data of wapc-go asks for what no host has, does not look at how that went, and has an operation
// that throws.
func TestForeign_wapc(t *testing.T) {
	a := newActor(t, sign, foreign(t, "wapc-as"), "wapc-as", mandate{})
	b := start(t, a)
	same(t, "echo", b.call(a.key, "echo", "hello"), "hello")
	same(t, "echo of nothing", b.call(a.key, "echo", ""), "")
	has(t, "nope", b.call(a.key, "nope", "hello"), "error: ", "error occurred; assembly/index.ts (18,3)")
	has(t, "unknown", b.call(a.key, "other", ""), "error: ", `Could not find function "other"`)
}
