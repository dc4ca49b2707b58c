package blobstore

import (
	"context"
	"os"
	"testing"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// TestProvider_expire gives up an upload and a download that stand still, and leaves
// alone one that goes on, and objects.
func TestProvider_expire(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p, err := New(Options{Store: db, Dir: dir + "/blobs"})
	if err == nil {
		err = p.PutLink(t.Context(), lattice.Link{Actor: "a", Name: "default", Values: map[string]string{"bucket": "b"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	call := func(op string, payload []byte) {
		t.Helper()
		_, err := p.Call(t.Context(), lattice.Invocation{Origin: lattice.Entity{Key: "a"}, Target: lattice.Entity{Link: "default"}, Operation: "Blobstore." + op, Payload: payload})
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(object string, last bool) {
		t.Helper()
		r := newReply(plain, 0)
		r.structure(member{"chunk", func() { r.chunk(chunk{object: object, container: "c", bytes: make([]byte, 2*ChunkBytes), last: last}) }})
		call("PutObject", r.b)
	}
	call("CreateContainer", msgpack.AppendString(nil, "c"))
	put("object", true)
	put("upload", false)
	r := newReply(plain, 0)
	r.structure(member{"objectId", func() { r.text("object") }}, member{"containerId", func() { r.text("c") }})
	call("GetObject", r.b)
	has := func(files, records int) {
		t.Helper()
		n := 0
		if err := db.List(Space+"b", "", func(string, []byte) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		if err := p.files.clean(); err != nil {
			t.Error(err)
		}
		if all, err := os.ReadDir(p.o.Dir); err != nil || len(all) != files || n != records {
			t.Errorf("%d files and %d records, want %d and %d: %v", len(all), n, files, records, err)
		}
	}
	has(2, 4)
	if err := p.expire(context.Background()); err != nil {
		t.Error(err)
	}
	has(2, 4)
	p.forgotten = -1
	if err := p.expire(context.Background()); err != nil {
		t.Error(err)
	}
	has(1, 2)
}
