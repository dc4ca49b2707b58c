package claims_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

// file is an entry of an archive.
type file struct {
	name, body string
	kind       byte // 0 for a plain file
}

// archive makes a tar as other tools do: without modes, times and owners.
func archive(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Size: int64(len(f.body)), Typeflag: f.kind, Format: tar.FormatGNU}
		if f.kind != 0 && f.kind != tar.TypeReg {
			h.Size, h.Linkname = 0, f.body
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, f.body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

const (
	amd = "\x7fELF for amd64"
	arm = "\x7fELF for arm"
)

// providerToken is one over two programs; change may be nil.
func providerToken(t testing.TB, change func(*claims.Claims[claims.ProviderClaims])) string {
	t.Helper()
	c := claims.Claims[claims.ProviderClaims]{
		Subject: checkKeys[2].key, IssuedAt: 1700000000,
		Wascap: claims.ProviderClaims{
			Name: "Modbus", Contract: "acme:modbus", Vendor: "Acme", Rev: 7, Ver: "1.2.0",
			TargetHashes: map[string]string{"x86_64-linux": sum(amd), "armv7-linux": sum(arm)},
		},
	}
	if change != nil {
		change(&c)
	}
	token, err := claims.Sign(c, seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestExtractArchive(t *testing.T) {
	token := file{name: "claims.jwt", body: providerToken(t, nil)}
	both := archive(t, token, file{name: "x86_64-linux.bin", body: amd}, file{name: "armv7-linux.bin", body: arm})
	late := archive(t, file{name: "./", kind: tar.TypeDir}, file{name: "./armv7-linux.bin", body: arm}, file{name: "world.wasm", body: "x"},
		file{name: "x86_64-linux.bin", body: amd}, file{name: "claims.jwt", body: token.body + "\r\n"})
	for name, data := range map[string][]byte{"plain": both, "gzip": zipped(t, both), "claims last": late} {
		for arch, want := range map[string]string{"amd64": amd, "arm": arm} {
			var out bytes.Buffer
			s, err := claims.ExtractArchive(&out, bytes.NewReader(data), trusted(t), claims.Targets("linux", arch)...)
			if err != nil || out.String() != want {
				t.Errorf("%s, %s: got %q, %v", name, arch, out.String(), err)
			}
			if s.Key.String() != checkKeys[2].key || s.Issuer.String() != checkKeys[0].key || s.Contract != "acme:modbus" || s.EffectiveRev() != 7 {
				t.Errorf("%s: claims %+v", name, s)
			}
		}
		_, err := claims.ExtractArchive(io.Discard, bytes.NewReader(data), trusted(t), claims.Targets("linux", "arm64")...)
		if !errors.Is(err, claims.ErrTarget) || !strings.Contains(err.Error(), `it is for "armv7-linux, x86_64-linux", this is aarch64-linux`) {
			t.Errorf("%s: wrong architecture: %v", name, err)
		}
		if _, err := claims.VerifyArchive(bytes.NewReader(data), trusted(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A sparse file is as large as it says, whatever it takes: here one of 8 GiB, as PAX has it.
func sparse(t testing.TB) []byte {
	t.Helper()
	record := func(key, value string) string {
		n := len(key) + len(value) + 5
		return fmt.Sprintf("%02d %s=%s\n", n, key, value)
	}
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") +
		record("GNU.sparse.name", "x86_64-linux.bin") + record("GNU.sparse.realsize", "8589934592")
	b := archive(t, file{name: "records", body: records}, file{name: "x86_64-linux.bin", body: "0\n" + strings.Repeat("\x00", 510)})
	h := b[:512]
	h[156] = tar.TypeXHeader
	copy(h[148:156], "        ") // the sum is over blanks
	n := 0
	for _, c := range h {
		n += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", n))
	return b
}

func TestExtractArchive_refuses(t *testing.T) {
	token := file{name: "claims.jwt", body: providerToken(t, nil)}
	program := file{name: "x86_64-linux.bin", body: amd}
	other := func(change func(*claims.Claims[claims.ProviderClaims])) []byte {
		return archive(t, file{name: "claims.jwt", body: providerToken(t, change)}, program)
	}
	many := []file{token, program}
	for range claims.MaxArchiveEntries {
		many = append(many, file{name: "readme"})
	}
	good := archive(t, token, program)
	huge := bytes.Clone(good)
	past := int64(1700000001)
	tests := []struct {
		name string
		data []byte
		want error
	}{
		{"nothing", nil, claims.ErrUnsigned},
		{"no tar", []byte(strings.Repeat("no tar ", 200)), claims.ErrMalformed},
		{"broken gzip", append([]byte{0x1f, 0x8b}, "nonsense"...), claims.ErrMalformed},
		{"cut gzip", zipped(t, good)[:200], claims.ErrMalformed},
		{"cut tar", good[:len(token.body)/512*512], claims.ErrMalformed},
		{"no claims", archive(t, program), claims.ErrUnsigned},
		{"two claims", archive(t, token, token, program), claims.ErrMalformed},
		{"empty claims", archive(t, file{name: "claims.jwt"}, program), claims.ErrToken},
		{"long claims", archive(t, file{name: "claims.jwt", body: strings.Repeat("x", claims.MaxToken+10)}, program), claims.ErrTooLarge},
		{"no program", archive(t, token), claims.ErrTarget},
		{"program of the claims missing", archive(t, token, file{name: "armv7-linux.bin", body: arm}), claims.ErrTarget},
		{"two programs", archive(t, token, program, program), claims.ErrMalformed},
		{"changed program", archive(t, token, file{name: program.name, body: amd + " and more"}), claims.ErrHash},
		{"one more program", archive(t, token, program, file{name: "x86_64-plan9.bin", body: "x"}), claims.ErrHash},
		{"folder in a name", archive(t, token, file{name: "../../etc/x86_64-linux.bin", body: amd}), claims.ErrMalformed},
		{"absolute name", archive(t, token, file{name: "/x86_64-linux.bin", body: amd}), claims.ErrMalformed},
		{"name of a parent", archive(t, token, file{name: "..", body: amd}), claims.ErrMalformed},
		{"symbolic link", archive(t, token, file{"x86_64-linux.bin", "/bin/sh", tar.TypeSymlink}), claims.ErrMalformed},
		{"hard link", archive(t, token, file{"x86_64-linux.bin", "claims.jwt", tar.TypeLink}), claims.ErrMalformed},
		{"device", archive(t, token, file{"x86_64-linux.bin", "", tar.TypeChar}), claims.ErrMalformed},
		{"many files", archive(t, many...), claims.ErrTooLarge},
		{"size of a bomb", zipped(t, sparse(t)), claims.ErrTooLarge},
		{"key of an actor", other(func(c *claims.Claims[claims.ProviderClaims]) { c.Subject = checkKeys[1].key }), claims.ErrToken},
		{"no key", other(func(c *claims.Claims[claims.ProviderClaims]) { c.Subject = "modbus" }), claims.ErrToken},
		{"claims of an actor", archive(t, file{name: "claims.jwt", body: signText(t, goodHeader, moduleBody(""))}, program), claims.ErrToken},
		{"expired", other(func(c *claims.Claims[claims.ProviderClaims]) { c.Expires = &past }), claims.ErrExpired},
	}
	policy := trusted(t)
	policy.Admission = time.Unix(1800000000, 0)
	for _, tt := range tests {
		_, err := claims.ExtractArchive(io.Discard, bytes.NewReader(tt.data), policy, "x86_64-linux")
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := claims.VerifyArchive(bytes.NewReader(huge), claims.Policy{}); !errors.Is(err, claims.ErrUnknownIssuer) {
		t.Errorf("nobody is trusted: %v", err)
	}
	for at := range token.body { // no byte of the claims can change
		b := bytes.Clone(good)
		b[512+at] ^= 1
		if _, err := claims.VerifyArchive(bytes.NewReader(b), policy); err == nil {
			t.Fatalf("byte %d of the claims changed", at)
		}
	}
}

func TestWriteArchive(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a", amd)
	write(t, dir, "b", arm)
	c := claims.Claims[claims.ProviderClaims]{Subject: checkKeys[2].key, Wascap: claims.ProviderClaims{Name: "Modbus", Contract: "acme:modbus", Vendor: "Acme"}}
	programs := map[string]string{"x86_64-linux": filepath.Join(dir, "a"), "arm-linux": filepath.Join(dir, "b")}
	var out bytes.Buffer
	if err := claims.WriteArchive(&out, c, programs, seedOf(t, 1)); err != nil {
		t.Fatal(err)
	}
	var program bytes.Buffer
	s, err := claims.ExtractArchive(&program, bytes.NewReader(out.Bytes()), trusted(t), claims.Targets("linux", "arm")...)
	if err != nil || program.String() != arm || s.EffectiveRev() != s.IssuedAt.Unix() {
		t.Errorf("got %q, %+v, %v", program.String(), s, err)
	}
	if err := claims.WriteArchive(io.Discard, c, programs, seedOf(t, 4)); !errors.Is(err, claims.ErrKey) {
		t.Errorf("signed by a cluster: %v", err)
	}
	if err := claims.WriteArchive(io.Discard, c, nil, seedOf(t, 1)); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("no program: %v", err)
	}
	if err := claims.WriteArchive(io.Discard, c, map[string]string{"../x": dir}, seedOf(t, 1)); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("a path for a target: %v", err)
	}
	if err := claims.WriteArchive(io.Discard, c, map[string]string{"x": filepath.Join(dir, "none")}, seedOf(t, 1)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestTargets(t *testing.T) {
	for arch, want := range map[string][]string{
		"amd64": {"x86_64-linux"}, "arm64": {"aarch64-linux"}, "arm": {"armv7-linux", "arm-linux"}, "riscv64": {"riscv64-linux"},
	} {
		if got := claims.Targets("linux", arch); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", arch, got, want)
		}
	}
	if got := claims.Targets("darwin", "arm64"); !slices.Equal(got, []string{"aarch64-macos"}) {
		t.Errorf("got %q", got)
	}
}

func FuzzArchive(f *testing.F) {
	token := file{name: "claims.jwt", body: providerToken(f, nil)}
	good := archive(f, token, file{name: "x86_64-linux.bin", body: amd}, file{name: "armv7-linux.bin", body: arm})
	f.Add(good)
	f.Add(zipped(f, good))
	f.Add(sparse(f))
	f.Add(archive(f, file{"x86_64-linux.bin", "claims.jwt", tar.TypeLink}))
	f.Add([]byte{0x1f, 0x8b})
	policy := trusted(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		s, err := claims.ExtractArchive(&out, bytes.NewReader(data), policy, "x86_64-linux")
		if err == nil && (out.String() != amd || s.Contract != "acme:modbus") {
			t.Errorf("got %q of %+v", out.String(), s)
		}
	})
}
