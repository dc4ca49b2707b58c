package claims_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

const emptyModule = "\x00asm\x01\x00\x00\x00"
const emptyComponent = "\x00asm\x0d\x00\x01\x00"

// lebPadded is n in five bytes, as some older tools write lengths.
func lebPadded(n int) []byte {
	return []byte{byte(n) | 0x80, byte(n>>7) | 0x80, byte(n>>14) | 0x80, byte(n>>21) | 0x80, byte(n >> 28)}
}

func sect(id byte, body string) string {
	return string(append(binary.AppendUvarint([]byte{id}, uint64(len(body))), body...))
}

func padded(id byte, body string) string {
	return string(append(append([]byte{id}, lebPadded(len(body))...), body...))
}

func custom(name, data string) string {
	return sect(0, string(binary.AppendUvarint(nil, uint64(len(name))))+name+data)
}

func sum(s string) string { return fmt.Sprintf("%X", sha256.Sum256([]byte(s))) }

func tiny() claims.Claims[claims.ModuleClaims] {
	return claims.Claims[claims.ModuleClaims]{
		ID: "AAAAAAAAAAAAAAAAAAAAAA", IssuedAt: 1700000000, Subject: checkKeys[1].key,
		Wascap: claims.ModuleClaims{Name: "tiny", Tags: []string{}, Caps: []string{"wasmcloud:keyvalue"}, Rev: 1, Ver: "0.1.0"},
	}
}

func trusted(t testing.TB) claims.Policy {
	return claims.Policy{Issuers: []claims.Key{seedOf(t, 1).Key()}}
}

// signedBy signs tiny claims with the given hash and revision and appends them to
// bin in section name as they are.
func signedBy(t testing.TB, bin, name, hash string, revision int) string {
	t.Helper()
	c := tiny()
	c.Wascap.Hash, c.Revision = hash, revision
	token, err := claims.Sign(c, seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return bin + custom(name, token)
}

func TestSignModule_checkValue(t *testing.T) {
	const hash = "93A44BBB96C751218E4C00D479E4C14358122A389ACCA16205B1E4D0DC5F9476"
	if got, err := claims.Hash([]byte(emptyModule)); err != nil || got != hash {
		t.Fatalf("hash: got %s, %v, want %s", got, err, hash)
	}
	signed, err := claims.SignModule([]byte(emptyModule), tiny(), seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	token, err := claims.Extract(signed)
	if err != nil {
		t.Fatal(err)
	}
	const wantSig = "awDE5jU0h1QJ6mjfQRCcQETW4ExAuQzm82ZdNBpFuz_Ek4-2eOrNECc_w9RhIG73T2D5mf51l35mKi4Md-xnAA"
	if got := token[strings.LastIndex(token, ".")+1:]; got != wantSig {
		t.Errorf("signature segment: got %s, want %s", got, wantSig)
	}
	old, err := claims.Embed(signed, claims.OldSectionName, token)
	if err != nil {
		t.Fatal(err)
	}
	if len(old) != 640 || !strings.HasPrefix(hex.EncodeToString(old), "0061736d0100000000f504036a777465794a30") {
		t.Errorf("%d bytes beginning %x, want 640 beginning 0061736d…", len(old), old[:19])
	}
	const wantFile = "3ca53227bb04d575a469d83d1b890f87b17cd1988d9b3d9a98bc73b17a8e5fbf"
	if got := sha256.Sum256(old); hex.EncodeToString(got[:]) != wantFile {
		t.Errorf("file: got %x, want %s", got, wantFile)
	}
	for _, bin := range [][]byte{signed, old} {
		m, err := claims.VerifyModule(bin, trusted(t))
		if err != nil {
			t.Fatal(err)
		}
		if m.Key.String() != checkKeys[1].key || m.Issuer.String() != checkKeys[0].key || m.Name != "tiny" || m.EffectiveRev() != 1 || m.Hash != hash {
			t.Errorf("got %+v", m)
		}
	}
}

func TestSignModule_again(t *testing.T) {
	bin := []byte(emptyModule + padded(1, "types") + custom("name", "x") + custom("a section with a rather long name", ""))
	first, err := claims.SignModule(bin, tiny(), seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	second, err := claims.SignModule(first, tiny(), seedOf(t, 1))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("signing again changed the module: %v", err)
	}
	if _, err := claims.VerifyModule(second, trusted(t)); err != nil {
		t.Error(err)
	}
}

func TestSignModule_refuses(t *testing.T) {
	if _, err := claims.SignModule([]byte(emptyModule), tiny(), seedOf(t, 4)); !errors.Is(err, claims.ErrKey) {
		t.Errorf("cluster seed: got %v, want ErrKey", err)
	}
	c := tiny()
	c.Subject = checkKeys[2].key
	if _, err := claims.SignModule([]byte(emptyModule), c, seedOf(t, 1)); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("provider as subject: got %v, want ErrMalformed", err)
	}
	if _, err := claims.SignModule([]byte("\x7fELF0000"), tiny(), seedOf(t, 1)); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("not wasm: got %v, want ErrMalformed", err)
	}
	if _, err := claims.Embed([]byte(emptyModule), "name", "x"); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("section name: got %v, want ErrMalformed", err)
	}
	if _, err := claims.Embed([]byte(emptyModule), claims.SectionName, strings.Repeat("x", claims.MaxToken+1)); !errors.Is(err, claims.ErrTooLarge) {
		t.Errorf("large token: got %v, want ErrTooLarge", err)
	}
}

func TestVerifyModule_hashByRevision(t *testing.T) {
	bin := emptyModule + padded(1, "types") + sect(10, "code")
	literal, reencoded := sum(bin), sum(emptyModule+sect(1, "types")+sect(10, "code"))
	for _, c := range []struct {
		name     string
		hash     string
		revision int
		want     error
	}{
		{"re-encoded, 3", reencoded, 3, nil},
		{"re-encoded, 2", reencoded, 2, nil},
		{"re-encoded, none", reencoded, 0, nil},
		{"literal, 3", literal, 3, claims.ErrHash},
		{"literal, 4", literal, 4, claims.ErrHash},
		{"literal, 2", literal, 2, nil},
		{"literal, none", literal, 0, nil},
		{"other, 3", sum("x"), 3, claims.ErrHash},
		{"other, none", sum("x"), 0, claims.ErrHash},
		{"lower case", strings.ToLower(reencoded), 3, claims.ErrHash},
		{"empty", "", 0, claims.ErrHash},
	} {
		for _, name := range []string{claims.SectionName, claims.OldSectionName} {
			signed := signedBy(t, bin, name, c.hash, c.revision)
			if _, err := claims.VerifyModule([]byte(signed), trusted(t)); !errors.Is(err, c.want) {
				t.Errorf("%s in %s: got %v, want %v", c.name, name, err, c.want)
			}
		}
	}
}

func TestVerifyModule_tokenInTheMiddle(t *testing.T) {
	signed := signedBy(t, emptyModule, claims.SectionName, sum(emptyModule+sect(1, "t")), 3) + sect(1, "t")
	if _, err := claims.VerifyModule([]byte(signed), trusted(t)); err != nil {
		t.Error(err)
	}
}

func TestHash_component(t *testing.T) {
	core := emptyModule + padded(1, "types") + custom("jwt", "an inner token")
	coreStripped := emptyModule + sect(1, "types")
	inner := emptyComponent + sect(1, core)
	innerStripped := emptyComponent + sect(1, coreStripped)
	bin := emptyComponent + sect(1, core) + padded(4, inner) + sect(7, "type") + custom("wasmcloud_jwt", "x")
	want := sum(emptyComponent + sect(1, coreStripped) + sect(4, innerStripped) + sect(7, "type"))
	if got, err := claims.Hash([]byte(bin)); err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	// Inside a core module ids 1 and 4 are ordinary sections.
	plain := emptyModule + sect(1, "abc") + sect(4, "def")
	if got, err := claims.Hash([]byte(plain)); err != nil || got != sum(plain) {
		t.Errorf("core module: got %s, %v", got, err)
	}
	signed, err := claims.SignModule([]byte(bin), tiny(), seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claims.VerifyModule(signed, trusted(t)); err != nil {
		t.Error(err)
	}
}

func TestHash_limits(t *testing.T) {
	deep := emptyComponent
	for range 40 {
		deep = emptyComponent + sect(4, deep)
	}
	if _, err := claims.Hash([]byte(deep)); !errors.Is(err, claims.ErrTooLarge) {
		t.Errorf("deep: got %v, want ErrTooLarge", err)
	}
	many := emptyModule + strings.Repeat(sect(1, ""), 30_000)
	if _, err := claims.Hash([]byte(many)); !errors.Is(err, claims.ErrTooLarge) {
		t.Errorf("many sections: got %v, want ErrTooLarge", err)
	}
	// The count goes over all levels: 100 nested modules of 300 sections each.
	spread := emptyComponent + strings.Repeat(sect(1, emptyModule+strings.Repeat(sect(1, ""), 300)), 100)
	if _, err := claims.Hash([]byte(spread)); !errors.Is(err, claims.ErrTooLarge) {
		t.Errorf("many nested sections: got %v, want ErrTooLarge", err)
	}
	if _, err := claims.Hash(make([]byte, claims.MaxModule+1)); !errors.Is(err, claims.ErrTooLarge) {
		t.Errorf("large: got %v, want ErrTooLarge", err)
	}
}

func TestVerifyModule_refusesForm(t *testing.T) {
	signed := signedBy(t, emptyModule, claims.SectionName, sum(emptyModule), 3)
	token, err := claims.Extract([]byte(signed))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		bin  string
		want error
	}{
		"empty":             {"", claims.ErrMalformed},
		"text":              {"hello, world", claims.ErrMalformed},
		"header cut":        {emptyModule[:7], claims.ErrMalformed},
		"unknown layer":     {"\x00asm\x01\x00\x02\x00", claims.ErrMalformed},
		"no length":         {emptyModule + "\x01", claims.ErrMalformed},
		"length too long":   {emptyModule + "\x01\x80\x80\x80\x80\x80\x00", claims.ErrMalformed},
		"length over 32":    {emptyModule + "\x01\xff\xff\xff\xff\x7f", claims.ErrMalformed},
		"body cut":          {emptyModule + "\x01\x05abcd", claims.ErrMalformed},
		"custom, no name":   {emptyModule + "\x00\x00", claims.ErrMalformed},
		"custom, name cut":  {emptyModule + "\x00\x02\x05a", claims.ErrMalformed},
		"unsigned":          {emptyModule + sect(1, "t"), claims.ErrUnsigned},
		"token in a module": {emptyComponent + sect(1, signed), claims.ErrUnsigned},
		"token empty":       {emptyModule + custom("jwt", ""), claims.ErrMalformed},
		"token large":       {emptyModule + custom("jwt", strings.Repeat("x", claims.MaxToken+1)), claims.ErrTooLarge},
		"two tokens":        {signed + custom(claims.OldSectionName, token), claims.ErrMalformed},
		"bytes appended":    {signed + sect(1, "t"), claims.ErrHash},
		"nested not wasm":   {signedBy(t, emptyComponent+sect(1, "x"), "jwt", sum("x"), 3), claims.ErrMalformed},
	} {
		if _, err := claims.VerifyModule([]byte(c.bin), trusted(t)); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestVerifyModule_issuers(t *testing.T) {
	signed := []byte(signedBy(t, emptyModule, claims.SectionName, sum(emptyModule), 3))
	other, err := claims.Generate(claims.Account)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		policy claims.Policy
		want   error
	}{
		"nobody":   {claims.Policy{}, claims.ErrUnknownIssuer},
		"another":  {claims.Policy{Issuers: []claims.Key{other.Key()}}, claims.ErrUnknownIssuer},
		"among":    {claims.Policy{Issuers: []claims.Key{other.Key(), seedOf(t, 1).Key()}}, nil},
		"everyone": {claims.Policy{AnyIssuer: true}, nil},
	} {
		if _, err := claims.VerifyModule(signed, c.policy); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	// A user's key is no issuer, even for a policy that takes any account.
	user, err := claims.Generate(claims.User)
	if err != nil {
		t.Fatal(err)
	}
	c := tiny()
	c.Wascap.Hash, c.Revision = sum(emptyModule), 3
	token, err := claims.Sign(c, user)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claims.VerifyModule([]byte(emptyModule+custom("jwt", token)), claims.Policy{AnyIssuer: true}); !errors.Is(err, claims.ErrUnknownIssuer) {
		t.Errorf("user key: got %v, want ErrUnknownIssuer", err)
	}
}

func TestVerifyModule_datesAtAdmissionOnly(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	past, now, future := at.Unix()-1, at.Unix(), at.Unix()+1
	for _, c := range []struct {
		name     string
		exp, nbf *int64
		want     error
	}{
		{"none", nil, nil, nil},
		{"inside", &future, &past, nil},
		{"expired", &past, nil, claims.ErrExpired},
		{"expires now", &now, nil, claims.ErrExpired},
		{"too early", nil, &future, claims.ErrNotYetValid},
		{"begins now", nil, &now, nil},
	} {
		claim := tiny()
		claim.Expires, claim.NotBefore = c.exp, c.nbf
		signed, err := claims.SignModule([]byte(emptyModule), claim, seedOf(t, 1))
		if err != nil {
			t.Fatal(err)
		}
		p := trusted(t)
		if _, err := claims.VerifyModule(signed, p); err != nil {
			t.Errorf("%s, admitted before: %v", c.name, err)
		}
		p.Admission = at
		m, err := claims.VerifyModule(signed, p)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if err == nil && c.exp != nil && (m.Expires.Unix() != *c.exp || m.NotBefore.Unix() != *c.nbf) {
			t.Errorf("%s: got %+v", c.name, m)
		}
	}
}

func TestVerifyModule_lenientFields(t *testing.T) {
	body := `{"iat":1700000000,"iss":"` + checkKeys[0].key + `","sub":"` + checkKeys[1].key +
		`","exp":null,"wascap":{"hash":"` + sum(emptyModule) + `","caps":null,"rev":-1,"unknown":{}}}`
	m, err := claims.VerifyModule([]byte(emptyModule+custom("jwt", signText(t, goodHeader, body))), trusted(t))
	if err != nil || m.Caps != nil || m.EffectiveRev() != 1700000000 {
		t.Errorf("got %+v, %v", m, err)
	}
	body = strings.Replace(body, `"caps":null`, `"caps":["","wasmcloud:keyvalue"]`, 1)
	m, err = claims.VerifyModule([]byte(emptyModule+custom("jwt", signText(t, goodHeader, body))), trusted(t))
	if err != nil || len(m.Caps) != 2 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func FuzzModule(f *testing.F) {
	signed := signedBy(f, emptyModule+sect(1, "t"), claims.SectionName, sum(emptyModule+sect(1, "t")), 3)
	f.Add([]byte(emptyModule))
	f.Add([]byte(signed))
	f.Add([]byte(emptyComponent + sect(1, emptyModule+padded(1, "x")) + sect(4, emptyComponent)))
	policy := trusted(f)
	genuine, err := claims.Hash([]byte(signed))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, bin []byte) {
		hash, err := claims.Hash(bin)
		_, verr := claims.VerifyModule(bin, policy)
		if verr == nil && hash != genuine {
			t.Errorf("accepted other bytes: %x", bin)
		}
		// What is shown is what is decided on.
		r, ierr := claims.InspectModule(bin)
		if holds := ierr == nil && r.Form == nil && r.Fault() == nil; holds && policy.IssuerFault(r.Claims.Issuer) == nil != (verr == nil) {
			t.Errorf("inspected as %+v, %v, verified as %v", r, ierr, verr)
		}
		if err != nil {
			return
		}
		out, err := claims.Embed(bin, claims.SectionName, "token")
		if err != nil {
			t.Fatalf("embed: %v", err)
		}
		if token, err := claims.Extract(out); err != nil || token != "token" {
			t.Errorf("extract: %q, %v", token, err)
		}
		if again, err := claims.Hash(out); err != nil || again != hash {
			t.Errorf("hash changed from %s to %s, %v", hash, again, err)
		}
	})
}
