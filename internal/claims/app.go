package claims

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/edged-io/edged/internal/atomicfile"
)

// The two fixed names in the folder of an app.
const (
	ManifestFile  = "app.toml"
	SignatureFile = "app.sig"
)

// Limits of an app's folder.
const (
	MaxAppFiles = 128       // files beside the manifest and the signature
	MaxAppFile  = 256 << 20 // bytes of one file
	maxFileName = 255       // bytes of a path inside the folder
)

// digestPrefix begins the text of a digest; 64 lower-case hex digits follow.
const digestPrefix = "sha256:"

// AppClaims are the part of a token that describes an app.
type AppClaims struct {
	Name    string            `json:"name"`
	Version string            `json:"ver"`
	Files   map[string]string `json:"files"` // path with slashes, inside the folder, to digest
}

// SignedApp is what the signature of an app says, after it was verified.
type SignedApp struct {
	AppClaims
	Issuer Key // an A key
}

// Digest is the text of a SHA-256: "sha256:" and 64 lower-case hex digits.
func Digest(sum [sha256.Size]byte) string { return digestPrefix + hex.EncodeToString(sum[:]) }

// ParseDigest is the inverse of Digest. The error wraps ErrMalformed.
func ParseDigest(s string) ([sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	digits, ok := strings.CutPrefix(s, digestPrefix)
	if ok && len(digits) == 2*len(sum) && strings.ToLower(digits) == digits {
		if _, err := hex.Decode(sum[:], []byte(digits)); err == nil {
			return sum, nil
		}
	}
	return sum, fmt.Errorf("digest %.80q is not sha256: and 64 lower-case hex digits: %w", s, ErrMalformed)
}

// CheckFileName says whether name may be the path of a file in an app's folder:
// relative, with slashes, in shortest form, never leading out of the folder,
// printable, and not that of the signature. The error wraps ErrMalformed.
func CheckFileName(name string) error {
	var why string
	switch {
	case len(name) > maxFileName:
		why = fmt.Sprintf("longer than %d bytes", maxFileName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		why = "not printable"
	case !fs.ValidPath(name) || name == "." || strings.Contains(name, `\`):
		why = "not a plain path inside the folder"
	case name == SignatureFile:
		why = "that of the signature"
	default:
		return nil
	}
	return fmt.Errorf("file name %.80q is %s: %w", name, why, ErrMalformed)
}

// DigestApp reads the folder of an app and returns the digest of every file in it
// and in its sub-folders, without app.sig. Errors wrap ErrMalformed for what may not
// be there (a link, a device, a bad name, no manifest) and ErrTooLarge.
func DigestApp(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == dir {
			if !d.IsDir() {
				return fmt.Errorf("not a folder: %w", ErrMalformed)
			}
			return nil
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if !d.IsDir() && !d.Type().IsRegular() {
			return fmt.Errorf("%s is neither a regular file nor a folder: %w", name, ErrMalformed)
		}
		if d.IsDir() || name == SignatureFile {
			return nil
		}
		if err := CheckFileName(name); err != nil {
			return err
		}
		if len(files) > MaxAppFiles {
			return fmt.Errorf("more than %d files: %w", MaxAppFiles, ErrTooLarge)
		}
		files[name], err = digestFile(p)
		return err
	})
	if err == nil && files[ManifestFile] == "" {
		err = fmt.Errorf("no %s: %w", ManifestFile, ErrMalformed)
	}
	if err != nil {
		return nil, fmt.Errorf("app folder %s: %w", dir, err)
	}
	return files, nil
}

func digestFile(p string) (digest string, err error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, MaxAppFile+1))
	if err != nil {
		return "", err
	}
	if n > MaxAppFile {
		return "", fmt.Errorf("%s: more than %d bytes: %w", p, MaxAppFile, ErrTooLarge)
	}
	return Digest([sha256.Size]byte(h.Sum(nil))), nil
}

// Dates are when a token was made and is valid.
type Dates struct {
	Issued    time.Time  // zero for now
	NotBefore *time.Time // nil for always
	Expires   *time.Time // nil for never
}

// WithDates returns c with those dates.
func WithDates[W any](c Claims[W], d Dates) Claims[W] {
	if !d.Issued.IsZero() {
		c.IssuedAt = d.Issued.Unix()
	}
	seconds := func(t *time.Time) *int64 {
		if t == nil {
			return nil
		}
		at := t.Unix()
		return &at
	}
	c.NotBefore, c.Expires = seconds(d.NotBefore), seconds(d.Expires)
	return c
}

// SignApp writes app.sig into dir, over the digests of all other files there, and
// returns its path. Name and version are those of the manifest, which this package
// does not read; seed is that of an account. An app.sig that was there is replaced.
// It fails with ErrSeed if a file in the folder is a seed, since every box would get
// it.
func SignApp(dir, name, version string, seed Seed) (string, error) {
	return SignAppWithin(dir, name, version, Dates{}, seed)
}

// SignAppWithin is SignApp with dates.
func SignAppWithin(dir, name, version string, d Dates, seed Seed) (string, error) {
	if seed.Kind() != Account {
		return "", fmt.Errorf("sign app %s: seed is of kind %s, want account: %w", dir, seed.Kind(), ErrKey)
	}
	if d.NotBefore != nil && d.Expires != nil && !d.Expires.After(*d.NotBefore) {
		return "", fmt.Errorf("sign app %s: it would expire before it is valid: %w", dir, ErrMalformed)
	}
	files, err := DigestApp(dir)
	if err != nil {
		return "", err
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if s, ok := SeedFile(filepath.Join(dir, filepath.FromSlash(file))); ok {
			return "", fmt.Errorf("sign app %s: %s is the %w", dir, file, &seedError{s})
		}
	}
	token, err := Sign(WithDates(Claims[AppClaims]{
		Subject: name,
		Wascap:  AppClaims{Name: name, Version: version, Files: files},
	}, d), seed)
	if err != nil {
		return "", fmt.Errorf("sign app %s: %w", dir, err)
	}
	sig := filepath.Join(dir, SignatureFile)
	return sig, atomicfile.WriteFile(sig, []byte(token), 0o644)
}

// seedError is ErrSeed, with whose it is.
type seedError struct{ seed Seed }

func (e *seedError) Error() string        { return e.seed.String() + ": " + ErrSeed.Error() }
func (e *seedError) Is(target error) bool { return target == ErrSeed }

// SeedFile returns the seed that the file at path holds and nothing else, if it does.
func SeedFile(path string) (Seed, bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<10 {
		return Seed{}, false
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Seed{}, false
	}
	s, err := ParseSeed(strings.TrimSpace(string(b)))
	return s, err == nil
}

// ReadSignature returns the text of app.sig in dir, without white space around it,
// and "" if there is no such file. It checks nothing but the size.
func ReadSignature(dir string) (string, error) {
	p := filepath.Join(dir, SignatureFile)
	info, err := os.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file: %w", p, ErrMalformed)
	}
	if info.Size() > MaxToken+16 { // some room for line ends
		return "", fmt.Errorf("%s: %d bytes, limit %d: %w", p, info.Size(), MaxToken, ErrTooLarge)
	}
	b, err := os.ReadFile(p)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// VerifyApp checks the signature sig of an app whose files have the given digests
// (as of DigestApp): its form; its issuer trusted by p; every file signed, with
// this digest, and no other; its dates at the time of admission. An empty sig is
// ErrUnsigned. Errors wrap the same sentinels as those of VerifyModule. That the
// manifest names the same app is the caller's to compare.
func VerifyApp(files map[string]string, sig string, p Policy) (SignedApp, error) {
	if sig == "" {
		return SignedApp{}, fmt.Errorf("app has no %s: %w", SignatureFile, ErrUnsigned)
	}
	c, err := Verify[AppClaims](sig)
	if err != nil {
		return SignedApp{}, fmt.Errorf("%s: %w", SignatureFile, err)
	}
	issuer, err := Parse(c.Issuer)
	if err != nil {
		return SignedApp{}, fmt.Errorf("%s: %w", SignatureFile, err)
	}
	// A token of another kind by the same account must not pass for one of an app.
	if c.Wascap.Name == "" || c.Subject != c.Wascap.Name || c.Wascap.Files[ManifestFile] == "" {
		return SignedApp{}, fmt.Errorf("%s: %w: not the claims of an app: %w", SignatureFile, ErrToken, ErrMalformed)
	}
	if err := p.trust(issuer); err != nil {
		return SignedApp{}, fmt.Errorf("%s: %w", SignatureFile, err)
	}
	if err := compareFiles(files, c.Wascap.Files); err != nil {
		return SignedApp{}, fmt.Errorf("%s: %w", SignatureFile, err)
	}
	if err := p.dates(c.Expires, c.NotBefore); err != nil {
		return SignedApp{}, fmt.Errorf("%s: %w", SignatureFile, err)
	}
	return SignedApp{AppClaims: c.Wascap, Issuer: issuer}, nil
}

// VerifyAppDir is VerifyApp for the folder dir and the app.sig in it.
func VerifyAppDir(dir string, p Policy) (SignedApp, error) {
	sig, err := ReadSignature(dir)
	if err != nil {
		return SignedApp{}, fmt.Errorf("app folder %s: %w", dir, err)
	}
	files, err := DigestApp(dir)
	if err != nil {
		return SignedApp{}, err
	}
	app, err := VerifyApp(files, sig, p)
	if err != nil {
		return SignedApp{}, fmt.Errorf("app folder %s: %w", dir, err)
	}
	return app, nil
}

// AppReport is what the signature of an app says, whether it holds or not: for
// showing it, never for deciding on it.
type AppReport struct {
	Claims Claims[AppClaims] // as far as they could be read
	Files  map[string]string // what is there, as of DigestApp

	// What is wrong; nil for nothing. Form is about the token: it is missing
	// (ErrUnsigned) or can not be read. The others are nil while Form is not.
	Form, Signature, FilesFault error
}

// InspectApp looks at the signature of the app in dir. The error is about the folder.
func InspectApp(dir string) (r AppReport, err error) {
	if r.Files, err = DigestApp(dir); err != nil {
		return r, err
	}
	sig, err := ReadSignature(dir)
	if err != nil {
		return r, err
	}
	if sig == "" {
		r.Form = fmt.Errorf("app has no %s: %w", SignatureFile, ErrUnsigned)
		return r, nil
	}
	if r.Claims, r.Form = Inspect[AppClaims](sig); r.Form != nil {
		return r, nil
	}
	if c := r.Claims; c.Wascap.Name == "" || c.Subject != c.Wascap.Name || c.Wascap.Files[ManifestFile] == "" {
		r.Form = fmt.Errorf("%s: not the claims of an app: %w", SignatureFile, ErrMalformed)
		return r, nil
	}
	_, r.Signature = Verify[AppClaims](sig)
	r.FilesFault = compareFiles(r.Files, r.Claims.Wascap.Files)
	return r, nil
}

// compareFiles names the first file, in order of names, that differs.
func compareFiles(got, signed map[string]string) error {
	all := map[string]string{}
	maps.Copy(all, got)
	maps.Copy(all, signed)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		have, here := got[name]
		want, listed := signed[name]
		switch {
		case here && listed && have == want:
		case !listed:
			return fmt.Errorf("%.80q is not signed: %w", name, ErrHash)
		case !here:
			return fmt.Errorf("%.80q is signed but missing: %w", name, ErrHash)
		default:
			return fmt.Errorf("%.80q has digest %s, the signature says %.80q: %w", name, have, want, ErrHash)
		}
	}
	return nil
}
