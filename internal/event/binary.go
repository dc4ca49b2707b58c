package event

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

const binaryPrefix = "ce-"

// Binary returns the event in binary mode: a header block, and the data as it is. The error is an ErrEvent or an ErrHeader.
func (e Event) Binary() (Header, []byte, error) {
	if err := e.check(); err != nil {
		return nil, nil, err
	}
	b := []byte(headerVersion + "\r\n")
	e.attributes(func(name, value string) {
		b = append(append(append(b, binaryPrefix...), name...), ": "...)
		b = append(appendPercent(b, value), "\r\n"...)
	})
	h := Header(append(b, "\r\n"...))
	if err := h.Check(); err != nil {
		return nil, nil, err
	}
	return h, e.Data, nil
}

func parseBinary(header Header, body []byte) (Event, bool) {
	e := Event{Data: body}
	version, ok := false, true
	header.Each(func(name, value []byte) bool {
		if hasPrefixFold(name, binaryPrefix) {
			attribute := strings.ToLower(string(name[len(binaryPrefix):]))
			version = version || attribute == "specversion"
			ok = e.set(attribute, unpercent(value))
		} else if e.DataContentType == "" && strings.EqualFold(string(name), "Content-Type") {
			e.DataContentType = string(value)
		}
		return ok
	})
	return e, ok && version && e.ID != "" && e.Source != ""
}

// check reports what keeps the event from being written.
func (e *Event) check() error {
	for _, a := range [...]struct{ name, value string }{{"id", e.ID}, {"source", e.Source}, {"type", e.Type}} {
		if a.value == "" {
			return fmt.Errorf("%w: no %s", ErrEvent, a.name)
		}
	}
	if len(e.Extensions) > MaxExtensions {
		return fmt.Errorf("%w: %d extensions, at most %d", ErrEvent, len(e.Extensions), MaxExtensions)
	}
	for name := range e.Extensions {
		if !extensionName(name) {
			return fmt.Errorf("%w: extension name %.80q", ErrEvent, name)
		}
	}
	return nil
}

// appendPercent encodes as the HTTP binding of CloudEvents does: space, the double quote, the percent sign, and everything that is not printable ASCII.
func appendPercent(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// unpercent decodes a value: what is in double quotes, where it is quoted as in HTTP (RFC 9110, 5.6.4), and then percent escapes. A percent sign that begins
// no escape stands for itself, for producers that do not encode.
func unpercent(v []byte) string {
	v = unquoted(v)
	if bytes.IndexByte(v, '%') < 0 {
		return string(v)
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '%' && i+2 < len(v) {
			if c, err := strconv.ParseUint(string(v[i+1:i+3]), 16, 8); err == nil {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, v[i])
	}
	return string(out)
}

// unquoted returns what a quoted string stands for, and anything else as it is.
func unquoted(v []byte) []byte {
	if len(v) < 2 || v[0] != '"' || v[len(v)-1] != '"' {
		return v
	}
	inner := v[1 : len(v)-1]
	if bytes.IndexByte(inner, '\\') < 0 && bytes.IndexByte(inner, '"') < 0 {
		return inner
	}
	out := make([]byte, 0, len(inner))
	for i := 0; i < len(inner); i++ {
		switch {
		case inner[i] == '"': // ends it too early, so it was not quoted
			return v
		case inner[i] == '\\' && i+1 == len(inner):
			return v
		case inner[i] == '\\':
			i++
		}
		out = append(out, inner[i])
	}
	return out
}
