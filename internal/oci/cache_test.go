package oci_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/oci/ocitest"
)

// The oldest go first, and never what is in use.
func TestFetcher_Fetch_cacheFull(t *testing.T) {
	r := ocitest.New(t)
	refs := make([]string, 5)
	for i := range refs {
		refs[i], _ = r.Push("a:"+string(rune('0'+i)), actor(noise(10_000+i)))
	}
	opts := insecure(r)
	opts.Dir, opts.CacheBytes = t.TempDir(), 35_000
	f := fetcher(t, opts)
	for i := range 3 {
		want(t, f, refs[i], noise(10_000+i))
	}
	if _, _, err := f.Fetch(t.Context(), refs[3]); err == nil || !strings.Contains(err.Error(), "do not fit into the cache") {
		t.Fatalf("got %v, want that the cache is full", err)
	}
	// After a restart the second one is in use.
	if err := os.WriteFile(filepath.Join(opts.Dir, "sha256-"+strings.Repeat("0", 64)+".part"), noise(100), 0o600); err != nil {
		t.Fatal(err)
	}
	f = fetcher(t, opts)
	if _, _, ok := f.Held(refs[1]); !ok {
		t.Fatal("not held")
	}
	want(t, f, refs[3], noise(10_003))
	for i, held := range []bool{false, true, true, true, false} {
		if _, _, ok := f.Held(refs[i]); ok != held {
			t.Errorf("%d: got %v, want %v", i, ok, held)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(opts.Dir, "*.part")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	opts.ReserveDisk = 1 << 60
	if _, _, err := fetcher(t, opts).Fetch(t.Context(), refs[4]); err == nil || !strings.Contains(err.Error(), "for messages") {
		t.Errorf("got %v, want that the disk is full", err)
	}
}

// What the disk has damaged is noticed and fetched again.
func TestNew_damage(t *testing.T) {
	r := ocitest.New(t)
	ref, _ := r.Push("a:1", actor([]byte("code")))
	opts := insecure(r)
	opts.Dir = t.TempDir()
	path := want(t, fetcher(t, opts), ref, []byte("code"))
	index := filepath.Join(opts.Dir, "index.json")

	for name, damage := range map[string]func() error{
		"content": func() error {
			return os.WriteFile(path, []byte("cod"), 0o600)
		},
		"no content": func() error { return os.Remove(path) },
		"index":      func() error { return os.WriteFile(index, []byte("{\"format\":1,"), 0o600) },
		"new index":  func() error { return os.WriteFile(index, []byte(`{"format":2}`), 0o600) },
		"a folder": func() error {
			return errors.Join(os.Remove(index), os.MkdirAll(filepath.Join(index, "x"), 0o700))
		},
		"wrong names": func() error {
			return os.WriteFile(index, []byte(`{"format":1,"refs":[{"ref":"`+ref+`","digest":"sha256:../../../etc/passwd"}]}`), 0o600)
		},
		"copies": func() error { return os.WriteFile(filepath.Join(opts.Dir, ".copy-1"), nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			f := fetcher(t, opts)
			if _, _, ok := f.Held(ref); ok != (name == "copies") {
				t.Errorf("held: %v", ok)
			}
			want(t, f, ref, []byte("code"))
			if left, _ := filepath.Glob(filepath.Join(opts.Dir, ".copy-*")); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

// Gone while the box runs.
func TestFetcher_Fetch_removed(t *testing.T) {
	r := ocitest.New(t)
	ref, manifest := r.Push("a:1", actor([]byte("code")))
	f := fetcher(t, insecure(r))
	for range 2 {
		if err := os.Remove(want(t, f, ref, []byte("code"))); err != nil {
			t.Fatal(err)
		}
	}
	want(t, f, r.Host+"/a@"+manifest, []byte("code"))
}

func TestNew_options(t *testing.T) {
	if _, err := oci.New(oci.Options{Dir: t.TempDir()}); err == nil {
		t.Error("without a logger")
	}
	// A file in the place of the folder is set aside.
	file := filepath.Join(t.TempDir(), "oci")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fetcher(t, oci.Options{Dir: file})
	if _, err := os.Stat(file + ".damaged"); err != nil {
		t.Error(err)
	}
}
