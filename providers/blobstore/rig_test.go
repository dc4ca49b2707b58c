package blobstore_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/blobstore"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

const patience = 60 * time.Second

// rig is a provider with its store, which a test may start anew.
type rig struct {
	t   testing.TB
	dir string
	db  *store.DB
	p   *blobstore.Provider
	o   blobstore.Options
	end func()

	mu    sync.Mutex // guards actor
	actor func(ctx context.Context, inv lattice.Invocation) ([]byte, error)
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), end: func() {}}
	r.open()
	t.Cleanup(func() { r.close() })
	return r
}

func (r *rig) blobs() string { return filepath.Join(r.dir, "blobs") }

func (r *rig) open() {
	r.t.Helper()
	db, err := store.Open(store.Options{Dir: r.dir})
	if err != nil {
		r.t.Fatal(err)
	}
	r.db = db
	o := r.o
	o.Store, o.Dir = db, r.blobs()
	o.Now = func() time.Time { return time.Unix(1700000000, 5) }
	o.Call = func(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
		r.mu.Lock()
		actor := r.actor
		r.mu.Unlock()
		if actor == nil {
			return nil, lattice.ErrNoEntity
		}
		return actor(ctx, inv)
	}
	if r.p, err = blobstore.New(o); err != nil {
		r.t.Fatal(err)
	}
	r.link("actor", map[string]string{"bucket": "b"})
}

func (r *rig) link(actor string, values map[string]string) {
	r.t.Helper()
	if err := r.p.PutLink(r.t.Context(), lattice.Link{Actor: actor, Contract: blobstore.Contract, Name: "default", Values: values}); err != nil {
		r.t.Fatal(err)
	}
}

// run runs the provider until close.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.p.Run(ctx) }() // end waits
	r.end = func() {
		r.end = func() {}
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	}
}

func (r *rig) close() {
	r.end()
	if err := r.db.Close(); err != nil {
		r.t.Error(err)
	}
}

// again is a start anew.
func (r *rig) again() {
	r.close()
	r.open()
}

// eventually waits until ok.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			r.t.Fatalf("in vain: %s", what)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-r.t.Context().Done():
		}
	}
}

// files returns how many files there are, once Run has nothing left to remove.
func (r *rig) files() int {
	r.t.Helper()
	entries, err := os.ReadDir(r.blobs())
	if err != nil {
		r.t.Fatal(err)
	}
	return len(entries)
}

func (r *rig) hasFiles(n int) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%d files", n), func() bool { return r.files() == n })
}

func (r *rig) callAs(ctx context.Context, actor, op string, payload []byte) ([]byte, error) {
	return r.p.Call(ctx, lattice.Invocation{
		Origin: lattice.Entity{Key: actor}, Target: lattice.Entity{Key: "blobstore", Link: "default"},
		Contract: blobstore.Contract, Operation: "Blobstore." + op, Payload: payload,
	})
}

// in returns the reply to an operation in a readable form, in the turn of ctx.
func (r *rig) in(ctx context.Context, op string, v any) string {
	r.t.Helper()
	reply, err := r.callAs(ctx, "actor", op, encode(pairs, v))
	if err != nil {
		return "error: " + err.Error()
	}
	return show(reply)
}

func (r *rig) call(op string, v any) string {
	r.t.Helper()
	return r.in(r.t.Context(), op, v)
}

func (r *rig) want(op string, v any, want string) {
	r.t.Helper()
	if got := r.call(op, v); got != want {
		r.t.Errorf("%s %v\n got %s\nwant %s", op, v, got, want)
	}
}

// turn runs fn in a turn, and commits it if fn says so.
func (r *rig) turn(fn func(ctx context.Context) bool) {
	r.t.Helper()
	t := r.db.Begin()
	defer t.Discard()
	if fn(store.WithTurn(r.t.Context(), t)) {
		if err := t.Commit(); err != nil {
			r.t.Fatal(err)
		}
	}
}

func show(reply []byte) string {
	if len(reply) == 0 {
		return "-"
	}
	return showValue(msgpack.NewDecoder(reply))
}

func showValue(d *msgpack.Decoder) string {
	switch d.Kind() {
	case msgpack.Bool:
		return fmt.Sprint(d.Bool())
	case msgpack.Int:
		return fmt.Sprint(d.Int())
	case msgpack.Array:
		var all []string
		for range d.Array() {
			all = append(all, showValue(d))
		}
		return "[" + strings.Join(all, " ") + "]"
	case msgpack.Map:
		var all []string
		for range d.Map() {
			all = append(all, d.Str()+"="+showValue(d))
		}
		return "{" + strings.Join(all, " ") + "}"
	case msgpack.Nil:
		d.TakeNil()
		return "nil"
	}
	return d.Str()
}

// how a payload is encoded.
type how int

const (
	pairs    how = iota // MessagePack, structs as maps
	rows                // MessagePack, structs as arrays
	cborRows            // CBOR
	cborPairs
)

// st is a struct: names and values in turn.
type st []any

// encode writes strings, bytes, numbers, bools, nil, lists and structs.
func encode(h how, v any) []byte {
	if v == nil {
		return nil
	}
	if h >= cborRows {
		return appendCBOR([]byte{0x7f}, h, v)
	}
	return appendMsgpack(nil, h, v)
}

func appendMsgpack(b []byte, h how, v any) []byte {
	switch v := v.(type) {
	case nil:
		return msgpack.AppendNil(b)
	case string:
		return msgpack.AppendString(b, v)
	case []byte:
		return msgpack.AppendBin(b, v)
	case int:
		return msgpack.AppendInt(b, int64(v))
	case bool:
		return msgpack.AppendBool(b, v)
	case []string:
		b = msgpack.AppendArrayHeader(b, len(v))
		for _, s := range v {
			b = msgpack.AppendString(b, s)
		}
		return b
	case st:
		if h == pairs {
			b = msgpack.AppendMapHeader(b, len(v)/2)
		} else {
			b = msgpack.AppendArrayHeader(b, len(v)/2)
		}
		for i := 0; i < len(v); i += 2 {
			if h == pairs {
				b = msgpack.AppendString(b, v[i].(string))
			}
			b = appendMsgpack(b, h, v[i+1])
		}
		return b
	}
	panic(fmt.Sprintf("%T", v))
}

func cborHead(b []byte, major byte, n int) []byte {
	return binary.BigEndian.AppendUint32(append(b, major<<5|26), uint32(n))
}

func appendCBOR(b []byte, h how, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 0xf6)
	case string:
		return append(cborHead(b, 3, len(v)), v...)
	case []byte:
		return append(cborHead(b, 2, len(v)), v...)
	case int:
		return cborHead(b, 0, v)
	case bool:
		if v {
			return append(b, 0xf5)
		}
		return append(b, 0xf4)
	case []string:
		b = cborHead(b, 4, len(v))
		for _, s := range v {
			b = appendCBOR(b, h, s)
		}
		return b
	case st:
		if h == cborPairs {
			b = cborHead(b, 5, len(v)/2)
		} else {
			b = cborHead(b, 4, len(v)/2)
		}
		for i := 0; i < len(v); i += 2 {
			if h == cborPairs {
				b = appendCBOR(b, h, v[i])
			}
			b = appendCBOR(b, h, v[i+1])
		}
		return b
	}
	panic(fmt.Sprintf("%T", v))
}

// part is a chunk of the object o in container c, in the order of its members.
func part(bytes string, offset int, last bool) st {
	return st{"objectId", "o", "containerId", "c", "bytes", []byte(bytes), "offset", offset, "isLast", last}
}

func put(bytes string, last bool) st { return putAs("o", bytes, last) }

func putAs(object, bytes string, last bool) st {
	c := part(bytes, 0, last)
	c[1] = object
	return st{"chunk", c, "contentType", "text/plain", "contentEncoding", nil}
}

func putChunk(bytes string, offset int, last bool, stream any) st {
	return st{"chunk", part(bytes, offset, last), "streamId", stream, "cancelAndRemove", false}
}

func get(object string, more ...any) st {
	return append(st{"objectId", object, "containerId", "c"}, more...)
}

func id(object string) st { return st{"containerId", "c", "objectId", object} }

// stream returns the stream id of an answer to PutObject.
func stream(answer string) string {
	s, _ := strings.CutPrefix(answer, "{streamId=")
	return strings.TrimSuffix(s, "}")
}
