package keyvalue_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/keyvalue"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// redis is a bucket as it should be, in plain Go: strings, lists, and sets as
// maps.
type redis map[string]any

// do returns the reply as show has it, or "error".
func (r redis) do(op, key, value string, by, start, stop int) string {
	switch op {
	case "Del", "Contains":
		_, ok := r[key]
		if op == "Del" {
			delete(r, key)
		}
		return fmt.Sprint(ok)
	case "Set":
		r[key] = value
		return "-"
	}
	v, ok := r[key]
	text, isText := v.(string)
	list, isList := v.([]string)
	set, isSet := v.(map[string]bool)
	wrong := map[string]bool{"Get": !isText, "Increment": !isText, "ListAdd": !isList, "ListDel": !isList, "ListClear": !isList, "ListRange": !isList, "SetAdd": !isSet, "SetDel": !isSet, "SetClear": !isSet, "SetQuery": !isSet}
	if ok && wrong[op] {
		return "error"
	}
	switch op {
	case "Get":
		return fmt.Sprintf("value=%s,exists=%v", text, ok)
	case "Increment":
		n, err := strconv.ParseInt(text, 10, 32)
		if ok && err != nil || n+int64(by) != int64(int32(n+int64(by))) {
			return "error"
		}
		r[key] = fmt.Sprint(n + int64(by))
		return r[key].(string)
	case "ListAdd":
		r[key] = append(slices.Clone(list), value)
		return fmt.Sprint(len(list) + 1)
	case "ListDel":
		rest := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == value })
		if r[key] = rest; len(rest) == 0 {
			delete(r, key)
		}
		return fmt.Sprint(len(rest) < len(list))
	case "ListClear", "SetClear":
		delete(r, key)
		return fmt.Sprint(ok)
	case "ListRange":
		// As LRANGE: out of range is cut, and an end before the start is nothing.
		var got []string
		for i, s := range list {
			first, last := start, stop
			if first < 0 {
				first += len(list)
			}
			if last < 0 {
				last += len(list)
			}
			if i >= first && i <= last {
				got = append(got, s)
			}
		}
		return fmt.Sprint(got)
	case "SetAdd":
		if set[value] {
			return "0"
		}
		set = maps.Clone(set)
		if set == nil {
			set = map[string]bool{}
		}
		set[value] = true
		r[key] = set
		return "1"
	case "SetDel":
		if !set[value] {
			return "0"
		}
		set = maps.Clone(set)
		if delete(set, value); len(set) == 0 {
			delete(r, key)
		} else {
			r[key] = set
		}
		return "1"
	}
	return fmt.Sprint(slices.Sorted(maps.Keys(set))) // SetQuery
}

func (r redis) combine(op string, keys []string) string {
	count := map[string]int{}
	for _, k := range keys {
		set, isSet := r[k].(map[string]bool)
		if _, ok := r[k]; ok && !isSet {
			return "error"
		}
		for s := range set {
			count[s]++
		}
	}
	var all []string
	for s, n := range count {
		if op == "SetUnion" || n == len(keys) {
			all = append(all, s)
		}
	}
	slices.Sort(all)
	return fmt.Sprint(all)
}

// TestProvider_model runs random operations, alone and several in a turn that
// may fail, against the model, with restarts in between.
func TestProvider_model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("/dev/shm", "kv")
		if err != nil {
			dir, err = os.MkdirTemp("", "kv")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		var db *store.DB
		var p *keyvalue.Provider
		open := func() {
			if db, err = store.Open(store.Options{Dir: dir}); err != nil {
				t.Fatal(err)
			}
			p = keyvalue.New(db)
			if err := p.PutLink(t.Context(), lattice.Link{Actor: "a", Name: "default"}); err != nil {
				t.Fatal(err)
			}
		}
		open()
		defer func() { db.Close() }()
		want := redis{}
		one := func(t *rapid.T, turn *store.Turn, want redis) {
			op := rapid.SampledFrom([]string{
				"Get", "Set", "Del", "Contains", "Increment", "ListAdd", "ListAdd", "ListClear", "ListDel", "ListRange",
				"SetAdd", "SetAdd", "SetClear", "SetDel", "SetQuery", "SetUnion", "SetIntersection",
			}).Draw(t, "op")
			key := rapid.SampledFrom([]string{"", "k", "schlüssel"}).Draw(t, "key")
			value := rapid.SampledFrom([]string{"", "7", "-2147483648", "x", "größer"}).Draw(t, "value")
			by := rapid.SampledFrom([]int{1, -1, 0, 2147483647, -2147483648}).Draw(t, "by")
			start, stop := rapid.IntRange(-4, 4).Draw(t, "start"), rapid.IntRange(-4, 4).Draw(t, "stop")
			var payload []byte
			expected := ""
			switch op {
			case "Get", "Del", "Contains", "ListClear", "SetClear", "SetQuery":
				payload = str(key)
			case "Set":
				payload = fields("key", key, "value", value)
			case "Increment":
				payload = fields("key", key, "value", by)
			case "ListAdd", "ListDel":
				payload = fields("listName", key, "value", value)
			case "ListRange":
				payload = fields("listName", key, "start", start, "stop", stop)
			case "SetAdd", "SetDel":
				payload = fields("setName", key, "value", value)
			default:
				keys := rapid.SliceOfN(rapid.SampledFrom([]string{"", "k", "schlüssel", "none"}), 0, 3).Draw(t, "keys")
				payload = msgpack.AppendArrayHeader(nil, len(keys))
				for _, k := range keys {
					payload = msgpack.AppendString(payload, k)
				}
				expected = want.combine(op, keys)
			}
			if expected == "" {
				expected = want.do(op, key, value, by, start, stop)
			}
			reply, err := p.Call(store.WithTurn(t.Context(), turn), lattice.Invocation{
				Origin: lattice.Entity{Key: "a"}, Target: lattice.Entity{Key: "keyvalue", Link: "default"}, Operation: "KeyValue." + op, Payload: payload,
			})
			got := "error"
			if err == nil && len(reply) == 0 {
				got = "-"
			} else if err == nil {
				got = show(msgpack.NewDecoder(reply))
			}
			if got != expected {
				t.Fatalf("%s %x: got %s (%v), want %s", op, payload, got, err, expected)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"one": func(t *rapid.T) { one(t, nil, want) },
			"turn": func(t *rapid.T) {
				turn := db.Begin()
				after := maps.Clone(want)
				for range rapid.IntRange(1, 5).Draw(t, "operations") {
					one(t, turn, after)
				}
				if rapid.Bool().Draw(t, "fails") {
					turn.Discard()
					return
				}
				if err := turn.Commit(); err != nil {
					t.Fatal(err)
				}
				want = after
			},
			"reopen": func(t *rapid.T) {
				db.Close()
				open()
			},
		})
	})
}
