package mqtt

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/internal/event"
)

// Headers and properties that have another name on the other side.
const (
	headerContentType = "content-type"
	headerTTL         = "Nats-TTL"
	prefixEvent       = "ce-"
)

// clientHeaders are the headers among those of NATS and of the box that any client may send: they identify a message, or say what it is ordered by.
var clientHeaders = []string{"Nats-Msg-Id", "Edged-Key", "Edged-Source", "Edged-Producer-Seq"}

// attribute says whether a user property of a CloudEvent in binary mode can be one of its attributes: there they have no prefix, extensions included, and
// are made of lower-case letters and digits (CloudEvents 1.0, naming conventions; MQTT binding, 3.1.3.2).
func attribute(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && name != "data"
}

// headerOf returns the NATS header block for the properties of a PUBLISH, nil if there is nothing to say. A user property becomes a line of
// its name; those of a CloudEvent in binary mode become ce- lines; the content type becomes content-type, and the expiry Nats-TTL. What NATS does not allow
// in a name is replaced by "_", in a value by a space. Names that mean something to NATS or to the box are left out, but for those that a client
// may send.
func headerOf(p *packets.Properties) []byte {
	var b []byte
	line := func(name, value string) {
		if name == "" {
			return
		}
		if b == nil {
			b = append(b, "NATS/1.0\r\n"...)
		}
		b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
	}
	if p.ContentType != "" {
		line(headerContentType, cleanValue(p.ContentType))
	}
	if p.MessageExpiryInterval > 0 {
		line(headerTTL, strconv.FormatUint(uint64(p.MessageExpiryInterval), 10))
	}
	binary := isEvent(p.User)
	for _, u := range p.User {
		name := cleanName(u.Key)
		switch {
		case reservedHeader(name):
		case binary && attribute(name):
			line(prefixEvent+name, escapeEvent(u.Val))
		default:
			line(name, cleanValue(u.Val))
		}
	}
	if b == nil {
		return nil
	}
	return append(b, "\r\n"...)
}

// isEvent says whether the user properties are those of a CloudEvent in binary mode.
func isEvent(user []packets.UserProperty) bool {
	found := 0
	for _, required := range [...]string{"specversion", "id", "source", "type"} {
		for _, u := range user {
			if u.Key == required && u.Val != "" {
				found++
				break
			}
		}
	}
	return found == 4
}

func reservedHeader(name string) bool {
	for _, prefix := range [...]string{"nats-", "edged-"} {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			return !slices.ContainsFunc(clientHeaders, func(h string) bool { return strings.EqualFold(name, h) })
		}
	}
	return strings.EqualFold(name, headerContentType)
}

func cleanName(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == ':' || r >= 0x7f {
			return '_'
		}
		return r
	}, s)
}

func cleanValue(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
}

// escapeEvent writes an attribute as internal/event reads it back: percent signs, space, quotes and what is not printable ASCII are escaped.
func escapeEvent(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// ttlOf returns how long a message is of use by its header, 0 if that does not say.
func ttlOf(h event.Header) time.Duration {
	text, _ := h.Get(headerTTL)
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d
	}
	return 0
}

// propertiesOf returns the properties that stand for a header block. Lines that MQTT can not hold, and those that belong to NATS and the box,
// are left out.
func propertiesOf(h event.Header) packets.Properties {
	var p packets.Properties
	h.Each(func(n, v []byte) bool {
		name, value := string(n), string(v)
		if !utf8.ValidString(name) || !utf8.ValidString(value) || strings.ContainsRune(value, 0) || strings.ContainsRune(name, 0) || len(value) > 65535 {
			return true
		}
		switch lower := strings.ToLower(name); {
		case lower == headerContentType:
			p.ContentType = value
		case reservedHeader(name):
		case strings.HasPrefix(lower, prefixEvent):
			if value, ok := unescapeEvent(value); ok {
				p.User = append(p.User, packets.UserProperty{Key: lower[len(prefixEvent):], Val: value})
			}
		default:
			p.User = append(p.User, packets.UserProperty{Key: name, Val: value})
		}
		return true
	})
	return p
}

// unescapeEvent is the other way of escapeEvent; ok is false for what MQTT can not hold.
func unescapeEvent(s string) (out string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			if hi, lo := unhex(s[i+1]), unhex(s[i+2]); hi >= 0 && lo >= 0 {
				c = byte(hi<<4 | lo)
				i += 2
			}
		}
		b.WriteByte(c)
	}
	out = b.String()
	return out, utf8.ValidString(out) && !strings.ContainsRune(out, 0)
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
