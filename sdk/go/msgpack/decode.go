package msgpack

import (
	"errors"
	"math"
)

// MaxDepth is how deep arrays and maps may nest in a value that is skipped.
const MaxDepth = 64

// What can be wrong with a value.
var (
	ErrTruncated = errors.New("msgpack: value ends early")
	ErrType      = errors.New("msgpack: value of another type")
	ErrRange     = errors.New("msgpack: number out of range")
	ErrDepth     = errors.New("msgpack: nested too deeply")
	ErrTrailing  = errors.New("msgpack: bytes after the value")
	ErrInvalid   = errors.New("msgpack: invalid byte")
)

// A Kind is what a value is, whatever its width.
type Kind uint8

// The kinds. None means that no value is left.
const (
	None Kind = iota
	Nil
	Bool
	Int
	Float
	Str
	Bin
	Array
	Map
	Ext
	Invalid
)

// A Decoder reads values one after the other from a byte slice that it never
// changes. It is for one goroutine.
//
// The first error stays: from then on every reader returns its zero value and
// takes nothing, Map and Array return 0, and Err and Done tell. Every reader takes nil
// for its zero value, since some peers write nil for a field without a value.
type Decoder struct {
	data []byte
	off  int
	err  error
}

// NewDecoder reads from b.
func NewDecoder(b []byte) *Decoder { return &Decoder{data: b} }

// IsNothing says whether a payload stands for "no value", in any of the forms
// that peers use: no bytes, nil, an empty map, or an empty array.
func IsNothing(payload []byte) bool {
	return len(payload) == 0 || len(payload) == 1 && (payload[0] == 0xc0 || payload[0] == 0x80 || payload[0] == 0x90)
}

// Err is the first error, or nil.
func (d *Decoder) Err() error { return d.err }

// Done is the first error, or ErrTrailing when bytes are left, or nil.
func (d *Decoder) Done() error {
	if d.err == nil && d.off < len(d.data) {
		d.err = ErrTrailing
	}
	return d.err
}

// Rest is what has not been read yet.
func (d *Decoder) Rest() []byte { return d.data[d.off:] }

// Kind is the kind of the next value, which stays unread.
func (d *Decoder) Kind() Kind {
	if d.err != nil || d.off >= len(d.data) {
		return None
	}
	return kindOf(d.data[d.off])
}

func kindOf(c byte) Kind {
	switch {
	case c <= 0x7f || c >= 0xe0 || c >= 0xcc && c <= 0xd3:
		return Int
	case c <= 0x8f || c == 0xde || c == 0xdf:
		return Map
	case c <= 0x9f || c == 0xdc || c == 0xdd:
		return Array
	case c <= 0xbf || c >= 0xd9 && c <= 0xdb:
		return Str
	case c == 0xc0:
		return Nil
	case c == 0xc1:
		return Invalid
	case c <= 0xc3:
		return Bool
	case c <= 0xc6:
		return Bin
	case c == 0xca || c == 0xcb:
		return Float
	default:
		return Ext
	}
}

// TakeNil reads a nil if one is next, and says whether it did.
func (d *Decoder) TakeNil() bool {
	if d.Kind() != Nil {
		return false
	}
	d.off++
	return true
}

// Bool reads a bool.
func (d *Decoder) Bool() bool {
	switch c := d.lead(); {
	case c == 0xc3:
		return true
	case c != 0xc2 && c != 0xc0:
		d.mismatch(c)
	}
	return false
}

// Int reads an integer of any width and signedness that fits into 64 bits with
// sign.
func (d *Decoder) Int() int64 {
	v, negative := d.integer()
	if !negative && v > math.MaxInt64 {
		d.fail(ErrRange)
		return 0
	}
	return int64(v)
}

// IntIn is Int for a value that must lie between lo and hi, both included.
func (d *Decoder) IntIn(lo, hi int64) int64 {
	v := d.Int()
	if d.err != nil {
		return 0
	}
	if v < lo || v > hi {
		d.fail(ErrRange)
		return 0
	}
	return v
}

// Uint reads an integer of any width that is not negative.
func (d *Decoder) Uint() uint64 {
	v, negative := d.integer()
	if negative {
		d.fail(ErrRange)
		return 0
	}
	return v
}

// integer returns the bits of an integer, and whether they stand for a number
// below zero.
func (d *Decoder) integer() (v uint64, negative bool) {
	c := d.lead()
	switch {
	case c <= 0x7f:
		return uint64(c), false
	case c >= 0xe0:
		return uint64(int64(int8(c))), true
	case c == 0xc0:
		return 0, false
	case c >= 0xcc && c <= 0xcf:
		return d.big(1 << (c - 0xcc)), false
	case c >= 0xd0 && c <= 0xd3:
		width := 1 << (c - 0xd0)
		shift := 64 - 8*width
		s := int64(d.big(width)<<shift) >> shift
		return uint64(s), s < 0
	}
	d.mismatch(c)
	return 0, false
}

// Float reads a float, or an integer as a float.
func (d *Decoder) Float() float64 {
	switch d.Kind() {
	case Float:
		if d.lead() == 0xca {
			return float64(math.Float32frombits(uint32(d.big(4))))
		}
		return math.Float64frombits(d.big(8))
	default:
		v, negative := d.integer()
		if negative {
			return float64(int64(v))
		}
		return float64(v)
	}
}

// Str reads a str, or a bin as text. The string is a copy.
func (d *Decoder) Str() string { return string(d.Key()) }

// Key reads a str or bin and returns it as a part of the input: for map keys,
// where `switch string(d.Key())` copies nothing.
func (d *Decoder) Key() []byte {
	c := d.lead()
	if c == 0xc0 {
		return nil
	}
	n, ok := d.textLen(c)
	if !ok {
		d.mismatch(c)
		return nil
	}
	return d.take(n)
}

// textLen reads the length of a str or bin with lead byte c; ok is false for
// anything else.
func (d *Decoder) textLen(c byte) (n uint64, ok bool) {
	switch {
	case c >= 0xa0 && c <= 0xbf:
		return uint64(c & 0x1f), true
	case c >= 0xc4 && c <= 0xc6:
		return d.big(1 << (c - 0xc4)), true
	case c >= 0xd9 && c <= 0xdb:
		return d.big(1 << (c - 0xd9)), true
	}
	return 0, false
}

// Bin reads bytes: a bin or a str as a part of the input, or an array of
// integers from 0 to 255 as a new slice, which some peers send for bytes.
func (d *Decoder) Bin() []byte {
	if d.Kind() != Array {
		return d.Key()
	}
	out := make([]byte, d.Array())
	for i := range out {
		out[i] = byte(d.IntIn(0, math.MaxUint8))
	}
	if d.err != nil {
		return nil
	}
	return out
}

// Array reads the header of an array: that many values follow. It is never
// more than the bytes that are left.
func (d *Decoder) Array() int {
	c := d.lead()
	var n uint64
	switch {
	case c == 0xc0:
	case c >= 0x90 && c <= 0x9f:
		n = uint64(c & 0x0f)
	case c == 0xdc || c == 0xdd:
		n = d.big(2 << (c - 0xdc))
	default:
		d.mismatch(c)
	}
	return d.count(n, 1)
}

// Map reads the header of a map: that many pairs follow. It is never more than
// half the bytes that are left.
func (d *Decoder) Map() int {
	c := d.lead()
	var n uint64
	switch {
	case c == 0xc0:
	case c >= 0x80 && c <= 0x8f:
		n = uint64(c & 0x0f)
	case c == 0xde || c == 0xdf:
		n = d.big(2 << (c - 0xde))
	default:
		d.mismatch(c)
	}
	return d.count(n, 2)
}

// Skip reads over one value with all it holds.
func (d *Decoder) Skip() {
	// left[i] is how many values of level i are still to come; level 0 is the
	// value itself.
	var left [MaxDepth + 1]int
	left[0] = 1
	for level := 0; level >= 0; {
		if d.err != nil {
			return
		}
		if left[level] == 0 {
			level--
			continue
		}
		left[level]--
		n := d.skipOne()
		if n == 0 {
			continue
		}
		if level == MaxDepth {
			d.fail(ErrDepth)
			return
		}
		level++
		left[level] = n
	}
}

// skipOne reads over a scalar, or over the header of an array or map, and
// returns how many values follow inside it.
func (d *Decoder) skipOne() int {
	switch d.Kind() {
	case Map:
		return 2 * d.Map()
	case Array:
		return d.Array()
	case Str, Bin:
		d.Key()
	case Float:
		d.Float()
	case Ext:
		c := d.lead()
		if c >= 0xc7 && c <= 0xc9 {
			d.take(d.big(1<<(c-0xc7)) + 1) // the type byte comes after the length
		} else {
			d.take(1<<(c-0xd4) + 1)
		}
	case Invalid:
		d.fail(ErrInvalid)
	case Bool:
		d.Bool()
	default:
		d.integer()
	}
	return 0
}

// Raw reads over one value and returns its bytes, as a part of the input.
func (d *Decoder) Raw() []byte {
	start := d.off
	d.Skip()
	if d.err != nil {
		return nil
	}
	return d.data[start:d.off:d.off]
}

// lead takes the first byte of a value. After an error it is nil's, which every
// reader takes for its zero value.
func (d *Decoder) lead() byte {
	if d.err != nil {
		return 0xc0
	}
	if d.off >= len(d.data) {
		d.fail(ErrTruncated)
		return 0xc0
	}
	c := d.data[d.off]
	d.off++
	return c
}

// big takes an unsigned number of width bytes.
func (d *Decoder) big(width int) uint64 {
	var v uint64
	for _, c := range d.take(uint64(width)) {
		v = v<<8 | uint64(c)
	}
	return v
}

// take takes n bytes, as a part of the input that cannot be appended to.
func (d *Decoder) take(n uint64) []byte {
	if d.err != nil {
		return nil
	}
	if n > uint64(len(d.data)-d.off) {
		d.fail(ErrTruncated)
		return nil
	}
	end := d.off + int(n)
	p := d.data[d.off:end:end]
	d.off = end
	return p
}

// count checks the length of a container against what is left, each element
// taking at least size bytes.
func (d *Decoder) count(n, size uint64) int {
	if d.err != nil {
		return 0
	}
	if n > uint64(len(d.data)-d.off)/size {
		d.fail(ErrTruncated)
		return 0
	}
	return int(n)
}

// mismatch gives back the lead byte c of a value of another type.
func (d *Decoder) mismatch(c byte) {
	if d.err != nil {
		return
	}
	d.off--
	if c == 0xc1 {
		d.fail(ErrInvalid)
		return
	}
	d.fail(ErrType)
}

func (d *Decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}
