package blobstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Major types of CBOR (RFC 8949, 3.1), and the simple values that are used.
const (
	cborUint  = 0
	cborNeg   = 1
	cborBytes = 2
	cborText  = 3
	cborArray = 4
	cborMap   = 5
	cborTag   = 6

	cborFalse = 0xf4
	cborTrue  = 0xf5
	cborNull  = 0xf6
	cborUndef = 0xf7
	cborBreak = 0xff
)

func appendCBORHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

var (
	errCBOREnds  = errors.New("CBOR: value ends early")
	errCBORValue = errors.New("CBOR: not a value that is used here")
)

// fromCBOR returns one CBOR value as MessagePack.
func fromCBOR(b []byte) ([]byte, error) {
	c := &cborReader{in: b, out: make([]byte, 0, len(b)+len(b)/8+16)}
	if err := c.value(0); err != nil {
		return nil, err
	}
	if len(c.in) > 0 {
		return nil, errors.New("CBOR: bytes after the value")
	}
	return c.out, nil
}

// cborReader writes as MessagePack what it reads.
type cborReader struct{ in, out []byte }

// maxCBORDepth is how deep arrays and maps may nest.
const maxCBORDepth = 8

// head reads the head of an item. indefinite says that its length is told by a break.
func (c *cborReader) head() (major byte, n uint64, indefinite bool, err error) {
	if len(c.in) == 0 {
		return 0, 0, false, errCBOREnds
	}
	major, info := c.in[0]>>5, c.in[0]&0x1f
	c.in = c.in[1:]
	switch {
	case info < 24:
		return major, uint64(info), false, nil
	case info == 31 && major >= cborBytes && major <= cborMap:
		return major, 0, true, nil
	case info > 27:
		return 0, 0, false, errCBORValue
	}
	width := 1 << (info - 24)
	if len(c.in) < width {
		return 0, 0, false, errCBOREnds
	}
	for _, x := range c.in[:width] {
		n = n<<8 | uint64(x)
	}
	c.in = c.in[width:]
	return major, n, false, nil
}

func (c *cborReader) value(depth int) error {
	if depth > maxCBORDepth {
		return fmt.Errorf("CBOR: nested more than %d deep", maxCBORDepth)
	}
	if len(c.in) > 0 && c.in[0]>>5 == 7 {
		return c.simple()
	}
	major, n, indefinite, err := c.head()
	if err != nil {
		return err
	}
	switch major {
	case cborUint:
		c.out = msgpack.AppendUint(c.out, n)
	case cborNeg:
		if n > math.MaxInt64 {
			return errCBORValue
		}
		c.out = msgpack.AppendInt(c.out, -1-int64(n))
	case cborBytes, cborText:
		p, err := c.string(major, n, indefinite)
		if err != nil {
			return err
		}
		if major == cborText {
			c.out = msgpack.AppendString(c.out, string(p))
		} else {
			c.out = msgpack.AppendBin(c.out, p)
		}
	case cborArray:
		return c.items(depth, n, 1, indefinite, msgpack.AppendArrayHeader)
	case cborMap:
		return c.items(depth, n, 2, indefinite, msgpack.AppendMapHeader)
	default: // a tag says what the value behind it means, which is known here
		return c.value(depth + 1)
	}
	return nil
}

// simple reads a bool, a null or a float.
func (c *cborReader) simple() error {
	switch first := c.in[0]; first {
	case cborFalse, cborTrue:
		c.out = msgpack.AppendBool(c.out, first == cborTrue)
	case cborNull, cborUndef:
		c.out = msgpack.AppendNil(c.out)
	case 0xfa, 0xfb:
		width := 4 << (first - 0xfa)
		if len(c.in) <= width {
			return errCBOREnds
		}
		v := float64(math.Float32frombits(binary.BigEndian.Uint32(c.in[1:])))
		if width == 8 {
			v = math.Float64frombits(binary.BigEndian.Uint64(c.in[1:]))
		}
		c.out, c.in = msgpack.AppendFloat(c.out, v), c.in[width:]
	default:
		return errCBORValue
	}
	c.in = c.in[1:]
	return nil
}

// string reads bytes or text, in one piece or in several.
func (c *cborReader) string(major byte, n uint64, indefinite bool) ([]byte, error) {
	if !indefinite {
		if n > uint64(len(c.in)) {
			return nil, errCBOREnds
		}
		p := c.in[:n]
		c.in = c.in[n:]
		return p, nil
	}
	var all []byte
	for {
		if len(c.in) > 0 && c.in[0] == cborBreak {
			c.in = c.in[1:]
			return all, nil
		}
		m, n, again, err := c.head()
		switch {
		case err != nil:
			return nil, err
		case m != major || again:
			return nil, errCBORValue
		case n > uint64(len(c.in)):
			return nil, errCBOREnds
		}
		all, c.in = append(all, c.in[:n]...), c.in[n:]
	}
}

// items reads the items of an array, or the pairs of a map.
func (c *cborReader) items(depth int, n uint64, each int, indefinite bool, header func([]byte, int) []byte) error {
	if !indefinite {
		if n > uint64(len(c.in)/each) { // each takes a byte at least
			return errCBOREnds
		}
		c.out = header(c.out, int(n))
		for range int(n) * each {
			if err := c.value(depth + 1); err != nil {
				return err
			}
		}
		return nil
	}
	// The header comes first, and how many there are is known last.
	before := c.out
	c.out = nil
	count := 0
	for {
		if len(c.in) > 0 && c.in[0] == cborBreak {
			c.in = c.in[1:]
			break
		}
		for range each {
			if err := c.value(depth + 1); err != nil {
				return err
			}
		}
		count++
	}
	c.out = append(header(before, count), c.out...)
	return nil
}
