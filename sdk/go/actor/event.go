package actor

import (
	"errors"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// An Event is a CloudEvents 1.0 event: what actors receive and publish. ID and
// Source together name it; an event with the same two is a repeat.
type Event struct {
	ID     string
	Source string
	Type   string
	Data   []byte

	// Optional ones; "" for none.
	Subject         string
	Time            string // RFC 3339
	DataContentType string
	DataSchema      string
	Extensions      map[string]string
}

// Topic is the topic or subject on which the event came.
func (e Event) Topic() string { return e.Extensions["topic"] }

// Levels are the parts of the topic: what is between its slashes or, where it
// has none, its dots.
func (e Event) Levels() []string {
	topic := e.Topic()
	if strings.Contains(topic, "/") {
		return strings.Split(topic, "/")
	}
	return strings.Split(topic, ".")
}

// Number reads the data as a number in JSON: a bare one, or that of a field of
// an object.
func (e Event) Number(field string) (float64, error) { return jsonNumber(e.Data, field) }

// Publish sends an event to a topic or subject, when the turn is committed.
// With a "/" in it, it is an MQTT topic. Options say when it is delivered, and
// in which order.
func Publish(topic string, e Event, options ...PublishOption) error {
	if len(options) > 0 {
		e.Extensions = maps.Clone(e.Extensions)
		if e.Extensions == nil {
			e.Extensions = map[string]string{}
		}
		for _, o := range options {
			e.Extensions[o.extension] = o.value
		}
	}
	b := msgpack.AppendMapHeader(make([]byte, 0, 128+len(e.Data)), 2)
	b = msgpack.AppendString(msgpack.AppendString(b, "topic"), topic)
	b = appendEvent(msgpack.AppendString(b, "event"), e)
	_, err := Call("edged:pubsub", "PubSub.Publish", b)
	return err
}

// A PublishOption says something about the event to Publish. It becomes an
// extension of the event, which an actor in another language can give itself.
type PublishOption struct{ extension, value string }

// Delay keeps the event in its stream for that long before it is delivered
// (extension notbefore, "+30s"). Where no stream holds its subject, Publish
// fails.
func Delay(d time.Duration) PublishOption { return PublishOption{"notbefore", "+" + d.String()} }

// NotBefore is Delay until a time of the day.
func NotBefore(t time.Time) PublishOption {
	return PublishOption{"notbefore", t.Format(time.RFC3339Nano)}
}

// TTL is how long the event is worth delivering (extension ttl, "1h0m0s"). What
// nobody was ready to take by then goes to the dead letters, or is dropped where
// nobody was subscribed.
func TTL(d time.Duration) PublishOption { return PublishOption{"ttl", d.String()} }

// Key names what the event is about (extension partitionkey). A subscription
// that is ordered by key delivers events of one key one after the other.
func Key(key string) PublishOption { return PublishOption{"partitionkey", key} }

func appendEvent(b []byte, e Event) []byte {
	optional := [...]struct{ key, value string }{
		{"subject", e.Subject}, {"time", e.Time}, {"datacontenttype", e.DataContentType}, {"dataschema", e.DataSchema},
	}
	n := 4
	for _, o := range optional {
		if o.value != "" {
			n++
		}
	}
	if len(e.Extensions) > 0 {
		n++
	}
	b = msgpack.AppendMapHeader(b, n)
	b = msgpack.AppendString(msgpack.AppendString(b, "id"), e.ID)
	b = msgpack.AppendString(msgpack.AppendString(b, "source"), e.Source)
	b = msgpack.AppendString(msgpack.AppendString(b, "type"), e.Type)
	b = msgpack.AppendBin(msgpack.AppendString(b, "data"), e.Data)
	for _, o := range optional {
		if o.value != "" {
			b = msgpack.AppendString(msgpack.AppendString(b, o.key), o.value)
		}
	}
	if len(e.Extensions) > 0 {
		b = msgpack.AppendMapHeader(msgpack.AppendString(b, "extensions"), len(e.Extensions))
		for k, v := range e.Extensions {
			b = msgpack.AppendString(msgpack.AppendString(b, k), v)
		}
	}
	return b
}

func decodeEvent(payload []byte) (Event, error) {
	d := msgpack.NewDecoder(payload)
	e := readEvent(d)
	if err := d.Done(); err != nil {
		return Event{}, errors.New("event: " + err.Error())
	}
	return e, nil
}

func readEvent(d *msgpack.Decoder) (e Event) {
	for range d.Map() {
		switch string(d.Key()) {
		case "id":
			e.ID = d.Str()
		case "source":
			e.Source = d.Str()
		case "type":
			e.Type = d.Str()
		case "data":
			e.Data = d.Bin()
		case "subject":
			e.Subject = d.Str()
		case "time":
			e.Time = d.Str()
		case "datacontenttype":
			e.DataContentType = d.Str()
		case "dataschema":
			e.DataSchema = d.Str()
		case "extensions":
			e.Extensions = decodeExtensions(d)
		default:
			d.Skip()
		}
	}
	return e
}

// decodeExtensions reads extension attributes, which are text, numbers or
// booleans, as text.
func decodeExtensions(d *msgpack.Decoder) map[string]string {
	n := d.Map()
	if n == 0 {
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		key := d.Str()
		switch d.Kind() {
		case msgpack.Bool:
			m[key] = strconv.FormatBool(d.Bool())
		case msgpack.Int:
			m[key] = strconv.FormatInt(d.IntIn(math.MinInt32, math.MaxInt32), 10) // CloudEvents 1.0, 3.1.1
		default:
			m[key] = d.Str()
		}
	}
	return m
}
