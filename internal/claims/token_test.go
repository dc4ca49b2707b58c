package claims_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/claims"
)

type invocation struct {
	TargetURL string `json:"target_url"`
	OriginURL string `json:"origin_url"`
	Hash      string `json:"hash"`
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// signText makes a token of any header and body, by the account of octet 1.
func signText(t testing.TB, header, body string) string {
	t.Helper()
	text := b64(header) + "." + b64(body)
	sig, err := seedOf(t, 1).Sign([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

const goodHeader = `{"typ":"jwt","alg":"Ed25519"}`

func goodBody() string {
	return `{"jti":"x","iat":1,"iss":"` + checkKeys[0].key + `","sub":"s","wascap":{}}`
}

func TestSign_invocationCheckValue(t *testing.T) {
	token, err := claims.Sign(claims.Claims[invocation]{
		ID: "BBBBBBBBBBBBBBBBBBBBBB", IssuedAt: 1700000000, Subject: "11111111-2222-4333-8444-555555555555",
		Wascap: invocation{
			TargetURL: "wasmbus://wasmcloud/keyvalue/default/VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS/KeyValue.Increment",
			OriginURL: "wasmbus://MCATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZJPUL",
			Hash:      "8EFA1420941C8A0899FC44E5274CE693D673E5E1E984314581120F25AE726396",
		},
		Revision: 3,
	}, seedOf(t, 4))
	if err != nil {
		t.Fatal(err)
	}
	const want = "Dy0zigUhQPD3TPn3mGx9jR68_SJb4Xe1hfBN5cDWzT7kSO9_U1j5xcqzIDuVwibWCmx1DtXaYOlKf66GqiGMBg"
	if got := token[strings.LastIndex(token, ".")+1:]; got != want {
		t.Errorf("signature segment: got %s, want %s", got, want)
	}
	c, err := claims.Verify[invocation](token)
	if err != nil || c.Issuer != checkKeys[3].key || !strings.HasPrefix(c.Wascap.OriginURL, "wasmbus://MCATS") {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestSign_fillsIn(t *testing.T) {
	a, err := claims.Sign(claims.Claims[invocation]{Subject: "a<b>&c"}, seedOf(t, 4))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := claims.Sign(claims.Claims[invocation]{Subject: "a<b>&c"}, seedOf(t, 4))
	c, err := claims.Verify[invocation](a)
	if err != nil || len(c.ID) != 22 || c.IssuedAt == 0 || c.Subject != "a<b>&c" || c.Expires != nil {
		t.Errorf("got %+v, %v", c, err)
	}
	if d, _ := claims.Verify[invocation](b); d.ID == c.ID {
		t.Error("two tokens have one id")
	}
	body, _ := base64.RawURLEncoding.DecodeString(strings.Split(a, ".")[1])
	if !strings.Contains(string(body), "a<b>&c") || strings.Contains(string(body), "exp") || strings.HasSuffix(string(body), "\n") {
		t.Errorf("body is %q", body)
	}
}

func TestSign_refuses(t *testing.T) {
	if _, err := claims.Sign(claims.Claims[invocation]{}, seedOf(t, 4)); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("empty subject: got %v, want ErrMalformed", err)
	}
	if _, err := claims.Sign(claims.Claims[invocation]{Subject: "s"}, claims.Seed{}); !errors.Is(err, claims.ErrKey) {
		t.Errorf("zero seed: got %v, want ErrKey", err)
	}
	if _, err := claims.Sign(claims.Claims[string]{Subject: "s", Wascap: strings.Repeat("x", claims.MaxToken)}, seedOf(t, 4)); !errors.Is(err, claims.ErrTooLarge) {
		t.Errorf("large: got %v, want ErrTooLarge", err)
	}
}

func TestVerify_headerByParsedValue(t *testing.T) {
	for header, ok := range map[string]bool{
		goodHeader:                                 true,
		`{"alg":"Ed25519","typ":"jwt"}`:            true,
		` { "alg" : "Ed25519", "typ":"j\u0077t" }`: true,
		`{"typ":"JWT","alg":"Ed25519"}`:            false,
		`{"typ":"jwt","alg":"ed25519"}`:            false,
		`{"typ":"jwt","alg":"ed25519-nkey"}`:       false,
		`{"typ":"jwt","alg":"none"}`:               false,
		`{"TYP":"jwt","ALG":"Ed25519"}`:            false,
		`{"typ":["jwt"],"alg":"Ed25519"}`:          false,
		`{"typ":"jwt"}`:                            false,
		`null`:                                     false,
		`[]`:                                       false,
	} {
		_, err := claims.Verify[struct{}](signText(t, header, goodBody()))
		if ok && err != nil {
			t.Errorf("%s: %v", header, err)
		}
		if !ok && !errors.Is(err, claims.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", header, err)
		}
	}
}

func TestVerify_refuses(t *testing.T) {
	good := signText(t, goodHeader, goodBody())
	if _, err := claims.Verify[struct{}](good); err != nil {
		t.Fatal(err)
	}
	seg := strings.Split(good, ".")
	iss := checkKeys[0].key
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"empty":             {"", claims.ErrMalformed},
		"two segments":      {seg[0] + "." + seg[1], claims.ErrMalformed},
		"four segments":     {good + ".", claims.ErrMalformed},
		"padding":           {seg[0] + "=." + seg[1] + "." + seg[2], claims.ErrMalformed},
		"standard alphabet": {seg[0] + "." + seg[1] + "." + strings.Repeat("+", 86), claims.ErrMalformed},
		"left-over bits":    {seg[0] + "." + seg[1] + "." + seg[2][:85] + "_", claims.ErrMalformed},
		"line end":          {good + "\n", claims.ErrMalformed},
		"too large":         {good + strings.Repeat("A", claims.MaxToken), claims.ErrTooLarge},
		"no signature":      {seg[0] + "." + seg[1] + ".", claims.ErrSignature},
		"other signature":   {seg[0] + "." + seg[1] + "." + strings.Repeat("A", 86), claims.ErrSignature},
		"changed claims":    {seg[0] + "." + b64(strings.Replace(goodBody(), `"x"`, `"y"`, 1)) + "." + seg[2], claims.ErrSignature},
		"changed header":    {b64(`{"alg":"Ed25519","typ":"jwt"}`) + "." + seg[1] + "." + seg[2], claims.ErrSignature},
		"claims not JSON":   {signText(t, goodHeader, `{`), claims.ErrMalformed},
		"claims a list":     {signText(t, goodHeader, `[]`), claims.ErrMalformed},
		"no issuer":         {signText(t, goodHeader, `{"sub":"s"}`), claims.ErrMalformed},
		"no subject":        {signText(t, goodHeader, `{"iss":"`+iss+`"}`), claims.ErrMalformed},
		"exp is text":       {signText(t, goodHeader, `{"iss":"`+iss+`","sub":"s","exp":"9"}`), claims.ErrMalformed},
		"exp is huge":       {signText(t, goodHeader, `{"iss":"`+iss+`","sub":"s","exp":1e300}`), claims.ErrMalformed},
		"issuer is a seed":  {signText(t, goodHeader, `{"iss":"`+checkKeys[0].seed+`","sub":"s"}`), claims.ErrMalformed},
		"another issuer":    {signText(t, goodHeader, `{"iss":"`+checkKeys[3].key+`","sub":"s"}`), claims.ErrSignature},
		"deep":              {signText(t, goodHeader, strings.Repeat("[", 20000)), claims.ErrMalformed},
	} {
		if _, err := claims.Verify[struct{}](c.token); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestInspect_showsWithoutSignature(t *testing.T) {
	seg := strings.Split(signText(t, goodHeader, goodBody()), ".")
	c, err := claims.Inspect[json.RawMessage](seg[0] + "." + seg[1] + ".")
	if err != nil || c.Subject != "s" {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := claims.Inspect[json.RawMessage]("x"); !errors.Is(err, claims.ErrMalformed) {
		t.Errorf("got %v, want ErrMalformed", err)
	}
}

func FuzzVerify(f *testing.F) {
	good := signText(f, goodHeader, goodBody())
	f.Add(good)
	f.Add(b64(goodHeader) + "." + b64(goodBody()) + ".")
	f.Add(b64(`{}`) + "..")
	seg := strings.Split(good, ".")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := claims.Verify[claims.ModuleClaims](token)
		if err == nil && (c.Issuer == "" || c.Subject == "") {
			t.Errorf("accepted %+v", c)
		}
		// What was signed stands at the front; only the genuine token has this signature.
		if err == nil && strings.HasSuffix(token, seg[2]) && token != good {
			t.Errorf("accepted %q", token)
		}
		_, _ = claims.Inspect[map[string]any](token)
	})
}
