package pubsub

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// The MessagePack of edged:pubsub. An event is a map: id, source, type as str,
// data as bin, and optional subject, time, datacontenttype, dataschema as str
// and extensions as a map of str to str.

func decodePublish(payload []byte) (to string, e event.Event, err error) {
	d := providers.Decoder(payload)
	for range d.Map() {
		switch string(d.Key()) {
		case "topic":
			to = d.Str()
		case "event":
			e = decodeEvent(d)
		default:
			d.Skip()
		}
	}
	if err := d.Done(); err != nil {
		return "", e, err
	}
	if e.ID == "" || e.Source == "" || e.Type == "" {
		return "", e, errors.New("an event needs id, source and type")
	}
	return to, e, nil
}

func decodeEvent(d *msgpack.Decoder) (e event.Event) {
	for range d.Map() {
		switch string(d.Key()) {
		case "id":
			e.ID = d.Str()
		case "source":
			e.Source = d.Str()
		case "type":
			e.Type = d.Str()
		case "data":
			e.Data = append([]byte{}, d.Bin()...)
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
	m := make(map[string]string, min(n, event.MaxExtensions+1))
	for range n {
		key := string(d.Key())
		switch d.Kind() {
		case msgpack.Bool:
			m[key] = strconv.FormatBool(d.Bool())
		case msgpack.Int:
			m[key] = strconv.FormatInt(d.IntIn(math.MinInt32, math.MaxInt32), 10) // CloudEvents 1.0, 3.1.1
		default:
			m[key] = d.Str()
		}
		if len(m) > event.MaxExtensions { // the event is refused for it
			return m
		}
	}
	return m
}

// request is what the operations that receive take; each uses a part of it.
type request struct {
	topic string
	id    string
	max   int
	wait  time.Duration
}

func decodeRequest(payload []byte) (r request, err error) {
	d := providers.Decoder(payload)
	for range d.Map() {
		switch string(d.Key()) {
		case "topic":
			r.topic = d.Str()
		case "id":
			r.id = d.Str()
		case "max":
			r.max = int(d.IntIn(0, math.MaxInt32))
		case "waitMs":
			r.wait = time.Duration(d.IntIn(0, math.MaxInt32)) * time.Millisecond
		default:
			d.Skip()
		}
	}
	return r, d.Done()
}

// AppendEvent appends the MessagePack of e, the payload of PubSub.OnMessage.
func AppendEvent(b []byte, e event.Event) []byte {
	optional := []struct{ name, value string }{
		{"subject", e.Subject}, {"time", e.Time},
		{"datacontenttype", e.DataContentType}, {"dataschema", e.DataSchema},
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
	for _, s := range []struct{ name, value string }{{"id", e.ID}, {"source", e.Source}, {"type", e.Type}} {
		b = msgpack.AppendString(msgpack.AppendString(b, s.name), s.value)
	}
	b = msgpack.AppendBin(msgpack.AppendString(b, "data"), e.Data)
	for _, o := range optional {
		if o.value != "" {
			b = msgpack.AppendString(msgpack.AppendString(b, o.name), o.value)
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

// Verdict is what an actor answered to PubSub.OnMessage.
type Verdict struct {
	Action string        // "" acknowledges; "retry"; "reject"
	After  time.Duration // of "retry"; 0 leaves it to the subscription
	Reason string        // of "reject"
}

// DecodeVerdict reads the answer to PubSub.OnMessage.
func DecodeVerdict(reply []byte) (v Verdict, err error) {
	if msgpack.IsNothing(reply) {
		return v, nil
	}
	d := providers.Decoder(reply)
	for range d.Map() {
		switch string(d.Key()) {
		case "action":
			v.Action = d.Str()
		case "afterMs":
			v.After = time.Duration(d.IntIn(0, math.MaxInt32)) * time.Millisecond
		case "reason":
			v.Reason = d.Str()
		default:
			d.Skip()
		}
	}
	if err := d.Done(); err != nil {
		return v, fmt.Errorf("answer of the actor: %w", err)
	}
	switch v.Action {
	case "", "ack", "retry", "reject":
		return v, nil
	}
	return v, fmt.Errorf("answer of the actor: unknown action %.40q", v.Action)
}
