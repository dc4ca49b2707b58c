package ota

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/nameform"
)

const (
	maxDesired = 256 << 10 // bytes of the JSON
	maxVersion = 128       // bytes
)

// ErrDesired is wrapped by the errors of ParseDesired. Reading the same bytes again
// cannot help.
var ErrDesired = errors.New("not a desired state")

// appName is what an app may be called; it becomes the name of a folder.
const appName = nameform.Form(64)

// Desired is what a hub wants a box to run: the value of the box's key in the
// bucket EDGE_DESIRED.
type Desired struct {
	App      string            `json:"app"`
	Version  string            `json:"version"`
	Manifest string            `json:"manifest"` // digest of app.toml, "sha256:…"
	Files    map[string]string `json:"files"`    // the other files: path inside the folder to digest
	Sig      string            `json:"sig"`      // text of app.sig; "" for an unsigned app
}

// ParseDesired reads and checks the JSON of a desired state. Fields that it does
// not know are ignored. Errors wrap ErrDesired.
func ParseDesired(b []byte) (Desired, error) {
	if len(b) > maxDesired {
		return Desired{}, fmt.Errorf("%w: %d bytes, limit %d", ErrDesired, len(b), maxDesired)
	}
	var d Desired
	if err := json.Unmarshal(b, &d); err != nil {
		return Desired{}, fmt.Errorf("%w: %w", ErrDesired, err)
	}
	if err := d.check(); err != nil {
		return Desired{}, fmt.Errorf("%w: %w", ErrDesired, err)
	}
	return d, nil
}

func (d *Desired) check() error {
	if !appName.MatchString(d.App) {
		return fmt.Errorf("app: %.80q is not 1 to 64 of A-Z a-z 0-9 _ -", d.App)
	}
	if len(d.Version) > maxVersion {
		return fmt.Errorf("version: %d bytes, limit %d", len(d.Version), maxVersion)
	}
	if _, err := claims.ParseDigest(d.Manifest); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if len(d.Sig) > claims.MaxToken {
		return fmt.Errorf("sig: %d bytes, limit %d", len(d.Sig), claims.MaxToken)
	}
	// A list of all files, the manifest among them, says the same thing.
	if d.Files[claims.ManifestFile] == d.Manifest {
		delete(d.Files, claims.ManifestFile)
	}
	if len(d.Files) > claims.MaxAppFiles {
		return fmt.Errorf("files: %d, limit %d", len(d.Files), claims.MaxAppFiles)
	}
	for name, digest := range d.Files {
		if err := d.checkFile(name, digest); err != nil {
			return fmt.Errorf("files: %w", err)
		}
	}
	return nil
}

func (d *Desired) checkFile(name, digest string) error {
	if err := claims.CheckFileName(name); err != nil {
		return err
	}
	if _, err := claims.ParseDigest(digest); err != nil {
		return fmt.Errorf("%.80q: %w", name, err)
	}
	if name == claims.ManifestFile {
		return fmt.Errorf("%s has another digest than the manifest", name)
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := d.Files[dir]; ok || dir == claims.ManifestFile || dir == claims.SignatureFile {
			return fmt.Errorf("%.80q is both a file and a folder", dir)
		}
	}
	return nil
}

// all is every file of the app with its digest, the manifest among them.
func (d *Desired) all() map[string]string {
	files := map[string]string{claims.ManifestFile: d.Manifest}
	maps.Copy(files, d.Files)
	return files
}

// digests is what has to be on the box, each once, the manifest first.
func (d *Desired) digests() []string {
	rest := slices.Compact(slices.Sorted(maps.Values(d.Files)))
	rest = slices.DeleteFunc(rest, func(s string) bool { return s == d.Manifest })
	return append([]string{d.Manifest}, rest...)
}

// Release is the digest of the app's name and all its files, and so the name of one
// release: two pushes with the same bytes are the same release, whatever their
// version and signature. (The digest of the manifest alone would not tell two
// builds of a module under one manifest apart.)
func (d *Desired) Release() string {
	return digestOf(struct {
		App   string            `json:"app"`
		Files map[string]string `json:"files"`
	}{d.App, d.all()})
}

// key is the digest of the whole desired state. What was tried and rolled back is
// not tried again under the same key.
func (d *Desired) key() string {
	return digestOf(struct {
		Release, Version, Sig string
	}{d.Release(), d.Version, d.Sig})
}

// digestOf is over the JSON of v, whose maps are written in order of their keys.
func digestOf(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("ota: marshal strings: %v", err)) // strings and maps of strings only
	}
	return claims.Digest(sha256.Sum256(b))
}
