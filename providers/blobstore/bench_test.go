package blobstore_test

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkPutObject puts objects in turns of their own: a file, its sync and that of the
// folder, and the commit.
func BenchmarkPutObject(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			r := newRig(b)
			r.run()
			r.link("actor", map[string]string{"bucket": "b", "max_bytes": "100000000"})
			r.call("CreateContainer", "c")
			payload := encode(pairs, put(strings.Repeat("x", size), true))
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := r.callAs(b.Context(), "actor", "PutObject", payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGetObject gets ranges of an object.
func BenchmarkGetObject(b *testing.B) {
	r := newRig(b)
	r.big()
	payload := encode(pairs, get("o", "rangeStart", 1000, "rangeEnd", 1000+128<<10-1))
	b.SetBytes(128 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.callAs(b.Context(), "actor", "GetObject", payload); err != nil {
			b.Fatal(err)
		}
	}
}
