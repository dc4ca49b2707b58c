package actor

import (
	"errors"
	"strconv"
)

// maxJSONDepth is how deep a value beside the wanted one may nest.
const maxJSONDepth = 64

var errNumber = errors.New("not a number in JSON, nor an object with one")

// jsonNumber reads JSON that is a number, or an object with a number at field.
// Of a field that is there twice the last one counts, as with other readers.
func jsonNumber(data []byte, field string) (float64, error) {
	s := &scanner{data: data}
	s.space()
	var number []byte
	found := false
	if s.peek() == '{' {
		s.object(0, func(key string) bool {
			if key != field {
				return false
			}
			number, found = s.number(), true
			return true
		})
	} else {
		number, found = s.number(), true
	}
	s.space()
	if s.bad || !found || s.at != len(s.data) {
		return 0, errNumber
	}
	return strconv.ParseFloat(string(number), 64)
}

// A scanner reads over JSON (RFC 8259) and remembers whether it was any.
type scanner struct {
	data []byte
	at   int
	bad  bool
}

// peek is the next byte, or 0 at the end or after a fault; no JSON has a 0
// where peek looks.
func (s *scanner) peek() byte {
	if s.bad || s.at >= len(s.data) {
		return 0
	}
	return s.data[s.at]
}

func (s *scanner) space() {
	for c := s.peek(); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = s.peek() {
		s.at++
	}
}

func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.at++
	return true
}

func (s *scanner) need(c byte) {
	if !s.take(c) {
		s.bad = true
	}
}

// object reads an object. visit is called with each key where its value begins,
// and reads the value or returns false.
func (s *scanner) object(depth int, visit func(key string) bool) {
	s.need('{')
	s.space()
	if s.take('}') {
		return
	}
	for !s.bad {
		s.space()
		start := s.at
		s.text()
		// Unquote knows JSON's escapes except "\/" and surrogate pairs; a key
		// written with these is no field's.
		key, err := strconv.Unquote(string(s.data[start:s.at]))
		s.space()
		s.need(':')
		s.space()
		if s.bad || err != nil || !visit(key) {
			s.value(depth + 1)
		}
		s.space()
		if s.take('}') {
			return
		}
		s.need(',')
	}
}

func (s *scanner) array(depth int) {
	s.need('[')
	s.space()
	if s.take(']') {
		return
	}
	for !s.bad {
		s.space()
		s.value(depth + 1)
		s.space()
		if s.take(']') {
			return
		}
		s.need(',')
	}
}

func (s *scanner) value(depth int) {
	if depth > maxJSONDepth {
		s.bad = true
		return
	}
	switch s.peek() {
	case '{':
		s.object(depth, func(string) bool { return false })
	case '[':
		s.array(depth)
	case '"':
		s.text()
	case 't':
		s.word("true")
	case 'f':
		s.word("false")
	case 'n':
		s.word("null")
	default:
		s.number()
	}
}

func (s *scanner) word(w string) {
	for i := range len(w) {
		s.need(w[i])
	}
}

func (s *scanner) text() {
	s.need('"')
	for !s.bad {
		switch c := s.peek(); {
		case c < 0x20:
			s.bad = true
		case c == '"':
			s.at++
			return
		case c == '\\':
			s.at++
			s.escape()
		default:
			s.at++
		}
	}
}

func (s *scanner) escape() {
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at++
	case 'u':
		s.at++
		for range 4 {
			c := s.peek() | 0x20 // to lower case; digits stay
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
				s.bad = true
				return
			}
			s.at++
		}
	default:
		s.bad = true
	}
}

// number reads a number and returns its text.
func (s *scanner) number() []byte {
	start := s.at
	s.take('-')
	if !s.take('0') {
		s.digits()
	}
	if s.take('.') {
		s.digits()
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		s.digits()
	}
	if s.bad {
		return nil
	}
	return s.data[start:s.at]
}

// digits reads at least one digit.
func (s *scanner) digits() {
	start := s.at
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.at++
	}
	if s.at == start {
		s.bad = true
	}
}
