package main

import (
	"strings"
	"testing"

	"github.com/edged-io/edged/sdk/go/actor"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// waiting is a box with readings that wait.
func waiting(readings ...string) actor.Host {
	return func(_, _, operation string, payload []byte) ([]byte, error) {
		switch operation {
		case "PubSub.Stream":
			return msgpack.AppendString(msgpack.AppendString(msgpack.AppendMapHeader(nil, 1), "id"), "s"), nil
		case "PubSub.Next":
			b := msgpack.AppendString(msgpack.AppendMapHeader(nil, 1), "events")
			b = msgpack.AppendArrayHeader(b, len(readings))
			for _, r := range readings {
				b = msgpack.AppendString(msgpack.AppendMapHeader(b, 1), "data")
				b = msgpack.AppendBin(b, []byte(r))
			}
			readings = nil
			return b, nil
		case "PubSub.Publish":
			published = string(payload)
		}
		return nil, nil
	}
}

var published string

func TestCollect(t *testing.T) {
	before := actor.SetHost(waiting("10", `{"value":20}`, "wet"))
	t.Cleanup(func() { actor.SetHost(before) })
	ask := func() string {
		published = ""
		if _, err := actor.Deliver("", actor.Event{ID: "1", Source: "clock"}); err != nil {
			t.Fatal(err)
		}
		return published
	}
	if got := ask(); !strings.Contains(got, `{"count":2,"unread":1,"mean":15}`) || !strings.Contains(got, "clock/1") {
		t.Errorf("published %q", got)
	}
	if got := ask(); got != "" {
		t.Errorf("nothing came in, published %q", got)
	}
}
