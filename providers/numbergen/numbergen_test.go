package numbergen_test

import (
	"errors"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/providers/numbergen"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

func call(t testing.TB, operation, payload string) (*msgpack.Decoder, error) {
	t.Helper()
	reply, err := numbergen.Provider{}.Call(t.Context(), lattice.Invocation{Contract: numbergen.Contract, Operation: "NumberGen." + operation, Payload: []byte(payload)})
	return msgpack.NewDecoder(reply), err
}

func number(t *testing.T, operation, payload string) uint64 {
	t.Helper()
	d, err := call(t, operation, payload)
	n := d.Uint()
	if err != nil || d.Done() != nil || n > math.MaxUint32 {
		t.Fatalf("%s %x: got %d, %v, %v", operation, payload, n, err, d.Err())
	}
	return n
}

func TestProvider_GenerateGuid(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := make(map[string]bool)
	for _, nothing := range []string{"", "\xc0", "\x80", "\x90"} {
		for range 100 {
			d, err := call(t, "GenerateGuid", nothing)
			id := d.Str()
			if err != nil || d.Done() != nil || !form.MatchString(id) || seen[id] {
				t.Fatalf("got %q, %v", id, err)
			}
			seen[id] = true
		}
	}
}

// Each bit is 0 and 1 at times: the chance that one is not is 2^-199.
func TestProvider_Random32(t *testing.T) {
	ones, zeros := uint64(0), uint64(0)
	for range 200 {
		n := number(t, "Random32", "")
		ones, zeros = ones|n, zeros|^n
	}
	if ones&zeros&math.MaxUint32 != math.MaxUint32 {
		t.Errorf("ones %032b, zeros %032b", ones, zeros)
	}
}

func TestProvider_RandomInRange(t *testing.T) {
	for name, c := range map[string]struct {
		payload string
		lo, hi  uint64
	}{
		"die":               {"\x82\xa3min\x01\xa3max\x06", 1, 6},
		"fixed width":       {"\x82\xa3max\xce\x00\x00\x00\x06\xa3min\xd2\x00\x00\x00\x01", 1, 6},
		"array":             {"\x92\x01\x06", 1, 6},
		"prefix":            {"\xc1\x82\xa3min\x01\xa3max\x06", 1, 6},
		"one number":        {"\x82\xa3min\x07\xa3max\x07", 7, 7},
		"no members":        {"\x80", 0, 0},
		"the last two":      {"\x82\xa3min\xce\xff\xff\xff\xfe\xa3max\xce\xff\xff\xff\xff", math.MaxUint32 - 1, math.MaxUint32},
		"no lowest":         {"\x81\xa3max\x01", 0, 1},
		"with more members": {"\x83\xa3min\x01\xa1x\xc0\xa3max\x02", 1, 2},
	} {
		seen := make(map[uint64]bool)
		for range 1000 {
			n := number(t, "RandomInRange", c.payload)
			if n < c.lo || n > c.hi {
				t.Fatalf("%s: got %d", name, n)
			}
			seen[n] = true
		}
		if want := int(c.hi - c.lo + 1); len(seen) != want { // one of six is missing with a chance of 1 in 10^78
			t.Errorf("%s: %d numbers of %d", name, len(seen), want)
		}
	}
	high := 0
	for range 200 {
		if number(t, "RandomInRange", "\x82\xa3min\x00\xa3max\xce\xff\xff\xff\xff") > math.MaxUint32/2 {
			high++
		}
	}
	if high == 0 || high == 200 {
		t.Errorf("the whole range: %d of 200 in the upper half", high)
	}
}

func TestProvider_refuses(t *testing.T) {
	for name, c := range map[string]struct{ operation, payload, want string }{
		"min above max": {"RandomInRange", "\x82\xa3min\x02\xa3max\x01", "min 2 is above max 1"},
		"negative":      {"RandomInRange", "\x81\xa3min\xff", "out of range"},
		"33 bits":       {"RandomInRange", "\x81\xa3max\xcf\x00\x00\x00\x01\x00\x00\x00\x00", "out of range"},
		"no bytes":      {"RandomInRange", "", "ends early"},
		"string":        {"RandomInRange", "\xa1x", "another type"},
		"trailing":      {"RandomInRange", "\x80\x80", "after the value"},
		"operation":     {"Random64", "", "is no operation"},
	} {
		if _, err := call(t, c.operation, c.payload); !errors.Is(err, providers.ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzProvider_RandomInRange(f *testing.F) {
	f.Add([]byte("\x82\xa3min\x01\xa3max\x06"))
	f.Add([]byte("\xc1\x92\x01\xcf\x00\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		d, err := call(t, "RandomInRange", string(payload))
		if n := d.Uint(); err == nil && (d.Done() != nil || n > math.MaxUint32) {
			t.Fatalf("got %d, %v", n, d.Err())
		}
	})
}
