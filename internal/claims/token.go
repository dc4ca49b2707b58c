package claims

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// MaxToken is the largest text of a token that is read, in bytes.
const MaxToken = 64 << 10

// maxDate is the last second of the year 9999, beyond which a date has no text.
const maxDate = 253402300799

// header is what we write; readers compare the parsed values, since some kits
// write the two keys the other way round.
const header = `{"typ":"jwt","alg":"Ed25519"}`

// The decoder is strict about left-over bits, so that one token has one text.
var segment = base64.RawURLEncoding.Strict()

// Claims are what a token says. W is the part that depends on the kind of token:
// ModuleClaims, AppClaims, or that of an invocation.
type Claims[W any] struct {
	Expires   *int64 `json:"exp,omitempty"` // unix seconds; nil for never
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"` // unix seconds
	Issuer    string `json:"iss"` // the signer's public key
	Subject   string `json:"sub"`
	NotBefore *int64 `json:"nbf,omitempty"` // unix seconds; nil for always
	Wascap    W      `json:"wascap"`
	Revision  int    `json:"wascap_revision,omitempty"` // generation of the signing tool; 0 for none
}

// Sign makes the text of a token. The issuer becomes the key of by; an empty ID
// becomes a random one, a zero IssuedAt the present time.
func Sign[W any](c Claims[W], by Signer) (string, error) {
	c.Issuer = by.Key().String()
	if c.ID == "" {
		c.ID = newID()
	}
	if c.IssuedAt == 0 {
		c.IssuedAt = time.Now().Unix()
	}
	if c.Subject == "" {
		return "", fmt.Errorf("sign token: empty subject: %w", ErrMalformed)
	}
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(c); err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	signed := segment.EncodeToString([]byte(header)) + "." +
		segment.EncodeToString(bytes.TrimRight(body.Bytes(), "\n"))
	sig, err := by.Sign([]byte(signed))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	token := signed + "." + segment.EncodeToString(sig)
	if len(token) > MaxToken {
		return "", fmt.Errorf("sign token: %d bytes, limit %d: %w", len(token), MaxToken, ErrTooLarge)
	}
	return token, nil
}

// Verify reads a token and checks its signature by the key that it names as its
// issuer. Whether that issuer is trusted, and the dates, are the caller's to check.
// Errors wrap ErrSignature, or ErrToken and with it ErrMalformed or ErrTooLarge.
func Verify[W any](token string) (Claims[W], error) {
	p, err := split(token)
	if err != nil {
		return Claims[W]{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	c, issuer, err := read[W](p)
	if err != nil {
		return Claims[W]{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if err := issuer.Verify([]byte(p.signed), p.sig); err != nil {
		return Claims[W]{}, fmt.Errorf("token: %w", err)
	}
	return c, nil
}

// Inspect reads a token as Verify does, but does not check its signature: for
// showing it, never for deciding on it.
func Inspect[W any](token string) (Claims[W], error) {
	p, err := split(token)
	if err != nil {
		return Claims[W]{}, fmt.Errorf("token: %w", err)
	}
	c, _, err := read[W](p)
	if err != nil {
		return Claims[W]{}, fmt.Errorf("token: %w", err)
	}
	return c, nil
}

// parts are the segments of a token.
type parts struct {
	signed string // the text that the signature is over
	body   []byte // JSON of the claims
	sig    []byte
}

func split(token string) (parts, error) {
	if len(token) > MaxToken {
		return parts{}, fmt.Errorf("%d bytes, limit %d: %w", len(token), MaxToken, ErrTooLarge)
	}
	// The base64 decoder would skip line ends.
	if strings.ContainsAny(token, "\r\n") {
		return parts{}, fmt.Errorf("line end inside: %w", ErrMalformed)
	}
	s := strings.Split(token, ".")
	if len(s) != 3 {
		return parts{}, fmt.Errorf("%d segments, want 3: %w", len(s), ErrMalformed)
	}
	var raw [3][]byte
	for i := range s {
		b, err := segment.DecodeString(s[i])
		if err != nil {
			return parts{}, fmt.Errorf("segment %d: %w: %w", i+1, ErrMalformed, err)
		}
		raw[i] = b
	}
	// A map, because what is there decides: a key that must be understood is not.
	var h map[string]any
	if err := unmarshal(raw[0], &h); err != nil {
		return parts{}, fmt.Errorf("header: %w: %w", ErrMalformed, err)
	}
	for key := range h {
		for _, counts := range []string{"typ", "alg", "crit"} {
			if key != counts && strings.EqualFold(key, counts) {
				return parts{}, fmt.Errorf("header: the key %.20q is not %q: %w", key, counts, ErrMalformed)
			}
		}
	}
	if _, ok := h["crit"]; ok { // RFC 7515, 4.1.11
		return parts{}, fmt.Errorf("header asks for extensions (crit): %w", ErrMalformed)
	}
	if h["typ"] != "jwt" || h["alg"] != "Ed25519" {
		return parts{}, fmt.Errorf("header has typ %.20q and alg %.20q, want jwt and Ed25519: %w",
			fmt.Sprint(h["typ"]), fmt.Sprint(h["alg"]), ErrMalformed)
	}
	return parts{signed: token[:len(s[0])+1+len(s[1])], body: raw[1], sig: raw[2]}, nil
}

func read[W any](p parts) (Claims[W], Key, error) {
	var c Claims[W]
	if err := unmarshal(p.body, &c); err != nil {
		return c, Key{}, fmt.Errorf("claims: %w: %w", ErrMalformed, err)
	}
	for name, at := range map[string]*int64{"iat": &c.IssuedAt, "exp": c.Expires, "nbf": c.NotBefore} {
		if at != nil && (*at < 0 || *at > maxDate) {
			return c, Key{}, fmt.Errorf("claims: %s is %d, not a date in seconds: %w", name, *at, ErrMalformed)
		}
	}
	if c.Subject == "" {
		return c, Key{}, fmt.Errorf("claims: empty sub: %w", ErrMalformed)
	}
	issuer, err := Parse(c.Issuer)
	if err != nil {
		return c, Key{}, fmt.Errorf("claims: iss: %w: %w", ErrMalformed, err)
	}
	return c, issuer, nil
}

// newID makes 22 random letters and digits, the shape of a NUID.
func newID() string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	id := make([]byte, 0, 22)
	for len(id) < 22 {
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails, as crypto/rand promises
		for _, c := range b {
			if i := int(c & 63); i < len(digits) && len(id) < 22 {
				id = append(id, digits[i])
			}
		}
	}
	return string(id)
}
