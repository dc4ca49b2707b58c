package wire

import (
	"iter"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// fields goes through a struct: a map in any order, or, as Rust writers may send
// it, an array in the order of names. It yields which of names comes next, and ""
// for a key that is none of them, whose value is to be skipped. A key that is
// there twice ends it with a fault: two readers could take different ones.
func fields(d *msgpack.Decoder, names []string, fault *error) iter.Seq[string] {
	return func(yield func(string) bool) {
		if d.Kind() == msgpack.Array {
			for i := range d.Array() {
				name := ""
				if i < len(names) {
					name = names[i]
				}
				if !yield(name) {
					return
				}
			}
			return
		}
		var seen uint32 // a bit for each of names
		for range d.Map() {
			name := ""
			for i, key := 0, d.Key(); i < len(names); i++ {
				if string(key) != names[i] {
					continue
				}
				if name = names[i]; seen&(1<<i) != 0 {
					*fault = malformed("key %s is there twice", name)
					return
				}
				seen |= 1 << i
			}
			if !yield(name) {
				return
			}
		}
	}
}

// ended returns what is wrong with a struct whose fields have been read.
func ended(d *msgpack.Decoder, fault error) error {
	if fault != nil {
		return fault
	}
	if err := d.Done(); err != nil {
		return malformed("%v", err)
	}
	return nil
}

// isStruct says whether the next value can be one.
func isStruct(d *msgpack.Decoder) bool {
	return d.Kind() == msgpack.Map || d.Kind() == msgpack.Array
}

func appendText(b []byte, key, value string) []byte {
	return msgpack.AppendString(msgpack.AppendString(b, key), value)
}
