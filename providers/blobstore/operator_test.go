package blobstore_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/edged-io/edged/providers/blobstore"
)

// TestProvider_operator sees what there is, reads it, and removes it.
func TestProvider_operator(t *testing.T) {
	r := newRig(t)
	r.run()
	r.link("other", map[string]string{"bucket": "other"})
	for _, c := range []string{"c", "d"} {
		r.call("CreateContainer", c)
	}
	for i := range 100 {
		r.call("PutObject", putAs(fmt.Sprintf("%03d", i), "0123456789", true))
	}
	r.call("PutObject", put("under way", false))
	if got := r.p.Buckets(); fmt.Sprint(got) != "[{b 101 1009}]" {
		t.Errorf("buckets %v", got)
	}
	n := 0
	err := r.p.Objects("b", func(o blobstore.ObjectInfo) error {
		if want := fmt.Sprintf("%03d", n); o.Container != "c" || o.Object != want || o.Length != 10 || o.ContentType != "text/plain" || o.Modified.Unix() != 1700000000 || o.Version == "" {
			t.Errorf("object %d is %+v", n, o)
		}
		n++
		return nil
	})
	if err != nil || n != 100 {
		t.Errorf("%d objects, %v", n, err)
	}
	for offset, want := range map[int64]string{0: "0123", 7: "789", 10: "", 99: "", -1: "0123"} {
		part, info, err := r.p.Read(t.Context(), "b", "c", "005", offset, 4)
		if err != nil || string(part) != want || info.Length != 10 {
			t.Errorf("at %d: %q, %+v, %v", offset, part, info, err)
		}
	}
	for _, name := range [][3]string{{"b", "c", "none"}, {"b", "none", "005"}, {"none", "c", "005"}} {
		if _, _, err := r.p.Read(t.Context(), name[0], name[1], name[2], 0, 4); !errors.Is(err, blobstore.ErrNoObject) {
			t.Errorf("%v: %v", name, err)
		}
	}
	if err := r.p.Empty(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	r.hasFiles(0)
	r.eventually("nothing counts", func() bool { return len(r.p.Buckets()) == 0 })
	r.want("ContainerExists", "c", "false")
}
