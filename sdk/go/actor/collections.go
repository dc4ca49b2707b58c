package actor

import (
	"math"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// SetFor sets key to value until a time has passed, in whole seconds, and at
// least one.
func (kv KeyValue) SetFor(key, value string, ttl time.Duration) error {
	seconds := max((ttl+time.Second-1)/time.Second, 1)
	b := msgpack.AppendMapHeader(nil, 3)
	b = msgpack.AppendString(msgpack.AppendString(b, "key"), key)
	b = msgpack.AppendString(msgpack.AppendString(b, "value"), value)
	b = msgpack.AppendUint(msgpack.AppendString(b, "expires"), uint64(min(seconds, math.MaxUint32)))
	_, err := kv.call("KeyValue.Set", b)
	return err
}

// ListAdd adds value at the end of a list, and returns its new length.
func (kv KeyValue) ListAdd(list, value string) (int, error) {
	return kv.count("KeyValue.ListAdd", "listName", list, value)
}

// ListDelete removes all items of a list that are equal to value, and says
// whether there was one.
func (kv KeyValue) ListDelete(list, value string) (bool, error) {
	d, err := kv.call("KeyValue.ListDel", pair("listName", list, value))
	if err != nil {
		return false, err
	}
	v := d.Bool()
	return v, d.Done()
}

// ListRange returns the items from start to stop, both included, which count
// from 0, or, below it, from the end: -1 is the last one.
func (kv KeyValue) ListRange(list string, start, stop int) ([]string, error) {
	b := msgpack.AppendMapHeader(nil, 3)
	b = msgpack.AppendString(msgpack.AppendString(b, "listName"), list)
	b = msgpack.AppendInt(msgpack.AppendString(b, "start"), int64(start))
	b = msgpack.AppendInt(msgpack.AppendString(b, "stop"), int64(stop))
	return kv.items("KeyValue.ListRange", b)
}

// ListClear removes a list, and says whether there was one.
func (kv KeyValue) ListClear(list string) (bool, error) { return kv.ask("KeyValue.ListClear", list) }

// SetAdd adds value to a set, and says whether it was not there before.
func (kv KeyValue) SetAdd(set, value string) (bool, error) {
	n, err := kv.count("KeyValue.SetAdd", "setName", set, value)
	return n > 0, err
}

// SetDelete removes value from a set, and says whether it was there.
func (kv KeyValue) SetDelete(set, value string) (bool, error) {
	n, err := kv.count("KeyValue.SetDel", "setName", set, value)
	return n > 0, err
}

// SetClear removes a set, and says whether there was one.
func (kv KeyValue) SetClear(set string) (bool, error) { return kv.ask("KeyValue.SetClear", set) }

// Members returns the items of a set, sorted.
func (kv KeyValue) Members(set string) ([]string, error) {
	return kv.items("KeyValue.SetQuery", msgpack.AppendString(nil, set))
}

// Union returns what is in any of some sets, sorted.
func (kv KeyValue) Union(sets ...string) ([]string, error) {
	return kv.items("KeyValue.SetUnion", appendStrings(nil, sets))
}

// Intersection returns what is in all of some sets, sorted.
func (kv KeyValue) Intersection(sets ...string) ([]string, error) {
	return kv.items("KeyValue.SetIntersection", appendStrings(nil, sets))
}

func (kv KeyValue) count(operation, name, key, value string) (int, error) {
	d, err := kv.call(operation, pair(name, key, value))
	if err != nil {
		return 0, err
	}
	n := d.IntIn(0, math.MaxUint32)
	return int(n), d.Done()
}

func (kv KeyValue) items(operation string, payload []byte) ([]string, error) {
	d, err := kv.call(operation, payload)
	if err != nil {
		return nil, err
	}
	all := make([]string, d.Array())
	for i := range all {
		all[i] = d.Str()
	}
	return all, d.Done()
}

func pair(name, key, value string) []byte {
	b := msgpack.AppendMapHeader(nil, 2)
	b = msgpack.AppendString(msgpack.AppendString(b, name), key)
	return msgpack.AppendString(msgpack.AppendString(b, "value"), value)
}

func appendStrings(b []byte, all []string) []byte {
	b = msgpack.AppendArrayHeader(b, len(all))
	for _, s := range all {
		b = msgpack.AppendString(b, s)
	}
	return b
}
