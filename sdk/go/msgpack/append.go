// Package msgpack writes and reads MessagePack by hand: the form in which
// actors, providers and hosts exchange their payloads.
//
// Writing is a family of Append functions over a byte slice. Reading is a
// Decoder over a byte slice, which checks every length against the bytes that
// are really there and keeps the first error, so that a struct is read without
// an if per field:
//
//	d := msgpack.NewDecoder(payload)
//	for range d.Map() {
//		switch string(d.Key()) {
//		case "key":
//			key = d.Str()
//		case "value":
//			value = d.Int()
//		default:
//			d.Skip()
//		}
//	}
//	return d.Done()
//
// There is no reflection and no dependency, because guests carry this package
// with them and every kilobyte of a guest is compiled on the device.
package msgpack

import "math"

// AppendNil appends nil (c0).
func AppendNil(b []byte) []byte { return append(b, 0xc0) }

// AppendBool appends a bool.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 0xc3)
	}
	return append(b, 0xc2)
}

// AppendInt appends an integer in its shortest form. Values from 0 up take the
// unsigned forms, as other encoders do.
func AppendInt(b []byte, v int64) []byte {
	switch {
	case v >= 0:
		return AppendUint(b, uint64(v))
	case v >= -32:
		return append(b, byte(v))
	case v >= math.MinInt8:
		return append(b, 0xd0, byte(v))
	case v >= math.MinInt16:
		return append16(append(b, 0xd1), uint16(v))
	case v >= math.MinInt32:
		return append32(append(b, 0xd2), uint32(v))
	default:
		return append64(append(b, 0xd3), uint64(v))
	}
}

// AppendSigned appends an integer in its shortest signed form. It is for what an
// actor reads as a signed number: some kits read such a number in no other form.
func AppendSigned(b []byte, v int64) []byte {
	switch {
	case v < 0x80:
		return AppendInt(b, v)
	case v <= math.MaxInt16:
		return append16(append(b, 0xd1), uint16(v))
	case v <= math.MaxInt32:
		return append32(append(b, 0xd2), uint32(v))
	default:
		return append64(append(b, 0xd3), uint64(v))
	}
}

// AppendUint appends an unsigned integer in its shortest form.
func AppendUint(b []byte, v uint64) []byte {
	switch {
	case v <= 0x7f:
		return append(b, byte(v))
	case v <= math.MaxUint8:
		return append(b, 0xcc, byte(v))
	case v <= math.MaxUint16:
		return append16(append(b, 0xcd), uint16(v))
	case v <= math.MaxUint32:
		return append32(append(b, 0xce), uint32(v))
	default:
		return append64(append(b, 0xcf), v)
	}
}

// AppendFloat appends a 64-bit float.
func AppendFloat(b []byte, v float64) []byte {
	return append64(append(b, 0xcb), math.Float64bits(v))
}

// AppendString appends a str.
func AppendString(b []byte, s string) []byte {
	n := checked(len(s))
	switch {
	case n <= 31:
		b = append(b, 0xa0|byte(n))
	case n <= math.MaxUint8:
		b = append(b, 0xd9, byte(n))
	case n <= math.MaxUint16:
		b = append16(append(b, 0xda), uint16(n))
	default:
		b = append32(append(b, 0xdb), n)
	}
	return append(b, s...)
}

// AppendBin appends a bin. A nil slice is an empty bin, not nil.
func AppendBin(b, p []byte) []byte {
	n := checked(len(p))
	switch {
	case n <= math.MaxUint8:
		b = append(b, 0xc4, byte(n))
	case n <= math.MaxUint16:
		b = append16(append(b, 0xc5), uint16(n))
	default:
		b = append32(append(b, 0xc6), n)
	}
	return append(b, p...)
}

// AppendArrayHeader begins an array; n values must follow.
func AppendArrayHeader(b []byte, n int) []byte {
	l := checked(n)
	switch {
	case l <= 15:
		return append(b, 0x90|byte(l))
	case l <= math.MaxUint16:
		return append16(append(b, 0xdc), uint16(l))
	default:
		return append32(append(b, 0xdd), l)
	}
}

// AppendMapHeader begins a map; n pairs of key and value must follow.
func AppendMapHeader(b []byte, n int) []byte {
	l := checked(n)
	switch {
	case l <= 15:
		return append(b, 0x80|byte(l))
	case l <= math.MaxUint16:
		return append16(append(b, 0xde), uint16(l))
	default:
		return append32(append(b, 0xdf), l)
	}
}

// checked panics for a length that the format cannot carry. Nothing decoded
// from outside reaches it: such a value would take 4 GiB.
func checked(n int) uint32 {
	if n < 0 || uint64(n) > math.MaxUint32 {
		panic("msgpack: length out of range")
	}
	return uint32(n)
}

func append16(b []byte, v uint16) []byte { return append(b, byte(v>>8), byte(v)) }

func append32(b []byte, v uint32) []byte {
	return append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func append64(b []byte, v uint64) []byte {
	return append32(append32(b, uint32(v>>32)), uint32(v))
}
