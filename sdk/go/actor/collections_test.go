package actor

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// asked is what a fake box was asked for, and answers.
func asked(t *testing.T, answer string) *[]string {
	t.Helper()
	var all []string
	before := SetHost(func(link, target, operation string, payload []byte) ([]byte, error) {
		all = append(all, fmt.Sprintf("%s %s %s %x", link, target, operation, payload))
		if answer == "fails" {
			return nil, errors.New("keyvalue: unavailable: state is full")
		}
		return []byte(answer), nil
	})
	t.Cleanup(func() { SetHost(before) })
	return &all
}

func TestKeyValue_collections(t *testing.T) {
	kv := KeyValue{Link: "other"}
	for _, c := range []struct {
		answer string
		call   func() (any, error)
		want   string
		sent   string
	}{
		{"", func() (any, error) { return nil, kv.SetFor("k", "v", 1500*time.Millisecond) }, "<nil>", "KeyValue.Set 83a36b6579a16ba576616c7565a176a76578706972657302"},
		{"", func() (any, error) { return nil, kv.SetFor("k", "v", -1) }, "<nil>", "KeyValue.Set 83a36b6579a16ba576616c7565a176a76578706972657301"},
		{"\x05", func() (any, error) { return kv.ListAdd("l", "v") }, "5", "KeyValue.ListAdd 82a86c6973744e616d65a16ca576616c7565a176"},
		{"\xc3", func() (any, error) { return kv.ListDelete("l", "v") }, "true", "KeyValue.ListDel 82a86c6973744e616d65a16ca576616c7565a176"},
		{"\x92\xa1a\xa1b", func() (any, error) { return kv.ListRange("l", 0, -1) }, "[a b]", "KeyValue.ListRange 83a86c6973744e616d65a16ca5737461727400a473746f70ff"},
		{"\xc2", func() (any, error) { return kv.ListClear("l") }, "false", "KeyValue.ListClear a16c"},
		{"\x01", func() (any, error) { return kv.SetAdd("s", "v") }, "true", "KeyValue.SetAdd 82a77365744e616d65a173a576616c7565a176"},
		{"\x00", func() (any, error) { return kv.SetDelete("s", "v") }, "false", "KeyValue.SetDel 82a77365744e616d65a173a576616c7565a176"},
		{"\xc3", func() (any, error) { return kv.SetClear("s") }, "true", "KeyValue.SetClear a173"},
		{"\x90", func() (any, error) { return kv.Members("s") }, "[]", "KeyValue.SetQuery a173"},
		{"\x91\xa1a", func() (any, error) { return kv.Union("s", "t") }, "[a]", "KeyValue.SetUnion 92a173a174"},
		{"\x91\xa1a", func() (any, error) { return kv.Intersection() }, "[a]", "KeyValue.SetIntersection 90"},
	} {
		sent := asked(t, c.answer)
		got, err := c.call()
		if err != nil || fmt.Sprint(got) != c.want || len(*sent) != 1 || (*sent)[0] != "other wasmcloud:keyvalue "+c.sent {
			t.Errorf("got %v, %v; sent %q, want %s", got, err, *sent, c.sent)
		}
		if asked(t, "fails"); true {
			if _, err := c.call(); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: got %v", c.sent, err)
			}
		}
		if c.answer == "" {
			continue
		}
		if asked(t, "\xd9"); true { // a length, and no more
			if _, err := c.call(); err == nil {
				t.Errorf("%s: a torn answer is taken", c.sent)
			}
		}
	}
}

func TestRandom(t *testing.T) {
	sent := asked(t, "\xa3abc")
	if id, err := Random.GUID(); err != nil || id != "abc" || (*sent)[0] != "default wasmcloud:builtin:numbergen NumberGen.GenerateGuid " {
		t.Errorf("got %q, %v, sent %q", id, err, *sent)
	}
	sent = asked(t, "\xce\xff\xff\xff\xff")
	if n, err := Random.Uint32(); err != nil || n != 1<<32-1 {
		t.Errorf("got %d, %v", n, err)
	}
	if n, err := Random.InRange(1, 6); err != nil || n != 1<<32-1 || (*sent)[1] != "default wasmcloud:builtin:numbergen NumberGen.RandomInRange 82a36d696e01a36d617806" {
		t.Errorf("got %d, %v, sent %q", n, err, *sent)
	}
	asked(t, "fails")
	if _, err := Random.Uint32(); err == nil {
		t.Error("an error is none")
	}
}
