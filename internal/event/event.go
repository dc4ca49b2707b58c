// Package event reads and writes CloudEvents 1.0 as they travel in NATS messages, and says by which identity a message is recognised when it comes again.
//
// A message is an event in one of two ways. In binary mode its headers carry the attributes ("ce-id", "ce-source", "ce-type", …, percent-encoded as
// in the HTTP binding) and its body is the data. In structured mode its body is a JSON object with the attributes and the data; a Content-Type header of
// application/cloudevents+json says so, but an object with specversion, id and source is taken as one without it too, since MQTT 3.1.1 has no headers.
//
// Everything read here comes from strangers: what is malformed is not an event, sizes are bounded, nothing panics. All functions may be called
// concurrently.
package event

import (
	"bytes"
	"errors"
	"strings"
)

const (
	// MaxStructuredBytes is the longest body that is looked into for a structured event. A longer one is data and nothing else.
	MaxStructuredBytes = 8 << 20
	// MaxExtensions is how many extension attributes an event can have; one with more is not an event.
	MaxExtensions = 128
)

// ErrEvent is an event that cannot be written.
var ErrEvent = errors.New("not a CloudEvents 1.0 event")

// Event is a CloudEvents 1.0 event. ID, Source and Type are never empty in an event made by somebody who keeps to the standard; Parse insists on
// ID and Source only.
type Event struct {
	ID     string
	Source string
	Type   string

	// Data is the payload as it is: JSON text where DataContentType is a JSON type or empty, the text itself for other types. Nil for none.
	Data []byte

	Subject         string // what the event is about; see Parse
	Time            string // RFC 3339, as the producer wrote it
	DataContentType string
	DataSchema      string
	Extensions      map[string]string // by lower-case name; numbers and booleans as JSON writes them
}

// Parse reads the event in a message. Where the event has no subject of its own, the NATS subject of the message takes its place, so that a receiver of many
// subjects can tell them apart.
//
// For a message that is not an event it returns false, and an Event that carries the message anyway: body as Data, NATS subject as Subject,
// the Content-Type header as DataContentType, the Nats-Msg-Id header as ID; Source and Type are empty.
//
// Data may share the bytes of body.
func Parse(header Header, subject string, body []byte) (Event, bool) {
	e, ok := parse(header, body)
	if !ok {
		e = Event{Data: body}
		e.ID, _ = header.Get("Nats-Msg-Id")
		e.DataContentType, _ = header.Get("Content-Type")
	}
	if e.Subject == "" {
		e.Subject = subject
	}
	return e, ok
}

func parse(header Header, body []byte) (Event, bool) {
	if !structuredType(header) {
		if e, ok := parseBinary(header, body); ok {
			return e, true
		}
	}
	return parseStructured(body)
}

// structuredType reports whether a message says that its body is a structured event. Then ce- headers, should there be any, are copies.
func structuredType(header Header) bool {
	t, ok := header.Get("Content-Type")
	return ok && hasPrefixFold([]byte(t), "application/cloudevents")
}

// set gives the event an attribute by its name on the wire. It reports false where no event can have it.
func (e *Event) set(name, value string) bool {
	switch name {
	case "specversion":
		return strings.HasPrefix(value, "1.")
	case "id":
		e.ID = value
	case "source":
		e.Source = value
	case "type":
		e.Type = value
	case "subject":
		e.Subject = value
	case "time":
		e.Time = value
	case "datacontenttype":
		e.DataContentType = value
	case "dataschema":
		e.DataSchema = value
	default:
		if !extensionName(name) {
			return true // not an attribute, and no reason to lose the event
		}
		if e.Extensions == nil {
			e.Extensions = make(map[string]string)
		}
		e.Extensions[name] = value
		return len(e.Extensions) <= MaxExtensions
	}
	return true
}

// attributes calls fn with each attribute that is there, specversion first, extensions in the order of their names.
func (e *Event) attributes(fn func(name, value string)) {
	fn("specversion", "1.0")
	for _, a := range [...]struct{ name, value string }{
		{"id", e.ID}, {"source", e.Source}, {"type", e.Type}, {"subject", e.Subject},
		{"time", e.Time}, {"datacontenttype", e.DataContentType}, {"dataschema", e.DataSchema},
	} {
		if a.value != "" {
			fn(a.name, a.value)
		}
	}
	for _, name := range sortedKeys(e.Extensions) {
		fn(name, e.Extensions[name])
	}
}

// extensionName reports whether a name can be that of an extension: lower-case letters and digits (CloudEvents 1.0, "Naming conventions"), and none
// that means something else.
func extensionName(name string) bool {
	for i := 0; i < len(name); i++ {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	switch name {
	case "", "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data":
		return false
	}
	return len(name) <= 256
}

// jsonType reports whether data of this content type is JSON. No content type means JSON.
func jsonType(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.ToLower(strings.TrimSpace(t))
	return t == "" || strings.HasSuffix(t, "/json") || strings.HasSuffix(t, "+json")
}

// candidate reports, cheaply, whether a body could be a structured event.
func candidate(body []byte) bool {
	if len(body) > MaxStructuredBytes {
		return false
	}
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	return len(trimmed) > 0 && trimmed[0] == '{' && bytes.Contains(trimmed, []byte(`"specversion"`))
}
