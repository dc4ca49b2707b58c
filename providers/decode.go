package providers

import "github.com/edged-io/edged/sdk/go/msgpack"

// Decoder reads the payload of an operation. Some peers put 0xc1 in front of
// what is MessagePack; it is skipped.
func Decoder(payload []byte) *msgpack.Decoder {
	if len(payload) >= 2 && payload[0] == 0xc1 {
		payload = payload[1:]
	}
	return msgpack.NewDecoder(payload)
}

// Struct reads a struct and calls field for each of its members, which has to
// read the value, or skip it. A struct is a map, in any order and with members
// that nobody knows; or, as some Rust peers write it, an array of the values in
// the order of names, where what is missing at its end has its zero value.
func Struct(d *msgpack.Decoder, names []string, field func(name string)) {
	if d.Kind() != msgpack.Array {
		for range d.Map() {
			field(string(d.Key()))
		}
		return
	}
	for i := range d.Array() {
		if i < len(names) {
			field(names[i])
		} else {
			d.Skip()
		}
	}
}
