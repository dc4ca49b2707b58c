package keyvalue

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// operations are those of the contract, without "KeyValue.". Requests and
// replies are bare MessagePack values as classic wasmCloud has them; an
// operation without a result replies with nothing.
var operations = map[string]func(*bucketTurn, *msgpack.Decoder) ([]byte, error){
	"Get":       get,
	"Set":       setText,
	"Del":       func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) { return remove(b, d, anyKind) },
	"Contains":  contains,
	"Increment": increment,
	"ListAdd":   listAdd,
	"ListClear": func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) { return remove(b, d, list) },
	"ListDel":   listDel,
	"ListRange": listRange,
	"SetAdd":    setAdd,
	"SetDel":    setDel,
	"SetClear":  func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) { return remove(b, d, set) },
	"SetQuery": func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
		return combine(b, []string{d.Str()}, d, union)
	},
	"SetUnion":        func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) { return combine(b, names(d), d, union) },
	"SetIntersection": func(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) { return combine(b, names(d), d, intersection) },
}

// request is every field that an operation can have; each uses some.
type request struct {
	key, value  string
	expires     int64
	start, stop int64
}

// readRequest reads a map. key is what the operation calls its key.
func readRequest(d *msgpack.Decoder, key string) (r request, number int64, err error) {
	for range d.Map() {
		switch k := string(d.Key()); {
		case k == key:
			r.key = d.Str()
		case k == "value" && key == "key" && (d.Kind() == msgpack.Int):
			number = d.IntIn(math.MinInt32, math.MaxInt32)
		case k == "value":
			r.value = d.Str()
		case k == "expires":
			r.expires = d.IntIn(0, math.MaxUint32)
		case k == "start":
			r.start = d.IntIn(math.MinInt32, math.MaxInt32)
		case k == "stop":
			r.stop = d.IntIn(math.MinInt32, math.MaxInt32)
		default:
			d.Skip()
		}
	}
	return r, number, d.Done()
}

func get(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	key := d.Str()
	if err := d.Done(); err != nil {
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
	reply := msgpack.AppendMapHeader(nil, 2)
	reply = msgpack.AppendString(reply, "value")
	reply = msgpack.AppendString(reply, value)
	reply = msgpack.AppendString(reply, "exists")
	return msgpack.AppendBool(reply, ok), nil
}

func setText(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, _, err := readRequest(d, "key")
	if err != nil {
		return nil, err
	}
	it := item{kind: text, items: []string{r.value}}
	if r.expires > 0 {
		it.expires = b.now + time.Duration(r.expires)*time.Second
	}
	if len(r.key) > MaxKeyBytes {
		return nil, fmt.Errorf("key of %d bytes, at most %d", len(r.key), MaxKeyBytes)
	}
	return nil, b.put(r.key, it)
}

func remove(b *bucketTurn, d *msgpack.Decoder, want kind) ([]byte, error) {
	key := d.Str()
	if err := d.Done(); err != nil {
		return nil, err
	}
	existed, err := b.del(key, want)
	return msgpack.AppendBool(nil, existed), err
}

func contains(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	key := d.Str()
	if err := d.Done(); err != nil {
		return nil, err
	}
	_, ok, err := b.get(key, anyKind)
	return msgpack.AppendBool(nil, ok), err
}

func increment(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, by, err := readRequest(d, "key")
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
			return nil, fmt.Errorf("key %s holds no 32-bit number", r.key)
		}
	}
	if n += by; n < math.MinInt32 || n > math.MaxInt32 {
		return nil, fmt.Errorf("key %s: the counter leaves 32 bits", r.key)
	}
	it.items = []string{strconv.FormatInt(n, 10)}
	return msgpack.AppendSigned(nil, n), b.put(r.key, it)
}

func listAdd(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, _, err := readRequest(d, "listName")
	if err != nil {
		return nil, err
	}
	it, _, err := b.get(r.key, list)
	if err != nil {
		return nil, err
	}
	it.items = append(it.items, r.value)
	return msgpack.AppendInt(nil, int64(len(it.items))), b.put(r.key, it)
}

func listDel(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, _, err := readRequest(d, "listName")
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
	return n, b.put(r.key, it)
}

// listRange has both ends included, and counts negative ones from the end, as
// Redis does.
func listRange(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, _, err := readRequest(d, "listName")
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
	r, _, err := readRequest(d, "setName")
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
	return msgpack.AppendInt(nil, 1), b.put(r.key, it)
}

func setDel(b *bucketTurn, d *msgpack.Decoder) ([]byte, error) {
	r, _, err := readRequest(d, "setName")
	if err != nil {
		return nil, err
	}
	n, err := b.drop(r, set)
	return msgpack.AppendInt(nil, int64(n)), err
}

// maxSets bounds how many sets one operation reads.
const maxSets = 1024

func names(d *msgpack.Decoder) []string {
	var all []string
	for range d.Array() {
		all = append(all, d.Str())
	}
	return all
}

func combine(b *bucketTurn, names []string, d *msgpack.Decoder, with func(a, b []string) []string) ([]byte, error) {
	if err := d.Done(); err != nil {
		return nil, err
	}
	if len(names) > maxSets {
		return nil, fmt.Errorf("%d sets, at most %d", len(names), maxSets)
	}
	var result []string
	for i, name := range names {
		it, _, err := b.get(name, set)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			result = it.items
		} else {
			result = with(result, it.items)
		}
	}
	return appendStrings(nil, result), nil
}

// union and intersection take and return sorted items without repeats.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
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
