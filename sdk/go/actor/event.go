package actor

import (
	"errors"
	"math"
	"strconv"
	"strings"

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
// With a "/" in it, it is an MQTT topic.
func Publish(topic string, e Event) error {
	b := msgpack.AppendMapHeader(make([]byte, 0, 128+len(e.Data)), 2)
	b = msgpack.AppendString(msgpack.AppendString(b, "topic"), topic)
	b = appendEvent(msgpack.AppendString(b, "event"), e)
	_, err := Call("edged:pubsub", "PubSub.Publish", b)
	return err
}

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

func decodeEvent(payload []byte) (e Event, err error) {
	d := msgpack.NewDecoder(payload)
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
	if err := d.Done(); err != nil {
		return Event{}, errors.New("event: " + err.Error())
	}
	return e, nil
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
