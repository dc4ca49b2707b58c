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
	c := tokenClaims{OriginURL: i.Origin.URL(), TargetURL: i.Target.URL() + "/" + i.Operation}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(c.OriginURL), []byte(c.TargetURL), []byte(i.Operation), payload} {
		h.Write(part)
	}
	c.Hash = fmt.Sprintf("%X", h.Sum(nil))
	return c
}

// Sign gives i its token, by the seed of a cluster key. payload is the whole one,
// also where it does not go in the envelope.
func Sign(i *Invocation, payload []byte, cluster claims.Seed) error {
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
	c, err := claims.Verify[tokenClaims](i.Token)
	if err != nil {
		return issuer, fmt.Errorf("%w: %w", ErrForged, err)
	}
	if issuer, err = claims.Parse(c.Issuer); err != nil {
		return claims.Key{}, fmt.Errorf("%w: %w", ErrForged, err)
	}
	want := claimsOf(i, payload)
	fault := ""
	switch {
	case !now.IsZero() && c.Expires != nil && now.Unix() >= *c.Expires:
		fault = "the token has expired"
	case !now.IsZero() && c.NotBefore != nil && now.Unix() < *c.NotBefore:
		fault = "the token is not valid yet"
	case c.Subject != i.ID:
		fault = "the token is of another invocation"
	case c.Wascap.OriginURL != want.OriginURL:
		fault = "the token is of another origin"
	case c.Wascap.TargetURL != want.TargetURL:
		fault = "the token is for another target"
	case c.Wascap.Hash != want.Hash:
		fault = "the token is over another payload"
	case len(i.Host) != hostKeyLen:
		fault = "host_id is not a key"
	default:
		return issuer, nil
	}
	return claims.Key{}, fmt.Errorf("%w: %s", ErrForged, fault)
}
