package claims

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"log/slog"
)

// Kind is the role of a key; its value is the letter that begins the key's text.
type Kind byte

// The roles of keys.
const (
	Account  Kind = 'A' // issues modules, providers and apps
	Cluster  Kind = 'C' // signs invocations
	Module   Kind = 'M' // identity of an actor
	Server   Kind = 'N' // identity of a host
	Operator Kind = 'O' // issues accounts
	User     Kind = 'U' // a NATS user
	Service  Kind = 'V' // identity of a capability provider
	Curve    Kind = 'X' // x25519, for encryption; it cannot sign
)

const (
	seedPrefix = 18 << 3 // makes the text begin with S
	keyLen     = 56      // letters in the text of a key
	seedLen    = 58      // letters in the text of a seed
)

// text is the base32 of RFC 4648 without padding.
var text = base32.StdEncoding.WithPadding(base32.NoPadding)

var kindNames = map[Kind]string{
	Account: "account", Cluster: "cluster", Module: "module", Server: "server",
	Operator: "operator", User: "user", Service: "service", Curve: "curve",
}

// String is the name of the kind, "account" for Account.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return "unknown"
}

// ParseKind reads the name that Kind.String writes.
func ParseKind(name string) (Kind, error) {
	for k, n := range kindNames {
		if n == name {
			return k, nil
		}
	}
	return 0, fmt.Errorf("kind %.20q: %w", name, ErrKey)
}

// prefix is the byte whose upper five bits become the letter.
func (k Kind) prefix() byte { return byte(k-'A') << 3 }

// kindOf is the inverse of prefix; ok is false for a prefix of no kind.
func kindOf(prefix byte) (Kind, bool) {
	k := Kind(prefix>>3) + 'A'
	_, ok := kindNames[k]
	return k, ok && k.prefix() == prefix
}

// Key is the public half of an identity. Keys are comparable; the zero Key is
// nobody's and verifies nothing.
type Key struct {
	kind Kind
	raw  [32]byte
}

// Parse reads the 56 letters of a public key. The error wraps ErrKey.
func Parse(s string) (Key, error) {
	if len(s) == seedLen && s[0] == 'S' {
		return Key{}, fmt.Errorf("a seed was given in place of a public key: %w", ErrKey)
	}
	b, err := decode(s, keyLen)
	if err != nil {
		return Key{}, fmt.Errorf("public key %.60q: %w", s, err)
	}
	kind, ok := kindOf(b[0])
	if !ok {
		return Key{}, fmt.Errorf("public key %.60q: unknown kind: %w", s, ErrKey)
	}
	return Key{kind: kind, raw: [32]byte(b[1:])}, nil
}

// NamedKey is the key that a name stands for: the same each time, and nobody can sign
// by it. It is for what is addressed by a key and signs nothing.
func NamedKey(kind Kind, name string) Key {
	return Key{kind: kind, raw: sha256.Sum256([]byte("edged key " + name))}
}

// Kind is the key's role, or 0 for the zero Key.
func (k Key) Kind() Kind { return k.kind }

// String is the key's text, 56 letters, or "" for the zero Key.
func (k Key) String() string {
	if k.kind == 0 {
		return ""
	}
	return encode(append([]byte{k.kind.prefix()}, k.raw[:]...))
}

// Verify returns nil if sig is the signature of message by this key, and an error
// that wraps ErrSignature otherwise.
func (k Key) Verify(message, sig []byte) error {
	if k.kind == 0 || k.kind == Curve || !ed25519.Verify(k.raw[:], message, sig) {
		return fmt.Errorf("key %s: %w", k, ErrSignature)
	}
	return nil
}

// Seed is the secret half of an identity. It prints a placeholder under every
// verb and in every log; Reveal is the only way to its text.
type Seed struct {
	kind Kind
	raw  [32]byte
}

// Generate makes a new identity.
func Generate(kind Kind) (Seed, error) {
	if _, ok := kindNames[kind]; !ok {
		return Seed{}, fmt.Errorf("generate: unknown kind: %w", ErrKey)
	}
	s := Seed{kind: kind}
	_, _ = rand.Read(s.raw[:]) // never fails, as crypto/rand promises
	return s, nil
}

// ParseSeed reads the 58 letters of a seed. The error wraps ErrKey and does not
// show the text.
func ParseSeed(s string) (Seed, error) {
	b, err := decode(s, seedLen)
	if err != nil {
		return Seed{}, fmt.Errorf("seed: %w", err)
	}
	kind, ok := kindOf(b[0]<<5 | b[1]>>3)
	if !ok || b[0]&^7 != seedPrefix || b[1]&7 != 0 {
		return Seed{}, fmt.Errorf("seed: unknown kind: %w", ErrKey)
	}
	return Seed{kind: kind, raw: [32]byte(b[2:])}, nil
}

// Kind is the seed's role, or 0 for the zero Seed.
func (s Seed) Kind() Kind { return s.kind }

// Prepare makes the tables that the first use of a seed in a process makes otherwise,
// in about a millisecond. It may be called beside uses.
func Prepare() { _ = Seed{kind: Server}.Key() }

// Key is the public half.
func (s Seed) Key() Key {
	switch s.kind {
	case 0:
		return Key{}
	case Curve:
		private, err := ecdh.X25519().NewPrivateKey(s.raw[:])
		if err != nil {
			panic(fmt.Sprintf("claims: x25519 takes every 32 bytes: %v", err))
		}
		return Key{kind: Curve, raw: [32]byte(private.PublicKey().Bytes())}
	default:
		private := ed25519.NewKeyFromSeed(s.raw[:])
		return Key{kind: s.kind, raw: [32]byte(private[32:])}
	}
}

// Sign returns the 64 bytes of the ed25519 signature of message. A curve key and
// the zero Seed cannot sign.
func (s Seed) Sign(message []byte) ([]byte, error) {
	if s.kind == 0 || s.kind == Curve {
		return nil, fmt.Errorf("sign with a seed of kind %s: %w", s.kind, ErrKey)
	}
	return ed25519.Sign(ed25519.NewKeyFromSeed(s.raw[:]), message), nil
}

// Reveal is the seed's text, 58 letters: for the file that keeps it and for a
// child process that must sign, never for a log.
func (s Seed) Reveal() string {
	if s.kind == 0 {
		return ""
	}
	p := s.kind.prefix()
	return encode(append([]byte{seedPrefix | p>>5, p << 3}, s.raw[:]...))
}

// String is a placeholder with the public key.
func (s Seed) String() string { return "seed of " + s.Key().String() }

// Format writes the placeholder whatever the verb, so that %d and %#v do not show
// the bytes either.
func (s Seed) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, s.String()) }

// LogValue is the placeholder.
func (s Seed) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText refuses: a seed inside a larger value must not be written with it.
func (s Seed) MarshalText() ([]byte, error) {
	return nil, fmt.Errorf("a seed is not written as part of something else: %w", ErrKey)
}

// Signer is who signs: a Seed, or what Seed.Signer makes of it.
type Signer interface {
	Kind() Kind
	Key() Key
	Sign(message []byte) ([]byte, error)
}

// Signer returns s for who signs often: a Seed works its key out anew each time,
// which takes twice as long as the signature.
func (s Seed) Signer() (Signer, error) {
	if s.kind == 0 || s.kind == Curve {
		return nil, fmt.Errorf("sign with a seed of kind %s: %w", s.kind, ErrKey)
	}
	return &signer{Seed: s, key: s.Key(), private: ed25519.NewKeyFromSeed(s.raw[:])}, nil
}

// signer prints as its Seed does.
type signer struct {
	Seed
	key     Key
	private ed25519.PrivateKey
}

func (s *signer) Key() Key { return s.key }

func (s *signer) Sign(message []byte) ([]byte, error) { return ed25519.Sign(s.private, message), nil }

func encode(b []byte) string {
	return text.EncodeToString(binary.LittleEndian.AppendUint16(b, crc16(b)))
}

// decode returns the bytes before the checksum.
func decode(s string, letters int) ([]byte, error) {
	if len(s) != letters {
		return nil, fmt.Errorf("%d characters, want %d: %w", len(s), letters, ErrKey)
	}
	b, err := text.DecodeString(s)
	// The decoder skips line ends and ignores left-over bits; one key has one text.
	if err != nil || text.EncodeToString(b) != s {
		return nil, fmt.Errorf("not base32: %w", ErrKey)
	}
	body := b[:len(b)-2]
	if binary.LittleEndian.Uint16(b[len(b)-2:]) != crc16(body) {
		return nil, fmt.Errorf("wrong checksum: %w", ErrKey)
	}
	return body, nil
}

// crc16 is the XMODEM checksum: polynomial 0x1021, from 0.
func crc16(b []byte) uint16 {
	var crc uint16
	for _, c := range b {
		crc ^= uint16(c) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
