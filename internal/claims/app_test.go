package claims_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

func write(t testing.TB, dir, name, content string) {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// appDir makes a folder with a manifest, a module and a file further down.
func appDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "app.toml", "name = \"greenhouse\"\n")
	write(t, dir, "x.wasm", emptyModule)
	write(t, dir, "data/table.csv", "1,2\n")
	return dir
}

func signApp(t testing.TB, dir string) string {
	t.Helper()
	p, err := claims.SignApp(dir, "greenhouse", "1.4.0", seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSignApp_form(t *testing.T) {
	dir := appDir(t)
	p := signApp(t, dir)
	if p != filepath.Join(dir, "app.sig") {
		t.Errorf("wrote %s", p)
	}
	sig, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	c, err := claims.Verify[map[string]json.RawMessage](string(sig))
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != "greenhouse" || c.Issuer != checkKeys[0].key || c.ID == "" || c.IssuedAt == 0 {
		t.Errorf("got %+v", c)
	}
	if got := slices.Sorted(maps.Keys(c.Wascap)); !slices.Equal(got, []string{"files", "name", "ver"}) {
		t.Errorf("wascap has %v", got)
	}
	app, err := claims.VerifyAppDir(dir, trusted(t))
	if err != nil {
		t.Fatal(err)
	}
	if app.Name != "greenhouse" || app.Version != "1.4.0" || app.Issuer.String() != checkKeys[0].key {
		t.Errorf("got %+v", app)
	}
	if got := slices.Sorted(maps.Keys(app.Files)); !slices.Equal(got, []string{"app.toml", "data/table.csv", "x.wasm"}) {
		t.Errorf("files: %v", got)
	}
	if want := claims.Digest(sha256.Sum256([]byte(emptyModule))); app.Files["x.wasm"] != want {
		t.Errorf("digest: got %s, want %s", app.Files["x.wasm"], want)
	}
	signApp(t, dir) // an app.sig that is there is not part of what is signed
	if _, err := claims.VerifyAppDir(dir, trusted(t)); err != nil {
		t.Error(err)
	}
}

func TestVerifyAppDir_everyChangeIsSeen(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"manifest":      func(dir string) error { return os.WriteFile(filepath.Join(dir, "app.toml"), []byte("x"), 0o644) },
		"module":        func(dir string) error { return os.WriteFile(filepath.Join(dir, "x.wasm"), []byte("x"), 0o644) },
		"missing":       func(dir string) error { return os.Remove(filepath.Join(dir, "data", "table.csv")) },
		"added":         func(dir string) error { return os.WriteFile(filepath.Join(dir, "y.wasm"), nil, 0o644) },
		"added below":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "data", "app.sig"), nil, 0o644) },
		"moved":         func(dir string) error { return os.Rename(filepath.Join(dir, "x.wasm"), filepath.Join(dir, "z.wasm")) },
		"other's files": func(dir string) error { return os.Truncate(filepath.Join(dir, "x.wasm"), 3) },
	} {
		dir := appDir(t)
		signApp(t, dir)
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := claims.VerifyAppDir(dir, trusted(t)); !errors.Is(err, claims.ErrHash) {
			t.Errorf("%s: got %v, want ErrHash", name, err)
		}
	}
}

func TestVerifyAppDir_refuses(t *testing.T) {
	token := func(c claims.Claims[claims.AppClaims]) string {
		s, err := claims.Sign(c, seedOf(t, 1))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	files, err := claims.DigestApp(appDir(t))
	if err != nil {
		t.Fatal(err)
	}
	full := claims.AppClaims{Name: "greenhouse", Version: "1.4.0", Files: files}
	past := time.Now().Unix() - 10
	admission := trusted(t)
	admission.Admission = time.Now()
	for name, c := range map[string]struct {
		sig    string
		policy claims.Policy
		want   error
	}{
		"good":           {token(claims.Claims[claims.AppClaims]{Subject: "greenhouse", Wascap: full}), trusted(t), nil},
		"line end":       {token(claims.Claims[claims.AppClaims]{Subject: "greenhouse", Wascap: full}) + "\r\n", trusted(t), nil},
		"unknown issuer": {token(claims.Claims[claims.AppClaims]{Subject: "greenhouse", Wascap: full}), claims.Policy{}, claims.ErrUnknownIssuer},
		"other subject":  {token(claims.Claims[claims.AppClaims]{Subject: "other", Wascap: full}), trusted(t), claims.ErrMalformed},
		"no files":       {token(claims.Claims[claims.AppClaims]{Subject: "greenhouse", Wascap: claims.AppClaims{Name: "greenhouse"}}), trusted(t), claims.ErrMalformed},
		"expired":        {token(claims.Claims[claims.AppClaims]{Subject: "greenhouse", Wascap: full, Expires: &past}), admission, claims.ErrExpired},
		"expired later":  {token(claims.Claims[claims.AppClaims]{Subject: "greenhouse", Wascap: full, Expires: &past}), trusted(t), nil},
		"empty":          {"", trusted(t), claims.ErrUnsigned},
		"text":           {"hello", trusted(t), claims.ErrMalformed},
		"large":          {strings.Repeat("x", claims.MaxToken+100), trusted(t), claims.ErrTooLarge},
	} {
		dir := appDir(t)
		write(t, dir, "app.sig", c.sig)
		if _, err := claims.VerifyAppDir(dir, c.policy); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if _, err := claims.VerifyAppDir(appDir(t), trusted(t)); !errors.Is(err, claims.ErrUnsigned) {
		t.Errorf("no app.sig: got %v, want ErrUnsigned", err)
	}
	if _, err := claims.VerifyAppDir(filepath.Join(t.TempDir(), "none"), trusted(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: got %v, want fs.ErrNotExist", err)
	}
	// The token of a module by the same account is not one of an app.
	module, err := claims.SignModule([]byte(emptyModule), tiny(), seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := claims.Extract(module)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claims.VerifyApp(nil, sig, trusted(t)); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("module token: got %v, want ErrMalformed", err)
	}
}

func TestDigestApp_refuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		want   error
	}{
		"link":        {func(dir string) error { return os.Symlink("x.wasm", filepath.Join(dir, "y.wasm")) }, claims.ErrMalformed},
		"linked dir":  {func(dir string) error { return os.Symlink("data", filepath.Join(dir, "more")) }, claims.ErrMalformed},
		"linked sig":  {func(dir string) error { return os.Symlink("x.wasm", filepath.Join(dir, "app.sig")) }, claims.ErrMalformed},
		"pipe":        {func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644) }, claims.ErrMalformed},
		"line end":    {func(dir string) error { return os.WriteFile(filepath.Join(dir, "a\nb"), nil, 0o644) }, claims.ErrMalformed},
		"backslash":   {func(dir string) error { return os.WriteFile(filepath.Join(dir, `a\b`), nil, 0o644) }, claims.ErrMalformed},
		"no manifest": {func(dir string) error { return os.Remove(filepath.Join(dir, "app.toml")) }, claims.ErrMalformed},
		"large":       {func(dir string) error { return os.Truncate(filepath.Join(dir, "x.wasm"), claims.MaxAppFile+1) }, claims.ErrTooLarge},
		"many": {func(dir string) error {
			for i := range claims.MaxAppFiles {
				if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o644); err != nil {
					return err
				}
			}
			return nil
		}, claims.ErrTooLarge},
	} {
		dir := appDir(t)
		if err := c.change(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := claims.DigestApp(dir); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(appDir(t), link); err != nil {
		t.Fatal(err)
	}
	if _, err := claims.DigestApp(link); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("folder is a link: got %v, want ErrMalformed", err)
	}
}

func TestSignApp_refusesOtherKinds(t *testing.T) {
	dir := appDir(t)
	if _, err := claims.SignApp(dir, "greenhouse", "1", seedOf(t, 2)); !errors.Is(err, claims.ErrKey) {
		t.Errorf("got %v, want ErrKey", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "app.sig")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("app.sig was written: %v", err)
	}
}

func TestCheckFileName(t *testing.T) {
	for name, ok := range map[string]bool{
		"app.toml": true, "x.wasm": true, "a/b/c.txt": true, "müller.wasm": true, "a b": true, "sub/app.sig": true, "..x": true,
		"": false, ".": false, "..": false, "../x": false, "a/../b": false, "/etc/passwd": false, "a//b": false, "a/": false,
		`a\b`: false, "a\x00b": false, "a\xffb": false, "app.sig": false, strings.Repeat("x", 256): false,
	} {
		if err := claims.CheckFileName(name); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", name, err, ok)
		}
	}
}

func TestParseDigest(t *testing.T) {
	good := claims.Digest(sha256.Sum256(nil))
	if s, err := claims.ParseDigest(good); err != nil || claims.Digest(s) != good {
		t.Errorf("got %x, %v", s, err)
	}
	for _, bad := range []string{"", good[7:], strings.ToUpper(good), good + "0", good[:70], "sha256:" + strings.Repeat("g", 64), "sha256:" + strings.ToUpper(good[7:])} {
		if _, err := claims.ParseDigest(bad); !errors.Is(err, claims.ErrMalformed) {
			t.Errorf("%q: got %v, want ErrMalformed", bad, err)
		}
	}
}

func FuzzVerifyApp(f *testing.F) {
	dir := appDir(f)
	files, err := claims.DigestApp(dir)
	if err != nil {
		f.Fatal(err)
	}
	// Fixed id and time: each worker process of the fuzzer comes through here.
	good, err := claims.Sign(claims.Claims[claims.AppClaims]{
		ID: "AAAAAAAAAAAAAAAAAAAAAA", IssuedAt: 1700000000, Subject: "greenhouse",
		Wascap: claims.AppClaims{Name: "greenhouse", Version: "1.4.0", Files: files},
	}, seedOf(f, 1))
	if err != nil {
		f.Fatal(err)
	}
	policy := trusted(f)
	f.Add(good, "x.wasm")
	f.Add(signText(f, goodHeader, goodBody()), "../x")
	f.Fuzz(func(t *testing.T, sig, name string) {
		if _, err := claims.VerifyApp(files, sig, policy); err == nil && sig != good {
			t.Errorf("accepted %q", sig)
		}
		if claims.CheckFileName(name) == nil && !filepath.IsLocal(filepath.FromSlash(name)) {
			t.Errorf("accepted the name %q", name)
		}
	})
}
