package keyvalue

import (
	"errors"
	"fmt"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// kind is what a key holds.
type kind int

const (
	anyKind kind = iota
	text
	list
	set
)

func (k kind) String() string {
	switch k {
	case text:
		return "string"
	case list:
		return "list"
	case set:
		return "set"
	}
	return "value"
}

// item is the value of a key in the store: an array of kind, since, ttl and
// items. A string is one item; the items of a set are sorted.
//
// What is stored as an array of three is of an earlier version: kind, when it
// expires by the store's own clock, items.
type item struct {
	life
	kind  kind
	items []string
}

// life is how long a value is there: for ttl, 0 for ever, from when the store's
// own clock showed since.
type life struct {
	since, ttl time.Duration
	until      time.Duration // of an earlier version, 0 for none
}

func (it item) encode() []byte {
	size := 32
	for _, s := range it.items {
		size += len(s) + 5
	}
	b := msgpack.AppendArrayHeader(make([]byte, 0, size), 4)
	b = msgpack.AppendInt(b, int64(it.kind))
	b = msgpack.AppendInt(b, int64(it.since))
	b = msgpack.AppendInt(b, int64(it.ttl))
	return appendStrings(b, it.items)
}

func appendStrings(b []byte, items []string) []byte {
	b = msgpack.AppendArrayHeader(b, len(items))
	for _, s := range items {
		b = msgpack.AppendString(b, s)
	}
	return b
}

// decodeHead reads what comes before the items.
func decodeHead(d *msgpack.Decoder) (k kind, l life, err error) {
	parts := d.Array()
	k = kind(d.IntIn(int64(text), int64(set)))
	switch parts {
	case 3:
		l.until = time.Duration(d.Int())
	case 4:
		l.since, l.ttl = time.Duration(d.Int()), time.Duration(d.Int())
	default:
		return 0, l, fmt.Errorf("stored value has %d parts", parts)
	}
	if err := d.Err(); err != nil {
		return 0, l, fmt.Errorf("stored value: %w", err)
	}
	return k, l, nil
}

func decodeItem(v []byte) (it item, err error) {
	d := msgpack.NewDecoder(v)
	if it.kind, it.life, err = decodeHead(d); err != nil {
		return it, err
	}
	n := d.Array()
	it.items = make([]string, 0, n)
	for range n {
		it.items = append(it.items, d.Str())
	}
	if err := d.Done(); err != nil {
		return it, fmt.Errorf("stored value: %w", err)
	}
	if it.kind == text && len(it.items) != 1 {
		return it, errors.New("stored string is none")
	}
	return it, nil
}
