package node

import (
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
	if n := r.blobFiles(); n > 2 { // the object, and the upload that was not ended
		t.Errorf("%d files", n)
	}
}
