package claims

import (
	"errors"
	"fmt"
)

// ModuleReport is what the claims of a module say, whether they hold or not: for
// showing it, never for deciding on it.
type ModuleReport struct {
	Section string // in which the token is; "" if there is none, or more than one
	Token   string
	Claims  Claims[ModuleClaims] // as far as they could be read
	Hash    string               // of the bytes that are there
	// Literal says that the claims hold for the bytes as they are, and not for
	// re-encoded ones: the module comes from an older tool.
	Literal bool

	// What is wrong; nil for nothing. Form is about the token: it is missing
	// (ErrUnsigned), there twice, or can not be read. The others are nil while Form
	// is not.
	Form, Signature, HashFault error
}

// Fault is what is wrong with the claims, nil if they hold or there are none.
func (r ModuleReport) Fault() error {
	if errors.Is(r.Form, ErrUnsigned) {
		return nil
	}
	return errors.Join(r.Form, r.Signature, r.HashFault)
}

// InspectModule looks at the claims of a module. The error is about the binary around
// them; it wraps ErrMalformed or ErrTooLarge.
func InspectModule(bin []byte) (r ModuleReport, err error) {
	if r.Hash, err = Hash(bin); err != nil {
		return r, err
	}
	if r.Section, r.Token, r.Form = extract(bin); r.Form != nil {
		return r, nil
	}
	if r.Claims, r.Form = Inspect[ModuleClaims](r.Token); r.Form != nil {
		return r, nil
	}
	if _, r.Form = newSignedModule(r.Claims); r.Form != nil {
		return r, nil
	}
	_, r.Signature = Verify[ModuleClaims](r.Token)
	r.HashFault = checkHash(bin, r.Claims.Wascap.Hash, r.Claims.Revision)
	r.Literal = r.HashFault == nil && r.Claims.Wascap.Hash != r.Hash
	return r, nil
}

// IssuerFault says why issuer is not one that p trusts, nil if it is.
func (p Policy) IssuerFault(issuer string) error {
	key, err := Parse(issuer)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownIssuer, err)
	}
	return p.trust(key)
}
