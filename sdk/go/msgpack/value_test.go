package msgpack_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

type inner struct {
	Name string `msgpack:"name"`
}

type outer struct {
	B     bool              `msgpack:"b"`
	I     int8              `msgpack:"i"`
	U     uint16            `msgpack:"u"`
	F     float64           `msgpack:"f"`
	S     string            `msgpack:"s"`
	Bytes []byte            `msgpack:"bytes"`
	List  []inner           `msgpack:"list"`
	Map   map[string]string `msgpack:"map"`
	Ptr   *inner            `msgpack:"ptr"`
	Opt   string            `msgpack:"opt,omitempty"`
	local int
}

func TestMarshal_RoundTrip(t *testing.T) {
	in := outer{true, -5, 60000, 1.5, "text", []byte{1, 2}, []inner{{"a"}, {"b"}}, map[string]string{"z": "1", "a": "2"}, &inner{"p"}, "", 7}
	b, err := msgpack.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out outer
	if err := msgpack.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	in.local = 0
	if !reflect.DeepEqual(in, out) {
		t.Errorf("got %+v, want %+v", out, in)
	}
}

// A field that one value leaves out is there in the next one.
func TestMarshal_optional(t *testing.T) {
	type answer struct {
		Error string `msgpack:"error,omitempty"`
		Last  int    `msgpack:"last"`
	}
	for _, want := range []answer{{"", 1}, {"no", 2}, {"", 3}, {"yes", 4}} {
		b, err := msgpack.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got answer
		if err := msgpack.Unmarshal(b, &got); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

// What actors of real kits send for one struct.
func TestUnmarshal_Forms(t *testing.T) {
	type add struct {
		Key   string `msgpack:"key"`
		Value int32  `msgpack:"value"`
	}
	for name, text := range map[string]string{
		"map":           "82a36b6579a161a576616c756501",
		"other order":   "82a576616c756501a36b6579a161",
		"unknown key":   "83a3787878c0a36b6579a161a576616c756501",
		"array":         "92a16101",
		"longer array":  "93a16101c3",
		"wide integer":  "82a36b6579a161a576616c7565d30000000000000001",
		"text in bytes": "82a36b6579c40161a576616c756501",
	} {
		var got add
		if err := msgpack.Unmarshal(unhex(t, text), &got); err != nil || got != (add{"a", 1}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	b, err := msgpack.Marshal(add{"a", 1})
	if got := hex.EncodeToString(b); err != nil || got != "82a36b6579a161a576616c756501" {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestUnmarshal_Refuses(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		into any
		want error
	}{
		"trailing":       {"0101", new(int), msgpack.ErrTrailing},
		"too wide":       {"cc80", new(int8), msgpack.ErrRange},
		"too wide still": {"cd0100", new(uint8), msgpack.ErrRange},
		"another type":   {"a161", new(int), msgpack.ErrType},
		"ends early":     {"93a161", new([]string), msgpack.ErrTruncated},
		"empty":          {"", new(string), msgpack.ErrTruncated},
	} {
		if err := msgpack.Unmarshal(unhex(t, c.text), c.into); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	type nested struct {
		In []nested `msgpack:"in"`
	}
	if err := msgpack.Unmarshal(bytes.Repeat([]byte{0x91}, 1000), new(nested)); !errors.Is(err, msgpack.ErrDepth) {
		t.Errorf("nested 1000 deep: %v", err)
	}
	for _, v := range []any{make(chan int), map[int]int{}, struct {
		F func() `msgpack:"f"`
	}{}} {
		if _, err := msgpack.Marshal(v); err == nil {
			t.Errorf("%T was written", v)
		}
	}
	if err := msgpack.Unmarshal([]byte{1}, 3); err == nil {
		t.Error("read into no pointer")
	}
	if err := msgpack.Unmarshal([]byte{1}, new(chan int)); err == nil {
		t.Error("read into a channel")
	}
}

// A header that promises more than there is takes no memory, and no input a panic.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{"82a36b6579a161a576616c756501", "dd000fffff", "91919191c0", "8aa162c3a169ffa17501"} {
		b, _ := hex.DecodeString(seed)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v outer
		if msgpack.Unmarshal(b, &v) != nil {
			return
		}
		again, err := msgpack.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := msgpack.Unmarshal(again, new(outer)); err != nil {
			t.Fatalf("%x was read, and as %x is not: %v", b, again, err)
		}
	})
}
