// Package claims answers who vouches for what runs on a box.
//
// A Key is the public half of an identity in the textual form of NATS and
// wasmCloud ("A…" an account, "M…" a module, …); a Seed is its secret half and
// never prints itself. A token is a JSON Web Token as wasmCloud writes it (Claims,
// Sign, Verify). A signed module is a WebAssembly binary that carries such a
// token over its own hash in a custom section (SignModule, VerifyModule). A signed
// app is a folder with a file app.sig, a token over the digests of all other files
// in it (SignApp, VerifyAppDir).
//
// What is guaranteed: a value that a Verify function returned without an error was
// signed by its issuer, and the issuer was on the allow list of the Policy. Every
// decoder has limits, and no input makes it panic. What is left to others: which
// capabilities a claim gives, what is in a manifest, and where seeds are kept.
//
// The package knows nothing of files but app folders, and its values may be used
// from several goroutines.
package claims

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Errors of reading keys, tokens, modules and app signatures. Trying again helps
// with ErrNotYetValid only.
var (
	ErrKey           = errors.New("not a valid key")
	ErrMalformed     = errors.New("malformed")
	ErrToken         = errors.New("not a valid token") // beside what is wrong with it
	ErrTooLarge      = errors.New("too large")
	ErrUnsigned      = errors.New("not signed")
	ErrSignature     = errors.New("signature does not match")
	ErrHash          = errors.New("signed over other bytes")
	ErrUnknownIssuer = errors.New("issuer is not trusted")
	ErrExpired       = errors.New("claims have expired")
	ErrNotYetValid   = errors.New("claims are not valid yet")
	ErrSeed          = errors.New("a secret does not belong into an app")
)

// Refused says whether err is the refusal of a signature: it is missing, is none, does
// not fit, or is not to be trusted, or not now. Other errors are about what was signed.
func Refused(err error) bool {
	return slices.ContainsFunc([]error{ErrUnsigned, ErrToken, ErrSignature, ErrHash, ErrUnknownIssuer, ErrExpired, ErrNotYetValid},
		func(refusal error) bool { return errors.Is(err, refusal) })
}

// Policy is what a reader of modules and apps accepts. The zero Policy trusts
// nobody.
type Policy struct {
	// Issuers are the account keys whose signature counts.
	Issuers []Key
	// AnyIssuer accepts the signature of every account key. It is for development.
	AnyIssuer bool
	// Admission is the time of the first admission. The dates exp and nbf are
	// compared with it. A zero time leaves them out: what was admitted once stays
	// so, because no start may depend on the wall clock.
	Admission time.Time
}

func (p Policy) trust(issuer Key) error {
	if issuer.Kind() != Account {
		return fmt.Errorf("%s is not an account key: %w", issuer, ErrUnknownIssuer)
	}
	if p.AnyIssuer || slices.Contains(p.Issuers, issuer) {
		return nil
	}
	return fmt.Errorf("%s: %w", issuer, ErrUnknownIssuer)
}

func (p Policy) dates(expires, notBefore *int64) error {
	if p.Admission.IsZero() {
		return nil
	}
	now := p.Admission.Unix()
	if expires != nil && now >= *expires {
		return fmt.Errorf("%w: at %s", ErrExpired, date(*expires))
	}
	if notBefore != nil && now < *notBefore {
		return fmt.Errorf("%w: before %s", ErrNotYetValid, date(*notBefore))
	}
	return nil
}

func date(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }
