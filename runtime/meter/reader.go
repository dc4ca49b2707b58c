package meter

import (
	"fmt"
	"unicode/utf8"
)

// A reader takes numbers and names from buf[at:end]. The first fault stays, and
// what is read after it is zero: loops end because nothing is left.
type reader struct {
	buf     []byte
	at, end int
	section section
	err     error
}

func (r *reader) fail(kind error, at int, format string, args ...any) {
	if r.err == nil {
		r.err = &fault{kind, r.section, at, fmt.Sprintf(format, args...)}
	}
	r.at = r.end
}

func (r *reader) malformed(format string, args ...any) {
	r.fail(ErrMalformed, r.at, format, args...)
}

func (r *reader) more() bool { return r.at < r.end }

// take returns the next n bytes.
func (r *reader) take(n int) []byte {
	if n < 0 || n > r.end-r.at {
		r.malformed("unexpected end")
		return nil
	}
	b := r.buf[r.at : r.at+n]
	r.at += n
	return b
}

func (r *reader) byte() byte {
	if r.at >= r.end {
		r.malformed("unexpected end")
		return 0
	}
	b := r.buf[r.at]
	r.at++
	return b
}

// u32 reads an unsigned LEB128 number of 32 bits.
func (r *reader) u32() uint32 {
	if r.at < r.end && r.buf[r.at] < 0x80 { // nearly always
		r.at++
		return uint32(r.buf[r.at-1])
	}
	return r.longU32()
}

func (r *reader) longU32() uint32 {
	var v uint64
	for i := range 5 {
		if r.at+i >= r.end {
			r.malformed("unexpected end of a number")
			return 0
		}
		b := r.buf[r.at+i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if v > 1<<32-1 {
				break
			}
			r.at += i + 1
			return uint32(v)
		}
	}
	r.malformed("a number beyond 32 bits")
	return 0
}

// signed passes a signed LEB128 number of that many bits and returns it.
func (r *reader) signed(bits int) int64 {
	var v int64
	for shift := 0; shift < bits; shift += 7 {
		if r.at >= r.end {
			r.malformed("unexpected end of a number")
			return 0
		}
		b := r.buf[r.at]
		r.at++
		v |= int64(b&0x7f) << shift
		if b >= 0x80 {
			continue
		}
		if shift+7 < 64 && b&0x40 != 0 {
			v |= -1 << (shift + 7)
		}
		// What the last byte has beyond bits must repeat the sign.
		if rest := bits - shift; rest < 7 {
			if top := int8(b<<1) >> rest; top != 0 && top != -1 {
				break
			}
		}
		return v
	}
	r.malformed("a number beyond %d bits", bits)
	return 0
}

// count reads the length of a list whose items have at least one byte each.
func (r *reader) count(limit int, what string) int {
	at := r.at
	n := r.u32()
	switch {
	case r.err != nil:
		return 0
	case uint64(n) > uint64(r.end-r.at):
		r.fail(ErrMalformed, at, "%d %s in %d bytes", n, what, r.end-r.at)
		return 0
	case uint64(n) > uint64(limit):
		r.fail(ErrLimit, at, "%d %s, the limit is %d", n, what, limit)
		return 0
	}
	return int(n)
}

// index reads an index that must be below n.
func (r *reader) index(n int, what string) uint32 {
	at := r.at
	i := r.u32()
	if uint64(i) >= uint64(n) && r.err == nil {
		r.fail(ErrMalformed, at, "%s %d, there are %d", what, i, n)
		return 0
	}
	return i
}

// name reads a name of the standard: UTF-8 after its length.
func (r *reader) name() []byte {
	at := r.at
	n := r.u32()
	if uint64(n) > uint64(r.end-r.at) {
		r.fail(ErrMalformed, at, "a name of %d bytes in %d", n, r.end-r.at)
		return nil
	}
	b := r.take(int(n))
	if !utf8.Valid(b) {
		r.fail(ErrMalformed, at, "a name that is not UTF-8")
		return nil
	}
	return b
}

func (r *reader) valueType() byte {
	t := r.byte()
	r.checkType(t, r.at-1)
	return t
}

func (r *reader) checkType(t byte, at int) {
	switch t {
	case typeI32, typeI64, typeF32, typeF64, typeV128, typeFuncref, typeExternref, typeExnref:
	case 0x63, 0x64:
		r.fail(ErrMalformed, at, "a typed reference (%#x); the proposal is not supported", t)
	default:
		r.fail(ErrMalformed, at, "a value type %#x", t)
	}
}

// limits reads the least and the most of a table or a memory.
func (r *reader) limits(what string) (least, most uint32, bounded bool) {
	at := r.at
	switch flags := r.byte(); {
	case flags == 0:
		return r.u32(), 0, false
	case flags == 1:
		least, most = r.u32(), r.u32()
		if most < least {
			r.fail(ErrMalformed, at, "a %s with a minimum of %d and a maximum of %d", what, least, most)
		}
		return least, most, true
	case flags == 2, flags == 3:
		r.fail(ErrMalformed, at, "a shared %s; threads are not supported", what)
	case flags&4 != 0:
		r.fail(ErrMalformed, at, "a %s with 64-bit addresses; the proposal is not supported", what)
	default:
		r.fail(ErrMalformed, at, "limits of a %s of kind %#x", what, flags)
	}
	return 0, 0, false
}

func (r *reader) tagAttribute() {
	if a := r.byte(); a != 0 {
		r.fail(ErrMalformed, r.at-1, "a tag with attribute %#x", a)
	}
}
