package blobstore_test

import (
	"testing"

	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// FuzzProvider_Call sends whatever there is to each operation: it is answered, with an
// answer or an error, in the form of its own encoding.
func FuzzProvider_Call(f *testing.F) {
	ops := []string{
		"ContainerExists", "CreateContainer", "GetContainerInfo", "ListContainers", "RemoveContainers", "ObjectExists", "GetObjectInfo", "ListObjects",
		"RemoveObjects", "PutObject", "GetObject", "PutChunk",
	}
	for i := range ops {
		for _, h := range []how{pairs, rows, cborRows, cborPairs} {
			for _, v := range []any{
				"c", []string{"c", "d"}, id("o"), put("x", true), put("x", false), putChunk("y", 1, true, nil), get("o", "rangeStart", 0, "rangeEnd", 7),
				st{"containerId", "c", "startWith", "a", "continuation", nil, "endWith", "z", "endBefore", "z", "maxItems", 3},
			} {
				f.Add(i, encode(h, v))
			}
		}
	}
	f.Add(9, []byte("\x7f\x9f\xff"))                 // no length
	f.Add(9, []byte("\x7f\x9b\xff\xff\xff\xff\xff")) // a length that is cut off
	f.Add(11, []byte("\x7f\x82\x85\x61o\x61c\x5f\x41a\x41b\xff\x00\xf5\xf6\xf4"))
	f.Add(0, []byte("\xc1\xa1c"))
	r := newRig(f)
	r.call("CreateContainer", "c")
	r.call("PutObject", put("hello", true))
	r.run()
	f.Fuzz(func(t *testing.T, op int, payload []byte) {
		turn := r.db.Begin()
		defer turn.Discard() // what one does is not there for the next one
		name := ops[uint(op)%uint(len(ops))]
		reply, err := r.callAs(store.WithTurn(t.Context(), turn), "actor", name, payload)
		if err != nil || len(reply) == 0 {
			return
		}
		if reply[0] == 0x7f && len(reply) > 1 {
			if len(payload) == 0 || payload[0] != 0x7f {
				t.Errorf("%s: %x is answered in CBOR", name, payload)
			}
			return
		}
		d := msgpack.NewDecoder(reply)
		d.Skip()
		if err := d.Done(); err != nil {
			t.Errorf("%s: answer %x: %v", name, reply, err)
		}
	})
}
