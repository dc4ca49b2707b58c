package event

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// MaxHeaderBytes is the longest header block that is made or looked into.
const MaxHeaderBytes = 64 << 10

// ErrHeader is a header block, name or value that cannot be.
var ErrHeader = errors.New("not a legal header")

const headerVersion = "NATS/1.0"

// Header is a NATS header block as it is on the wire: "NATS/1.0", then lines "Name: value", then an empty line, each ended by CR LF. Nil is a message
// without headers. The methods read what is malformed as far as it makes sense and never panic; none changes the bytes it was given, and
// what they return may share them.
type Header []byte

// Check reports whether the block is nil, or well-formed and at most MaxHeaderBytes long. The error is an ErrHeader.
func (h Header) Check() error {
	if len(h) == 0 {
		return nil
	}
	if len(h) > MaxHeaderBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrHeader, len(h), MaxHeaderBytes)
	}
	rest, ok := bytes.CutSuffix(h, []byte("\r\n\r\n"))
	if !ok || !bytes.HasPrefix(rest, []byte(headerVersion)) {
		return fmt.Errorf("%w: the block does not begin with %s and end with an empty line", ErrHeader, headerVersion)
	}
	_, rest, more := bytes.Cut(rest, []byte("\r\n"))
	for more {
		var line []byte
		line, rest, more = bytes.Cut(rest, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || !validName(string(name)) || !validValue(string(value)) {
			return fmt.Errorf("%w: line %.80q", ErrHeader, line)
		}
	}
	return nil
}

// Each calls fn with each name and value, in order, values without the space around them, until fn returns false. The slices are parts of the block. It
// looks at the first MaxHeaderBytes and at nothing if the block does not begin with "NATS/1.0".
func (h Header) Each(fn func(name, value []byte) bool) {
	if !bytes.HasPrefix(h, []byte(headerVersion)) {
		return
	}
	h = h[:min(len(h), MaxHeaderBytes)]
	for begin, end := range h.lines {
		name, value, ok := bytes.Cut(h[begin:end], []byte(":"))
		if ok && !fn(bytes.TrimSpace(name), bytes.TrimSpace(value)) {
			return
		}
	}
}

// Get returns the first value of a name, in whichever case it is written.
func (h Header) Get(name string) (value string, ok bool) {
	h.Each(func(n, v []byte) bool {
		if len(n) == len(name) && strings.EqualFold(string(n), name) {
			value, ok = string(v), true
		}
		return !ok
	})
	return value, ok
}

// Append returns a new block that ends with one more line. A nil block becomes one. The error is an ErrHeader: for a name that is empty or holds a
// colon, space or control character, for a value with a control character, for a block that is not one, or for one that would become too long.
func (h Header) Append(name, value string) (Header, error) {
	if !validName(name) || !validValue(value) {
		return nil, fmt.Errorf("%w: %.80q with value %.80q", ErrHeader, name, value)
	}
	body := []byte(headerVersion + "\r\n")
	if len(h) > 0 {
		var ok bool
		if body, ok = bytes.CutSuffix(h, []byte("\r\n")); !ok || !bytes.HasPrefix(h, []byte(headerVersion)) || !bytes.HasSuffix(body, []byte("\r\n")) {
			return nil, fmt.Errorf("%w: the block does not begin with %s and end with an empty line", ErrHeader, headerVersion)
		}
	}
	size := len(body) + len(name) + len(": \r\n\r\n") + len(value)
	if size > MaxHeaderBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrHeader, size, MaxHeaderBytes)
	}
	out := make([]byte, 0, size)
	out = append(out, body...)
	out = append(append(append(out, name...), ": "...), value...)
	return append(out, "\r\n\r\n"...), nil
}

// Remove returns the block without the lines of a name, in whichever case it is written; the block itself if there is none.
func (h Header) Remove(name string) Header {
	return h.edit(name, func(out, line []byte, colon int) []byte {
		if len(bytes.TrimSpace(line[:colon])) == len(name) {
			return out
		}
		return append(out, line...)
	})
}

// RenamePrefix returns the block with prefix put before each name that begins with old, in whichever case it is written; the block itself if there is none.
// RenamePrefix("Nats-", "Edged-") is what the uplink does, so that the hub obeys the headers of the pump only. It has no limit: every line is renamed,
// and the block grows by len(prefix) for each.
func (h Header) RenamePrefix(old, prefix string) Header {
	return h.edit(old, func(out, line []byte, _ int) []byte {
		blank := len(line) - len(bytes.TrimLeft(line, " \t"))
		return append(append(append(out, line[:blank]...), prefix...), line[blank:]...)
	})
}

// edit copies the block and lets fn append each line whose name begins with start; colon is where the name ends.
func (h Header) edit(start string, fn func(out, line []byte, colon int) []byte) Header {
	var out []byte
	copied := 0
	for begin, end := range h.lines {
		line := h[begin:end]
		colon := bytes.IndexByte(line, ':')
		if colon < 0 || !hasPrefixFold(bytes.TrimSpace(line[:colon]), start) {
			continue
		}
		if out == nil {
			out = make([]byte, 0, len(h)+64)
		}
		out = fn(append(out, h[copied:begin]...), line, colon)
		copied = end
	}
	if out == nil {
		return h
	}
	return append(out, h[copied:]...)
}

// lines yields where each line after the first begins and ends, its line end included.
func (h Header) lines(yield func(begin, end int) bool) {
	begin := bytes.IndexByte(h, '\n') + 1
	for begin > 0 && begin < len(h) {
		end := len(h)
		if n := bytes.IndexByte(h[begin:], '\n'); n >= 0 {
			end = begin + n + 1
		}
		if !yield(begin, end) {
			return
		}
		begin = end
	}
}

func hasPrefixFold(name []byte, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(string(name[:len(prefix)]), prefix)
}

func validName(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] == ':' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

func validValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
