package claims_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/claims"
)

// moduleBody is the JSON of claims that fit an empty module, with more in front.
func moduleBody(more string) string {
	return `{` + more + `"jti":"x","iat":1700000000,"iss":"` + checkKeys[0].key + `","sub":"` + checkKeys[1].key +
		`","wascap":{"hash":"` + sum(emptyModule) + `","caps":["wasmcloud:keyvalue"],"tags":[]},"wascap_revision":3}`
}

func inModule(t testing.TB, header, body string) []byte {
	t.Helper()
	return []byte(emptyModule + custom(claims.SectionName, signText(t, header, body)))
}

func TestVerifyModule_headers(t *testing.T) {
	for header, ok := range map[string]bool{
		goodHeader:                                                  true,
		`{"alg":"Ed25519","typ":"jwt"}`:                             true,
		`{"typ":"jwt","alg":"Ed25519","kid":"1"}`:                   true, // says nothing that counts
		`{"typ":"jwt","alg":"none"}`:                                false,
		`{"typ":"jwt","alg":"HS256"}`:                               false,
		`{"typ":"jwt","alg":"EdDSA"}`:                               false,
		`{"typ":"jwt","alg":"ed25519-nkey"}`:                        false,
		`{"typ":"jwt","alg":""}`:                                    false,
		`{"typ":"jwt","alg":"none","alg":"Ed25519"}`:                false,
		`{"typ":"jwt","alg":"Ed25519","crit":["exp"]}`:              false,
		`{"typ":"jwt","alg":"Ed25519","crit":[],"b64":false}`:       false,
		`{"typ":"jwt","alg":"Ed25519","ALG":"none"}`:                false,
		`{"typ":"jwt","alg":"Ed25519","Crit":["exp"]}`:              false,
		`["jwt","Ed25519"]`:                                         false,
		`{"typ":"jwt","alg":"Ed25519"}{}`:                           false,
		`{"typ":"jwt","alg":"Ed25519\u0000"}`:                       false,
		"{\"typ\":\"jwt\",\"alg\":\"Ed25519\",\"x\":\"\xff\"}":      false,
		`{"typ":"jwt","alg":"Ed25519","x":` + nested(40, `1`) + `}`: false,
	} {
		_, err := claims.VerifyModule(inModule(t, header, moduleBody("")), trusted(t))
		if ok && err != nil || !ok && (!errors.Is(err, claims.ErrMalformed) || !claims.Refused(err)) {
			t.Errorf("%.80q: got %v", header, err)
		}
	}
}

func nested(n int, in string) string { return strings.Repeat("[", n) + in + strings.Repeat("]", n) }

// What two readers could read differently is not a token.
func TestVerifyModule_oneReading(t *testing.T) {
	other := checkKeys[2].key
	good := moduleBody("")
	for name, body := range map[string]string{
		"iss twice":           moduleBody(`"iss":"` + checkKeys[0].key + `",`),
		"exp twice":           moduleBody(`"exp":1,"exp":null,`),
		"hash twice":          strings.Replace(good, `"wascap":{`, `"wascap":{"hash":"`+sum("x")+`",`, 1),
		"twice, escaped":      moduleBody(`"is\u0073":"x",`),
		"ISS":                 moduleBody(`"ISS":"` + other + `",`),
		"long s":              moduleBody(`"iſs":"` + other + `",`),
		"Caps":                strings.Replace(good, `"caps":`, `"Caps":["wasmcloud:messaging"],"caps":`, 1),
		"Hash alone":          strings.Replace(good, `"hash":`, `"Hash":`, 1),
		"unknown twice":       moduleBody(`"x":{"a":1,"a":2},`),
		"in a list":           moduleBody(`"x":[{"a":1,"a":2}],`),
		"not UTF-8":           moduleBody("\"x\":\"\xc3\x28\","),
		"deep":                moduleBody(`"x":` + nested(40, "") + `,`),
		"two values":          good + good,
		"cut":                 good[:len(good)-1],
		"exp before 1970":     moduleBody(`"exp":-1,`),
		"exp beyond 9999":     moduleBody(`"exp":253402300800,`),
		"exp beyond 63 bits":  moduleBody(`"exp":9223372036854775808,`),
		"nbf a fraction":      moduleBody(`"nbf":1.5,`),
		"iat a list":          strings.Replace(good, `"iat":1700000000`, `"iat":[1]`, 1),
		"caps a text":         strings.Replace(good, `["wasmcloud:keyvalue"]`, `"wasmcloud:keyvalue"`, 1),
		"caps a list of nums": strings.Replace(good, `["wasmcloud:keyvalue"]`, `[1]`, 1),
		"rev beyond 63 bits":  strings.Replace(good, `"tags"`, `"rev":99999999999999999999,"tags"`, 1),
		"wascap missing hash": strings.Replace(good, `"hash":"`+sum(emptyModule)+`",`, "", 1),
		"sub a provider":      strings.Replace(good, checkKeys[1].key, other, 1),
		"sub a name":          strings.Replace(good, checkKeys[1].key, "thermostat", 1),
		"sub a wildcard":      strings.Replace(good, checkKeys[1].key, ">", 1),
	} {
		_, err := claims.VerifyModule(inModule(t, goodHeader, body), trusted(t))
		if want := claims.ErrMalformed; name == "wascap missing hash" {
			if !errors.Is(err, claims.ErrHash) {
				t.Errorf("%s: got %v, want ErrHash", name, err)
			}
		} else if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		} else if strings.Contains(err.Error(), "Go struct") {
			t.Errorf("%s: got %v, with types of ours", name, err)
		}
	}
	for name, body := range map[string]string{
		"as it is":              good,
		"unknown keys":          moduleBody(`"aud":["x"],"Exp2":1,`),
		"other letters, deeper": moduleBody(`"x":{"ISS":1,"iss":2},`),
	} {
		if _, err := claims.VerifyModule(inModule(t, goodHeader, body), trusted(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A genuine token proves nothing in another place.
func TestVerifyModule_tokenOfAnother(t *testing.T) {
	one, err := claims.SignModule([]byte(emptyModule+sect(1, "one")), tiny(), seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	token, err := claims.Extract(one)
	if err != nil {
		t.Fatal(err)
	}
	two := emptyModule + sect(1, "two")
	for name, c := range map[string]struct {
		bin  string
		want error
	}{
		"in another module":        {two + custom(claims.SectionName, token), claims.ErrHash},
		"under the old name":       {emptyModule + sect(1, "one") + custom(claims.OldSectionName, token), nil},
		"twice":                    {string(one) + custom(claims.SectionName, token), claims.ErrMalformed},
		"under both names":         {string(one) + custom(claims.OldSectionName, token), claims.ErrMalformed},
		"beside an empty one":      {string(one) + custom(claims.OldSectionName, ""), claims.ErrMalformed},
		"with a line end":          {emptyModule + sect(1, "one") + custom(claims.SectionName, token+"\n"), claims.ErrMalformed},
		"with a zero":              {emptyModule + sect(1, "one") + custom(claims.SectionName, token+"\x00"), claims.ErrMalformed},
		"a section of other name":  {emptyModule + sect(1, "one") + custom("JWT", token), claims.ErrUnsigned},
		"inside of another module": {emptyComponent + sect(1, string(one)), claims.ErrUnsigned},
		"before a changed section": {emptyModule + custom(claims.SectionName, token) + sect(1, "onE"), claims.ErrHash},
		"with a section more":      {string(one) + custom("name", "x"), claims.ErrHash},
	} {
		if _, err := claims.VerifyModule([]byte(c.bin), trusted(t)); !errors.Is(err, c.want) || err != nil && !claims.Refused(err) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	// An app's token is not a module's, nor the other way round.
	if _, err := claims.VerifyApp(map[string]string{claims.ManifestFile: "x"}, token, trusted(t)); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("as app.sig: got %v, want ErrMalformed", err)
	}
}

// Whatever byte is changed, the module is not accepted as it was.
func TestVerifyModule_anyByte(t *testing.T) {
	signed, err := claims.SignModule([]byte(emptyModule+sect(1, "types")+sect(10, "code")), tiny(), seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	for i := range signed {
		for _, flip := range []byte{1, 0x20, 0x80} {
			bad := []byte(string(signed))
			bad[i] ^= flip
			if m, err := claims.VerifyModule(bad, trusted(t)); err == nil {
				t.Errorf("byte %d ^ %#x: accepted as %+v", i, flip, m)
			}
		}
	}
	for i := range signed {
		if _, err := claims.VerifyModule(signed[:i], trusted(t)); err == nil {
			t.Errorf("the first %d bytes are accepted", i)
		}
	}
}

func TestCallAlias(t *testing.T) {
	for in, want := range map[string]string{
		"wasmcloud/ponger":   "wasmcloud/ponger",
		" Wasm Cloud/Ping ":  "wasm_cloud/ping",
		"a-b.c d":            "a_b_c_d",
		"Grüße":              "gre",
		"日本":                 "",
		"":                   "",
		"already_right/x_1":  "already_right/x_1",
		"\tTab\n":            "tab",
		"MIXED-Case.Alias/Á": "mixed_case_alias/",
	} {
		if got := claims.CallAlias(in); got != want {
			t.Errorf("CallAlias(%q) = %q, want %q", in, got, want)
		}
	}
	c := tiny()
	c.Wascap.CallAlias = " Wasm Cloud/Ping-1.0 "
	signed, err := claims.SignModule([]byte(emptyModule), c, seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := claims.VerifyModule(signed, trusted(t)); err != nil || m.CallAlias != "wasm_cloud/ping_1_0" {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestSignModule_refusesClaims(t *testing.T) {
	for name, change := range map[string]func(*claims.Claims[claims.ModuleClaims]){
		"alias of nothing":   func(c *claims.Claims[claims.ModuleClaims]) { c.Wascap.CallAlias = "日本" },
		"empty capability":   func(c *claims.Claims[claims.ModuleClaims]) { c.Wascap.Caps = []string{""} },
		"capability, line":   func(c *claims.Claims[claims.ModuleClaims]) { c.Wascap.Caps = []string{"a\nb"} },
		"name not printable": func(c *claims.Claims[claims.ModuleClaims]) { c.Wascap.Name = "\x1b[31m" },
		"version, not UTF-8": func(c *claims.Claims[claims.ModuleClaims]) { c.Wascap.Ver = "\xff" },
		"rev beyond 32 bits": func(c *claims.Claims[claims.ModuleClaims]) { c.Wascap.Rev = 1 << 31 },
		"rev below zero":     func(c *claims.Claims[claims.ModuleClaims]) { c.Wascap.Rev = -1 },
		"dates crossed": func(c *claims.Claims[claims.ModuleClaims]) {
			exp, nbf := int64(5), int64(6)
			c.Expires, c.NotBefore = &exp, &nbf
		},
	} {
		c := tiny()
		change(&c)
		if _, err := claims.SignModule([]byte(emptyModule), c, seedOf(t, 1)); !errors.Is(err, claims.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestSeed_Identity(t *testing.T) {
	account := seedOf(t, 1)
	a, err := account.Identity("thermostat")
	if err != nil || a.Kind() != claims.Module {
		t.Fatalf("got %v, %v", a, err)
	}
	// It must not change between versions: boxes know the actor by it.
	if got, want := a.Key().String(), "MA6GHAYZC3LBUY4WPSOZ4Y2BKFQY2CQ5SZNTERJKX4EN7UQX6YGL4K7D"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if b, _ := account.Identity("thermostat2"); b == a {
		t.Error("two names have one key")
	}
	other, err := claims.Generate(claims.Account)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := other.Identity("thermostat"); b == a {
		t.Error("two accounts have one key")
	}
	if _, err := seedOf(t, 4).Identity("x"); !errors.Is(err, claims.ErrKey) {
		t.Errorf("cluster seed: got %v, want ErrKey", err)
	}
}

func TestInspectModule(t *testing.T) {
	bin := emptyModule + padded(1, "types")
	signed, err := claims.SignModuleIn([]byte(bin), claims.OldSectionName, tiny(), seedOf(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	r, err := claims.InspectModule(signed)
	if err != nil || r.Fault() != nil || r.Section != claims.OldSectionName || r.Claims.Wascap.Name != "tiny" || r.Hash != r.Claims.Wascap.Hash || r.Literal {
		t.Errorf("signed: %+v, %v", r, err)
	}
	r, err = claims.InspectModule([]byte(bin))
	if err != nil || r.Fault() != nil || !errors.Is(r.Form, claims.ErrUnsigned) || len(r.Hash) != 64 {
		t.Errorf("unsigned: %+v, %v", r, err)
	}
	r, err = claims.InspectModule([]byte(signedBy(t, bin, "jwt", sum(bin), 2)))
	if err != nil || r.Fault() != nil || !r.Literal {
		t.Errorf("of an older tool: %+v, %v", r, err)
	}
	r, err = claims.InspectModule(append(signed, sect(1, "x")...))
	if err != nil || !errors.Is(r.HashFault, claims.ErrHash) || r.Signature != nil || r.Claims.Wascap.Name != "tiny" {
		t.Errorf("other bytes: %+v, %v", r, err)
	}
	token := strings.Split(signText(t, goodHeader, moduleBody("")), ".")
	forged := token[0] + "." + b64(moduleBody(`"exp":5,`)) + "." + token[2]
	r, err = claims.InspectModule([]byte(emptyModule + custom("jwt", forged)))
	if err != nil || !errors.Is(r.Fault(), claims.ErrSignature) || r.Claims.Expires == nil {
		t.Errorf("forged: %+v, %v", r, err)
	}
	r, err = claims.InspectModule([]byte(emptyModule + custom("jwt", "x") + custom("jwt", "x")))
	if err != nil || !errors.Is(r.Fault(), claims.ErrMalformed) || r.Section != "" {
		t.Errorf("two tokens: %+v, %v", r, err)
	}
	if _, err = claims.InspectModule([]byte("x")); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("text: got %v", err)
	}
}

// FuzzClaims: what is accepted reads the same to a decoder that matches keys as they
// are.
func FuzzClaims(f *testing.F) {
	f.Add(moduleBody(""))
	f.Add(moduleBody(`"exp":1,`))
	f.Add(moduleBody(`"ISS":"x",`))
	f.Add(moduleBody(`"x":{"y":[1,{"z":null}]},`))
	f.Add(`{"iss":"` + checkKeys[0].key + `","sub":"x","wascap":null}`)
	f.Fuzz(func(t *testing.T, body string) {
		c, err := claims.Inspect[claims.ModuleClaims](signText(t, goodHeader, body))
		if err != nil {
			if !errors.Is(err, claims.ErrMalformed) && !errors.Is(err, claims.ErrTooLarge) {
				t.Errorf("got %v", err)
			}
			return
		}
		if c.Issuer == "" || c.Subject == "" || c.IssuedAt < 0 {
			t.Errorf("accepted %+v", c)
		}
		var m map[string]any
		if err := json.Unmarshal([]byte(body), &m); err != nil || m["iss"] != c.Issuer || m["sub"] != c.Subject {
			t.Errorf("%s was read as %+v, %v", body, c, err)
		}
	})
}
