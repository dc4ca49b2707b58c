package blobstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/edged-io/edged/sdk/go/actor"
)

// TestSDK has the Go SDK speak to the provider.
func TestSDK(t *testing.T) {
	r := newRig(t)
	before := actor.SetHost(func(link, target, operation string, payload []byte) ([]byte, error) {
		if link != "default" || target != "wasmcloud:blobstore" {
			return nil, fmt.Errorf("%s by link %s", target, link)
		}
		return r.callAs(t.Context(), "actor", operation[len("Blobstore."):], payload)
	})
	t.Cleanup(func() { actor.SetHost(before) })
	s := actor.Blobs
	if err := s.Put("c", "o", "", []byte("x")); !errors.Is(err, actor.ErrNoTopic) {
		t.Errorf("put without a container: %v", err)
	}
	if err := errors.Join(s.CreateContainer("c"), s.CreateContainer("d")); err != nil {
		t.Fatal(err)
	}
	if names, err := s.Containers(); err != nil || fmt.Sprint(names) != "[c d]" {
		t.Errorf("containers %v, %v", names, err)
	}
	big := bytes.Repeat([]byte("0123456789"), 50_000)
	for name, data := range map[string][]byte{"empty": nil, "small": []byte("x"), "part": big[:128<<10], "big": big} {
		if err := s.Put("c", name, "text/plain", data); err != nil {
			t.Fatal(err)
		}
		got, err := s.Get("c", name)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: got %d bytes, %v, want %d", name, len(got), err, len(data))
		}
	}
	for _, c := range []struct {
		offset int64
		n      int
		want   string
	}{{0, 1, "0"}, {3, 4, "3456"}, {499_998, 9, "89"}, {500_000, 9, ""}, {1, 0, ""}} {
		if got, err := s.GetRange("c", "big", c.offset, c.n); err != nil || string(got) != c.want {
			t.Errorf("%d bytes at %d: %q, %v, want %q", c.n, c.offset, got, err, c.want)
		}
	}
	if _, err := s.Get("c", "none"); !errors.Is(err, actor.ErrNoTopic) {
		t.Errorf("get what is not there: %v", err)
	}
	if o, err := s.Info("c", "big"); err != nil || o != (actor.ObjectInfo{Container: "c", Name: "big", Length: 500_000, ContentType: "text/plain"}) {
		t.Errorf("info %+v, %v", o, err)
	}
	u, err := s.Create("c", "log", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(u, "one,"); err != nil {
		t.Error(err)
	}
	kept := *u // as one that is kept from call to call
	if _, err := fmt.Fprintf(&kept, "two"); err != nil {
		t.Error(err)
	}
	if ok, err := s.Contains("c", "log"); ok || err != nil {
		t.Errorf("what is not closed is there: %v", err)
	}
	if err := kept.Close(); err != nil {
		t.Error(err)
	}
	if got, err := s.Get("c", "log"); string(got) != "one,two" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if u, err = s.Create("c", "log", ""); err == nil {
		err = u.Cancel()
	}
	if got, _ := s.Get("c", "log"); string(got) != "one,two" || err != nil {
		t.Errorf("after one that was cancelled %q, %v", got, err)
	}
	objects, more, err := s.List("c", "", "")
	if err != nil || more != "" || len(objects) != 5 || objects[0].Name != "big" || objects[0].Length != 500_000 {
		t.Errorf("list %+v, %q, %v", objects, more, err)
	}
	r.link("actor", map[string]string{"bucket": "b", "max_bytes": "800000"})
	r.run()
	if err := s.Put("c", "huge", "", big); !errors.Is(err, actor.ErrUnavailable) {
		t.Errorf("put what there is no room for: %v", err)
	}
	r.hasFiles(5) // and nothing of it is left
	if err := errors.Join(s.Remove("c", "big", "none"), s.RemoveContainers("d", "none")); err != nil {
		t.Error(err)
	}
	if err := s.Remove("c", ""); !errors.Is(err, actor.ErrUnavailable) {
		t.Errorf("remove an object without a name: %v", err)
	}
}

// TestSDK_chunks has the provider send an object to a handler of the Go SDK.
func TestSDK_chunks(t *testing.T) {
	r := newRig(t)
	want := r.big()
	var got []byte
	done := make(chan struct{})
	actor.OnChunk(func(c actor.Chunk) (bool, error) {
		if c.Object != "o" || c.Container != "c" {
			t.Errorf("%s of %s", c.Object, c.Container)
		}
		if got = append(got, c.Bytes...); c.Last {
			close(done)
		}
		return false, nil
	})
	r.setHandler(actor.Invoke)
	before := actor.SetHost(func(_, _, operation string, payload []byte) ([]byte, error) {
		return r.callAs(t.Context(), "actor", operation[len("Blobstore."):], payload)
	})
	t.Cleanup(func() { actor.SetHost(before) })
	first, err := actor.Blobs.Send("c", "o")
	if err != nil || first.Last {
		t.Fatalf("first part: %v, %v", first.Last, err)
	}
	got = first.Bytes
	r.run()
	<-done
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
	r.end()
}
