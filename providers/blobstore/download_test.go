package blobstore_test

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/blobstore"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// receiver is an actor that gets the parts of downloads.
type receiver struct {
	mu     sync.Mutex // guards what follows
	got    []byte
	parts  int
	last   bool
	fail   func(part int) error // before it takes one, by how many it has
	answer []byte
}

func (a *receiver) receive(_ context.Context, inv lattice.Invocation) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if inv.Operation != blobstore.ReceiveChunk || inv.Target.Key != "actor" {
		return nil, errors.New("not for it")
	}
	if a.fail != nil {
		if err := a.fail(a.parts); err != nil {
			return nil, err
		}
	}
	d := msgpack.NewDecoder(inv.Payload)
	for range d.Map() {
		switch d.Str() {
		case "bytes":
			a.got = append(a.got, d.Bin()...)
		case "isLast":
			a.last = d.Bool()
		default:
			d.Skip()
		}
	}
	a.parts++
	return a.answer, d.Done()
}

func (a *receiver) done() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

func (r *rig) setActor(a *receiver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.actor = a.receive
}

// big puts an object of a mebibyte and three bytes.
func (r *rig) big() []byte {
	r.t.Helper()
	b := append(bytes.Repeat([]byte("0123456789abcdef"), 1<<16), "end"...)
	r.call("CreateContainer", "c")
	r.want("PutObject", put(string(b), true), "{}")
	return b
}

// first returns how long the first part of an answer is.
func (r *rig) first(answer string) int {
	r.t.Helper()
	_, rest, _ := strings.Cut(answer, "bytes=")
	part, rest, ok := strings.Cut(rest, " offset=")
	if !ok || !strings.HasPrefix(rest, "0 isLast=false") {
		r.t.Fatalf("first part of %d bytes, then %.100s", len(part), rest)
	}
	return len(part)
}

func TestProvider_download(t *testing.T) {
	r := newRig(t)
	want := r.big()
	a := &receiver{fail: func(part int) error { return nil }}
	r.setActor(a)
	r.run()
	n := 0
	r.turn(func(ctx context.Context) bool {
		r.first(r.in(ctx, "GetObject", get("o")))
		return false // what was asked for in vain never comes
	})
	r.turn(func(ctx context.Context) bool {
		n = r.first(r.in(ctx, "GetObject", get("o")))
		return true
	})
	r.want("RemoveObjects", st{"containerId", "c", "objects", []string{"o"}}, "[]") // what is being sent stays until then
	r.eventually("all parts", a.done)
	a.mu.Lock()
	if !bytes.Equal(a.got, want[n:]) || a.parts != 4 {
		t.Errorf("got %d bytes in %d parts after %d, want %d", len(a.got), a.parts, n, len(want))
	}
	a.mu.Unlock()
	r.hasFiles(0)
}

// TestProvider_downloadGoesOn over failures of the actor and starts of the box, with no
// part twice among those that the actor took.
func TestProvider_downloadGoesOn(t *testing.T) {
	r := newRig(t)
	want := r.big()
	r.run()
	n := r.first(r.call("GetObject", get("o"))) // nobody is there to take it
	r.again()
	failed := 0
	a := &receiver{fail: func(part int) error {
		if part == 1 && failed < 2 {
			failed++
			return errors.New("not now")
		}
		return nil
	}}
	r.setActor(a)
	r.run()
	r.eventually("all parts", a.done)
	a.mu.Lock()
	if !bytes.Equal(a.got, want[n:]) || failed != 2 {
		t.Errorf("got %d bytes after %d, and %d failures", len(a.got), n, failed)
	}
	a.mu.Unlock()
	r.again()
	if all, err := records(r.db); err != nil || strings.Contains(all, " d/") {
		t.Errorf("records are left: %s, %v", all, err)
	}
}

func records(db *store.DB) (all string, err error) {
	err = db.List("blob/b", "", func(key string, _ []byte) error {
		all += " " + key
		return nil
	})
	return all, err
}

// TestProvider_downloadEnds when the actor cancels it, or has no such operation.
func TestProvider_downloadEnds(t *testing.T) {
	for name, a := range map[string]*receiver{
		"cancelled":  {answer: encode(pairs, st{"cancelDownload", true})},
		"in CBOR":    {answer: encode(cborRows, st{"cancelDownload", true})},
		"no handler": {fail: func(int) error { return errors.New("Method not handled: ChunkReceiver.ReceiveChunk") }}, //nolint:staticcheck // the words of a kit
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.big()
			r.setActor(a)
			r.run()
			r.call("GetObject", get("o"))
			r.eventually("the end of it", func() bool {
				all, err := records(r.db)
				return err == nil && !strings.Contains(all, " d/")
			})
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.parts > 1 {
				t.Errorf("%d parts came", a.parts)
			}
		})
	}
}

func TestProvider_downloadsBounded(t *testing.T) {
	r := newRig(t)
	r.big()
	for i := range blobstore.MaxDownloadsEach {
		r.first(r.call("GetObject", get("o", "rangeStart", nil, "rangeEnd", 300_000+i)))
	}
	got := r.call("GetObject", get("o"))
	want := strconv.Itoa(blobstore.MaxDownloadsEach) + " of this actor"
	if !strings.HasPrefix(got, "error: blobstore: unavailable: GetObject: ") || !strings.Contains(got, want) {
		t.Error(got)
	}
	r.again()
	if got := r.call("GetObject", get("o")); !strings.Contains(got, want) {
		t.Errorf("after a start: %.100s", got)
	}
	if got := r.call("GetObject", get("o", "rangeStart", nil, "rangeEnd", 99)); !strings.Contains(got, "contentLength=100") {
		t.Errorf("a range of one part: %.100s", got)
	}
}

// setHandler has an actor be served by its operations.
func (r *rig) setHandler(h func(operation string, payload []byte) ([]byte, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.actor = func(_ context.Context, inv lattice.Invocation) ([]byte, error) { return h(inv.Operation, inv.Payload) }
}
