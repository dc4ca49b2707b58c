package keyvalue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/providers/keyvalue"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// What peers of other languages send, and what they want to get.
func TestProvider_forms(t *testing.T) {
	f := newFixture(t)
	for _, s := range []struct{ name, op, payload, want string }{
		{"fixed width of TinyGo", "Increment", "\x82\xa3key\xa1n\xa5value\xd2\x00\x00\x00\x05", "05"},
		{"64 bits", "Increment", "\x82\xa3key\xa1n\xa5value\xd3\xff\xff\xff\xff\xff\xff\xff\xff", "04"},
		{"another order, unknown members", "Increment", "\x83\xa1x\x91\xc0\xa5value\x01\xa3key\xa1n", "05"},
		{"no value", "Increment", "\x81\xa3key\xa1n", "05"},
		{"array", "Increment", "\x92\xa1n\x02", "07"},
		{"longer array", "Set", "\x94\xa1s\xa1v\x00\x07", ""},
		{"shorter array", "Set", "\x92\xa1s\xa1w", ""},
		{"prefix", "Get", "\xc1\xa1s", "82a576616c7565a177a6657869737473c3"},
		{"bin for str", "Get", "\xc4\x01s", "82a576616c7565a177a6657869737473c3"},
		{"str of 32 bits", "Contains", "\xdb\x00\x00\x00\x01s", "c3"},
		{"missing", "Get", "\xa1m", "82a576616c7565a0a6657869737473c2"},
		{"nil where there is no value", "Set", "\x83\xa3key\xa1s\xa5value\xc0\xa7expires\xc0", ""},
		{"expires of 16 bits", "Set", "\x83\xa3key\xa1e\xa5value\xa1v\xa7expires\xcd\x0e\x10", ""},
		{"empty key", "Set", "\x81\xa5value\xa1v", ""},
		{"empty key again", "Contains", "\xa0", "c3"},
		{"no sets", "SetUnion", "\x90", "90"},
		{"list", "ListAdd", "\x92\xa1l\xa1a", "01"},
		{"range as array", "ListRange", "\x93\xa1l\x00\xff", "91a161"},
	} {
		reply, err := f.as("actor", s.op, []byte(s.payload))
		if got := fmt.Sprintf("%x", reply); err != nil || got != s.want {
			t.Errorf("%s: got %s, %v; want %s", s.name, got, err, s.want)
		}
	}
	for _, s := range []struct{ name, op, payload string }{
		{"no bytes", "Get", ""}, {"number", "Get", "\x05"}, {"map", "Get", "\x81\xa3key\xa1s"}, {"two values", "Get", "\xa1s\xa1s"}, {"prefix alone", "Get", "\xc1"},
		{"float", "Increment", "\x82\xa3key\xa1n\xa5value\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"},
		{"33 bits", "Increment", "\x82\xa3key\xa1n\xa5value\xce\xff\xff\xff\xff"}, {"negative time", "Set", "\x83\xa3key\xa1s\xa5value\xa1v\xa7expires\xff"},
		{"key of no UTF-8", "Set", "\x82\xa3key\xc4\x01\xff\xa5value\xa1v"}, {"value of no UTF-8", "Set", "\x82\xa3key\xa1s\xa5value\xc4\x01\xff"},
		{"item of no UTF-8", "SetAdd", "\x92\xa1x\xc4\x01\x80"}, {"string", "SetQuery", "\xa1s"}, {"string, too", "ListAdd", "\x92\xa1s\xa1a"},
		{"set of strings", "SetUnion", "\x91\xa1s"}, {"list cleared as a set", "SetClear", "\xa1l"}, {"other contract", "get", "\xa1s"},
	} {
		if reply, err := f.as("actor", s.op, []byte(s.payload)); !errors.Is(err, providers.ErrFormat) || !strings.HasPrefix(err.Error(), "keyvalue: wrong format: ") {
			t.Errorf("%s: got %x, %v", s.name, reply, err)
		}
	}
}

// Every count of turns side by side counts once.
func TestProvider_Increment_inParallel(t *testing.T) {
	f := newFixture(t)
	const turns, each = 8, 50
	var wg sync.WaitGroup
	for range turns {
		wg.Go(func() {
			for range each {
				if _, err := f.as("actor", "Increment", fields("key", "n", "value", 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := f.call("Increment", fields("key", "n", "value", 0)); got != fmt.Sprint(turns*each) {
		t.Errorf("got %s", got)
	}
}

func TestProvider_limits(t *testing.T) {
	f := newFixture(t)
	long := strings.Repeat("x", keyvalue.MaxListBytes-100)
	for _, s := range []struct {
		op      string
		payload []byte
	}{
		{"Set", fields("key", "k", "value", strings.Repeat("x", keyvalue.MaxTextBytes+1))},
		{"ListAdd", fields("listName", "l", "value", long+long)},
		{"SetAdd", fields("setName", "s", "value", long+long)},
		{"SetUnion", msgpack.AppendArrayHeader(nil, keyvalue.MaxSets+1)},
	} {
		if s.op == "SetUnion" {
			for range keyvalue.MaxSets + 1 {
				s.payload = msgpack.AppendString(s.payload, "s")
			}
		}
		if _, err := f.as("actor", s.op, s.payload); !errors.Is(err, providers.ErrTooLarge) {
			t.Errorf("%s: got %v", s.op, err)
		}
	}
	f.call("Set", fields("key", "k", "value", strings.Repeat("x", keyvalue.MaxTextBytes)))
	// What is too large together.
	var names []byte
	names = msgpack.AppendArrayHeader(names, 10)
	for i := range 10 {
		name := fmt.Sprint("s", i)
		names = msgpack.AppendString(names, name)
		f.call("SetAdd", fields("setName", name, "value", name+long))
	}
	if _, err := f.as("actor", "SetUnion", names); !errors.Is(err, providers.ErrTooLarge) {
		t.Errorf("a union of ten: %v", err)
	}
	if got := f.call("SetIntersection", names); got != "[]" {
		t.Errorf("an intersection of ten: %.40s", got)
	}
}

// A full list can be made shorter, and one that an earlier version let grow.
func TestProvider_ListDel_ofALongList(t *testing.T) {
	f := newFixture(t)
	long := msgpack.AppendArrayHeader(nil, 3)
	long = msgpack.AppendInt(msgpack.AppendInt(long, 2), 0)
	long = msgpack.AppendArrayHeader(long, keyvalue.MaxItems+10)
	for i := range keyvalue.MaxItems + 10 {
		long = msgpack.AppendString(long, fmt.Sprint(i%(keyvalue.MaxItems+9)))
	}
	err := f.db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error { return turn.Put("kv/b", "l", long) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.as("actor", "ListAdd", fields("listName", "l", "value", "x")); !errors.Is(err, providers.ErrTooLarge) {
		t.Errorf("it can not become longer: %v", err)
	}
	if got := f.call("ListDel", fields("listName", "l", "value", "0")); got != "true" {
		t.Errorf("it can become shorter: %s", got)
	}
	if got := f.call("ListRange", fields("listName", "l", "start", 0, "stop", 1)); got != "[1 2]" {
		t.Errorf("got %s", got)
	}
}

func TestProvider_state_isFull(t *testing.T) {
	f := newFixture(t)
	f.link("small", map[string]string{"bucket": "b", "max_bytes": "1000"})
	if err := f.p.PutLink(t.Context(), lattice.Link{Actor: "x", Values: map[string]string{"max_bytes": "-1"}}); err == nil {
		t.Error("a negative limit is taken")
	}
	fill := fields("key", "k", "value", strings.Repeat("x", 900))
	if _, err := f.as("small", "Set", fill); err != nil {
		t.Fatal(err)
	}
	_, err := f.as("small", "Set", fields("key", "k2", "value", strings.Repeat("x", 900)))
	if !errors.Is(err, keyvalue.ErrState) || !errors.Is(err, providers.ErrUnavailable) || !strings.Contains(err.Error(), "of 1000") {
		t.Errorf("got %v", err)
	}
	for _, s := range []struct {
		op      string
		payload []byte
	}{
		{"ListAdd", fields("listName", "l", "value", strings.Repeat("x", 100))},
		{"SetAdd", fields("setName", "s", "value", strings.Repeat("x", 100))},
		{"Set", fields("key", "k", "value", strings.Repeat("x", 1000))},
	} {
		if _, err := f.as("small", s.op, s.payload); !errors.Is(err, keyvalue.ErrState) {
			t.Errorf("%s: got %v", s.op, err)
		}
	}
	// The same size again, less, nothing; and an actor of the bucket without a limit.
	if _, err := f.as("actor", "Set", fields("key", "other", "value", strings.Repeat("x", 900))); err != nil {
		t.Error(err)
	}
	for _, n := range []int{900, 800} {
		if _, err := f.as("small", "Set", fields("key", "k", "value", strings.Repeat("x", n))); err != nil {
			t.Errorf("%d bytes in the place of as many, or more: %v", n, err)
		}
	}
	if reply, err := f.as("small", "Del", str("other")); err != nil || reply[0] != 0xc3 {
		t.Errorf("delete: %x, %v", reply, err)
	}
	if _, err := f.as("small", "ListAdd", fields("listName", "l", "value", strings.Repeat("x", 50))); err != nil {
		t.Errorf("after that: %v", err)
	}
}

func FuzzProvider_Call(f *testing.F) {
	for op, payload := range map[string]string{
		"Get": "\xa1k", "Set": "\x83\xa3key\xa1k\xa5value\xa1v\xa7expires\x01", "Increment": "\x92\xa1n\x05", "ListRange": "\x93\xa1l\xfe\xff",
		"SetUnion": "\x92\xa1s\xa1t", "ListDel": "\x82\xa8listName\xa1l\xa5value\xc4\x01v", "Nothing": "\xc1\xc1", "SetAdd": "\xdd\xff\xff\xff\xff",
	} {
		f.Add(op, []byte(payload))
	}
	db, err := store.Open(store.Options{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	defer db.Close()
	p := keyvalue.New(db)
	if err := p.PutLink(f.Context(), lattice.Link{Actor: "a", Name: "default", Values: map[string]string{"max_bytes": "4096"}}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, op string, payload []byte) {
		// Nothing of it is kept, so that each input is by itself.
		turn := db.Begin()
		defer turn.Discard()
		turn.Bound()
		inv := lattice.Invocation{Origin: lattice.Entity{Key: "a"}, Target: lattice.Entity{Key: "keyvalue", Link: "default"}, Operation: "KeyValue." + op, Payload: payload}
		for range 2 {
			reply, err := p.Call(store.WithTurn(t.Context(), turn), inv)
			if err != nil {
				var failure *providers.Failure
				if !errors.As(err, &failure) || len(reply) > 0 && !errors.Is(err, keyvalue.ErrState) {
					t.Fatalf("got %x, %v", reply, err)
				}
				continue
			}
			if d := msgpack.NewDecoder(reply); len(reply) > 0 {
				if d.Skip(); d.Done() != nil {
					t.Fatalf("reply % x", reply)
				}
			}
		}
	})
}
