package metadata

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
)

// Prefixes of the keys of the bucket (PROTOCOL 7.1). Others belong to other hosts.
const (
	linkPrefix      = "LINKDEF_"
	claimsPrefix    = "CLAIMS_"
	componentPrefix = "COMPONENT_" // of hosts of 1.x
)

// Claims are the claims of an actor or provider as the lattice knows them.
type Claims struct {
	Subject      string // M or V key
	Issuer       string // A key
	Name         string
	Version      string
	Revision     int64
	Tags         []string
	Caps         []string // of an actor
	CallAlias    string   // of an actor
	Contract     string   // of a provider
	ConfigSchema string   // of a provider: JSON
}

// LinkKey is the key of a link in the bucket: a hash of actor, contract and name, one
// behind the other. The provider is not in it.
func LinkKey(l lattice.Link) string {
	sum := sha256.Sum256([]byte(l.Actor + l.Contract + l.Name))
	return linkPrefix + strings.ToUpper(hex.EncodeToString(sum[:]))
}

// A record is a link, claims, a configuration, or nothing.
type record struct {
	link   *lattice.Link
	claims *Claims
	config map[string]string
	value  []byte // as it is written to the bucket; equal records have equal values
}

func newLink(l lattice.Link) record { return record{link: &l, value: encodeLink(l)} }

func newClaims(c Claims) record { return record{claims: &c, value: encodeClaims(c)} }

func (r record) none() bool { return r.value == nil }

func (r record) equal(o record) bool { return bytes.Equal(r.value, o.value) }

// classicClaims is the form in which hosts of 0.5x and 0.6x write claims; those of 0.8x
// read it too.
type classicClaims struct {
	CallAlias    string `json:"call_alias"`
	Issuer       string `json:"iss"`
	Name         string `json:"name"`
	Caps         string `json:"caps"`
	Revision     string `json:"rev"`
	Tags         string `json:"tags"`
	Version      string `json:"version"`
	Subject      string `json:"sub"`
	Contract     string `json:"contract_id"`
	ConfigSchema string `json:"config_schema,omitempty"`
}

func encodeLink(l lattice.Link) []byte {
	values := l.Values
	if values == nil {
		values = map[string]string{} // readers of old take no null
	}
	return mustJSON(wire.Link{Actor: l.Actor, Provider: l.Provider, Name: l.Name, Contract: l.Contract, Values: values})
}

func encodeClaims(c Claims) []byte {
	return mustJSON(classicClaims{
		CallAlias: c.CallAlias, Issuer: c.Issuer, Name: c.Name, Caps: strings.Join(c.Caps, ","), Revision: strconv.FormatInt(c.Revision, 10),
		Tags: strings.Join(c.Tags, ","), Version: c.Version, Subject: c.Subject, Contract: c.Contract, ConfigSchema: c.ConfigSchema,
	})
}

// mustJSON is the JSON of texts, maps of texts, and JSON, which always have one.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// decode reads the value of a key of the bucket, whoever wrote it. Errors wrap ErrRecord.
func decode(key string, value []byte) (record, error) {
	if len(value) > MaxRecordBytes {
		return record{}, faulty("%d bytes, %d are allowed", len(value), MaxRecordBytes)
	}
	f, err := readFields(value)
	if err != nil {
		return record{}, faulty("%s", err)
	}
	var r record
	var own string
	switch {
	case strings.HasPrefix(key, linkPrefix):
		r = newLink(f.link())
		own = LinkKey(*r.link)
	case strings.HasPrefix(key, claimsPrefix):
		r = newClaims(f.claims())
		own = claimsPrefix + r.claims.Subject
	default:
		return record{}, faulty("key %.80q is neither a link's nor one of claims", key)
	}
	if f.err != nil {
		return record{}, faulty("%s", f.err)
	}
	if err := r.check(); err != nil {
		return record{}, err
	}
	if own != key {
		return record{}, faulty("what is in it has the key %s", own)
	}
	return r, nil
}

func faulty(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRecord}, args...)...)
}

// check says what is wrong with a record.
func (r record) check() error {
	switch {
	case r.link != nil:
		l := r.link
		for _, f := range []struct{ what, text string }{{"actor", l.Actor}, {"provider", l.Provider}, {"contract id", l.Contract}} {
			if !name(f.text) {
				return faulty("link: %s %.80q: 1 to %d letters without spaces", f.what, f.text, maxText)
			}
		}
		if len(l.Name) > maxText || !wire.IsToken(l.Name) {
			return faulty("link: name %.80q: letters, digits, _ and - only", l.Name)
		}
		for k, v := range l.Values {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return faulty("link: value %.80q is not UTF-8", k)
			}
		}
	case r.config != nil:
		if err := checkConfig(r.config); err != nil {
			return err
		}
	case r.claims != nil:
		c := r.claims
		k, err := claims.Parse(c.Subject)
		if err != nil || k.Kind() != claims.Module && k.Kind() != claims.Service {
			return faulty("claims: subject %.80q is no key of an actor or provider", c.Subject)
		}
		for _, s := range append(slices.Concat(c.Tags, c.Caps), c.Issuer, c.Name, c.Version, c.CallAlias, c.Contract, c.ConfigSchema) {
			if !utf8.ValidString(s) {
				return faulty("claims of %s: %.80q is not UTF-8", c.Subject, s)
			}
		}
	}
	if n := len(r.value); n > MaxRecordBytes {
		return fmt.Errorf("%w: %d bytes, %d are allowed", ErrTooLarge, n, MaxRecordBytes)
	}
	return nil
}

// name says that s can be a key or contract id.
func name(s string) bool {
	return s != "" && len(s) <= maxText && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0
}

// fields are the members of a JSON object, by their exact names, and the first fault
// that was met in them.
type fields struct {
	all map[string]json.RawMessage
	err error
}

func readFields(value []byte) (*fields, error) {
	if !utf8.Valid(value) {
		return nil, errors.New("not UTF-8")
	}
	f := &fields{}
	if err := json.Unmarshal(value, &f.all); err != nil || f.all == nil {
		return nil, errors.New("not a JSON object")
	}
	return f, nil
}

// one returns the member that has one of these names, nil where there is none or it is
// null. Names of both generations in one record must not disagree.
func (f *fields) one(names ...string) json.RawMessage {
	var found json.RawMessage
	for _, n := range names {
		v := bytes.TrimSpace(f.all[n])
		if len(v) == 0 || bytes.Equal(v, []byte("null")) {
			continue
		}
		if found != nil && !bytes.Equal(found, v) && f.err == nil {
			f.err = fmt.Errorf("%s and %s disagree", names[0], n)
		}
		found = v
	}
	return found
}

func (f *fields) read(into any, names ...string) {
	v := f.one(names...)
	if v == nil {
		return
	}
	if err := json.Unmarshal(v, into); err != nil && f.err == nil {
		f.err = fmt.Errorf("%s is not what belongs there", names[0])
	}
}

func (f *fields) text(names ...string) (s string) {
	f.read(&s, names...)
	return s
}

func (f *fields) link() lattice.Link {
	l := lattice.Link{Actor: f.text("actor_id"), Provider: f.text("provider_id"), Contract: f.text("contract_id"), Name: f.text("link_name")}
	f.read(&l.Values, "values")
	if len(l.Values) == 0 {
		l.Values = nil
	}
	return l
}

// claims reads both shapes: that of hosts of 0.5x and 0.6x, whose members are all
// text, and that of 0.8x with other names and lists.
func (f *fields) claims() Claims {
	return Claims{
		Subject: f.text("sub", "subject"), Issuer: f.text("iss", "issuer"), Name: f.text("name"), Version: f.text("version"),
		Revision: f.number("rev", "revision"), Tags: f.list("tags"), Caps: f.list("caps", "capabilities"), CallAlias: f.text("call_alias"),
		Contract: f.text("contract_id"), ConfigSchema: f.schema("config_schema"),
	}
}

// list is a JSON list of texts, or one text with commas.
func (f *fields) list(names ...string) (all []string) {
	v := f.one(names...)
	if len(v) > 0 && v[0] == '[' {
		f.read(&all, names...)
	} else {
		all = strings.Split(f.text(names...), ",")
	}
	all = slices.DeleteFunc(all, func(s string) bool { return s == "" })
	if len(all) == 0 {
		return nil
	}
	return all
}

// number is a whole number, or a text with one; 0 for an empty text.
func (f *fields) number(names ...string) (n int64) {
	v := f.one(names...)
	if len(v) > 0 && v[0] != '"' {
		f.read(&n, names...)
		return n
	}
	s := f.text(names...)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("%s %.40q is no number", names[0], s)
	}
	return n
}

// schema is a text with JSON, or the JSON itself.
func (f *fields) schema(names ...string) string {
	v := f.one(names...)
	if len(v) == 0 || v[0] == '"' {
		return f.text(names...)
	}
	return string(v)
}
