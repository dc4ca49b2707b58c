package keyvalue

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// operations are those of the contract, without "KeyValue.". Requests and
// replies are bare MessagePack values as classic wasmCloud has them; an
// operation without a result replies with nothing.
var operations = map[string]func(*bucketTurn, *msgpack.Decoder) ([]byte, error){
	"Get":             get,
	"Set":             setText,
	"Del":             func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) { return remove(b, d, anyKind) },
	"Contains":        contains,
	"Increment":       increment,
	"ListAdd":         listAdd,
	"ListClear":       func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) { return remove(b, d, list) },
	"ListDel":         listDel,
	"ListRange":       listRange,
	"SetAdd":          setAdd,
	"SetDel":          setDel,
	"SetClear":        func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) { return remove(b, d, set) },
	"SetQuery":        setQuery,
	"SetUnion":        func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) { return combine(b, d, union) },
	"SetIntersection": func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) { return combine(b, d, intersection) },
}

// request is every field that an operation can have; each uses some.
type request struct {
	key, value  string // value is a part of the payload
	by          int64  // the value of Increment
	expires     int64  // seconds
	start, stop int64
}

// Members of requests, in their order; the first is the key.
var (
	setMembers       = []string{"key", "value", "expires"}
	incrementMembers = []string{"key", "value"}
	listMembers      = []string{"listName", "value"}
	rangeMembers     = []string{"listName", "start", "stop"}
	setsMembers      = []string{"setName", "value"}
)

func readRequest(d *msgpack.Decoder, members []string, number bool) (r request, err error) {
	providers.Struct(d, members, func(name string) {
		switch {
		case !slices.Contains(members, name):
			d.Skip()
		case name == members[0]:
			r.key = d.Str()
		case name == "value" && number:
			r.by = d.IntIn(math.MinInt32, math.MaxInt32)
		case name == "value":
			// The payload is the call's and nobody changes it: a copy of each large value
			// would be for the garbage collector only.
			v := d.Key()
			r.value = unsafe.String(unsafe.SliceData(v), len(v))
		case name == "expires":
			r.expires = d.IntIn(0, math.MaxUint32)
		case name == "start":
			r.start = d.IntIn(math.MinInt32, math.MaxInt32)
		case name == "stop":
			r.stop = d.IntIn(math.MinInt32, math.MaxInt32)
		}
	})
	if err := d.Done(); err != nil {
		return r, &formatError{err}
	}
	if !utf8.ValidString(r.value) {
		return r, formatf("value of key %q is not UTF-8, which values are: encode bytes, in base64 for one", r.key)
	}
	return r, checkKey(r.key)
}

// readName reads a bare string.
func readName(d *msgpack.Decoder) (string, error) {
	name := d.Str()
	if err := d.Done(); err != nil {
		return "", &formatError{err}
	}
	return name, nil
}

func get(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	key, err := readName(d)
	if err != nil {
		return nil, err
	}
	it, ok, err := b.get(key, text)
	if err != nil {
		return nil, err
	}
	value := ""
	if ok {
		value = it.items[0]
	}
	reply := msgpack.AppendMapHeader(make([]byte, 0, len(value)+24), 2)
	reply = msgpack.AppendString(reply, "value")
	reply = msgpack.AppendString(reply, value)
	reply = msgpack.AppendString(reply, "exists")
	return msgpack.AppendBool(reply, ok), nil
}

// setText replaces whatever is there, and when it expires.
func setText(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, err := readRequest(d, setMembers, false)
	if err != nil {
		return nil, err
	}
	it := item{kind: text, items: []string{r.value}}
	if r.expires > 0 {
		it.since, it.ttl = b.p.db.Elapsed(), time.Duration(r.expires)*time.Second
	}
	return nil, b.put(r.key, it, true)
}

func remove(b *bucketTurn, d *msgpack.Decoder, want kind) ([]byte, error) {
	key, err := readName(d)
	if err != nil {
		return nil, err
	}
	existed, err := b.del(key, want)
	return msgpack.AppendBool(nil, existed), err
}

func contains(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	key, err := readName(d)
	if err != nil {
		return nil, err
	}
	_, ok, err := b.get(key, anyKind)
	return msgpack.AppendBool(nil, ok), err
}

// increment leaves alone when the counter expires, as Redis does.
func increment(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, err := readRequest(d, incrementMembers, true)
	if err != nil {
		return nil, err
	}
	it, ok, err := b.get(r.key, text)
	if err != nil {
		return nil, err
	}
	n := int64(0)
	if ok {
		if n, err = strconv.ParseInt(it.items[0], 10, 32); err != nil {
			return nil, formatf("key %q holds no 32-bit number", r.key)
		}
	}
	if n += r.by; n < math.MinInt32 || n > math.MaxInt32 {
		return nil, formatf("key %q: the counter leaves 32 bits", r.key)
	}
	it.items = []string{strconv.FormatInt(n, 10)}
	// Signed, since it is an i32: the kit for TinyGo reads that in no other form.
	return msgpack.AppendSigned(nil, n), b.put(r.key, it, true)
}

func listAdd(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, err := readRequest(d, listMembers, false)
	if err != nil {
		return nil, err
	}
	it, _, err := b.get(r.key, list)
	if err != nil {
		return nil, err
	}
	it.items = append(it.items, r.value)
	return msgpack.AppendInt(nil, int64(len(it.items))), b.put(r.key, it, true)
}

func listDel(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, err := readRequest(d, listMembers, false)
	if err != nil {
		return nil, err
	}
	n, err := b.drop(r, list)
	return msgpack.AppendBool(nil, n > 0), err
}

// drop removes all items equal to r.value and returns how many there were. An
// empty list or set is none.
func (b *bucketTurn) drop(r request, k kind) (n int, err error) {
	it, _, err := b.get(r.key, k)
	if err != nil {
		return 0, err
	}
	before := len(it.items)
	it.items = slices.DeleteFunc(it.items, func(s string) bool { return s == r.value })
	switch n = before - len(it.items); {
	case n == 0:
		return 0, nil
	case len(it.items) == 0:
		return n, b.turn.Delete(b.space, r.key)
	}
	return n, b.put(r.key, it, false)
}

// listRange has both ends included, and counts negative ones from the end, as
// Redis does.
func listRange(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, err := readRequest(d, rangeMembers, false)
	if err != nil {
		return nil, err
	}
	it, _, err := b.get(r.key, list)
	if err != nil {
		return nil, err
	}
	n := int64(len(it.items))
	if r.start < 0 {
		r.start = max(0, r.start+n)
	}
	if r.stop < 0 {
		r.stop += n
	}
	r.stop = min(r.stop, n-1)
	if r.start > r.stop {
		return appendStrings(nil, nil), nil
	}
	return appendStrings(nil, it.items[r.start:r.stop+1]), nil
}

func setAdd(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, err := readRequest(d, setsMembers, false)
	if err != nil {
		return nil, err
	}
	it, _, err := b.get(r.key, set)
	if err != nil {
		return nil, err
	}
	at, found := slices.BinarySearch(it.items, r.value)
	if found {
		return msgpack.AppendInt(nil, 0), nil
	}
	it.items = slices.Insert(it.items, at, r.value)
	return msgpack.AppendInt(nil, 1), b.put(r.key, it, true)
}

func setDel(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, err := readRequest(d, setsMembers, false)
	if err != nil {
		return nil, err
	}
	n, err := b.drop(r, set)
	return msgpack.AppendInt(nil, int64(n)), err
}

func setQuery(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	name, err := readName(d)
	if err != nil {
		return nil, err
	}
	it, _, err := b.get(name, set)
	return appendStrings(nil, it.items), err
}

// combine reads one set after the other, so that no more than two of them and
// the result are in memory.
func combine(b *bucketTurn, d *msgpack.Decoder, with func(a, b []string) []string) ([]byte, error) {
	n := d.Array()
	if n > MaxSets {
		return nil, fmt.Errorf("%d sets, at most %d: %w", n, MaxSets, store.ErrTooLarge)
	}
	names := make([]string, 0, n)
	for range n {
		names = append(names, d.Str())
	}
	if err := d.Done(); err != nil {
		return nil, &formatError{err}
	}
	var result []string
	for i, name := range names {
		if b.ctx.Err() != nil { // the caller's time is over
			return nil, context.Cause(b.ctx)
		}
		it, _, err := b.get(name, set)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			result = it.items
		} else {
			result = with(result, it.items)
		}
		if size := replySize(result); size > MaxReply {
			return nil, fmt.Errorf("a union of more than %d bytes: %w", MaxReply, store.ErrTooLarge)
		}
	}
	return appendStrings(nil, result), nil
}

func replySize(items []string) (n int) {
	for _, s := range items {
		n += len(s) + 5
	}
	return n
}

// union and intersection take and return sorted items without repeats.
func union(a, b []string) []string {
	all := make([]string, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			all, a = append(all, a[0]), a[1:]
		case a[0] > b[0]:
			all, b = append(all, b[0]), b[1:]
		default:
			all, a, b = append(all, a[0]), a[1:], b[1:]
		}
	}
	return append(append(all, a...), b...)
}

func intersection(a, b []string) []string {
	var both []string
	for _, s := range a {
		if _, ok := slices.BinarySearch(b, s); ok {
			both = append(both, s)
		}
	}
	return both
}
