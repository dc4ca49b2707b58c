package claims

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// Limits of provider archives.
const (
	MaxArchive        = 512 << 20 // bytes of all that is in one, unpacked
	MaxArchiveEntries = 64
	archiveClaims     = "claims.jwt"
	programSuffix     = ".bin"
)

// ErrTarget says that an archive has no program for this machine.
var ErrTarget = errors.New("no program for this machine")

// ProviderClaims are the part of a token that describes a capability provider.
type ProviderClaims struct {
	Name         string            `json:"name,omitempty"`
	Contract     string            `json:"capid"` // capability contract id
	Vendor       string            `json:"vendor"`
	Rev          int64             `json:"rev,omitempty"`
	Ver          string            `json:"ver,omitempty"`
	TargetHashes map[string]string `json:"target_hashes"` // by target, such as "x86_64-linux": SHA-256 in upper-case hexadecimal
	ConfigSchema json.RawMessage   `json:"config_schema,omitempty"`
}

// SignedProvider is what the token of a provider archive says, after it was verified.
type SignedProvider struct {
	ProviderClaims
	Key       Key // the provider's identity, a V key
	Issuer    Key // an A key
	IssuedAt  time.Time
	Expires   time.Time // zero for never
	NotBefore time.Time // zero for always
}

// EffectiveRev is the number to order releases by, as that of a SignedModule.
func (s SignedProvider) EffectiveRev() int64 {
	if s.Rev > 0 {
		return s.Rev
	}
	return s.IssuedAt.Unix()
}

// Targets are the names that an archive may have for programs that run on a machine
// of that GOOS and GOARCH, the best first. Archives say armv7 where some hosts
// compute arm.
func Targets(goos, goarch string) []string {
	if goos == "darwin" {
		goos = "macos"
	}
	archs, ok := map[string][]string{"amd64": {"x86_64"}, "arm64": {"aarch64"}, "arm": {"armv7", "arm"}, "386": {"x86"}}[goarch]
	if !ok {
		archs = []string{goarch}
	}
	targets := make([]string, len(archs))
	for i, a := range archs {
		targets[i] = a + "-" + goos
	}
	return targets
}

// VerifyArchive reads a provider archive, a tar that may be compressed with gzip, to
// its end: its token under p, and each program against its hash in the token. Errors
// wrap ErrUnsigned, ErrToken, ErrMalformed, ErrTooLarge, ErrSignature,
// ErrUnknownIssuer, ErrExpired, ErrNotYetValid, ErrHash or ErrTarget, or are those of
// r.
func VerifyArchive(r io.ReadSeeker, p Policy) (SignedProvider, error) {
	return readArchive(nil, r, p)
}

// ExtractArchive verifies an archive as VerifyArchive does, and writes the program for
// the first of targets that it has to w. If it fails, what was written is not to be
// used. It fails with ErrTarget if there is none.
func ExtractArchive(w io.Writer, r io.ReadSeeker, p Policy, targets ...string) (SignedProvider, error) {
	return readArchive(w, r, p, targets...)
}

func readArchive(w io.Writer, r io.ReadSeeker, p Policy, targets ...string) (SignedProvider, error) {
	s, err := archiveToken(r, p)
	if err != nil {
		return SignedProvider{}, fmt.Errorf("provider archive: %w", err)
	}
	want := ""
	if w != nil {
		at := slices.IndexFunc(targets, func(t string) bool { return s.TargetHashes[t] != "" })
		if at < 0 {
			return SignedProvider{}, fmt.Errorf("provider archive %s: %w: it is for %s, this is %s", s.Key, ErrTarget,
				clipped(strings.Join(slices.Sorted(maps.Keys(s.TargetHashes)), ", ")), strings.Join(targets, " or "))
		}
		want = targets[at]
	}
	seen := make(map[string]bool)
	err = walkArchive(r, func(name string, body io.Reader) error {
		target, ok := strings.CutSuffix(name, programSuffix)
		switch {
		case !ok: // what else newer tools put there
			return nil
		case seen[target]:
			return fmt.Errorf("two programs for %s: %w", target, ErrMalformed)
		}
		seen[target] = true
		out := io.Discard
		if w != nil && target == want {
			out = w
		}
		return copyProgram(out, body, target, s.TargetHashes)
	})
	switch {
	case err != nil:
	case len(seen) == 0:
		err = fmt.Errorf("it holds no program: %w", ErrTarget)
	case want != "" && !seen[want]:
		err = fmt.Errorf("%w: its claims name a program for %s that is not in it", ErrTarget, want)
	}
	if err != nil {
		return SignedProvider{}, fmt.Errorf("provider archive %s: %w", s.Key, err)
	}
	return s, nil
}

// clipped is a text from outside, of a length for errors.
func clipped(s string) string { return fmt.Sprintf("%.200q", s) }

func copyProgram(w io.Writer, body io.Reader, target string, hashes map[string]string) error {
	want, ok := hashes[target]
	if !ok {
		return fmt.Errorf("program %s is not in the claims: %w", target, ErrHash)
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), body); err != nil {
		return err
	}
	if have := upperHex([32]byte(h.Sum(nil))); have != want {
		return fmt.Errorf("program %s has the hash %s, the claims say %.64q: %w", target, have, want, ErrHash)
	}
	return nil
}

// archiveToken finds and checks the token, which may be anywhere in the archive.
func archiveToken(r io.ReadSeeker, p Policy) (SignedProvider, error) {
	var token []byte
	err := walkArchive(r, func(name string, body io.Reader) (err error) {
		if name != archiveClaims {
			return nil
		}
		if token != nil {
			return fmt.Errorf("two files %s: %w", archiveClaims, ErrMalformed)
		}
		token, err = io.ReadAll(io.LimitReader(body, MaxToken+3)) // some room for a line end
		return err
	})
	if err != nil {
		return SignedProvider{}, err
	}
	if token == nil {
		return SignedProvider{}, fmt.Errorf("no file %s: %w", archiveClaims, ErrUnsigned)
	}
	c, err := Verify[ProviderClaims](string(bytes.TrimRight(token, "\r\n")))
	if err != nil {
		return SignedProvider{}, err
	}
	s, err := newSignedProvider(c)
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if err := p.trust(s.Issuer); err != nil {
		return s, fmt.Errorf("%s: %w", s.Key, err)
	}
	if err := p.dates(c.Expires, c.NotBefore); err != nil {
		return s, fmt.Errorf("%s: %w", s.Key, err)
	}
	return s, nil
}

// newSignedProvider takes claims whose signature was checked.
func newSignedProvider(c Claims[ProviderClaims]) (SignedProvider, error) {
	s := SignedProvider{ProviderClaims: c.Wascap, IssuedAt: time.Unix(c.IssuedAt, 0)}
	var err error
	if s.Issuer, err = Parse(c.Issuer); err != nil {
		return s, fmt.Errorf("iss: %w: %w", ErrMalformed, err)
	}
	if s.Key, err = Parse(c.Subject); err != nil || s.Key.Kind() != Service {
		return s, fmt.Errorf("sub %.60q is not the key of a provider: %w", c.Subject, ErrMalformed)
	}
	if len(s.TargetHashes) == 0 { // a token of another kind has none either
		return s, fmt.Errorf("not the claims of a provider, they name no program: %w", ErrMalformed)
	}
	if c.Expires != nil {
		s.Expires = time.Unix(*c.Expires, 0)
	}
	if c.NotBefore != nil {
		s.NotBefore = time.Unix(*c.NotBefore, 0)
	}
	return s, nil
}

// walkArchive gives the files of an archive. A name is one in no folder.
func walkArchive(r io.ReadSeeker, fn func(name string, body io.Reader) error) error {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in := bufio.NewReader(r)
	var plain io.Reader = in
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) { // file names tell nothing
		z, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("gzip: %w: %w", ErrMalformed, err)
		}
		plain = z
	}
	// What is read and what comes of it are bounded apart: a sparse file in a tar is
	// larger than its bytes.
	read, left := &boundedReader{r: plain, left: MaxArchive + 1<<20}, int64(MaxArchive)
	t := tar.NewReader(read)
	for entries := 0; ; entries++ {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, ErrTooLarge):
			return err
		case err != nil:
			return fmt.Errorf("tar: %w: %w", ErrMalformed, err)
		case entries >= MaxArchiveEntries:
			return fmt.Errorf("more than %d files: %w", MaxArchiveEntries, ErrTooLarge)
		}
		name := strings.TrimPrefix(h.Name, "./")
		if h.Typeflag == tar.TypeDir && (name == "" || name == ".") {
			continue
		}
		if h.Typeflag != tar.TypeReg || name == "" || strings.ContainsAny(name, "/\\\x00") || name == ".." {
			return fmt.Errorf("entry %.80q is not a plain file outside of folders: %w", h.Name, ErrMalformed)
		}
		if left -= h.Size; left < 0 {
			return fmt.Errorf("it unpacks to more than %d bytes: %w", int64(MaxArchive), ErrTooLarge)
		}
		if err := fn(name, archiveBody{t}); err != nil {
			return err
		}
	}
}

// archiveBody tells a damaged archive from a failure of who reads it.
type archiveBody struct{ r io.Reader }

func (b archiveBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, ErrTooLarge) {
		err = fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return n, err
}

// boundedReader fails with ErrTooLarge, where io.LimitReader would end.
type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("it unpacks to more than %d bytes: %w", int64(MaxArchive), ErrTooLarge)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// WriteArchive makes a provider archive, a gzip-compressed tar, of programs: the path
// of each file by its target, as of Targets. The token is for c.Subject, a V key, and
// signed by the account seed; its hashes and issuer are filled in here. Errors wrap
// ErrKey or ErrMalformed, or are those of files and w.
func WriteArchive(w io.Writer, c Claims[ProviderClaims], programs map[string]string, seed Seed) error {
	if seed.Kind() != Account {
		return fmt.Errorf("provider archive: seed is of kind %s, want account: %w", seed.Kind(), ErrKey)
	}
	c.Wascap.TargetHashes = make(map[string]string)
	for target, path := range programs {
		if target == "" || strings.ContainsAny(target, "/\\\x00") {
			return fmt.Errorf("provider archive: target %.80q: %w", target, ErrMalformed)
		}
		hash, err := hashProgram(path)
		if err != nil {
			return fmt.Errorf("provider archive: %w", err)
		}
		c.Wascap.TargetHashes[target] = hash
	}
	c.Issuer, c.Revision = seed.Key().String(), hashRevision
	if _, err := newSignedProvider(c); err != nil {
		return fmt.Errorf("provider archive: %w", err)
	}
	token, err := Sign(c, seed)
	if err != nil {
		return fmt.Errorf("provider archive: %w", err)
	}
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	err = t.WriteHeader(&tar.Header{Name: archiveClaims, Size: int64(len(token)), Format: tar.FormatGNU})
	if err == nil {
		_, err = io.WriteString(t, token)
	}
	for _, target := range slices.Sorted(maps.Keys(programs)) {
		if err == nil {
			err = addProgram(t, target+programSuffix, programs[target])
		}
	}
	if err = errors.Join(err, t.Close(), z.Close()); err != nil {
		return fmt.Errorf("provider archive: %w", err)
	}
	return nil
}

func hashProgram(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // only read from
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return upperHex([32]byte(h.Sum(nil))), nil
}

func addProgram(t *tar.Writer, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read from
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Size: info.Size(), Mode: 0o755, Format: tar.FormatGNU}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}
