package claims

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// hashRevision is the generation of signing tools whose hash is over re-encoded
// lengths, and the one that we write.
const hashRevision = 3

// ModuleClaims are the part of a token that describes an actor.
type ModuleClaims struct {
	Name      string   `json:"name,omitempty"`
	Hash      string   `json:"hash"` // as of Hash
	Tags      []string `json:"tags"`
	Caps      []string `json:"caps"`                 // contract ids that the actor may use
	Rev       int64    `json:"rev,omitempty"`        // grows with each release
	Ver       string   `json:"ver,omitempty"`        // for people
	CallAlias string   `json:"call_alias,omitempty"` // another name that actors may call it by
	Prov      bool     `json:"prov"`
}

// SignedModule is what the token of a module says, after it was verified.
type SignedModule struct {
	ModuleClaims
	Key       Key // the actor's identity, an M key
	Issuer    Key // an A key
	IssuedAt  time.Time
	Expires   time.Time // zero for never
	NotBefore time.Time // zero for always
}

// EffectiveRev is the number to order releases by: Rev, or the time of signing in
// unix seconds for a module that has none.
func (m SignedModule) EffectiveRev() int64 {
	if m.Rev > 0 {
		return m.Rev
	}
	return m.IssuedAt.Unix()
}

// CallAlias is the form in which a call alias is signed and looked up: lower case,
// without white space around it and letters beyond ASCII, and with an underscore for
// each space, hyphen and dot.
func CallAlias(alias string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r > unicode.MaxASCII:
			return -1
		case r == ' ' || r == '-' || r == '.':
			return '_'
		}
		return r
	}, strings.TrimSpace(strings.ToLower(alias)))
}

// Identity is the seed of the actor with that name, of this account. It is the same
// each time, so that each release of an actor has the same key without a file to
// keep; nobody without the account's seed can tell it.
func (s Seed) Identity(name string) (Seed, error) {
	if s.kind != Account {
		return Seed{}, fmt.Errorf("identity of %.80q: seed is of kind %s, want account: %w", name, s.kind, ErrKey)
	}
	raw, err := hkdf.Key(sha256.New, s.raw[:], nil, "edged actor "+name, 32)
	if err != nil {
		return Seed{}, err
	}
	return Seed{kind: Module, raw: [32]byte(raw)}, nil
}

// SignModule is SignModuleIn for the section SectionName.
func SignModule(bin []byte, c Claims[ModuleClaims], seed Seed) ([]byte, error) {
	return SignModuleIn(bin, SectionName, c, seed)
}

// SignModuleIn returns bin with a token for the actor c.Subject (an M key), signed by
// the account seed, in the section of that name (SectionName, or OldSectionName for
// old readers). The token's hash, revision and issuer are filled in here, and its call
// alias is brought into form. A token that bin had is replaced. Errors wrap ErrKey,
// ErrMalformed or ErrTooLarge.
func SignModuleIn(bin []byte, section string, c Claims[ModuleClaims], seed Seed) ([]byte, error) {
	if seed.Kind() != Account {
		return nil, fmt.Errorf("sign module: seed is of kind %s, want account: %w", seed.Kind(), ErrKey)
	}
	if _, err := moduleKey(c.Subject); err != nil {
		return nil, fmt.Errorf("sign module: %w", err)
	}
	alias := c.Wascap.CallAlias
	c.Wascap.CallAlias = CallAlias(alias)
	if alias != "" && c.Wascap.CallAlias == "" {
		return nil, fmt.Errorf("sign module: nothing is left of the call alias %.80q: %w", alias, ErrMalformed)
	}
	if err := c.Wascap.check(); err != nil {
		return nil, fmt.Errorf("sign module: %w", err)
	}
	if c.Expires != nil && c.NotBefore != nil && *c.Expires <= *c.NotBefore {
		return nil, fmt.Errorf("sign module: it would expire before it is valid: %w", ErrMalformed)
	}
	hash, err := Hash(bin)
	if err != nil {
		return nil, fmt.Errorf("sign module: %w", err)
	}
	c.Wascap.Hash, c.Revision = hash, hashRevision
	// Readers of other kits expect lists, not null.
	if c.Wascap.Tags == nil {
		c.Wascap.Tags = []string{}
	}
	if c.Wascap.Caps == nil {
		c.Wascap.Caps = []string{}
	}
	token, err := Sign(c, seed)
	if err != nil {
		return nil, fmt.Errorf("sign module: %w", err)
	}
	return Embed(bin, section, token)
}

// check says what is not to be signed. Readers take more: it has been signed.
func (m ModuleClaims) check() error {
	if m.Rev < 0 || m.Rev > math.MaxInt32 { // a signed 32-bit number in other kits
		return fmt.Errorf("revision %d, want 1 to %d: %w", m.Rev, math.MaxInt32, ErrMalformed)
	}
	for what, texts := range map[string][]string{
		"name": {m.Name}, "version": {m.Ver}, "call alias": {m.CallAlias}, "capability": m.Caps, "tag": m.Tags,
	} {
		for _, text := range texts {
			if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				return fmt.Errorf("%s %.80q is not printable: %w", what, text, ErrMalformed)
			}
			if text == "" && (what == "capability" || what == "tag") {
				return fmt.Errorf("empty %s: %w", what, ErrMalformed)
			}
		}
	}
	return nil
}

// VerifyModule checks a signed module against p, in this order: one token, in form; its
// signature; its issuer trusted; its hash; its dates at the time of admission. From
// revision 3 on the hash must be that of Hash. Older tools differed, so for them the hash of
// the literal bytes around the token will do as well. Errors wrap ErrUnsigned,
// ErrToken, ErrMalformed, ErrTooLarge, ErrSignature, ErrUnknownIssuer, ErrExpired,
// ErrNotYetValid or ErrHash.
func VerifyModule(bin []byte, p Policy) (SignedModule, error) {
	token, err := Extract(bin)
	if err != nil {
		return SignedModule{}, err
	}
	c, err := Verify[ModuleClaims](token)
	if err != nil {
		return SignedModule{}, fmt.Errorf("module: %w", err)
	}
	m, err := newSignedModule(c)
	if err != nil {
		return SignedModule{}, fmt.Errorf("module: %w: %w", ErrToken, err)
	}
	if err := p.trust(m.Issuer); err != nil {
		return SignedModule{}, fmt.Errorf("module %s: %w", m.Key, err)
	}
	if err := checkHash(bin, c.Wascap.Hash, c.Revision); err != nil {
		return SignedModule{}, fmt.Errorf("module %s: %w", m.Key, err)
	}
	if err := p.dates(c.Expires, c.NotBefore); err != nil {
		return SignedModule{}, fmt.Errorf("module %s: %w", m.Key, err)
	}
	return m, nil
}

// newSignedModule takes claims whose signature was checked.
func newSignedModule(c Claims[ModuleClaims]) (SignedModule, error) {
	key, err := moduleKey(c.Subject)
	if err != nil {
		return SignedModule{}, err
	}
	issuer, err := Parse(c.Issuer)
	if err != nil {
		return SignedModule{}, err
	}
	m := SignedModule{ModuleClaims: c.Wascap, Key: key, Issuer: issuer, IssuedAt: time.Unix(c.IssuedAt, 0)}
	if c.Expires != nil {
		m.Expires = time.Unix(*c.Expires, 0)
	}
	if c.NotBefore != nil {
		m.NotBefore = time.Unix(*c.NotBefore, 0)
	}
	return m, nil
}

// moduleKey reads an actor's identity. Classic hosts take any text here; we put it
// into subjects, so it must be a key.
func moduleKey(sub string) (Key, error) {
	key, err := Parse(sub)
	if err != nil {
		return Key{}, fmt.Errorf("sub: %w: %w", ErrMalformed, err)
	}
	if key.Kind() != Module {
		return Key{}, fmt.Errorf("sub %s is not a module key: %w", key, ErrMalformed)
	}
	return key, nil
}

func checkHash(bin []byte, want string, revision int) error {
	got, err := Hash(bin)
	if err != nil {
		return err
	}
	if got == want {
		return nil
	}
	if revision < hashRevision {
		literal, err := literalHash(bin)
		if err != nil {
			return err
		}
		if literal == want {
			return nil
		}
	}
	return fmt.Errorf("hash is %s, the claims say %.64q: %w", got, want, ErrHash)
}
