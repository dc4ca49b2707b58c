// Package topic translates MQTT topics and topic filters to NATS subjects and back, and answers the questions the broker asks about subjects.
//
// A topic is a list of levels joined by "/", a subject a list of tokens joined by "."; one level becomes one token. What a token cannot
// hold is written as a percent sign and two upper-case hexadecimal digits: ".", space, "*", ">", "%" and the ASCII control characters. An empty
// level becomes "%00", which no other level can become, since NUL is not legal in MQTT. In filters "+" becomes "*" and "#" becomes ">".
//
//	greenhouse/1.5/temp  <->  greenhouse.1%2E5.temp
//	/a//b                <->  %00.a.%00.b
//	a/+/c                 ->  a.*.c
//	a/#                   ->  a.> and a
//
// Topic(Subject(t)) is t for every legal topic t. The other way round, a subject has a topic only if it is one that Subject returns; any other
// is an ErrNoTopic, so that two subjects never share a topic. Topics that begin with "$" are translated like any other: keeping clients away from
// them, and from what wildcards must not reach (MQTT 3.1.1, 4.7.2), is left to the listener. So are shared subscriptions ("$share/…").
//
// All functions may be called concurrently.
package topic

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxBytes is the longest topic or topic filter, in bytes (MQTT 3.1.1, 1.5.3). A subject made from one can be up to four times as long; a NATS client
// connection takes only as much as its max_control_line allows.
const MaxBytes = 65535

// maxSubjectBytes is the subject of the topic that grows most: 65,535 slashes are 65,536 empty levels.
const maxSubjectBytes = 4*MaxBytes + 3

var (
	// ErrTopic is a topic that MQTT does not allow.
	ErrTopic = errors.New("not a legal MQTT topic")
	// ErrFilter is a topic filter or subject filter that MQTT or NATS does not allow.
	ErrFilter = errors.New("not a legal filter")
	// ErrSubject is a subject that NATS does not allow, or one with wildcards where none may be.
	ErrSubject = errors.New("not a legal subject")
	// ErrNoTopic is a legal subject that stands for no MQTT topic.
	ErrNoTopic = errors.New("subject has no MQTT topic")
)

// emptyLevel is the token of an empty level.
const emptyLevel = "%00"

// Subject returns the subject of an MQTT topic name. The error is an ErrTopic.
func Subject(topic string) (string, error) {
	if err := checkTopic(topic); err != nil {
		return "", fmt.Errorf("%w: %w", ErrTopic, err)
	}
	if strings.ContainsAny(topic, "+#") {
		return "", fmt.Errorf("%w: a wildcard in a topic name", ErrTopic)
	}
	return translate(topic), nil
}

// Topic returns the MQTT topic name of a subject. The error is an ErrSubject, or an ErrNoTopic for a subject that Subject never returns: one with "/",
// "+" or "#" in it, with a "*" or ">" inside a token, with a percent sign that is not an escape as Subject writes it, or that is not UTF-8.
func Topic(subject string) (string, error) {
	if !ValidSubject(subject) {
		return "", ErrSubject
	}
	var b strings.Builder
	b.Grow(len(subject))
	for first, rest := true, subject; first || rest != ""; first = false {
		var token string
		token, rest, _ = strings.Cut(rest, ".")
		if !first {
			b.WriteByte('/')
		}
		if err := decodeToken(&b, token); err != nil {
			return "", err
		}
	}
	t := b.String()
	if err := checkTopic(t); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoTopic, err)
	}
	return t, nil
}

// Filters returns the subject filters that together match exactly the subjects of the topics the MQTT topic filter matches: one, or two when the filter
// ends in "/#", since MQTT's "#" also matches the level above it (MQTT 3.1.1, 4.7.1.2) and NATS' ">" does not. The two never match the
// same subject. The error is an ErrFilter.
func Filters(filter string) ([]string, error) {
	if err := checkTopic(filter); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFilter, err)
	}
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case strings.Contains(level, "#") && (level != "#" || more):
			return nil, fmt.Errorf("%w: # is not the whole last level", ErrFilter)
		case strings.Contains(level, "+") && level != "+":
			return nil, fmt.Errorf("%w: + is not a whole level", ErrFilter)
		}
	}
	whole := translate(filter)
	parent, ok := strings.CutSuffix(filter, "/#")
	if !ok || parent == "" { // the level above "/#" would be the empty topic, which does not exist
		return []string{whole}, nil
	}
	return []string{whole, translate(parent)}, nil
}

// Resolve returns the subject of what an actor names as a topic: with a "/" in it, it is an MQTT topic name and is translated; without, it is
// a subject as it is. The error is an ErrTopic or an ErrSubject.
func Resolve(topicOrSubject string) (string, error) {
	if strings.Contains(topicOrSubject, "/") {
		return Subject(topicOrSubject)
	}
	if !ValidSubject(topicOrSubject) {
		return "", ErrSubject
	}
	return topicOrSubject, nil
}

// ResolveFilter is Resolve for what is received: an MQTT topic filter with a "/" in it, or a subject filter without. It returns one or two subject
// filters, as Filters does. The error is an ErrFilter.
func ResolveFilter(topicOrSubject string) ([]string, error) {
	if strings.Contains(topicOrSubject, "/") {
		return Filters(topicOrSubject)
	}
	if !ValidFilter(topicOrSubject) {
		return nil, ErrFilter
	}
	return []string{topicOrSubject}, nil
}

// checkTopic checks what holds for topic names and topic filters alike.
func checkTopic(t string) error {
	switch {
	case t == "":
		return errors.New("empty")
	case len(t) > MaxBytes:
		return fmt.Errorf("%d bytes, at most %d", len(t), MaxBytes)
	case strings.IndexByte(t, 0) >= 0:
		return errors.New("holds a NUL")
	case !utf8.ValidString(t):
		return errors.New("not UTF-8")
	}
	return nil
}

// translate writes a checked topic or filter as a subject.
func translate(t string) string {
	var b strings.Builder
	b.Grow(len(t) + 8)
	start := true // of a level
	for i := 0; i < len(t); i++ {
		switch c := t[i]; {
		case c == '/':
			if start {
				b.WriteString(emptyLevel)
			}
			b.WriteByte('.')
			start = true
			continue
		case c == '+': // only ever a whole level of a filter
			b.WriteByte('*')
		case c == '#':
			b.WriteByte('>')
		case escaped(c):
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		default:
			b.WriteByte(c)
		}
		start = false
	}
	if start {
		b.WriteString(emptyLevel)
	}
	return b.String()
}

const upperHex = "0123456789ABCDEF"

// escaped reports whether a byte of a level is written as an escape.
func escaped(c byte) bool {
	return c <= ' ' || c == 0x7f || c == '.' || c == '*' || c == '>' || c == '%'
}

// decodeToken appends the level of a token.
func decodeToken(b *strings.Builder, token string) error {
	if token == emptyLevel {
		return nil
	}
	for i := 0; i < len(token); i++ {
		c := token[i]
		switch c {
		case '/', '+', '#', '*', '>':
			return fmt.Errorf("%w: %q inside a token", ErrNoTopic, c)
		case '%':
			if i+2 >= len(token) {
				return fmt.Errorf("%w: a %% without two digits", ErrNoTopic)
			}
			hi, lo := strings.IndexByte(upperHex, token[i+1]), strings.IndexByte(upperHex, token[i+2])
			if hi < 0 || lo < 0 || hi<<4|lo == 0 || !escaped(byte(hi<<4|lo)) {
				return fmt.Errorf("%w: %q is not an escape", ErrNoTopic, token[i:i+3])
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		b.WriteByte(c)
	}
	return nil
}
