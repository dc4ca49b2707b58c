//go:build foreign

package actors

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edged-io/edged/sdk/go/msgpack"
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

func request(path, body string) string {
	b := msgpack.AppendMapHeader(nil, 5)
	b = msgpack.AppendString(msgpack.AppendString(b, "method"), "GET")
	b = msgpack.AppendString(msgpack.AppendString(b, "path"), path)
	b = msgpack.AppendString(msgpack.AppendString(b, "queryString"), "")
	b = msgpack.AppendMapHeader(msgpack.AppendString(b, "header"), 0)
	return string(msgpack.AppendBin(msgpack.AppendString(b, "body"), []byte(body)))
}

// get sends a request to an actor and shows its response as "200 body".
func (b *box) get(actor, path, body string) string {
	b.t.Helper()
	reply := b.call(actor, "HttpServer.HandleRequest", request(path, body))
	if strings.HasPrefix(reply, "error: ") {
		return reply
	}
	var status int64
	var text []byte
	d := msgpack.NewDecoder([]byte(reply))
	for range d.Map() {
		switch string(d.Key()) {
		case "statusCode":
			status = d.Int()
		case "body":
			text = d.Bin()
		default:
			d.Skip()
		}
	}
	if err := d.Done(); err != nil {
		b.t.Errorf("%s of %s: reply %q: %v", path, actor, reply, err)
	}
	return fmt.Sprint(status, " ", string(text))
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
				same(t, path, b.get(a.key, path, body), want)
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
			has(t, "ping of nobody", b.get(a.key, "/ping/nobody", ""), "missing link definition for nobody on plant")
			get("/random", "", "200 6")
			if guid := b.get(a.key, "/guid", ""); len(guid) != len("200 ")+36 {
				t.Errorf("guid: %q", guid)
			}
			get("/log/hello from "+name, "", "200 ")
			has(t, "log", b.log.String(), "hello from "+name)
			get("/nowhere", "", "404 no such path")
			has(t, "fail", b.get(a.key, "/fail", ""), "error: ", "planned failure")
			has(t, "panic", b.get(a.key, "/panic", ""), "error: ", "trap: ")
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
	has(t, "nope", b.call(a.key, "nope", "hello"), "error: ", "No payload")
	has(t, "unknown", b.call(a.key, "other", ""), "error: ", `Could not find function "other"`)
}
