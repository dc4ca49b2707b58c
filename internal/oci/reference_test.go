package oci_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/oci"
)

var (
	goodReferences = []string{
		"wasmcloud.azurecr.io/echo:0.3.8", "ghcr.io/a/b/c_d:V1.0_x", "localhost/a:1", "localhost:5000/v2/echo:1", "127.0.0.1:5000/a:1", "[::1]:5000/a:1",
		"GHCR.io/A/B:1", "ghcr.io/a@sha256:" + strings.Repeat("0", 64), "ghcr.io/a:1@sha256:" + strings.Repeat("0", 64),
		"file:///a/b.wasm", "/a/b.par.gz", "file:///a%20b", "file:///a/../b", "sha256:" + strings.Repeat("a", 64), "ghcr.io/a",
	}
	badReferences = []string{
		"", "echo", "echo:1", "a/echo:1", "ghcr.io/", "ghcr.io/a:", "ghcr.io/a:x/y", "ghcr.io/a b:1", "ghcr.io/../a:1", "ghcr.io//a:1", "ghcr.io/a:-1", "ghcr.io/a:1\n",
		"ghcr.io/a@sha256:0", "ghcr.io/a@sha512:" + strings.Repeat("0", 128), "ghcr.io/a@md5:" + strings.Repeat("0", 32), "ghcr.io/a@", "ghcr.io/a@1",
		"file://", "file://a", "file:///a%zz", "file:///a%00", "/a\x00b", "bindle://a/b", "https://ghcr.io/a:1", "oci://ghcr.io/a:1", "user:pass@ghcr.io/a:1", "ghcr.io?x/a:1", "ghcr.io#/a:1",
		"sha256:", "sha256:" + strings.Repeat("A", 64), "sha256:" + strings.Repeat("0", 63), "ghcr.io/" + strings.Repeat("a", 1100) + ":1",
	}
)

func TestCheckReference(t *testing.T) {
	for _, ref := range goodReferences {
		if err := oci.CheckReference(ref); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range badReferences {
		if err := oci.CheckReference(ref); !errors.Is(err, oci.ErrReference) {
			t.Errorf("%.80q: got %v", ref, err)
		}
	}
}

func FuzzCheckReference(f *testing.F) {
	for _, ref := range append(goodReferences, badReferences...) {
		f.Add(ref)
	}
	fetch, err := oci.New(oci.Options{Dir: f.TempDir(), Logger: logger, Files: true, Latest: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		err := oci.CheckReference(ref)
		if err != nil && !errors.Is(err, oci.ErrReference) {
			t.Fatal(err)
		}
		if _, _, ok := fetch.Held(ref); ok {
			t.Fatal("held")
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	const layer = `{"mediaType":"` + oci.ActorLayer + `","digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":1}`
	for _, text := range []string{``, `{}`, `null`, `{"layers":[` + layer + `]}`, `{"layers":[` + layer + `,` + layer + `],"manifests":[]}`, `{"layers":[{"size":9223372036854775807}]}`} {
		f.Add("application/vnd.oci.image.manifest.v1+json", []byte(text))
	}
	f.Fuzz(func(t *testing.T, mediaType string, data []byte) {
		size, err := oci.ParseManifest(mediaType, data)
		if err != nil && !errors.Is(err, oci.ErrContent) {
			t.Fatal(err)
		}
		if err == nil && size <= 0 {
			t.Fatalf("%d bytes", size)
		}
	})
}
