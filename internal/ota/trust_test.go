package ota_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/ota"
)

func account(t *testing.T) claims.Seed {
	t.Helper()
	s, err := claims.Generate(claims.Account)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t *testing.T, dir string, seed claims.Seed, version string) {
	t.Helper()
	if _, err := claims.SignApp(dir, "greenhouse", version, seed); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// signature makes the text of an app.sig over the files of d.
func signature(t *testing.T, seed claims.Seed, d ota.Desired, change func(*claims.Claims[claims.AppClaims])) string {
	t.Helper()
	files := map[string]string{"app.toml": d.Manifest}
	for name, dg := range d.Files {
		files[name] = dg
	}
	c := claims.Claims[claims.AppClaims]{Subject: d.App, Wascap: claims.AppClaims{Name: d.App, Version: d.Version, Files: files}}
	if change != nil {
		change(&c)
	}
	token, err := claims.Sign(c, seed)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestAgent_signatureRequired(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	trusted, stranger := account(t), account(t)
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), func(o *ota.Options) {
		o.AllowUnsigned, o.Issuers = false, []claims.Key{trusted.Key()}
	})
	dir := app(t, "app.toml", "v1", "x.wasm", "module")
	base := push(t, h, dir, "1")
	base.Sig = ""
	past := time.Now().Unix() - 100
	cases := []struct{ name, sig, want string }{
		{"unsigned", "", "not signed"},
		{"unknown issuer", signature(t, stranger, base, nil), "not trusted"},
		{"text", "hello", "malformed"},
		{"other bytes", signature(t, trusted, ota.Desired{App: "greenhouse", Version: "1", Manifest: digestOf("v2"), Files: base.Files}, nil), "other bytes"},
		{"a file more", signature(t, trusted, ota.Desired{App: "greenhouse", Version: "1", Manifest: base.Manifest}, nil), "x.wasm"},
		{"other version", signature(t, trusted, ota.Desired{App: "greenhouse", Version: "2", Manifest: base.Manifest, Files: base.Files}, nil), "signed is"},
		{"other app", signature(t, trusted, ota.Desired{App: "other", Version: "1", Manifest: base.Manifest, Files: base.Files}, nil), "signed is"},
		{"expired", signature(t, trusted, base, func(c *claims.Claims[claims.AppClaims]) { c.Expires = &past }), "expired"},
	}
	for _, c := range cases {
		d := base
		d.Sig = c.sig
		putDesired(t, h, d)
		r, err := wait(t, h, d)
		if !errors.Is(err, ota.ErrRolledBack) || !strings.Contains(r.Error, c.want) {
			t.Errorf("%s: got %+v, %v, want an error with %q", c.name, r, err, c.want)
		}
	}
	if files := glob(t, b.dir, "artifacts", "*"); len(files) != 0 {
		t.Errorf("fetched %v for a signature that does not hold", files)
	}
	if tried, _ := b.state(); len(tried) != 0 {
		t.Errorf("tried %v", tried)
	}
	sign(t, dir, trusted, "1")
	good := push(t, h, dir, "1")
	wantCommitted(t, h, good)
	cur := b.Current()[0]
	if _, err := claims.VerifyAppDir(cur.Dir, claims.Policy{Issuers: []claims.Key{trusted.Key()}}); err != nil {
		t.Errorf("what is on the box: %v", err)
	}
	// The same files without their signature must not take it away.
	d := good
	d.Sig = ""
	putDesired(t, h, d)
	if _, err := wait(t, h, d); !errors.Is(err, ota.ErrRolledBack) {
		t.Errorf("got %v, want ErrRolledBack", err)
	}
	if _, err := claims.VerifyAppDir(cur.Dir, claims.Policy{Issuers: []claims.Key{trusted.Key()}}); err != nil {
		t.Errorf("what is on the box: %v", err)
	}
	// Signed again it is the same release: nothing is swapped.
	sign(t, dir, trusted, "1")
	wantCommitted(t, h, push(t, h, dir, "1"))
	if tried, _ := b.state(); len(tried) != 1 {
		t.Errorf("tried %v, want one", tried)
	}
}

func TestAgent_signatureThatIsThereMustHold(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	trusted, stranger := account(t), account(t)
	conn := startBox(t, h.leaf)
	b := startAgent(t, conn, t.TempDir(), func(o *ota.Options) { o.Issuers = []claims.Key{trusted.Key()} })
	dir := app(t, "app.toml", "v1")
	sign(t, dir, stranger, "1")
	if r, err := wait(t, h, push(t, h, dir, "1")); !errors.Is(err, ota.ErrRolledBack) || !strings.Contains(r.Error, "not trusted") {
		t.Errorf("got %+v, %v", r, err)
	}
	b.stop()
	// Without a list of issuers, in development, any account will do; other bytes will not.
	startAgent(t, conn, t.TempDir(), nil)
	sign(t, dir, stranger, "1")
	d := push(t, h, dir, "1")
	wantCommitted(t, h, d)
	d.Files = map[string]string{"x": digestOf("x")}
	putDesired(t, h, d)
	if r, err := wait(t, h, d); !errors.Is(err, ota.ErrRolledBack) || !strings.Contains(r.Error, "not signed") {
		t.Errorf("got %+v, %v", r, err)
	}
}

// A box without a battery begins in 1970 and learns the time from the network.
func TestAgent_waitsForItsClock(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	trusted := account(t)
	var now atomic.Int64
	b := startAgent(t, startBox(t, h.leaf), t.TempDir(), func(o *ota.Options) {
		o.AllowUnsigned, o.Issuers = false, []claims.Key{trusted.Key()}
		o.Now = func() time.Time { return time.Unix(now.Load(), 0) }
	})
	d := push(t, h, app(t, "app.toml", "v1"), "1")
	nbf := int64(1_700_000_000)
	d.Sig = signature(t, trusted, d, func(c *claims.Claims[claims.AppClaims]) { c.NotBefore = &nbf })
	putDesired(t, h, d)
	eventually(t, "the box waits", func() bool { return strings.Contains(b.Status().Reported.Error, "not valid yet") })
	now.Store(nbf + 1)
	wantCommitted(t, h, d)
}

func TestAgent_expiryCountsOnce(t *testing.T) {
	h := startHub(t, t.TempDir(), 0)
	trusted := account(t)
	conn := startBox(t, h.leaf)
	var now atomic.Int64
	now.Store(1_700_000_000)
	change := func(o *ota.Options) {
		o.AllowUnsigned, o.Issuers = false, []claims.Key{trusted.Key()}
		o.Now = func() time.Time { return time.Unix(now.Load(), 0) }
	}
	b := startAgent(t, conn, t.TempDir(), change)
	d := push(t, h, app(t, "app.toml", "v1"), "1")
	exp := now.Load() + 10
	d.Sig = signature(t, trusted, d, func(c *claims.Claims[claims.AppClaims]) { c.Expires = &exp })
	putDesired(t, h, d)
	wantCommitted(t, h, d)
	b.stop()
	now.Store(exp + 1_000_000)
	// Even when its folder has to be built again, it was admitted once.
	if err := os.WriteFile(filepath.Join(b.Current()[0].Dir, "more"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b = startAgent(t, conn, b.dir, change)
	wantCommitted(t, h, d)
	eventually(t, "it runs again", func() bool { _, run := b.state(); return run == "1" })
}
