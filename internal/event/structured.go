package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// JSON returns the event in structured mode: one JSON object. Data is written so that Parse gives back the same bytes: as it is where it is JSON, as a
// string where it is text of another type, else as data_base64. The error is an ErrEvent.
func (e Event) JSON() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	out := []byte{'{'}
	var bad error
	e.attributes(func(name, value string) {
		if !utf8.ValidString(value) {
			bad = fmt.Errorf("%w: %s is not UTF-8", ErrEvent, name)
		}
		out = append(appendString(append(appendString(out, name), ':'), value), ',')
	})
	if bad != nil {
		return nil, bad
	}
	switch {
	case e.Data == nil:
		out = out[:len(out)-1] // the last comma
	case jsonType(e.DataContentType) && plainJSON(e.Data):
		out = append(append(out, `"data":`...), e.Data...)
	case !jsonType(e.DataContentType) && utf8.Valid(e.Data):
		out = appendString(append(out, `"data":`...), string(e.Data))
	default:
		out = append(base64.StdEncoding.AppendEncode(append(out, `"data_base64":"`...), e.Data), '"')
	}
	return append(out, '}'), nil
}

// plainJSON reports whether data can be put into an object and taken out again unchanged.
func plainJSON(data []byte) bool {
	return json.Valid(data) && len(bytes.TrimSpace(data)) == len(data) && string(data) != "null"
}

func appendString(out []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // a string always has a JSON form
		panic(err)
	}
	return append(out, quoted...)
}

func parseStructured(body []byte) (Event, bool) {
	if !candidate(body) {
		return Event{}, false
	}
	var e Event
	var data, base []byte
	version := false
	ok := members(body, func(name string, value []byte) bool {
		switch name {
		case "data":
			data = value
			return true
		case "data_base64":
			base = value
			return true
		}
		s, text := scalar(value)
		if !text {
			return true
		}
		version = version || name == "specversion"
		return e.set(name, s)
	})
	if !ok || !version || e.ID == "" || e.Source == "" {
		return Event{}, false
	}
	switch {
	case base != nil && string(base) != "null" && data != nil && string(data) != "null":
		return Event{}, false // one or the other (JSON event format 1.0, 3.1)
	case base != nil && string(base) != "null":
		decoded, err := base64.StdEncoding.DecodeString(unquote(base))
		if err != nil || base[0] != '"' {
			return Event{}, false
		}
		e.Data = decoded
	case data == nil || string(data) == "null":
	case data[0] == '"' && !jsonType(e.DataContentType):
		e.Data = []byte(unquote(data))
	default:
		e.Data = data
	}
	return e, true
}

// scalar returns an attribute's value as text: strings decoded, numbers and booleans as written. Objects, arrays and null are no attribute values.
func scalar(value []byte) (string, bool) {
	switch value[0] {
	case '"':
		return unquote(value), true
	case '{', '[', 'n':
		return "", false
	}
	return string(value), true
}

// unquote decodes a JSON string that is known to be valid; of anything else it returns "".
func unquote(value []byte) string {
	if len(value) < 2 || value[0] != '"' {
		return ""
	}
	if inner := value[1 : len(value)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner)
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

// members calls fn with each member of a JSON object, in order, value without the space around it, until fn returns false. It returns false then, and
// when body is not a JSON object. encoding/json is not used for this, because it would take "ID" for "id" and allocate for each message that comes in.
func members(body []byte, fn func(name string, value []byte) bool) bool {
	if !json.Valid(body) {
		return false
	}
	rest := bytes.TrimSpace(body)
	if rest[0] != '{' {
		return false
	}
	rest = bytes.TrimLeft(rest[1:], space)
	for rest[0] != '}' {
		name := rest[:valueEnd(rest)]
		rest = bytes.TrimLeft(rest[len(name):], space)
		rest = bytes.TrimLeft(rest[1:], space) // the colon
		value := rest[:valueEnd(rest)]
		rest = bytes.TrimLeft(rest[len(value):], space)
		if !fn(unquote(name), value[:len(value):len(value)]) {
			return false
		}
		if rest[0] == ',' {
			rest = bytes.TrimLeft(rest[1:], space)
		}
	}
	return true
}

const space = " \t\r\n"

// valueEnd returns the length of the value that b begins with, in text known to be valid JSON.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 { // a bare value, ended by what it is in
				return i
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
