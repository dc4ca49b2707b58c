package control

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/edged-io/edged/internal/claims"
)

// Bounds of what a request may hold.
const (
	MaxRequestBytes = 1 << 20
	MaxName         = 256      // bytes of a key, id, link name, label, or name of a configuration
	MaxRef          = 1024     // bytes of a reference
	MaxPairs        = 256      // annotations, labels, link values, constraints, keys of a configuration, or registries at once
	MaxValueBytes   = 4096     // of an annotation, label, constraint or login
	MaxPairsBytes   = 64 << 10 // of annotations, labels or constraints, all together: they are in every heartbeat
	MaxConfigBytes  = 500_000  // of link values, a configuration, or what a provider is configured with, all together
	MaxInstances    = 1 << 31  // of an entry of an actor, less one
	MaxStored       = 4096     // links that the lattice has, or configurations
	MaxStoredBytes  = 8 << 20  // of all configurations

	maxErrorBytes = 1024 // of a text in an answer
)

// decode reads the JSON object of a request. What is unknown in it is ignored, what is null is as if it were not there.
func decode(body []byte, into any) error {
	if trimmed := bytes.TrimSpace(body); len(trimmed) == 0 || trimmed[0] != '{' {
		return errors.New("the request is not a JSON object")
	}
	err := json.Unmarshal(body, into)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s: want %s, got %s", clip(cmp.Or(wrong.Field, "a member"), 80), wanted(wrong.Type), clip(wrong.Value, 80))
	}
	if err != nil {
		return fmt.Errorf("the request is not JSON as it should be: %w", err)
	}
	return nil
}

// wanted is what JSON has for a type.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Uint32, reflect.Uint64, reflect.Uint:
		return "a whole number that is not negative"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list"
	case reflect.Pointer:
		return wanted(t.Elem())
	}
	return "an object"
}

// A checker reads fields and keeps the first fault.
type checker struct{ err error }

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// name is a key, id, contract id or link name without the space around it: something that can be part of a subject. where is its field.
func (c *checker) name(where, s string) string {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		c.fail("%s is missing", where)
	case len(s) > MaxName:
		c.fail("%s has %d bytes; %d are allowed", where, len(s), MaxName)
	case !plain(s):
		c.fail("%s %.80q: a name has no space, control character, '.', '*' or '>'", where, s)
	}
	return s
}

// nameOr is a name that may be left out.
func (c *checker) nameOr(where, s, otherwise string) string {
	if strings.TrimSpace(s) == "" {
		return otherwise
	}
	return c.name(where, s)
}

// linkName is the name of a link, "default" if it is left out. It becomes a token of subjects in every host and provider.
func (c *checker) linkName(where, s string) string {
	s = c.nameOr(where, s, "default")
	if strings.IndexFunc(s, func(r rune) bool { return !letter(r) }) >= 0 {
		c.fail("%s %.80q: a link name has letters, digits, _ and -", where, s)
	}
	return s
}

// contract is a contract id.
func (c *checker) contract(where, s string) string {
	s = c.name(where, s)
	if strings.IndexFunc(s, func(r rune) bool { return !letter(r) && r != ':' }) >= 0 {
		c.fail("%s %.80q: it has letters, digits, _, - and :", where, s)
	}
	return s
}

// ref is a reference to a module or archive.
func (c *checker) ref(where, s string) string {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		c.fail("%s is missing", where)
	case len(s) > MaxRef:
		c.fail("%s has %d bytes; %d are allowed", where, len(s), MaxRef)
	case !utf8.ValidString(s) || strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) >= 0:
		c.fail("%s %.80q: a reference has no space and no control character", where, s)
	}
	return s
}

// count is a number of instances.
func (c *checker) count(where string, n *uint32) uint32 {
	switch {
	case n == nil:
		c.fail("%s is missing", where)
		return 0
	case *n >= MaxInstances:
		c.fail("%s is %d; it can be %d at most", where, *n, uint32(MaxInstances-1))
	}
	return *n
}

// pairs are annotations, labels or constraints; never nil.
func (c *checker) pairs(where string, m map[string]string) map[string]string {
	if len(m) > MaxPairs {
		c.fail("%s has %d members; %d are allowed", where, len(m), MaxPairs)
		return map[string]string{}
	}
	size := 0
	for k, v := range m {
		if k == "" || len(k) > MaxName || len(v) > MaxValueBytes {
			c.fail("%s: member %.80q: a name has 1 to %d bytes, a value %d at most", where, k, MaxName, MaxValueBytes)
		}
		size += len(k) + len(v)
	}
	if size > MaxPairsBytes {
		c.fail("%s has %d bytes; %d are allowed", where, size, MaxPairsBytes)
	}
	if m == nil {
		m = map[string]string{}
	}
	return m
}

// values are those of a link or a configuration; never nil.
func (c *checker) values(where string, m map[string]string) map[string]string {
	size := 0
	for k, v := range m {
		if k == "" || len(k) > MaxName {
			c.fail("%s: member %.80q: a name has 1 to %d bytes", where, k, MaxName)
		}
		size += len(k) + len(v)
	}
	if len(m) > MaxPairs || size > MaxConfigBytes {
		c.fail("%s: %d members with %d bytes; %d with %d are allowed", where, len(m), size, MaxPairs, MaxConfigBytes)
	}
	if m == nil {
		m = map[string]string{}
	}
	return m
}

// names is a list of names of configurations or interfaces; never nil.
func (c *checker) names(where string, list []string) []string {
	if len(list) > MaxPairs {
		c.fail("%s has %d items; %d are allowed", where, len(list), MaxPairs)
		return []string{}
	}
	out := make([]string, 0, len(list))
	for _, s := range list {
		if s = strings.TrimSpace(s); s == "" || len(s) > MaxName {
			c.fail("%s: %.80q: a name has 1 to %d bytes", where, s, MaxName)
		}
		out = append(out, s)
	}
	return out
}

// registries are logins by host and port.
func (c *checker) registries(m map[string]registry) map[string]Registry {
	if len(m) > MaxPairs {
		c.fail("%d registries; %d are allowed at once", len(m), MaxPairs)
		return nil
	}
	out := make(map[string]Registry, len(m))
	for host, r := range m {
		name := strings.TrimSpace(host)
		if name == "" || len(name) > MaxName || strings.ContainsAny(name, " \t\r\n") {
			c.fail("registry %.80q: its name is a host, or a host and a port", host)
		}
		if r.Type != "" && r.Type != "oci" {
			c.fail("registry %.80q: its type is %.40q; this host knows oci only", host, r.Type)
		}
		if max(len(r.Username), len(r.Password), len(r.Token)) > MaxValueBytes {
			c.fail("registry %.80q: a login has %d bytes at most", host, MaxValueBytes)
		}
		out[name] = Registry{Username: r.Username, Password: r.Password, Token: r.Token}
	}
	return out
}

// registry is how both versions send a login.
type registry struct {
	Type     string `json:"registryType"`
	Username string `json:"username"`
	Password string `json:"password"`
	Token    string `json:"token"`
}

// plain says that s can be a token of a subject.
func plain(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '.' || r == '*' || r == '>' }) < 0
}

func letter(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-'
}

// isKey says that s is the key of an actor or a provider.
func isKey(s string, kinds ...claims.Kind) bool {
	k, err := claims.Parse(s)
	if err != nil {
		return false
	}
	for _, kind := range kinds {
		if k.Kind() == kind {
			return true
		}
	}
	return false
}

// clip is the beginning of a text.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n]
}

// mustJSON is the JSON of one of our own types, none of which can fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
