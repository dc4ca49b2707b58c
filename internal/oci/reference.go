package oci

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"oras.land/oras-go/v2/registry"

	"github.com/edged-io/edged/internal/claims"
)

const (
	maxReference = 1024 // bytes
	fileScheme   = "file://"
	latest       = "latest"
)

type kind int

const (
	byRegistry kind = iota
	byPath
	byDigest
)

// reference is what a text names.
type reference struct {
	kind kind
	text string             // absolute path, or digest
	oci  registry.Reference // of a registry, with a tag or digest
}

// String is the one way to write the reference.
func (r reference) String() string {
	switch r.kind {
	case byPath:
		return fileScheme + r.text
	case byDigest:
		return r.text
	}
	return r.oci.String()
}

// pinned says that the reference can mean one thing only.
func (r reference) pinned() bool { return strings.HasPrefix(r.oci.Reference, "sha256:") }

// CheckReference says what is wrong with the form of a reference, nil for nothing; whether a box allows it is up to its switches.
func CheckReference(ref string) error {
	_, err := parseReference(ref)
	return err
}

// Pinned says whether a reference can mean one thing only, because it has a digest.
func Pinned(ref string) bool {
	r, err := parseReference(ref)
	return err == nil && (r.kind == byDigest || r.pinned())
}

// parse reads a reference that the box allows.
func (f *Fetcher) parse(ref string) (reference, error) {
	r, err := parseReference(ref)
	switch {
	case err != nil:
		return r, err
	case r.kind == byPath && !f.opts.Files:
		return r, fmt.Errorf("%w: a file of the box needs allow_files = true in [registry] of its device file", ErrRefused)
	case r.kind != byRegistry:
		return r, nil
	case r.oci.Reference == "" && f.opts.Latest:
		r.oci.Reference = latest
	case r.oci.Reference == "":
		return r, fmt.Errorf("%w: it has neither a tag (:1.0) nor a digest (@sha256:…)", ErrReference)
	case r.oci.Reference == latest && !f.opts.Latest:
		return r, fmt.Errorf("%w: what latest means changes; name a version, or allow it by  allow_latest = true  in [registry] of the device file", ErrRefused)
	}
	return r, nil
}

func parseReference(ref string) (r reference, err error) {
	if len(ref) > maxReference {
		return r, fmt.Errorf("%w: longer than %d bytes", ErrReference, maxReference)
	}
	if strings.HasPrefix(ref, "sha256:") {
		if _, err := claims.ParseDigest(ref); err != nil {
			return r, fmt.Errorf("%w: %w", ErrReference, err)
		}
		return reference{kind: byDigest, text: ref}, nil
	}
	if path, ok := strings.CutPrefix(ref, fileScheme); ok || strings.HasPrefix(ref, "/") {
		if ok && strings.Contains(path, "%") {
			if path, err = url.PathUnescape(path); err != nil {
				return r, fmt.Errorf("%w: %w", ErrReference, err)
			}
		}
		if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
			return r, fmt.Errorf("%w: want file:///PATH", ErrReference)
		}
		return reference{kind: byPath, text: filepath.Clean(path)}, nil
	}
	if scheme, _, ok := strings.Cut(ref, "://"); ok {
		return r, fmt.Errorf("%w: no references of %.20q here, only HOST/NAME:TAG, file:///PATH and sha256:…", ErrReference, scheme)
	}
	// Classic hosts take a reference in any case; in names of registries and repositories there is only one. Tags are as they are.
	name, rest := ref, ""
	if i := strings.IndexByte(ref, '@'); i >= 0 {
		name, rest = ref[:i], ref[i:]
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, rest = name[:i], name[i:]+rest
	}
	host, _, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return r, fmt.Errorf("%w: it does not begin with a registry, as ghcr.io/NAME:TAG does", ErrReference)
	}
	r.oci, err = registry.ParseReference(strings.ToLower(name) + rest)
	if err != nil || r.oci.Reference == "" && rest != "" {
		return r, fmt.Errorf("%w: want HOST/NAME:TAG or HOST/NAME@sha256:…", ErrReference)
	}
	if strings.Contains(r.oci.Reference, ":") && !r.pinned() {
		return r, fmt.Errorf("%w: only sha256 digests", ErrReference)
	}
	return r, nil
}
