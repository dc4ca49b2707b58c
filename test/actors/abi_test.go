package actors

import (
	"encoding/binary"
	"strings"
	"testing"
)

// Where each byte example of PROTOCOL 1, 2 and 8 is tested:
//
//	1.1, 1.2 import modules, subsets of imports        TestEcho, TestInitialisers, TestCorners; four parameters: TestRefused
//	1.2  __host_call is 0 or 1                         TestCorners (f, g)
//	1.3  __wasmbus_rpc_version, __actor_api_version    TestEcho, TestInitialisers
//	1.4  initialisers, proc_exit(0), slots cleared     TestInitialisers, TestTinyGo, TestCorners (h)
//	1.6  results, errors, no error, a trap             TestCorners; unknown operations: TestPinger
//	1.7  82a36b6579b2…01, the reply 2a                 TestCounter
//	1.7  an empty binding and an alias                 TestPinger, TestResolution; order and texts: lattice/bus_test.go
//	1.8  built-ins                                     TestBuiltins
//	1.9  80 → 81a76865616c746879c3, no bytes fail      TestEcho; SDK: sdk/go/actor/actor_test.go, TestOnHealth
//	2.1  constructed keys                              internal/claims/key_test.go
//	2.2, 2.3 the constructed module of 640 bytes       internal/claims/module_test.go, TestSignModule_checkValue
//	8.0  widths of integers, arrays, nil, other orders TestForms
//	8.1  the smallest request                          TestEcho, providers/httpserver
//	8.1  83aa737461747573436f6465ccc8a6…               TestEcho; body, header, statusCode: TestCounter
//	8.3  every operation of the key-value contract     providers/keyvalue

// smallest is the smallest HttpRequest that every actor takes.
const smallest = "\x85\xa6method\xa3GET\xa4path\xa1/\xabqueryString\xa0\xa6header\x80\xa4body\xc4\x00"

const healthy = "\x81\xa7healthy\xc3"

func TestEcho(t *testing.T) {
	for name, s := range map[string]signer{"today": sign, "2021": sign2021} {
		a := newActor(t, s, wat(t, "echo"), "echo", mandate{caps: []string{"wasmcloud:httpserver"}})
		b := start(t, a)
		same(t, name+": health", b.call(a.key, "Actor.HealthRequest", "\x80"), healthy)
		has(t, name+": health without a value", b.call(a.key, "Actor.HealthRequest", ""), "error: ", "Actor.HealthRequest")
		want := "\x83\xaastatusCode\xcc\xc8\xa6header\x80\xa4body\xc5\x00\x2f" + smallest
		same(t, name, b.call(a.key, "HttpServer.HandleRequest", smallest), want)
		has(t, name+" over HTTP", b.get("/tea?milk=1", "please"), "200 \x85", "\xa4path\xa4/tea", "milk=1", "\xc4\x06please")
		same(t, name+" by its name", b.call("zoo/echo", "HttpServer.HandleRequest", smallest), want)
	}
}

func TestCounter(t *testing.T) {
	a := newActor(t, sign2021, wat(t, "counter"), "counter", mandate{caps: []string{"wasmcloud:httpserver", "wasmcloud:keyvalue"}})
	b := start(t, a)
	for n := range 3 {
		same(t, "count", b.call(a.key, "HttpServer.HandleRequest", smallest),
			"\x83\xa4body\x91"+string(rune(n+1))+"\xa6header\x80\xaastatusCode\xcc\xc8")
	}
	same(t, "over HTTP", b.get("/", ""), "200 \x04")
}

// Without the claim, and without the link, a counter gets the errors that classic hosts give.
func TestCounter_refused(t *testing.T) {
	wasm := wat(t, "counter")
	unclaimed := newActor(t, sign, wasm, "unclaimed", mandate{caps: []string{"wasmcloud:messaging"}})
	unclaimed.capabilities = []string{"keyvalue"}
	unlinked := newActor(t, sign2021, wasm, "unlinked", mandate{caps: []string{"wasmcloud:keyvalue"}})
	unlinked.capabilities = nil
	b := start(t, unclaimed, unlinked)
	has(t, "unclaimed", b.call(unclaimed.key, "HttpServer.HandleRequest", smallest),
		"Invocation not authorized: missing capability claim for wasmcloud:keyvalue")
	has(t, "unlinked", b.call(unlinked.key, "HttpServer.HandleRequest", smallest),
		"Invocation not authorized: missing link definition for wasmcloud:keyvalue on plant")
}

func TestPinger(t *testing.T) {
	pinger := newActor(t, sign, wat(t, "pinger"), "pinger", mandate{})
	ponger := newActor(t, sign2021, wat(t, "ponger"), "ponger", mandate{alias: "wasmcloud/ponger"})
	other := newActor(t, sign, wat(t, "ponger"), "other", mandate{alias: "wasmcloud/ponger"})
	b := start(t, pinger, ponger)
	same(t, "ping", b.call(pinger.key, "Ping", "ignored"), "\xa4pong")
	same(t, "by its alias", b.call("wasmcloud/ponger", "Pingpong.Ping", ""), "\xa4pong")
	has(t, "unknown operation", b.call(ponger.key, "Other.Operation", ""), "error: ", "method not handled")
	has(t, "nobody", b.call("wasmcloud/nobody", "Pingpong.Ping", ""), "no actor has this key, name or call alias")

	b = start(t, pinger, ponger, other)
	same(t, "with two of that alias", b.call(pinger.key, "Ping", ""), "\xa4pong")
	has(t, "problems", strings.Join(b.Status().Problems, "\n"), "call alias wasmcloud/ponger: ", ponger.key, other.key)
	has(t, "log", b.log.String(), `level=WARN msg="call alias is claimed by several actors" alias=wasmcloud/ponger`)
	has(t, "alone", start(t, pinger).call(pinger.key, "Ping", ""), "missing link definition for wasmcloud/ponger on plant")
}

func TestTinyGo(t *testing.T) {
	a := newActor(t, sign, wat(t, "tinygo"), "tinygo", mandate{})
	b := start(t, a)
	same(t, "call", b.call(a.key, "Any.Thing", ""), "\x82\xa7healthy\xc3\xa7message\xa0")
	has(t, "log", b.log.String(), "main has run")
}

func TestInitialisers(t *testing.T) {
	a := newActor(t, sign, wat(t, "order"), "order", mandate{})
	b := start(t, a)
	same(t, "order", b.call(a.key, "Any.Thing", ""), "SIsw")
}

func TestCorners(t *testing.T) {
	caps := []string{"wasmcloud:builtin:numbergen"}
	a := newActor(t, sign2021, wat(t, "corners"), "corners", mandate{caps: caps})
	b := start(t, a)
	call := func(letter string) string { t.Helper(); return b.call(a.key, letter, "") }
	same(t, "no response", call("a"), "")
	has(t, "no error", call("b"), "error: ", "failed without a reason")
	has(t, "an error, and 1", call("c"), "error: ", "why not")
	same(t, "an error of the host that is not looked at", call("d"), "fine")
	has(t, "2", call("e"), "error: ", "failed without a reason")
	same(t, "result of a good call", call("f"), "\x01\x00\x00\x00")
	same(t, "result of a bad call", call("g"), "\x00\x00\x00\x00")
	same(t, "slots at the beginning", call("h"), strings.Repeat("\x00", 8))
	lengths := func(letter string) (response, err uint32) {
		reply := call(letter)
		if len(reply) != 8 {
			t.Fatalf("%s: got %q", letter, reply)
		}
		return binary.LittleEndian.Uint32([]byte(reply)), binary.LittleEndian.Uint32([]byte(reply[4:]))
	}
	if response, err := lengths("i"); response == 0 || err != 0 {
		t.Errorf("a bad call and a good one: %d bytes of response, %d of error", response, err)
	}
	if response, err := lengths("j"); response != 0 || err == 0 {
		t.Errorf("a good call and a bad one: %d bytes of response, %d of error", response, err)
	}
	same(t, "two responses", call("k"), "fine")
	same(t, "nothing, from nowhere", call("l"), "")
	has(t, "a response that is not all there", call("m"), "error: ", "__guest_response: 2 bytes at 0xffff are outside of the guest's 65536 bytes")
	has(t, "a length that wraps around", call("n"), "error: ", "__guest_response: 4294967295 bytes at 0x20 are outside")
	has(t, "trap", call("o"), "error: ", "trap: unreachable")
	has(t, "an error that is no text", call("p"), "error: ", "\uFFFD")
	same(t, "and it goes on", call("k"), "fine")
	has(t, "console", b.log.String(), `text="why not"`)
}

// What can not run here is left out, with what it is and what can be done.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		wasm []byte
		want string
	}{
		"component": {[]byte("\x00asm\x0d\x00\x01\x00"), "a WebAssembly component; actors are core modules: build for wasm32-unknown-unknown or wasip1"},
		"wascc":     {wat(t, "wascc"), "imports wapc.__host_call with 4 parameters: a waSCC module of 2019 or 2020; build it again with a waPC or wasmCloud library"},
	} {
		b := run(t, "", newActor(t, sign, c.wasm, name, mandate{}))
		has(t, name, b.log.String(), `msg="app left out"`, "actor "+name+" of app zoo: load actor M", c.want)
		has(t, name, strings.Join(b.Status().Problems, "\n"), c.want)
	}
}
