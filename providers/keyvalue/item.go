package keyvalue

import (
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

// item is the value of a key in the store: an array of kind, expiry in
// nanoseconds of the store's own time (0 for never), and items. A string is
// one item.
type item struct {
	kind    kind
	expires time.Duration
	items   []string
}

func (it item) encode() []byte {
	b := msgpack.AppendArrayHeader(nil, 3)
	b = msgpack.AppendInt(b, int64(it.kind))
	b = msgpack.AppendInt(b, int64(it.expires))
	return appendStrings(b, it.items)
}

func appendStrings(b []byte, items []string) []byte {
	b = msgpack.AppendArrayHeader(b, len(items))
	for _, s := range items {
		b = msgpack.AppendString(b, s)
	}
	return b
}

func decodeItem(v []byte) (it item, err error) {
	d := msgpack.NewDecoder(v)
	if n := d.Array(); n != 3 {
		return it, fmt.Errorf("stored value has %d parts", n)
	}
	it.kind = kind(d.IntIn(int64(text), int64(set)))
	it.expires = time.Duration(d.Int())
	for range d.Array() {
		it.items = append(it.items, d.Str())
	}
	if err := d.Done(); err != nil {
		return it, fmt.Errorf("stored value: %w", err)
	}
	if it.kind == text && len(it.items) != 1 {
		return it, fmt.Errorf("stored string has %d parts", len(it.items))
	}
	return it, nil
}
