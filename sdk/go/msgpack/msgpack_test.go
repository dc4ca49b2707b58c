package msgpack_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAppend_Bytes(t *testing.T) {
	long := strings.Repeat("x", 40)
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"nil", msgpack.AppendNil(nil), "c0"},
		{"false", msgpack.AppendBool(nil, false), "c2"},
		{"true", msgpack.AppendBool(nil, true), "c3"},
		{"42", msgpack.AppendInt(nil, 42), "2a"},
		{"127", msgpack.AppendInt(nil, 127), "7f"},
		{"128", msgpack.AppendInt(nil, 128), "cc80"},
		{"200", msgpack.AppendInt(nil, 200), "ccc8"},
		{"256", msgpack.AppendInt(nil, 256), "cd0100"},
		{"65536", msgpack.AppendInt(nil, 65536), "ce00010000"},
		{"1<<32", msgpack.AppendInt(nil, 1<<32), "cf0000000100000000"},
		{"-1", msgpack.AppendInt(nil, -1), "ff"},
		{"-32", msgpack.AppendInt(nil, -32), "e0"},
		{"-33", msgpack.AppendInt(nil, -33), "d0df"},
		{"-129", msgpack.AppendInt(nil, -129), "d1ff7f"},
		{"-32769", msgpack.AppendInt(nil, -32769), "d2ffff7fff"},
		{"min", msgpack.AppendInt(nil, math.MinInt64), "d38000000000000000"},
		{"1.5", msgpack.AppendFloat(nil, 1.5), "cb3ff8000000000000"},
		{"str", msgpack.AppendString(nil, "GET"), "a3474554"},
		{"str8", msgpack.AppendString(nil, long)[:2], "d928"},
		{"bin", msgpack.AppendBin(nil, nil), "c400"},
		{"array", msgpack.AppendArrayHeader(nil, 3), "93"},
		{"array16", msgpack.AppendArrayHeader(nil, 16), "dc0010"},
		{"map16", msgpack.AppendMapHeader(nil, 16), "de0010"},
	} {
		if hex.EncodeToString(c.got) != c.want {
			t.Errorf("%s: got %x, want %s", c.name, c.got, c.want)
		}
	}
}

// The request a real key-value counter actor sends, and the answer it needs.
func TestAppend_CounterActor(t *testing.T) {
	b := msgpack.AppendMapHeader(nil, 2)
	b = msgpack.AppendString(b, "key")
	b = msgpack.AppendString(b, "counter::counter:x")
	b = msgpack.AppendString(b, "value")
	b = msgpack.AppendInt(b, 1)
	want := append(unhex(t, "82 a3 6b6579 b2"), "counter::counter:x"...)
	want = append(want, unhex(t, "a5 76616c7565 01")...)
	if !bytes.Equal(b, want) {
		t.Fatalf("got %x, want %x", b, want)
	}
	var key string
	var value int64
	d := msgpack.NewDecoder(b)
	for range d.Map() {
		switch string(d.Key()) {
		case "key":
			key = d.Str()
		case "value":
			value = d.Int()
		default:
			d.Skip()
		}
	}
	if err := d.Done(); err != nil || key != "counter::counter:x" || value != 1 {
		t.Fatalf("got %q %d %v", key, value, err)
	}
	if v := msgpack.NewDecoder([]byte{0x2a}).Int(); v != 42 {
		t.Fatalf("got %d, want 42", v)
	}
}

// The smallest HTTP request that real actors accept, and the head of the reply
// of an echo actor.
func TestAppend_HTTPActor(t *testing.T) {
	b := msgpack.AppendMapHeader(nil, 5)
	b = msgpack.AppendString(msgpack.AppendString(b, "method"), "GET")
	b = msgpack.AppendString(msgpack.AppendString(b, "path"), "/")
	b = msgpack.AppendString(msgpack.AppendString(b, "queryString"), "")
	b = msgpack.AppendMapHeader(msgpack.AppendString(b, "header"), 0)
	b = msgpack.AppendBin(msgpack.AppendString(b, "body"), nil)
	want := unhex(t, "85a66d6574686f64a3474554a470617468a12fab7175657279537472696e67a0a668656164657280a4626f6479c400")
	if !bytes.Equal(b, want) {
		t.Fatalf("got %x, want %x", b, want)
	}
	reply := append(unhex(t, "83 aa 737461747573436f6465 cc c8 a6 686561646572 80 a4 626f6479 c4 4a"), make([]byte, 74)...)
	d := msgpack.NewDecoder(reply)
	var status, body int
	for range d.Map() {
		switch string(d.Key()) {
		case "statusCode":
			status = int(d.IntIn(100, 999))
		case "body":
			body = len(d.Bin())
		default:
			d.Skip()
		}
	}
	if err := d.Done(); err != nil || status != 200 || body != 74 {
		t.Fatalf("got %d, %d bytes, %v", status, body, err)
	}
}

// The answer of a stock actor to a health request.
func TestDecoder_Health(t *testing.T) {
	d := msgpack.NewDecoder(unhex(t, "81 a7 6865616c746879 c3"))
	if n, k, v := d.Map(), string(d.Key()), d.Bool(); n != 1 || k != "healthy" || !v || d.Done() != nil {
		t.Fatalf("got %d %q %v %v", n, k, v, d.Err())
	}
}

func TestDecoder_IntegersOfAnyWidth(t *testing.T) {
	for _, in := range []string{"05", "cc05", "cd0005", "ce00000005", "cf0000000000000005", "d005", "d10005", "d200000005", "d30000000000000005"} {
		if v := msgpack.NewDecoder(unhex(t, in)).Int(); v != 5 {
			t.Errorf("%s: got %d, want 5", in, v)
		}
		if v := msgpack.NewDecoder(unhex(t, in)).Uint(); v != 5 {
			t.Errorf("%s: got %d, want 5", in, v)
		}
		if v := msgpack.NewDecoder(unhex(t, in)).Float(); v != 5 {
			t.Errorf("%s: got %v, want 5", in, v)
		}
	}
}

func TestDecoder_IntegersRoundTrip(t *testing.T) {
	for shift := range 64 {
		for _, v := range []int64{1 << shift, 1<<shift - 1, -(1 << shift), -(1 << shift) - 1} {
			d := msgpack.NewDecoder(msgpack.AppendInt(nil, v))
			if got := d.Int(); got != v || d.Done() != nil {
				t.Errorf("%d: got %d, %v", v, got, d.Err())
			}
			u := uint64(v)
			d = msgpack.NewDecoder(msgpack.AppendUint(nil, u))
			if got := d.Uint(); got != u || d.Done() != nil {
				t.Errorf("%d: got %d, %v", u, got, d.Err())
			}
		}
	}
}

func TestDecoder_LengthsRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536} {
		s := strings.Repeat("é", n)[:n]
		b := msgpack.AppendString(nil, s)
		b = msgpack.AppendBin(b, []byte(s))
		b = msgpack.AppendArrayHeader(b, n)
		for range n {
			b = msgpack.AppendNil(b)
		}
		b = msgpack.AppendMapHeader(b, n)
		for range 2 * n {
			b = msgpack.AppendFloat(b, 0.5)
		}
		d := msgpack.NewDecoder(b)
		if d.Str() != s || string(d.Bin()) != s {
			t.Errorf("%d: str or bin differ", n)
		}
		if d.Array() != n {
			t.Errorf("%d: array differs", n)
		}
		for range n {
			d.Skip()
		}
		if d.Map() != n {
			t.Errorf("%d: map differs", n)
		}
		for range 2 * n {
			if d.Float() != 0.5 {
				t.Errorf("%d: float differs", n)
			}
		}
		if err := d.Done(); err != nil {
			t.Errorf("%d: %v", n, err)
		}
		d = msgpack.NewDecoder(b)
		for range 4 {
			d.Skip()
		}
		if err := d.Done(); err != nil {
			t.Errorf("%d: skip: %v", n, err)
		}
	}
}

func TestDecoder_BytesInEveryForm(t *testing.T) {
	for _, in := range []string{"c403010203", "a3010203", "93010203", "9301cc02cd0003", "c5 0003 010203", "d903010203"} {
		d := msgpack.NewDecoder(unhex(t, in))
		if got := d.Bin(); !bytes.Equal(got, []byte{1, 2, 3}) || d.Done() != nil {
			t.Errorf("%s: got %x, %v", in, got, d.Err())
		}
	}
	d := msgpack.NewDecoder(unhex(t, "93 01 cd0100 03"))
	if got := d.Bin(); got != nil || !errors.Is(d.Err(), msgpack.ErrRange) {
		t.Errorf("got %x, %v; want ErrRange", got, d.Err())
	}
}

func TestDecoder_NilIsTheZeroValue(t *testing.T) {
	d := msgpack.NewDecoder(bytes.Repeat([]byte{0xc0}, 9))
	if d.Bool() || d.Int() != 0 || d.Uint() != 0 || d.Float() != 0 || d.Str() != "" || d.Bin() != nil || d.Array() != 0 || d.Map() != 0 || !d.TakeNil() {
		t.Fatal("nil is not the zero value")
	}
	if err := d.Done(); err != nil {
		t.Fatal(err)
	}
}

func TestDecoder_Errors(t *testing.T) {
	for _, c := range []struct {
		name, in string
		read     func(*msgpack.Decoder)
		want     error
	}{
		{"nothing there", "", func(d *msgpack.Decoder) { d.Int() }, msgpack.ErrTruncated},
		{"half a number", "cd01", func(d *msgpack.Decoder) { d.Int() }, msgpack.ErrTruncated},
		{"half a string", "a5 6161", func(d *msgpack.Decoder) { d.Str() }, msgpack.ErrTruncated},
		{"a string of 4 GiB", "db ffffffff", func(d *msgpack.Decoder) { d.Str() }, msgpack.ErrTruncated},
		{"an array of 4 G", "dd ffffffff 00", func(d *msgpack.Decoder) { d.Array() }, msgpack.ErrTruncated},
		{"bytes as an array of 4 G", "dd ffffffff 00", func(d *msgpack.Decoder) { d.Bin() }, msgpack.ErrTruncated},
		{"a map of 4 G", "df ffffffff 00", func(d *msgpack.Decoder) { d.Map() }, msgpack.ErrTruncated},
		{"a map without a value", "81 a0", func(d *msgpack.Decoder) { d.Skip() }, msgpack.ErrTruncated},
		{"an ext of 4 GiB", "c9 ffffffff 00", func(d *msgpack.Decoder) { d.Skip() }, msgpack.ErrTruncated},
		{"a string for a number", "a161", func(d *msgpack.Decoder) { d.Int() }, msgpack.ErrType},
		{"a number for a string", "01", func(d *msgpack.Decoder) { d.Str() }, msgpack.ErrType},
		{"a number for a bool", "01", func(d *msgpack.Decoder) { d.Bool() }, msgpack.ErrType},
		{"an array for a map", "90", func(d *msgpack.Decoder) { d.Map() }, msgpack.ErrType},
		{"a map for an array", "80", func(d *msgpack.Decoder) { d.Array() }, msgpack.ErrType},
		{"a string for a float", "a0", func(d *msgpack.Decoder) { d.Float() }, msgpack.ErrType},
		{"too much for int64", "cf ffffffffffffffff", func(d *msgpack.Decoder) { d.Int() }, msgpack.ErrRange},
		{"below zero", "ff", func(d *msgpack.Decoder) { d.Uint() }, msgpack.ErrRange},
		{"outside of the range", "05", func(d *msgpack.Decoder) { d.IntIn(6, 7) }, msgpack.ErrRange},
		{"the unused byte", "c1", func(d *msgpack.Decoder) { d.Skip() }, msgpack.ErrInvalid},
		{"the unused byte as a number", "c1", func(d *msgpack.Decoder) { d.Int() }, msgpack.ErrInvalid},
		{"one too many", "01 02", func(d *msgpack.Decoder) { d.Int() }, msgpack.ErrTrailing},
	} {
		d := msgpack.NewDecoder(unhex(t, c.in))
		c.read(d)
		if err := d.Done(); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestDecoder_Depth(t *testing.T) {
	nested := func(n int) []byte { return append(bytes.Repeat([]byte{0x91}, n), 0xc0) }
	d := msgpack.NewDecoder(nested(msgpack.MaxDepth))
	d.Skip()
	if err := d.Done(); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	d = msgpack.NewDecoder(nested(msgpack.MaxDepth + 1))
	d.Skip()
	if err := d.Done(); !errors.Is(err, msgpack.ErrDepth) {
		t.Errorf("beyond the limit: got %v, want ErrDepth", err)
	}
}

func TestDecoder_Raw(t *testing.T) {
	in := unhex(t, "82 a161 93010203 a162 c70301aabbcc 05")
	d := msgpack.NewDecoder(in)
	if got := d.Raw(); !bytes.Equal(got, in[:len(in)-1]) {
		t.Errorf("got %x", got)
	}
	if got := d.Rest(); !bytes.Equal(got, []byte{5}) {
		t.Errorf("rest: got %x", got)
	}
}

func TestDecoder_ErrorStays(t *testing.T) {
	d := msgpack.NewDecoder(unhex(t, "a0 05 06"))
	d.Int()
	if d.Int() != 0 || d.Str() != "" || d.Map() != 0 || d.Array() != 0 || d.Bool() || d.TakeNil() || d.Raw() != nil || d.Kind() != msgpack.None {
		t.Error("a reader went on after an error")
	}
	if !errors.Is(d.Done(), msgpack.ErrType) {
		t.Errorf("got %v, want ErrType", d.Err())
	}
}

func TestIsNothing(t *testing.T) {
	for in, want := range map[string]bool{"": true, "c0": true, "80": true, "90": true, "00": false, "a0": false, "8080": false} {
		if got := msgpack.IsNothing(unhex(t, in)); got != want {
			t.Errorf("%s: got %v, want %v", in, got, want)
		}
	}
}

func TestAppend_NoAllocations(t *testing.T) {
	b := make([]byte, 0, 256)
	body := make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		b = msgpack.AppendMapHeader(b[:0], 2)
		b = msgpack.AppendString(b, "name")
		b = msgpack.AppendInt(b, 1<<40)
		b = msgpack.AppendString(b, "body")
		b = msgpack.AppendBin(b, body)
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// copyValue writes again what it reads, in the shortest form.
func copyValue(b []byte, d *msgpack.Decoder) []byte {
	switch d.Kind() {
	case msgpack.Map:
		n := d.Map()
		b = msgpack.AppendMapHeader(b, n)
		for range 2 * n {
			b = copyValue(b, d)
		}
	case msgpack.Array:
		n := d.Array()
		b = msgpack.AppendArrayHeader(b, n)
		for range n {
			b = copyValue(b, d)
		}
	case msgpack.Str:
		b = msgpack.AppendString(b, d.Str())
	case msgpack.Bin:
		b = msgpack.AppendBin(b, d.Bin())
	case msgpack.Bool:
		b = msgpack.AppendBool(b, d.Bool())
	case msgpack.Float:
		b = msgpack.AppendFloat(b, d.Float())
	case msgpack.Nil:
		d.TakeNil()
		b = msgpack.AppendNil(b)
	case msgpack.Ext:
		b = append(b, d.Raw()...)
	default:
		if rest := d.Rest(); len(rest) > 0 && (rest[0] >= 0xe0 || rest[0] >= 0xd0 && rest[0] <= 0xd3) {
			b = msgpack.AppendInt(b, d.Int())
		} else {
			b = msgpack.AppendUint(b, d.Uint())
		}
	}
	return b
}

// FuzzDecoder: a value that can be skipped can be read and written again, and
// what was written reads the same; nothing panics.
func FuzzDecoder(f *testing.F) {
	for _, s := range []string{"", "c0", "81a7686561c3", "82a16193010203a162c70301aabbcc", "ddffffffff", "cb3ff8000000000000", "d6 00000000", "d38000000000000000", "c1", "d905"} {
		b, _ := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		f.Add(b)
	}
	f.Add(bytes.Repeat([]byte{0x91}, 100))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1<<16 {
			return
		}
		for _, read := range []func(*msgpack.Decoder){
			func(d *msgpack.Decoder) { d.Int() },
			func(d *msgpack.Decoder) { d.Uint() },
			func(d *msgpack.Decoder) { d.Float() },
			func(d *msgpack.Decoder) { d.Bool() },
			func(d *msgpack.Decoder) { _ = d.Str() },
			func(d *msgpack.Decoder) { d.Bin() },
			func(d *msgpack.Decoder) {
				for range d.Map() {
					d.Key()
					d.Skip()
				}
			},
		} {
			d := msgpack.NewDecoder(in)
			read(d)
			if d.Err() == nil && len(d.Rest()) >= len(in) {
				t.Fatalf("%x: read nothing without an error", in)
			}
		}
		d := msgpack.NewDecoder(in)
		raw := d.Raw()
		if d.Err() != nil {
			return
		}
		once := copyValue(nil, msgpack.NewDecoder(raw))
		d = msgpack.NewDecoder(once)
		twice := copyValue(nil, d)
		if err := d.Done(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x: %x and %x differ: %v", raw, once, twice, err)
		}
	})
}

func TestAppendSigned(t *testing.T) {
	for v, want := range map[int64]string{
		0: "00", 127: "7f", -1: "ff", -33: "d0df", 128: "d10080", 255: "d100ff", 32767: "d17fff", 32768: "d200008000", -32769: "d2ffff7fff",
		1<<31 - 1: "d27fffffff", 1 << 31: "d30000000080000000",
	} {
		b := msgpack.AppendSigned(nil, v)
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("%d: got %s, want %s", v, got, want)
		}
		if got := msgpack.NewDecoder(b).Int(); got != v {
			t.Errorf("%d: read as %d", v, got)
		}
	}
}
