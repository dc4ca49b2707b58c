package blobstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

const stamp = "{sec=1700000000 nsec=5}"

func TestProvider_operations(t *testing.T) {
	r := newRig(t)
	for _, s := range []struct {
		op   string
		v    any
		want string
	}{
		{"ContainerExists", "c", "false"},
		{"GetContainerInfo", "c", `error: blobstore: no such topic: GetContainerInfo: there is no container "c": create it first`},
		{"PutObject", put("hello", true), `error: blobstore: no such topic: PutObject: there is no container "c": create it first`},
		{"ListContainers", nil, "[]"},
		{"CreateContainer", "c", "-"},
		{"CreateContainer", "c", "-"},
		{"ContainerExists", "c", "true"},
		{"GetContainerInfo", "c", "{containerId=c createdAt=" + stamp + "}"},
		{"CreateContainer", "d", "-"},
		{"ListContainers", nil, "[{containerId=c createdAt=" + stamp + "} {containerId=d createdAt=" + stamp + "}]"},
		{"ObjectExists", id("o"), "false"},
		{"GetObjectInfo", id("o"), `error: blobstore: no such topic: GetObjectInfo: there is no object "o" in container "c"`},
		{"GetObject", get("o"), `{success=false error=there is no object "o" in container "c" contentLength=0}`},
		{"PutObject", put("hello", true), "{}"},
		{"ObjectExists", id("o"), "true"},
		{"GetObjectInfo", id("o"), "{objectId=o containerId=c contentLength=5 lastModified=" + stamp + " contentType=text/plain}"},
		{"GetObject", get("o"), "{success=true initialChunk={objectId=o containerId=c bytes=hello offset=0 isLast=true} contentLength=5 contentType=text/plain}"},
		{"PutObject", put("hi", true), "{}"},
		{"GetObject", get("o"), "{success=true initialChunk={objectId=o containerId=c bytes=hi offset=0 isLast=true} contentLength=2 contentType=text/plain}"},
		{"PutObject", putAs("empty", "", true), "{}"},
		{"GetObject", get("empty"), "{success=true initialChunk={objectId=empty containerId=c bytes= offset=0 isLast=true} contentLength=0 contentType=text/plain}"},
		{"ListObjects", st{"containerId", "c"}, "{objects=[{objectId=empty containerId=c contentLength=0 lastModified=" + stamp + " contentType=text/plain} {objectId=o containerId=c contentLength=2 lastModified=" + stamp + " contentType=text/plain}] isLast=true}"},
		{"RemoveObjects", st{"containerId", "c", "objects", []string{"empty", "nobody", ""}}, "[{key= success=false error=objectId is empty}]"},
		{"ObjectExists", id("empty"), "false"},
		{"RemoveContainers", []string{"c", "nobody"}, "[]"},
		{"ContainerExists", "c", "false"},
		{"ObjectExists", id("o"), "false"},
		{"CreateContainer", "c", "-"},
		{"ObjectExists", id("o"), "false"},
		{"ListObjects", st{"containerId", "c"}, "{objects=[] isLast=true}"},
		{"ListObjects", st{"containerId", "e"}, `error: blobstore: no such topic: ListObjects: there is no container "e": create it first`},
		{"PutChunk", putChunk("x", 0, true, "s"), `error: blobstore: no such topic: PutChunk: there is no upload of object "o" in container "c", or another one took its place: begin with PutObject`},
		{"CreateContainer", "", "error: blobstore: wrong format: CreateContainer: containerId is empty"},
		{"CreateContainer", strings.Repeat("x", 256), "error: blobstore: payload too large: CreateContainer: containerId of 256 bytes, at most 255"},
		{"CreateContainer", "\xff", `error: blobstore: wrong format: CreateContainer: containerId "\xff" is not UTF-8`},
		{"CreateContainer", 7, "error: blobstore: wrong format: CreateContainer: msgpack: value of another type"},
		{"Mount", "c", `error: blobstore: wrong format: "Blobstore.Mount" is no operation of wasmcloud:blobstore`},
	} {
		r.want(s.op, s.v, s.want)
	}
	r.run()
	r.hasFiles(0)
	if _, err := r.callAs(t.Context(), "stranger", "ContainerExists", encode(pairs, "c")); !errors.Is(err, lattice.ErrNoLink) {
		t.Errorf("without a link: %v", err)
	}
}

// TestProvider_encodings does the same in each encoding that kits use.
func TestProvider_encodings(t *testing.T) {
	for h, want := range map[how][]string{
		pairs: {"c3", "{streamId=S}", "{success=true initialChunk={objectId=o containerId=c bytes=hello offset=0 isLast=true} contentLength=5 contentType=text/plain}"},
		rows:  {"c3", "{streamId=S}", "{success=true initialChunk={objectId=o containerId=c bytes=hello offset=0 isLast=true} contentLength=5 contentType=text/plain}"},
		// 8.5: 0x7f, then structs as arrays in the order of their members, nil for what is absent.
		cborRows:  {"7ff5", "7f81", "7f86f5f685616f6163" + "4568656c6c6f" + "00f505" + "6a746578742f706c61696ef6"},
		cborPairs: {"7ff5", "7fa168", "7fa4677375636365737" + "3f56c696e697469616c4368756e6b" + "a5686f626a6563744964616f6b636f6e7461696e657249646163656279746573" + "4568656c6c6f" + "666f66667365740066" + "69734c617374f5" + "6d636f6e74656e744c656e677468056b636f6e74656e74547970656a746578742f706c61696e"},
	} {
		r := newRig(t)
		call := func(op string, v any) []byte {
			t.Helper()
			reply, err := r.callAs(t.Context(), "actor", op, encode(h, v))
			if err != nil {
				t.Fatalf("encoding %d: %s: %v", h, op, err)
			}
			return reply
		}
		call("CreateContainer", "c")
		upload := call("PutObject", put("he", false))
		call("PutChunk", st{"chunk", part("l", 2, false), "streamId", nil, "cancelAndRemove", false})
		call("PutChunk", st{"chunk", part("lo", 3, true), "streamId", nil, "cancelAndRemove", false})
		if got := fmt.Sprintf("%x", call("ContainerExists", "c")); got != want[0] {
			t.Errorf("encoding %d: exists: %s, want %s", h, got, want[0])
		}
		got := call("GetObject", get("o", "rangeStart", nil, "rangeEnd", nil))
		list := call("ListContainers", nil)
		if h < cborRows {
			if s := show(upload); !strings.HasPrefix(s, "{streamId=") || show(got) != want[2] {
				t.Errorf("encoding %d: %s, %s", h, s, show(got))
			}
			continue
		}
		if !strings.HasPrefix(fmt.Sprintf("%x", upload), want[1]) || fmt.Sprintf("%x", got) != want[2] {
			t.Errorf("encoding %d: %x, %x", h, upload, got)
		}
		if wantList := map[how]string{cborRows: "7f81826163f6", cborPairs: "7f81a16b636f6e7461696e657249646163"}[h]; fmt.Sprintf("%x", list) != wantList {
			t.Errorf("encoding %d: a request without a payload is answered with %x, want %s", h, list, wantList)
		}
	}
}

// TestProvider_turn has the fate of an object be that of its turn.
func TestProvider_turn(t *testing.T) {
	r := newRig(t)
	r.run()
	r.call("CreateContainer", "c")
	r.turn(func(ctx context.Context) bool {
		if got := r.in(ctx, "PutObject", put("lost", true)); got != "{}" {
			t.Error(got)
		}
		if got := r.in(ctx, "GetObject", get("o")); !strings.Contains(got, "bytes=lost") {
			t.Errorf("a turn does not read what it wrote: %s", got)
		}
		if got := r.in(ctx, "ListObjects", st{"containerId", "c"}); !strings.Contains(got, "objectId=o") {
			t.Errorf("a turn does not list what it wrote: %s", got)
		}
		r.want("ObjectExists", id("o"), "false")
		return false
	})
	r.hasFiles(0)
	r.want("ObjectExists", id("o"), "false")
	r.turn(func(ctx context.Context) bool {
		r.in(ctx, "PutObject", put("first", true))
		r.in(ctx, "PutObject", put("second", true))
		return true
	})
	r.hasFiles(1)
	r.turn(func(ctx context.Context) bool {
		r.in(ctx, "RemoveObjects", st{"containerId", "c", "objects", []string{"o"}})
		return false
	})
	if got := r.call("GetObject", get("o")); !strings.Contains(got, "bytes=second") {
		t.Error(got)
	}
	// One that lost runs again, with files of its own.
	tries := 0
	err := r.db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
		if tries++; tries == 1 {
			r.in(ctx, "ObjectExists", id("o"))
			r.want("PutObject", put("between", true), "{}")
		}
		r.in(ctx, "PutObject", put(fmt.Sprintf("try %d", tries), true))
		return nil
	})
	if got := r.call("GetObject", get("o")); err != nil || tries != 2 || !strings.Contains(got, "bytes=try 2") {
		t.Errorf("after %d tries: %s, %v", tries, got, err)
	}
	r.hasFiles(1)
}

func TestProvider_containerRemovedWhileWritten(t *testing.T) {
	r := newRig(t)
	r.run()
	r.call("CreateContainer", "c")
	turn := r.db.Begin()
	r.in(store.WithTurn(t.Context(), turn), "PutObject", put("x", true))
	r.want("RemoveContainers", []string{"c"}, "[]")
	if err := turn.Commit(); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an object was put into a container that is gone: %v", err)
	}
	r.hasFiles(0)
}

func TestProvider_ranges(t *testing.T) {
	r := newRig(t)
	r.call("CreateContainer", "c")
	r.call("PutObject", put("0123456789", true))
	for _, s := range []struct {
		start, end any
		want       string
	}{
		{nil, nil, "bytes=0123456789 offset=0 isLast=true} contentLength=10"},
		{3, nil, "bytes=3456789 offset=3 isLast=true} contentLength=7"},
		{nil, 3, "bytes=0123 offset=0 isLast=true} contentLength=4"},
		{3, 3, "bytes=3 offset=3 isLast=true} contentLength=1"},
		{9, 99, "bytes=9 offset=9 isLast=true} contentLength=1"},
		{10, 12, "bytes= offset=10 isLast=true} contentLength=0"},
		{99, nil, "bytes= offset=10 isLast=true} contentLength=0"},
		{0, 0, "bytes=0123456789 offset=0 isLast=true} contentLength=10"}, // what some kits write for no range
		{7, 0, "bytes=789 offset=7 isLast=true} contentLength=3"},
		{4, 3, "error: blobstore: wrong format: GetObject: rangeEnd 3 comes before rangeStart 4"},
	} {
		if got := r.call("GetObject", get("o", "rangeStart", s.start, "rangeEnd", s.end)); !strings.Contains(got, s.want) {
			t.Errorf("%v to %v: %s, want %s", s.start, s.end, got, s.want)
		}
	}
}

func TestProvider_list(t *testing.T) {
	r := newRig(t)
	r.call("CreateContainer", "c")
	for _, name := range []string{"a/1", "a/2", "a/3", "b/1", "b/2", "ü"} {
		r.call("PutObject", putAs(name, "x", true))
	}
	list := func(more ...any) (names []string, next string) {
		t.Helper()
		got := r.call("ListObjects", append(st{"containerId", "c"}, more...))
		for _, s := range strings.Split(got, "objectId=")[1:] {
			name, _, _ := strings.Cut(s, " ")
			names = append(names, name)
		}
		_, next, _ = strings.Cut(got, "continuation=")
		if (next == "") != strings.Contains(got, "isLast=true") {
			t.Errorf("%v: %s", more, got)
		}
		return names, strings.TrimSuffix(next, "}")
	}
	for _, s := range []struct {
		more []any
		want string
	}{
		{nil, "a/1 a/2 a/3 b/1 b/2 ü"},
		{[]any{"startWith", "a/"}, "a/1 a/2 a/3"},
		{[]any{"startWith", "zz"}, ""},
		{[]any{"endWith", "a/3"}, "a/1 a/2 a/3"},
		{[]any{"endBefore", "a/3"}, "a/1 a/2"},
		{[]any{"startWith", "", "continuation", "", "endWith", nil, "endBefore", "", "maxItems", 0}, "a/1 a/2 a/3 b/1 b/2 ü"}, // what some kits write for none
	} {
		if got, _ := list(s.more...); strings.Join(got, " ") != s.want {
			t.Errorf("%v: %v, want %s", s.more, got, s.want)
		}
	}
	var all []string
	names, next := list("startWith", "a/", "maxItems", 2)
	all = append(all, names...)
	r.call("RemoveObjects", st{"containerId", "c", "objects", []string{"a/2"}})
	for next != "" {
		names, next = list("continuation", next, "maxItems", 2)
		all = append(all, names...)
	}
	if got := strings.Join(all, " "); got != "a/1 a/2 a/3" {
		t.Errorf("page by page: %s", got)
	}
	r.want("ListObjects", st{"containerId", "c", "continuation", "!"}, `error: blobstore: wrong format: ListObjects: continuation "!" is none that ListObjects gave`)
}

// TestProvider_bounds holds buckets and the box to what they may hold, in a way that
// an actor can act on.
func TestProvider_bounds(t *testing.T) {
	r := newRig(t)
	r.o.MaxBytes = 250
	r.again()
	r.run()
	r.link("actor", map[string]string{"bucket": "b", "max_bytes": "200", "max_objects": "3"})
	r.link("other", map[string]string{"bucket": "other", "max_bytes": "1000"})
	r.call("CreateContainer", "c")
	r.want("PutObject", putAs("1", strings.Repeat("x", 150), true), "{}")
	r.want("PutObject", putAs("2", strings.Repeat("x", 51), true), "error: blobstore: unavailable: PutObject: bucket b holds 150 bytes, and may hold 200: the bucket is full")
	r.hasFiles(1)
	r.want("PutObject", putAs("2", "x", true), "{}")
	r.want("PutObject", putAs("3", "x", true), "{}")
	r.want("PutObject", putAs("4", "x", true), "error: blobstore: unavailable: PutObject: bucket b has 3 objects and uploads, and may have 3: the bucket is full")
	r.want("RemoveObjects", st{"containerId", "c", "objects", []string{"1", "2"}}, "[]")
	r.hasFiles(1)
	r.want("PutObject", putAs("1", strings.Repeat("x", 150), true), "{}")
	as := func(op string, v any) error {
		_, err := r.callAs(t.Context(), "other", op, encode(pairs, v))
		return err
	}
	if err := as("CreateContainer", "c"); err != nil {
		t.Fatal(err)
	}
	err := as("PutObject", putAs("1", strings.Repeat("x", 150), true))
	if !errors.Is(err, providers.ErrUnavailable) || !strings.Contains(err.Error(), "all buckets hold 151 bytes, and may hold 250") {
		t.Errorf("beyond the bound of the box: %v", err)
	}
	r.again() // what there is is counted anew
	r.link("actor", map[string]string{"bucket": "b", "max_bytes": "200", "max_objects": "3"})
	r.want("PutObject", putAs("2", strings.Repeat("x", 50), true), "error: blobstore: unavailable: PutObject: bucket b holds 151 bytes, and may hold 200: the bucket is full")
	r.o.MinFree = 1 << 60
	r.again()
	if got := r.call("PutObject", putAs("2", "x", true)); !strings.Contains(got, "stay free: the box has no room for it") {
		t.Error(got)
	}
}

func TestProvider_PutLink_refusesNonsense(t *testing.T) {
	r := newRig(t)
	for key, value := range map[string]string{"bucket": strings.Repeat("x", 129), "max_bytes": "-1", "max_objects": "many"} {
		if err := r.p.PutLink(t.Context(), lattice.Link{Actor: "a", Name: "default", Values: map[string]string{key: value}}); err == nil {
			t.Errorf("%s = %s is taken", key, value)
		}
	}
}

// TestNew_orphans: a crash leaves files that no record refers to. They are removed, or
// set aside where records may be lost; what is not the provider's is left alone.
func TestNew_orphans(t *testing.T) {
	r := newRig(t)
	r.call("CreateContainer", "c")
	r.call("PutObject", put("kept", true))
	turn := r.db.Begin() // what it wrote is on disk, and its record never is
	r.in(store.WithTurn(t.Context(), turn), "PutObject", putAs("2", "not committed", true))
	if n := r.files(); n != 2 {
		t.Fatalf("%d files", n)
	}
	if err := os.WriteFile(filepath.Join(r.blobs(), "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	copied, err := os.ReadDir(r.blobs())
	if err != nil {
		t.Fatal(err)
	}
	r.again()
	if n := r.files(); n != 2 { // the object, and what is not ours
		t.Errorf("%d files are left of %d", n, len(copied))
	}
	if got := r.call("GetObject", get("o")); !strings.Contains(got, "bytes=kept") {
		t.Error(got)
	}
	const orphan = "00112233445566778899aabb"
	if err := os.WriteFile(filepath.Join(r.blobs(), orphan), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.o.Lost = filepath.Join(r.dir, "lost")
	r.again()
	if _, err := os.Stat(filepath.Join(r.o.Lost, orphan)); err != nil {
		t.Errorf("a file whose record may be lost is not set aside: %v", err)
	}
}

// TestProvider_fileGone: a file that somebody removed is an error, and no panic; the
// object can be put again.
func TestProvider_fileGone(t *testing.T) {
	r := newRig(t)
	r.run()
	r.call("CreateContainer", "c")
	r.call("PutObject", put("hello", true))
	if err := os.RemoveAll(r.blobs()); err != nil {
		t.Fatal(err)
	}
	r.again()
	r.run()
	if got := r.call("GetObject", get("o")); !strings.HasPrefix(got, `error: blobstore: unavailable: GetObject: object "o": `) {
		t.Error(got)
	}
	r.want("PutObject", put("again", true), "{}")
	r.hasFiles(1)
	if got := r.call("GetObject", get("o")); !strings.Contains(got, "bytes=again") {
		t.Error(got)
	}
}
