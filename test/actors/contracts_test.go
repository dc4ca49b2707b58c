package actors

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// relayed is what the guest relay takes: a host call under the default link.
func relayed(namespace, operation, payload string) string {
	return relayedBy("default", namespace, operation, payload)
}

func relayedBy(binding, namespace, operation, payload string) string {
	return string([]byte{byte(len(binding)), byte(len(namespace)), byte(len(operation))}) + binding + namespace + operation + payload
}

func TestBuiltins(t *testing.T) {
	a := newActor(t, sign2021, wat(t, "relay"), "relay", mandate{caps: []string{"wasmcloud:builtin:logging", "wasmcloud:builtin:numbergen"}})
	a.capabilities = nil // no link is needed
	none := newActor(t, sign, wat(t, "relay"), "none", mandate{caps: []string{"wasmcloud:keyvalue"}})
	b := start(t, a, none)
	for _, binding := range []string{"default", "", "any other"} {
		number := func(operation, payload string) string {
			return b.call(a.key, "Call", relayedBy(binding, "wasmcloud:builtin:numbergen", operation, payload))
		}
		guid := number("NumberGen.GenerateGuid", "")
		if !regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(guid) {
			t.Errorf("guid %q", guid)
		}
		same(t, "the range is inclusive", number("NumberGen.RandomInRange", "\x82\xa3min\x06\xa3max\x06"), "\x06")
		same(t, "as TinyGo writes it", number("NumberGen.RandomInRange", "\x82\xa3max\xce\x00\x00\x00\x06\xa3min\xce\x00\x00\x00\x06"), "\x06")
		if n := number("NumberGen.Random32", ""); n == "" || strings.HasPrefix(n, "error") {
			t.Errorf("random: %q", n)
		}
		same(t, "a line of the log", b.call(a.key, "Call", relayedBy(binding, "wasmcloud:builtin:logging", "Logging.WriteLog", "\x82\xa5level\xa4warn\xa4text\xa9it is hot")), "")
	}
	same(t, "a level that nobody knows", b.call(a.key, "Call", relayed("wasmcloud:builtin:logging", "Logging.WriteLog", "\x82\xa5level\xa5shout\xa4text\xa2hi")), "")
	has(t, "log", b.log.String(), "level=WARN", "actor=zoo/relay", "it is hot")
	for _, contract := range []string{"wasmcloud:builtin:logging", "wasmcloud:builtin:numbergen"} {
		has(t, "not claimed", b.call(none.key, "Call", relayed(contract, "Any.Thing", "")), "Invocation not authorized: missing capability claim for "+contract)
	}
}

// Every way in which kits write what the key-value contract takes.
func TestForms(t *testing.T) {
	a := newActor(t, sign, wat(t, "relay"), "relay", mandate{caps: all})
	b := start(t, a)
	kv := func(what, operation, payload, want string) {
		t.Helper()
		same(t, what, b.call(a.key, "Call", relayed("wasmcloud:keyvalue", "KeyValue."+operation, payload)), want)
	}
	for i, payload := range []string{
		"\x82\xa3key\xa1n\xa5value\x01",                                 // Rust
		"\x82\xa5value\x01\xa3key\xa1n",                                 // in another order
		"\x82\xa3key\xd9\x01n\xa5value\xd2\x00\x00\x00\x01",             // fixed widths
		"\x82\xa3key\xda\x00\x01n\xa5value\xcd\x00\x01",                 //
		"\x82\xa3key\xdb\x00\x00\x00\x01n\xa5value\xce\x00\x00\x00\x01", //
		"\xde\x00\x02\xa3key\xa1n\xa5value\xcf\x00\x00\x00\x00\x00\x00\x00\x01",
		"\xdf\x00\x00\x00\x02\xd9\x03key\xa1n\xa5value\xd3\x00\x00\x00\x00\x00\x00\x00\x01",
		"\x83\xa3key\xa1n\xa3new\x82\xa1a\xc0\xa1b\x93\x01\xc2\xc4\x01x\xa5value\x01", // a field that came later
		"\x92\xa1n\x01", // a struct as an array
	} {
		kv("Increment "+strconv.Itoa(i), "Increment", payload, string(rune(i+1)))
	}
	// A signed number in a signed form: the readers of the TinyGo kit take no other.
	kv("a large step", "Increment", "\x82\xa3key\xa1n\xa5value\xcc\xc0", "\xd1\x00\xc9")
	kv("and back", "Increment", "\x82\xa3key\xa1n\xa5value\xd1\xff\x00", "\xd0\xc9")
	kv("Set", "Set", "\x83\xa3key\xa1s\xa5value\xa1v\xa7expires\x00", "")
	kv("Set, nothing for what is optional", "Set", "\x83\xa3key\xa1s\xa5value\xa1w\xa7expires\xc0", "")
	kv("Set, left out", "Set", "\x82\xa3key\xa1s\xa5value\xa1x", "")
	kv("Set as an array", "Set", "\x93\xa1s\xa1y\xcd\x00\x00", "")
	kv("Get", "Get", "\xa1s", "\x82\xa5value\xa1y\xa6exists\xc3")
	kv("Get of nothing", "Get", "\xd9\x04none", "\x82\xa5value\xa0\xa6exists\xc2")
	kv("Contains", "Contains", "\xa1s", "\xc3")
	kv("Del", "Del", "\xda\x00\x01s", "\xc3")
	kv("Del again", "Del", "\xa1s", "\xc2")
}

// What an actor that was called has changed belongs to the turn of its caller.
func TestTurn(t *testing.T) {
	caller := newActor(t, sign, wat(t, "relay"), "caller", mandate{})
	counter := newActor(t, sign2021, wat(t, "counter"), "counter", mandate{alias: "cars", caps: []string{"wasmcloud:httpserver", "wasmcloud:keyvalue"}})
	b := start(t, caller, counter)
	count := func(operation string) string {
		return b.call(caller.key, operation, relayedBy("", "cars", "HttpServer.HandleRequest", smallest))
	}
	const counted = "\x83\xa4body\x91%\xa6header\x80\xaastatusCode\xcc\xc8"
	want := func(n string) string { return strings.Replace(counted, "%", n, 1) }
	same(t, "one", count("Call"), want("\x01"))
	has(t, "regretted", count("Regret"), "error: ", "failed without a reason")
	same(t, "two", count("Call"), want("\x02"))
	same(t, "by itself", b.call(counter.key, "HttpServer.HandleRequest", smallest), want("\x03"))
}

// A circle of actors ends with an error, and not with the box.
func TestCircle(t *testing.T) {
	a := newActor(t, sign, wat(t, "pinger"), "pinger", mandate{alias: "wasmcloud/ponger"})
	b := start(t, a)
	has(t, "a circle", b.call(a.key, "Pingpong.Ping", ""), "error: actor zoo/pinger 1.0.0: ", "all instances are held by calls that wait for one another")
	same(t, "and it goes on", b.call(a.key, "Actor.HealthRequest", "\x80"), healthy)
}
