package wire

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

// tokenClaims are the part of a token that describes an invocation.
type tokenClaims struct {
	TargetURL string `json:"target_url"`
	OriginURL string `json:"origin_url"`
	Hash      string `json:"hash"`
}

// tokenRevision is the generation of signing tools that we write like.
const tokenRevision = 3

// hostKeyLen is the length of every key that is a host_id. Its checksum is not
// looked at: a widespread command-line client has one that spells its name.
const hostKeyLen = 56

// claimsOf computes what a token of i has to say, over the whole payload.
func claimsOf(i *Invocation, payload []byte) tokenClaims {
	c := urlsOf(i)
	c.Hash = c.hash(i.Operation, payload)
	return c
}

func urlsOf(i *Invocation) tokenClaims {
	return tokenClaims{OriginURL: i.Origin.URL(), TargetURL: i.Target.URL() + "/" + i.Operation}
}

func (c *tokenClaims) hash(operation string, payload []byte) string {
	h := sha256.New()
	h.Write(append(append(append(make([]byte, 0, 512), c.OriginURL...), c.TargetURL...), operation...))
	h.Write(payload)
	var sum [sha256.Size]byte
	return upperHex([sha256.Size]byte(h.Sum(sum[:0])))
}

func upperHex(sum [sha256.Size]byte) string {
	const digits = "0123456789ABCDEF"
	var text [2 * sha256.Size]byte
	for i, b := range sum {
		text[2*i], text[2*i+1] = digits[b>>4], digits[b&15]
	}
	return string(text[:])
}

// Sign gives i its token, by a cluster key. payload is the whole one,
// also where it does not go in the envelope.
func Sign(i *Invocation, payload []byte, cluster claims.Signer) error {
	if cluster.Kind() != claims.Cluster {
		return fmt.Errorf("sign invocation: seed is of kind %s, want cluster: %w", cluster.Kind(), claims.ErrKey)
	}
	token, err := claims.Sign(claims.Claims[tokenClaims]{Subject: i.ID, Wascap: claimsOf(i, payload), Revision: tokenRevision}, cluster)
	if err != nil {
		return fmt.Errorf("sign invocation: %w", err)
	}
	i.Token = token
	return nil
}

// Check holds the token of i against the rest of it and the whole payload, and its
// dates, which few tokens have, against now; a zero now leaves them out. What it
// returns has signed it; whether that one is trusted is the caller's to check, and
// so is whether the invocation came before. Errors wrap ErrForged.
func Check(i *Invocation, payload []byte, now time.Time) (issuer claims.Key, err error) {
	t, err := CheckToken(i, now)
	if err != nil {
		return claims.Key{}, err
	}
	return t.Issuer, t.CheckPayload(payload)
}

// Token is what is known of an invocation before its payload has been fetched.
type Token struct {
	Issuer    claims.Key // who has signed it
	operation string
	claims    tokenClaims
}

// CheckToken is Check but for the payload: so that a payload that is elsewhere is
// fetched only for an issuer that is trusted. Token.CheckPayload has to follow.
func CheckToken(i *Invocation, now time.Time) (t Token, err error) {
	c, err := claims.Verify[tokenClaims](i.Token)
	if err != nil {
		return t, fmt.Errorf("%w: %w", ErrForged, err)
	}
	issuer, err := claims.Parse(c.Issuer)
	if err != nil {
		return t, fmt.Errorf("%w: %w", ErrForged, err)
	}
	want := urlsOf(i)
	switch {
	case !now.IsZero() && c.Expires != nil && now.Unix() >= *c.Expires:
		err = forged("the token has expired")
	case !now.IsZero() && c.NotBefore != nil && now.Unix() < *c.NotBefore:
		err = forged("the token is not valid yet")
	case c.Subject != i.ID:
		err = forged("the token is of another invocation")
	case c.Wascap.OriginURL != want.OriginURL:
		err = forged("the token is of another origin")
	case c.Wascap.TargetURL != want.TargetURL:
		err = forged("the token is for another target")
	case len(i.Host) != hostKeyLen:
		err = forged("host_id is not a key")
	}
	if err != nil {
		return t, err
	}
	return Token{Issuer: issuer, operation: i.Operation, claims: c.Wascap}, nil
}

// CheckPayload holds the token against the whole payload.
func (t *Token) CheckPayload(payload []byte) error {
	if t.claims.Hash == "" || t.claims.Hash != t.claims.hash(t.operation, payload) {
		return forged("the token is over another payload")
	}
	return nil
}

func forged(what string) error { return fmt.Errorf("%w: %s", ErrForged, what) }
