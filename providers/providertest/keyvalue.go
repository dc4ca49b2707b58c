package providertest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Requests and answers of wasmcloud:keyvalue.
type (
	kvSet struct {
		Key     string `msgpack:"key"`
		Value   string `msgpack:"value"`
		Expires uint32 `msgpack:"expires"` // seconds; 0 for never
	}
	kvGot struct {
		Value  string `msgpack:"value"`
		Exists bool   `msgpack:"exists"`
	}
	kvIncrement struct {
		Key   string `msgpack:"key"`
		Value int32  `msgpack:"value"`
	}
	kvList struct {
		Name  string `msgpack:"listName"`
		Value string `msgpack:"value"`
	}
	kvRange struct {
		Name  string `msgpack:"listName"`
		Start int32  `msgpack:"start"`
		Stop  int32  `msgpack:"stop"`
	}
	kvMember struct {
		Name  string `msgpack:"setName"`
		Value string `msgpack:"value"`
	}
)

// keyvalue checks the operations of wasmcloud:keyvalue, on keys that nobody else has and
// that are gone afterwards.
func keyvalue(s *session) {
	t := &kvTest{s: s, prefix: "edged-test:" + newID() + ":"}
	s.do("keyvalue-set-get", t.setGet)
	s.do("keyvalue-increment", t.increment)
	s.do("keyvalue-lists", t.lists)
	s.do("keyvalue-sets", t.sets)
	s.do("keyvalue-expires", t.expires)
	s.do("keyvalue-other-kind", t.otherKind)
	s.do("keyvalue-large", t.large)
	s.do("keyvalue-bad-request", t.badRequest)
	for _, key := range t.used {
		s.call(s.actor, Call{Operation: "KeyValue.Del", Payload: msgpack.AppendString(nil, key)})
	}
}

type kvTest struct {
	s      *session
	prefix string
	used   []string
}

// key is a key of this run.
func (t *kvTest) key(name string) string {
	key := t.prefix + name
	if !slices.Contains(t.used, key) {
		t.used = append(t.used, key)
	}
	return key
}

// do calls an operation and reads its answer into out, which is nil for operations
// without one.
func (t *kvTest) do(operation string, in, out any) error {
	payload, err := msgpack.Marshal(in)
	if err != nil {
		return err
	}
	o := t.s.call(t.s.actor, Call{Operation: "KeyValue." + operation, Payload: payload})
	switch {
	case o.err != nil:
		return fmt.Errorf("%s: %w", operation, o.err)
	case o.response.Failed:
		return fmt.Errorf("%s: %w", operation, kvError(o.response.Error))
	}
	reply := o.response.Payload
	if o.response.Chunked() {
		if reply, err = t.s.object(o.response.Object()); err != nil {
			return fmt.Errorf("%s: answer in the object store: %w", operation, err)
		}
	}
	if out == nil {
		if !msgpack.IsNothing(reply) {
			return fmt.Errorf("%s answers with % x, want nothing", operation, reply[:min(len(reply), 20)])
		}
		return nil
	}
	if err := msgpack.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("%s answers with % x: %w", operation, reply[:min(len(reply), 20)], err)
	}
	return nil
}

// kvError is an error that the provider has answered with.
type kvError string

func (e kvError) Error() string { return string(e) }

// step is an operation and what it has to answer with.
type step struct {
	operation string
	in, want  any // want is nil for an operation without an answer
}

func (t *kvTest) steps(all ...step) error {
	for n, step := range all {
		if step.want == nil {
			if err := t.do(step.operation, step.in, nil); err != nil {
				return fmt.Errorf("step %d: %w", n+1, err)
			}
			continue
		}
		got := reflect.New(reflect.TypeOf(step.want))
		if err := t.do(step.operation, step.in, got.Interface()); err != nil {
			return fmt.Errorf("step %d: %w", n+1, err)
		}
		if !reflect.DeepEqual(got.Elem().Interface(), step.want) {
			return fmt.Errorf("step %d: %s of %+v answers with %+v, want %+v", n+1, step.operation, step.in, got.Elem(), step.want)
		}
	}
	return nil
}

func (t *kvTest) setGet() error {
	a, odd := t.key("a"), t.key("ключ / \x01 'quoted\" %s")
	return t.steps(
		step{"Get", a, kvGot{}},
		step{"Contains", a, false},
		step{"Set", kvSet{a, "one", 0}, nil},
		step{"Get", a, kvGot{"one", true}},
		step{"Set", kvSet{a, "", 0}, nil},
		step{"Get", a, kvGot{"", true}},
		step{"Contains", a, true},
		step{"Set", kvSet{odd, "värde\x00\n", 0}, nil},
		step{"Get", odd, kvGot{"värde\x00\n", true}},
		step{"Del", a, true},
		step{"Del", a, false},
		step{"Get", a, kvGot{}},
		step{"Del", odd, true},
	)
}

func (t *kvTest) increment() error {
	n := t.key("n")
	return t.steps(
		step{"Increment", kvIncrement{n, 5}, int32(5)},
		step{"Increment", kvIncrement{n, -7}, int32(-2)},
		step{"Get", n, kvGot{"-2", true}},
		step{"Set", kvSet{n, "40", 0}, nil},
		step{"Increment", kvIncrement{n, 2}, int32(42)},
	)
}

func (t *kvTest) lists() error {
	l := t.key("list")
	return t.steps(
		step{"ListRange", kvRange{l, 0, -1}, []string{}},
		step{"ListAdd", kvList{l, "a"}, uint32(1)},
		step{"ListAdd", kvList{l, "b"}, uint32(2)},
		step{"ListAdd", kvList{l, "c"}, uint32(3)},
		step{"ListRange", kvRange{l, 0, 1}, []string{"a", "b"}},
		step{"ListRange", kvRange{l, -2, -1}, []string{"b", "c"}},
		step{"ListRange", kvRange{l, 0, 100}, []string{"a", "b", "c"}},
		step{"ListRange", kvRange{l, 5, 9}, []string{}},
		step{"ListDel", kvList{l, "b"}, true},
		step{"ListDel", kvList{l, "b"}, false},
		step{"ListRange", kvRange{l, 0, -1}, []string{"a", "c"}},
		step{"ListClear", l, true},
		step{"ListClear", l, false},
		step{"ListRange", kvRange{l, 0, -1}, []string{}},
	)
}

func (t *kvTest) sets() error {
	x, y := t.key("x"), t.key("y")
	if err := t.steps(
		step{"SetAdd", kvMember{x, "a"}, uint32(1)},
		step{"SetAdd", kvMember{x, "a"}, uint32(0)},
		step{"SetAdd", kvMember{x, "b"}, uint32(1)},
		step{"SetAdd", kvMember{y, "b"}, uint32(1)},
		step{"SetAdd", kvMember{y, "c"}, uint32(1)},
	); err != nil {
		return err
	}
	for _, c := range []struct {
		operation string
		in        any
		want      []string
	}{
		{"SetQuery", x, []string{"a", "b"}},
		{"SetUnion", []string{x, y}, []string{"a", "b", "c"}},
		{"SetIntersection", []string{x, y}, []string{"b"}},
		{"SetQuery", t.key("none"), []string{}},
	} {
		var got []string
		if err := t.do(c.operation, c.in, &got); err != nil {
			return err
		}
		slices.Sort(got) // a set has no order
		if !slices.Equal(got, c.want) {
			return fmt.Errorf("%s answers with %q, want %q", c.operation, got, c.want)
		}
	}
	return t.steps(
		step{"SetDel", kvMember{x, "a"}, uint32(1)},
		step{"SetDel", kvMember{x, "a"}, uint32(0)},
		step{"SetClear", x, true},
		step{"SetClear", x, false},
		step{"SetClear", y, true},
	)
}

func (t *kvTest) expires() error {
	e := t.key("expires")
	if err := t.steps(
		step{"Set", kvSet{e, "soon gone", 1}, nil},
		step{"Set", kvSet{t.key("stays"), "here", 3600}, nil},
	); err != nil {
		return err
	}
	if !t.s.until(t.s.o.Start, func() bool {
		var got bool
		return t.do("Contains", e, &got) == nil && !got
	}) {
		return fmt.Errorf("a key that was to expire after 1 s is there after %s", t.s.o.Start)
	}
	return t.steps(
		step{"Get", e, kvGot{}},
		step{"Get", t.key("stays"), kvGot{"here", true}},
	)
}

// otherKind uses a key for what it does not hold. It has to be refused, or change
// nothing; what Redis does.
func (t *kvTest) otherKind() error {
	text, list := t.key("text"), t.key("a list")
	if err := t.steps(step{"Set", kvSet{text, "words", 0}, nil}, step{"ListAdd", kvList{list, "a"}, uint32(1)}); err != nil {
		return err
	}
	for _, c := range []step{
		{"Increment", kvIncrement{text, 1}, int32(0)}, {"ListAdd", kvList{text, "x"}, uint32(0)}, {"SetAdd", kvMember{list, "x"}, uint32(0)},
	} {
		if err := t.do(c.operation, c.in, reflect.New(reflect.TypeOf(c.want)).Interface()); !errors.As(err, new(kvError)) {
			return fmt.Errorf("%s of a key of another kind is not refused: %w", c.operation, cmpError(err))
		}
	}
	return t.steps(step{"Get", text, kvGot{"words", true}}, step{"ListRange", kvRange{list, 0, -1}, []string{"a"}})
}

func cmpError(err error) error {
	if err == nil {
		return errors.New("it succeeds")
	}
	return err
}

// large sets a value that is larger than a message.
func (t *kvTest) large() error {
	key, value := t.key("large"), strings.Repeat("0123456789abcdef", 64<<10)
	payload, err := msgpack.Marshal(kvSet{key, value, 0})
	if err != nil {
		return err
	}
	i := t.s.signed(t.s.actor, Call{Operation: "KeyValue.Set", Payload: payload})
	o, err := t.s.askLarge(i, payload)
	switch {
	case err != nil:
		return err
	case o.err != nil:
		return o.err
	case o.response.Failed: // a provider may have a bound
		return t.steps(step{"Get", key, kvGot{}})
	}
	var got kvGot
	if err := t.do("Get", key, &got); err != nil {
		return err
	}
	if !got.Exists || got.Value != value {
		return fmt.Errorf("a value of %d bytes was set, and comes back with %d", len(value), len(got.Value))
	}
	return nil
}

// badRequest sends what is no request. It has to be refused.
func (t *kvTest) badRequest() error {
	for _, operation := range []string{"Get", "Set", "Increment", "ListAdd", "ListRange", "SetAdd", "SetUnion"} {
		o := t.s.call(t.s.actor, Call{Operation: "KeyValue." + operation, Payload: []byte{0xc3, 0xc3}})
		switch {
		case o.err != nil:
			return fmt.Errorf("%s with a request that makes no sense: %w", operation, o.err)
		case !o.response.Failed:
			return fmt.Errorf("%s takes a request that makes no sense", operation)
		}
	}
	return nil
}
