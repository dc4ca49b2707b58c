package blobstore_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edged-io/edged/store"
)

func TestProvider_upload(t *testing.T) {
	r := newRig(t)
	r.call("CreateContainer", "c")
	s := stream(r.call("PutObject", put("01", false)))
	r.want("ObjectExists", id("o"), "false")
	r.want("PutChunk", putChunk("23", 2, false, s), "-")
	r.again()                                            // it goes on after a start
	r.want("PutChunk", putChunk("23", 2, false, s), "-") // a repeat
	r.want("PutChunk", putChunk("xx", 2, false, s), "error: blobstore: wrong format: PutChunk: a part at offset 2 is there already, with other bytes")
	r.want("PutChunk", putChunk("345", 3, false, s), "error: blobstore: wrong format: PutChunk: a part at offset 3, and 4 bytes are there: parts do not overlap")
	r.want("PutChunk", putChunk("6", 6, true, s), "error: blobstore: wrong format: PutChunk: a part at offset 6, and 4 bytes are there: send what comes between first")
	r.want("PutChunk", putChunk("45", 4, true, "other"), `error: blobstore: no such topic: PutChunk: there is no upload of object "o" in container "c", or another one took its place: begin with PutObject`)
	r.want("PutChunk", putChunk("45", 4, true, s), "-")
	if got := r.call("GetObject", get("o")); !strings.Contains(got, "bytes=012345 offset=0 isLast=true} contentLength=6 contentType=text/plain") {
		t.Error(got)
	}
	r.run()
	r.hasFiles(1)

	// It is given up by a word, or by another one; the object stays.
	s = stream(r.call("PutObject", put("ab", false)))
	r.hasFiles(2)
	gone := putChunk("", 2, false, s)
	gone[5] = true
	r.want("PutChunk", gone, "-")
	r.hasFiles(1)
	r.want("PutChunk", gone, "-") // a repeat
	first := stream(r.call("PutObject", put("ab", false)))
	second := stream(r.call("PutObject", put("cd", false)))
	r.hasFiles(2)
	if got := r.call("PutChunk", putChunk("x", 2, true, first)); !strings.HasPrefix(got, "error: blobstore: no such topic") {
		t.Error(got)
	}
	r.want("PutChunk", putChunk("", 2, true, second), "-")
	if got := r.call("GetObject", get("o")); !strings.Contains(got, "bytes=cd ") {
		t.Error(got)
	}
	r.hasFiles(1)
	r.want("PutObject", st{"chunk", part("x", 4, true), "contentType", nil, "contentEncoding", nil}, "error: blobstore: wrong format: PutObject: an object begins at offset 0, not at 4: send the rest with PutChunk")
}

// TestProvider_uploadInTurns has a part that was discarded be sent again, with other
// bytes, and one call write at a time.
func TestProvider_uploadInTurns(t *testing.T) {
	r := newRig(t)
	r.run()
	r.call("CreateContainer", "c")
	s := stream(r.call("PutObject", put("01", false)))
	r.turn(func(ctx context.Context) bool {
		r.in(ctx, "PutChunk", putChunk("long and lost", 2, false, s))
		return false
	})
	turn := r.db.Begin()
	if got := r.in(store.WithTurn(t.Context(), turn), "PutChunk", putChunk("23", 2, false, s)); got != "-" {
		t.Error(got)
	}
	r.want("PutChunk", putChunk("xx", 2, false, s), "error: blobstore: unavailable: PutChunk: another call writes to this upload now")
	if err := turn.Commit(); err != nil {
		t.Fatal(err)
	}
	r.want("PutChunk", putChunk("", 4, true, s), "-")
	if got := r.call("GetObject", get("o")); !strings.Contains(got, "bytes=0123 offset=0 isLast=true} contentLength=4") {
		t.Error(got)
	}
	// All of it in one turn, which is synced once.
	r.turn(func(ctx context.Context) bool {
		s := stream(r.in(ctx, "PutObject", put("", false)))
		for i := range 100 {
			if got := r.in(ctx, "PutChunk", putChunk("x", i, i == 99, s)); got != "-" {
				t.Error(got)
			}
		}
		return true
	})
	if got := r.call("GetObject", get("o")); !strings.Contains(got, "contentLength=100") {
		t.Error(got)
	}
	r.hasFiles(1)
}

// TestProvider_large puts what is beyond one part, and gets it in ranges.
func TestProvider_large(t *testing.T) {
	r := newRig(t)
	r.call("CreateContainer", "c")
	want := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	s := stream(r.call("PutObject", put("", false)))
	for at := 0; at < len(want); at += 300_000 {
		end := min(at+300_000, len(want))
		r.want("PutChunk", putChunk(string(want[at:end]), at, end == len(want), s), "-")
	}
	var got []byte
	for at := 0; at < len(want); at += 100_000 {
		answer := r.call("GetObject", get("o", "rangeStart", at, "rangeEnd", at+99_999))
		_, answer, _ = strings.Cut(answer, "bytes=")
		answer, _, _ = strings.Cut(answer, " offset=")
		got = append(got, answer...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
}

// A turn with many objects does not take all the files that a process may have open, and its objects are whole.
func TestProvider_manyObjectsInATurn(t *testing.T) {
	r := newRig(t)
	r.want("CreateContainer", "c", "-")
	open := func() (n int) {
		t.Helper()
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, r.blobs()+"/") {
				n++
			}
		}
		return n
	}
	const objects = 100
	err := r.db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
		for i := range objects {
			if got := r.in(ctx, "PutObject", putAs(fmt.Sprint(i), "first", true)); got != "{}" {
				t.Errorf("object %d: %s", i, got)
			}
		}
		if n := open(); n == 0 || n > objects/4 {
			t.Errorf("%d files are open", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := open(); n != 0 {
		t.Errorf("%d files are open after the turn", n)
	}
	r.again()
	for i := range objects {
		if got := r.in(t.Context(), "GetObject", get(fmt.Sprint(i))); !strings.Contains(got, "bytes=first ") {
			t.Errorf("object %d: %s", i, got)
		}
	}
}

// As long as there is a record that does not read, as one of a newer edged, no file is removed that it may refer to.
func TestNew_recordThatDoesNotRead(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(r.blobs(), strings.Repeat("ab", 12))
	if err := os.WriteFile(file, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	record := func(change func(t *store.Turn) error) {
		t.Helper()
		if err := r.db.Do(t.Context(), func(_ context.Context, t *store.Turn) error { return change(t) }); err != nil {
			t.Fatal(err)
		}
	}
	record(func(t *store.Turn) error { return t.PutWithin("blob/b", "o/number/name", []byte{0x97}, 0) })
	r.again()
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	record(func(t *store.Turn) error { return t.Delete("blob/b", "o/number/name") })
	r.again()
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("a file without a record is still there: %v", err)
	}
}
