package natsbroker

import (
	"reflect"
	"testing"

	"github.com/nats-io/nats.go"
)

// FuzzHeader: whatever header a stranger writes becomes a legal block or is refused, and comes back as it was, but for what is a server's.
func FuzzHeader(f *testing.F) {
	f.Add("ce-id", "1", "Nats-Rollup", "all")
	f.Add("Nats-Msg-Id", "x\r\ny", "nats-ttl", "5")
	f.Add("", " ", "a:b", "\x00")
	f.Fuzz(func(t *testing.T, name, value, name2, value2 string) {
		block, err := headerOf(nats.Header{name: {value}, name2: {value2, value}})
		if err != nil {
			return
		}
		if err := block.Check(); err != nil {
			t.Fatalf("%q: %v", block, err)
		}
		for n := range fieldsOf(block) {
			if control(n) {
				t.Fatalf("%q goes on to a server", n)
			}
		}
		again, err := headerOf(fieldsOf(block))
		if err != nil {
			t.Fatalf("%q: %v", block, err)
		}
		if _, hasTTL := block.Get(headerTTL); !hasTTL && !reflect.DeepEqual(fieldsOf(again), fieldsOf(block)) {
			t.Fatalf("%q became %q", block, again)
		}
	})
}
