package keyvalue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/keyvalue"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

type fixture struct {
	t  *testing.T
	db *store.DB
	p  *keyvalue.Provider
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureWith(t, store.Options{Dir: t.TempDir()})
}

func newFixtureWith(t *testing.T, o store.Options) *fixture {
	t.Helper()
	db, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	f := &fixture{t, db, keyvalue.New(db)}
	f.link("actor", map[string]string{"bucket": "b"})
	return f
}

func (f *fixture) link(actor string, values map[string]string) {
	f.t.Helper()
	err := f.p.PutLink(f.t.Context(), lattice.Link{Actor: actor, Contract: keyvalue.Contract, Name: "default", Values: values})
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) as(actor, op string, payload []byte) ([]byte, error) {
	return f.p.Call(f.t.Context(), lattice.Invocation{
		Origin: lattice.Entity{Key: actor}, Target: lattice.Entity{Key: "keyvalue", Link: "default"},
		Contract: keyvalue.Contract, Operation: "KeyValue." + op, Payload: payload,
	})
}

// call returns the reply in a readable form.
func (f *fixture) call(op string, payload []byte) string {
	f.t.Helper()
	reply, err := f.as("actor", op, payload)
	if err != nil {
		return "error: " + err.Error()
	}
	if len(reply) == 0 {
		return "-"
	}
	return show(msgpack.NewDecoder(reply))
}

func show(d *msgpack.Decoder) string {
	switch d.Kind() {
	case msgpack.Bool:
		return fmt.Sprint(d.Bool())
	case msgpack.Int:
		return fmt.Sprint(d.Int())
	case msgpack.Array:
		var all []string
		for range d.Array() {
			all = append(all, show(d))
		}
		return "[" + strings.Join(all, " ") + "]"
	case msgpack.Map:
		var all []string
		for range d.Map() {
			all = append(all, show(d)+"="+show(d))
		}
		return strings.Join(all, ",")
	}
	return d.Str()
}

func str(s string) []byte { return msgpack.AppendString(nil, s) }

func fields(pairs ...any) []byte {
	b := msgpack.AppendMapHeader(nil, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		b = msgpack.AppendString(b, pairs[i].(string))
		switch v := pairs[i+1].(type) {
		case string:
			b = msgpack.AppendString(b, v)
		case int:
			b = msgpack.AppendInt(b, int64(v))
		}
	}
	return b
}

func TestProvider_operations(t *testing.T) {
	f := newFixture(t)
	steps := []struct {
		op      string
		payload []byte
		want    string
	}{
		{"Get", str("k"), "value=,exists=false"},
		{"Set", fields("key", "k", "value", "v", "expires", 0), "-"},
		{"Get", str("k"), "value=v,exists=true"},
		{"Contains", str("k"), "true"},
		{"Increment", fields("key", "k", "value", 1), "error: keyvalue: wrong format: Increment: key \"k\" holds no 32-bit number"},
		{"Del", str("k"), "true"},
		{"Del", str("k"), "false"},
		{"Contains", str("k"), "false"},
		{"Increment", fields("key", "n", "value", 40), "40"},
		{"Increment", fields("key", "n", "value", -2), "38"},
		{"Get", str("n"), "value=38,exists=true"},
		{"Increment", fields("key", "n", "value", 1<<31-1), "error: keyvalue: wrong format: Increment: key \"n\": the counter leaves 32 bits"},
		{"ListAdd", fields("listName", "l", "value", "a"), "1"},
		{"ListAdd", fields("listName", "l", "value", "b"), "2"},
		{"ListAdd", fields("listName", "l", "value", "a"), "3"},
		{"ListRange", fields("listName", "l", "start", 0, "stop", -1), "[a b a]"},
		{"ListRange", fields("listName", "l", "start", 1, "stop", 1), "[b]"},
		{"ListRange", fields("listName", "l", "start", -2, "stop", 99), "[b a]"},
		{"ListRange", fields("listName", "l", "start", 3, "stop", 4), "[]"},
		{"ListRange", fields("listName", "none", "start", 0, "stop", -1), "[]"},
		{"ListDel", fields("listName", "l", "value", "a"), "true"},
		{"ListRange", fields("listName", "l", "start", 0, "stop", -1), "[b]"},
		{"ListDel", fields("listName", "l", "value", "b"), "true"},
		{"Contains", str("l"), "false"},
		{"ListClear", str("l"), "false"},
		{"SetAdd", fields("setName", "s", "value", "x"), "1"},
		{"SetAdd", fields("setName", "s", "value", "x"), "0"},
		{"SetAdd", fields("setName", "s", "value", "a"), "1"},
		{"SetAdd", fields("setName", "s2", "value", "x"), "1"},
		{"SetAdd", fields("setName", "s2", "value", "z"), "1"},
		{"SetQuery", str("s"), "[a x]"},
		{"SetUnion", msgpack.AppendString(msgpack.AppendString(msgpack.AppendArrayHeader(nil, 2), "s"), "s2"), "[a x z]"},
		{"SetIntersection", msgpack.AppendString(msgpack.AppendString(msgpack.AppendArrayHeader(nil, 2), "s"), "s2"), "[x]"},
		{"SetDel", fields("setName", "s", "value", "x"), "1"},
		{"SetDel", fields("setName", "s", "value", "x"), "0"},
		{"SetClear", str("s"), "true"},
		{"Get", str("s2"), "error: keyvalue: wrong format: Get: key \"s2\" holds a set, not a string"},
		{"Nothing", nil, "error: keyvalue: wrong format: \"KeyValue.Nothing\" is no operation of wasmcloud:keyvalue"},
		{"Get", []byte{0xd9}, "error: keyvalue: wrong format: Get: msgpack: value ends early"},
		{"Set", fields("key", strings.Repeat("k", 1000), "value", "v"), "error: keyvalue: payload too large: Set: key of 1000 bytes, at most 900: too large"},
	}
	for _, s := range steps {
		if got := f.call(s.op, s.payload); got != s.want {
			t.Errorf("%s: got %q, want %q", s.op, got, s.want)
		}
	}
}

// The bytes a real counter actor sends, and the bare integer it wants.
func TestProvider_Increment_bytesOfAClassicActor(t *testing.T) {
	f := newFixture(t)
	payload := append([]byte{0x82, 0xa3}, "key\xb2counter::counter:x\xa5value\x01"...)
	reply, err := f.as("actor", "Increment", payload)
	if err != nil || len(reply) != 1 || reply[0] != 1 {
		t.Fatalf("got % x, %v; want 01", reply, err)
	}
}

func TestProvider_Call_isPartOfTheTurn(t *testing.T) {
	f := newFixture(t)
	boom := fmt.Errorf("boom")
	f.db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
		_, err := f.p.Call(ctx, lattice.Invocation{
			Origin: lattice.Entity{Key: "actor"}, Target: lattice.Entity{Key: "keyvalue", Link: "default"},
			Operation: "KeyValue.Increment", Payload: fields("key", "n", "value", 1),
		})
		if err != nil {
			t.Error(err)
		}
		return boom
	})
	if got := f.call("Get", str("n")); got != "value=,exists=false" {
		t.Fatalf("a turn that failed left %q", got)
	}
}

func TestProvider_buckets(t *testing.T) {
	f := newFixture(t)
	f.link("friend", map[string]string{"bucket": "b"})
	f.link("stranger", nil)
	f.call("Set", fields("key", "k", "value", "v"))
	if reply, err := f.as("friend", "Contains", str("k")); err != nil || reply[0] != 0xc3 {
		t.Fatalf("an actor of the same bucket: % x, %v", reply, err)
	}
	if reply, err := f.as("stranger", "Contains", str("k")); err != nil || reply[0] != 0xc2 {
		t.Fatalf("an actor of another bucket: % x, %v", reply, err)
	}
	if _, err := f.as("nobody", "Contains", str("k")); err == nil {
		t.Fatal("an actor without a link was served")
	}
}
