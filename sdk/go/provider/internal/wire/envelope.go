// Package wire is the calls of a lattice as bytes, for a provider: their envelopes, the
// tokens that say who has sent them, and the object store for what is too large.
package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Entity is one end of an invocation. An actor has a key alone.
type Entity struct {
	Key      string `msgpack:"public_key"`
	Link     string `msgpack:"link_name"`
	Contract string `msgpack:"contract_id"`
}

// url is the name of an entity in tokens.
func (e Entity) url() string {
	if strings.HasPrefix(e.Key, "M") || strings.HasPrefix(e.Key, "m") {
		return "wasmbus://" + e.Key
	}
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "_")) }
	return "wasmbus://" + strings.ReplaceAll(plain(e.Contract), ":", "/") + "/" + plain(e.Link) + "/" + e.Key
}

// Call is an invocation on the wire.
type Call struct {
	Origin    Entity `msgpack:"origin"`
	Target    Entity `msgpack:"target"`
	Operation string `msgpack:"operation"`
	Payload   []byte `msgpack:"msg"` // empty where it is in the object store
	ID        string `msgpack:"id"`
	Token     string `msgpack:"encoded_claims"`
	Host      string `msgpack:"host_id"`
	Length    uint64 `msgpack:"content_length"` // of the payload, wherever it is
}

// ReadCall reads an invocation. Where the id could be read it is in the result,
// whatever the error, so that the sender can be answered.
func ReadCall(b []byte) (e Call, err error) {
	err = msgpack.Unmarshal(b, &e)
	switch {
	case len(e.ID) > 64:
		e.ID, err = "", errors.New("the id is longer than 64 bytes")
	case err == nil && (e.ID == "" || e.Operation == "" || e.Origin.Key == "" || e.Target.Key == ""):
		err = errors.New("id, operation, origin or target is not there")
	}
	return e, err
}

// Answer is a response on the wire. A key "error" says that the call failed, whatever
// its value.
type Answer struct {
	Payload []byte `msgpack:"msg"`
	ID      string `msgpack:"invocation_id"`
	Error   string `msgpack:"error,omitempty"`
	Length  uint64 `msgpack:"content_length"`
}

// Claims are what the token of an invocation says: a JWT that is signed by the key of
// a cluster.
type Claims struct {
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Expires   int64  `json:"exp,omitempty"`
	NotBefore int64  `json:"nbf,omitempty"`
	Wascap    struct {
		TargetURL string `json:"target_url"`
		OriginURL string `json:"origin_url"`
		Hash      string `json:"hash"`
	} `json:"wascap"`
	Revision int `json:"wascap_revision,omitempty"`
}

// describe says of a call what its token has to say.
func (c *Claims) describe(e *Call, payload []byte) {
	w := &c.Wascap
	w.OriginURL, w.TargetURL, c.Subject = e.Origin.url(), e.Target.url()+"/"+e.Operation, e.ID
	h := sha256.New()
	h.Write(append(append(append(make([]byte, 0, 512), w.OriginURL...), w.TargetURL...), e.Operation...))
	h.Write(payload)
	var sum [sha256.Size]byte
	w.Hash = upperHex([sha256.Size]byte(h.Sum(sum[:0])))
}

func upperHex(sum [sha256.Size]byte) string {
	const digits = "0123456789ABCDEF"
	var text [2 * sha256.Size]byte
	for i, b := range sum {
		text[2*i], text[2*i+1] = digits[b>>4], digits[b&15]
	}
	return string(text[:])
}

type jwtHeader struct {
	Type      string `json:"typ"`
	Algorithm string `json:"alg"`
}

var (
	header  = jwtHeader{"jwt", "Ed25519"}
	segment = base64.RawURLEncoding.Strict()
)

// Sign gives a call its token.
func Sign(e *Call, payload []byte, seed string) error {
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		return fmt.Errorf("invocation_seed: %w", err)
	}
	c := Claims{ID: e.ID, IssuedAt: time.Now().Unix(), Revision: 3}
	if c.Issuer, err = pair.PublicKey(); err != nil {
		return err
	}
	c.describe(e, payload)
	head, _ := json.Marshal(header) // texts and numbers always have a form
	body, _ := json.Marshal(c)
	text := segment.EncodeToString(head) + "." + segment.EncodeToString(body)
	sig, err := pair.Sign([]byte(text))
	e.Token = text + "." + segment.EncodeToString(sig)
	return err
}

// Verify returns what a token says that one of issuers has signed. Whether it is of
// the call is for Matches to say.
func Verify(token string, issuers []string, now int64) (c Claims, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > 16<<10 {
		return c, errors.New("the token has not the form of a JWT")
	}
	var head jwtHeader
	var sig []byte
	for i, into := range []any{&head, &c, nil} {
		raw, err := segment.DecodeString(parts[i])
		if err == nil && into != nil {
			err = json.Unmarshal(raw, into)
		}
		if err != nil {
			return c, fmt.Errorf("token: %w", err)
		}
		sig = raw
	}
	switch {
	case head != header:
		return c, errors.New("the token is of another kind")
	case !slices.Contains(issuers, c.Issuer) || !strings.HasPrefix(c.Issuer, "C"):
		return c, fmt.Errorf("issuer %q is not trusted", c.Issuer)
	case c.Expires != 0 && now >= c.Expires, now < c.NotBefore:
		return c, errors.New("the token is out of its time")
	}
	key, err := nkeys.FromPublicKey(c.Issuer)
	if err == nil {
		err = key.Verify([]byte(parts[0]+"."+parts[1]), sig)
	}
	if err != nil {
		return c, fmt.Errorf("token: %w", err)
	}
	return c, nil
}

// Matches says whether the token is of this call, with this payload.
func (c *Claims) Matches(e *Call, payload []byte) error {
	want := *c
	if want.describe(e, payload); want != *c {
		return errors.New("the token is of another call")
	}
	return nil
}
