package actor

import (
	"math"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// KV is the actor's state, by its default link. What is written in a call is
// committed with the message that the call handles.
var KV KeyValue

// KeyValue is state behind a link (wasmcloud:keyvalue).
type KeyValue struct {
	Link string // "" for the default one
}

func (kv KeyValue) call(operation string, payload []byte) (*msgpack.Decoder, error) {
	link := kv.Link
	if link == "" {
		link = "default"
	}
	response, err := CallLink(link, "wasmcloud:keyvalue", operation, payload)
	return msgpack.NewDecoder(response), err
}

// Get returns the value of key, and whether there is one.
func (kv KeyValue) Get(key string) (value string, ok bool, err error) {
	d, err := kv.call("KeyValue.Get", msgpack.AppendString(nil, key))
	if err != nil {
		return "", false, err
	}
	for range d.Map() {
		switch string(d.Key()) {
		case "value":
			value = d.Str()
		case "exists":
			ok = d.Bool()
		default:
			d.Skip()
		}
	}
	return value, ok, d.Done()
}

// Set gives key a value.
func (kv KeyValue) Set(key, value string) error {
	b := msgpack.AppendMapHeader(nil, 3)
	b = msgpack.AppendString(msgpack.AppendString(b, "key"), key)
	b = msgpack.AppendString(msgpack.AppendString(b, "value"), value)
	b = msgpack.AppendUint(msgpack.AppendString(b, "expires"), 0) // never
	_, err := kv.call("KeyValue.Set", b)
	return err
}

// Delete removes key and says whether it was there.
func (kv KeyValue) Delete(key string) (bool, error) { return kv.ask("KeyValue.Del", key) }

// Contains says whether key has a value.
func (kv KeyValue) Contains(key string) (bool, error) { return kv.ask("KeyValue.Contains", key) }

func (kv KeyValue) ask(operation, key string) (bool, error) {
	d, err := kv.call(operation, msgpack.AppendString(nil, key))
	if err != nil {
		return false, err
	}
	v := d.Bool()
	return v, d.Done()
}

// Increment adds delta to the number at key, which begins as 0, and returns the
// sum.
func (kv KeyValue) Increment(key string, delta int32) (int32, error) {
	b := msgpack.AppendMapHeader(nil, 2)
	b = msgpack.AppendString(msgpack.AppendString(b, "key"), key)
	b = msgpack.AppendInt(msgpack.AppendString(b, "value"), int64(delta))
	d, err := kv.call("KeyValue.Increment", b)
	if err != nil {
		return 0, err
	}
	v := d.IntIn(math.MinInt32, math.MaxInt32)
	return int32(v), d.Done()
}
