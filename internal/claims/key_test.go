package claims_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/edged-io/edged/internal/claims"
)

// The check values of the wire description: every byte of the seed is the octet.
var checkKeys = []struct {
	octet     byte
	kind      claims.Kind
	key, seed string
}{
	{1, claims.Account, "ACFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYYOU", "SAAACAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAKM5I"},
	{2, claims.Module, "MCATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZJPUL", "SMAAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAWDLE"},
	{3, claims.Service, "VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS", "SVAAGAYDAMBQGAYDAMBQGAYDAMBQGAYDAMBQGAYDAMBQGAYDAMBQGA6AIA"},
	{4, claims.Cluster, "CDFJHLAXAUMHA4OWPOB4P7YO72AQR2HMIUYFOXLXE2DZGM633K7HYHVW", "SCAAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBANEQ"},
	{5, claims.Server, "NBXHUHG5FGYLPD6RHL2MKWMP572O6KUXCZXDZJXS4T57ZTMAKBN7C574", "SNAAKBIFAUCQKBIFAUCQKBIFAUCQKBIFAUCQKBIFAUCQKBIFAUCQKBP7G4"},
}

func seedOf(t testing.TB, octet byte) claims.Seed {
	t.Helper()
	s, err := claims.ParseSeed(checkKeys[octet-1].seed)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKey_checkValues(t *testing.T) {
	for _, c := range checkKeys {
		s, err := claims.ParseSeed(c.seed)
		if err != nil {
			t.Fatalf("%s: %v", c.seed[:2], err)
		}
		if s.Kind() != c.kind || s.Key().Kind() != c.kind {
			t.Errorf("kind of %s: got %v and %v, want %v", c.key, s.Kind(), s.Key().Kind(), c.kind)
		}
		if got := s.Key().String(); got != c.key {
			t.Errorf("key: got %s, want %s", got, c.key)
		}
		if got := s.Reveal(); got != c.seed {
			t.Errorf("seed of %s does not come back", c.key)
		}
		k, err := claims.Parse(c.key)
		if err != nil || k != s.Key() {
			t.Errorf("parse %s: %v", c.key, err)
		}
	}
}

func TestKey_everyKindRoundTripsAndSigns(t *testing.T) {
	for _, kind := range []claims.Kind{claims.Account, claims.Cluster, claims.Module, claims.Server, claims.Operator, claims.User, claims.Service, claims.Curve} {
		s, err := claims.Generate(kind)
		if err != nil {
			t.Fatal(err)
		}
		key, secret := s.Key().String(), s.Reveal()
		if key[0] != byte(kind) || len(key) != 56 || secret[0] != 'S' || secret[1] != byte(kind) || len(secret) != 58 {
			t.Errorf("%v: key %s of %d letters, seed of %d", kind, key, len(key), len(secret))
		}
		again, err := claims.ParseSeed(secret)
		if err != nil || again != s {
			t.Errorf("%v: seed does not come back: %v", kind, err)
		}
		if parsed, err := claims.ParseKind(kind.String()); err != nil || parsed != kind {
			t.Errorf("ParseKind(%q) = %v, %v", kind, parsed, err)
		}
		sig, err := s.Sign([]byte("message"))
		if kind == claims.Curve {
			if !errors.Is(err, claims.ErrKey) {
				t.Errorf("a curve key signed: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Key().Verify([]byte("message"), sig); err != nil {
			t.Error(err)
		}
		if err := s.Key().Verify([]byte("massage"), sig); !errors.Is(err, claims.ErrSignature) {
			t.Errorf("another message: got %v, want ErrSignature", err)
		}
		if err := s.Key().Verify([]byte("message"), sig[:63]); !errors.Is(err, claims.ErrSignature) {
			t.Errorf("short signature: got %v, want ErrSignature", err)
		}
	}
}

// The kit of NATS knows these kinds and must agree with us in both directions.
func TestKey_agreesWithNATS(t *testing.T) {
	for _, kind := range []claims.Kind{claims.Account, claims.Cluster, claims.Server, claims.Operator, claims.User, claims.Curve} {
		s, err := claims.Generate(kind)
		if err != nil {
			t.Fatal(err)
		}
		var pair nkeys.KeyPair
		if kind == claims.Curve {
			pair, err = nkeys.FromCurveSeed([]byte(s.Reveal()))
		} else {
			pair, err = nkeys.FromSeed([]byte(s.Reveal()))
		}
		if err != nil {
			t.Fatalf("%v: %v", kind, err)
		}
		if public, err := pair.PublicKey(); err != nil || public != s.Key().String() {
			t.Errorf("%v: got %s, %v, want %s", kind, public, err, s.Key())
		}
	}
}

func TestParse_refuses(t *testing.T) {
	good := checkKeys[0].key
	for name, bad := range map[string]string{
		"empty":        "",
		"short":        good[:55],
		"long":         good + "A",
		"lower case":   strings.ToLower(good),
		"checksum":     good[:20] + "A" + good[21:],
		"not base32":   good[:20] + "1" + good[21:],
		"line end":     good[:20] + "\n" + good[21:],
		"seed":         checkKeys[0].seed,
		"unknown kind": "B" + good[1:],
	} {
		if _, err := claims.Parse(bad); !errors.Is(err, claims.ErrKey) {
			t.Errorf("%s: got %v, want ErrKey", name, err)
		}
	}
	if _, err := claims.Parse(checkKeys[0].seed); strings.Contains(err.Error(), checkKeys[0].seed) {
		t.Error("the error shows the seed")
	}
}

func TestParseSeed_refuses(t *testing.T) {
	good := checkKeys[0].seed
	for name, bad := range map[string]string{
		"empty":         "",
		"public key":    checkKeys[0].key,
		"checksum":      good[:30] + "B" + good[31:],
		"left-over bit": good[:57] + "J",
		"not a seed":    "A" + good[1:],
	} {
		_, err := claims.ParseSeed(bad)
		if !errors.Is(err, claims.ErrKey) {
			t.Errorf("%s: got %v, want ErrKey", name, err)
		}
		if err != nil && len(bad) == 58 && strings.Contains(err.Error(), bad) {
			t.Errorf("%s: the error shows the text", name)
		}
	}
}

func TestGenerate_unknownKind(t *testing.T) {
	if _, err := claims.Generate('Z'); !errors.Is(err, claims.ErrKey) {
		t.Errorf("got %v, want ErrKey", err)
	}
	if _, err := claims.ParseKind("z"); !errors.Is(err, claims.ErrKey) {
		t.Errorf("got %v, want ErrKey", err)
	}
}

func TestSeed_neverPrintsItself(t *testing.T) {
	s := seedOf(t, 1)
	secrets := []string{s.Reveal(), strings.Repeat("01", 8), "1 1 1 1", "0x1, 0x1", hex.EncodeToString([]byte(s.Reveal()))}
	holder := struct{ Seed claims.Seed }{s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", &s)
		fmt.Fprintf(&out, verb+"\n", holder)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "seed", s, "holder", holder)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "seed", s, "holder", holder)
	if b, err := json.Marshal(holder); err == nil {
		out.Write(b)
	}
	for _, secret := range secrets {
		if strings.Contains(out.String(), secret) {
			t.Errorf("output shows %q:\n%s", secret, out.String())
		}
	}
	if !strings.Contains(out.String(), s.Key().String()) {
		t.Error("the placeholder does not name the public key")
	}
}

func TestKey_zeroIsNobody(t *testing.T) {
	var k claims.Key
	var s claims.Seed
	if k.String() != "" || s.Reveal() != "" || s.Key() != k {
		t.Error("zero values have a text")
	}
	if err := k.Verify(nil, make([]byte, 64)); !errors.Is(err, claims.ErrSignature) {
		t.Errorf("got %v, want ErrSignature", err)
	}
	if _, err := s.Sign(nil); !errors.Is(err, claims.ErrKey) {
		t.Errorf("got %v, want ErrKey", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range checkKeys {
		f.Add(c.key)
		f.Add(c.seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := claims.Parse(s); err == nil && k.String() != s {
			t.Errorf("key %q came back as %q", s, k)
		}
		if seed, err := claims.ParseSeed(s); err == nil && seed.Reveal() != s {
			t.Errorf("a seed came back as another")
		}
	})
}

func TestSeed_Signer(t *testing.T) {
	s, err := claims.Generate(claims.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := s.Signer()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.Sign([]byte("x"))
	if err != nil || s.Key().Verify([]byte("x"), sig) != nil || signer.Key() != s.Key() || signer.Kind() != s.Kind() {
		t.Errorf("got %x, %v of %s", sig, err, signer.Key())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%s", "%x"} {
		if got := fmt.Sprintf(verb, signer); got != s.String() {
			t.Errorf("%s prints %s", verb, got)
		}
	}
	if _, err := json.Marshal(signer); err == nil {
		t.Error("a signer is written as JSON")
	}
	curve, err := claims.Generate(claims.Curve)
	if err != nil {
		t.Fatal(err)
	}
	for _, none := range []claims.Seed{{}, curve} {
		if _, err := none.Signer(); !errors.Is(err, claims.ErrKey) {
			t.Errorf("got %v, want ErrKey", err)
		}
	}
}
