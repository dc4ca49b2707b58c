package node

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func (r *rig) blobFiles() int {
	entries, err := os.ReadDir(r.path("state", "blobs"))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(entries)
}

const blobCapabilities = `
[[capability]]
name = "blobstore"
[[capability.config]]
max_bytes = "2MiB"
[[stream]]
name = "orders"
subjects = ["orders"]
[[subscription]]
name = "orders"
stream = "orders"
ordered_by = "subject"
backoff = ["1ms"]
max_deliver = 2
`

// TestNode_blobs has an actor keep objects, in the turns of its messages, over a start
// of the box.
func TestNode_blobs(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("press", "1", blobCapabilities, "a")
	r.start()
	for _, order := range []string{
		"!put big 60000 0123456789", "!get big", "!get none", "!put-and-fail lost", "!get lost", "!put huge 300000 0123456789", "!have-sent big",
	} {
		r.tell("orders", order)
	}
	want := []string{
		"600000 0123456789",
		`error: Blobstore.GetObject: blobstore: no such topic: there is no object "none" in container "probe"`,
		`error: Blobstore.GetObject: blobstore: no such topic: there is no object "lost" in container "probe"`,
		"error: Blobstore.PutChunk: blobstore: unavailable: PutChunk: bucket press holds 2042752 bytes, and may hold 2097152: the bucket is full",
		"first 262144", "big 262144+262144 false", "big 524288+75712 true",
	}
	r.eventually("all is seen", func() bool { return len(r.seen("press", "a")) >= len(want) })
	got := r.seen("press", "a")
	for i := range want {
		if i != 3 && (i >= len(got) || got[i] != want[i]) {
			t.Errorf("line %d of %q, want %q", i, got, want[i])
		}
	}
	if !strings.HasSuffix(got[3], "the bucket is full") {
		t.Error(got[3])
	}
	r.stop()
	r.start()
	r.tell("orders", "!get big")
	r.eventually("it is there after a start", func() bool {
		got := r.seen("press", "a")
		return got[len(got)-1] == want[0] && len(got) == len(want)+1
	})
	r.operatesBlobs()
	if n := r.blobFiles(); n > 2 { // the object, and the upload that was not ended
		t.Errorf("%d files", n)
	}
}

// operatesBlobs looks at the object and its bucket as the verbs do.
func (r *rig) operatesBlobs() {
	r.t.Helper()
	request := func(method, query string) *http.Request {
		q := httptest.NewRequestWithContext(r.t.Context(), method, "/?"+query, nil)
		q.SetPathValue("bucket", "press")
		return q
	}
	if all := r.blobBuckets(); len(all) != 1 || all[0].Bucket != "press" || all[0].Limit != 2<<20 || all[0].Bytes < 600_000 || len(all[0].Actors) != 1 {
		r.t.Errorf("buckets %+v", all)
	}
	listed, err := r.listObjects(request("GET", ""))
	if l, ok := listed.(list[ObjectStatus]); !ok || len(l.Items) != 1 || l.Items[0].Object != "big" || l.Items[0].Bytes != 600_000 {
		r.t.Errorf("objects %+v, %v", listed, err)
	}
	part, err := r.readObject(request("GET", "container=probe&object=big&offset=599990"))
	if p, ok := part.(ObjectPart); !ok || string(p.Data) != "0123456789" || p.Bytes != 600_000 {
		r.t.Errorf("part %+v, %v", part, err)
	}
	for query, status := range map[string]int{"container=probe&object=none&offset=0": 404, "container=probe&object=big&offset=x": 400, "offset=0": 500} {
		if _, err := r.readObject(request("GET", query)); statusOf(err) != status {
			r.t.Errorf("%s: %v", query, err)
		}
	}
	if _, err := r.removeBlobs(request("DELETE", "force=true")); statusOf(err) != http.StatusConflict {
		r.t.Errorf("a bucket in use is removed: %v", err)
	}
}

// TestNode_blobsOfNobody are removed with force.
func TestNode_blobsOfNobody(t *testing.T) {
	r := newRig(t, unsigned)
	r.probe("press", "1", blobCapabilities, "a")
	r.start()
	r.tell("orders", "!put big 10 x")
	r.eventually("the object", func() bool { b := r.blobBuckets(); return len(b) == 1 && b[0].Files == 1 })
	if err := os.RemoveAll(r.path("apps", "press")); err != nil {
		t.Fatal(err)
	}
	r.reload()
	remove := func(query string) error {
		q := httptest.NewRequestWithContext(t.Context(), "DELETE", "/?"+query, nil)
		q.SetPathValue("bucket", "press")
		_, err := r.removeBlobs(q)
		return err
	}
	if err := remove(""); statusOf(err) != http.StatusConflict {
		t.Errorf("without force: %v", err)
	}
	if err := remove("force=true"); err != nil {
		t.Error(err)
	}
	r.eventually("nothing is left", func() bool { return len(r.blobBuckets()) == 0 && r.blobFiles() == 0 })
	if err := remove("force=true"); statusOf(err) != http.StatusNotFound {
		t.Errorf("once more: %v", err)
	}
}
