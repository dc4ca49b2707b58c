// Package httpsettings is what an app says about how its actor takes HTTP
// requests: where it listens, which requests are its own, and within which
// limits. The manifest's table, the link values of classic wasmCloud and its
// settings document all end in the same [Settings], with the same checks.
//
// Nothing here opens a socket or a file.
package httpsettings

import (
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Settings of one place where an actor takes requests. Those that share an
// address share a listener.
type Settings struct {
	Listen  string // address and port, in the form of ParseAddress
	TLS     TLS    // the zero value for none
	Hosts   []string
	Routes  []string // [METHOD ]/path, as net/http.ServeMux has patterns, without a host
	MaxBody int64    // bytes of a request's body

	MaxConnections int // of the listener, open at a time
	MaxRequests    int // with the actor at a time, waiting ones included

	HeaderTimeout  time.Duration // for a client to send the header of a request
	ReadTimeout    time.Duration // for it to send the body
	HandlerTimeout time.Duration // for the actor to answer, waiting for its turn included
	WriteTimeout   time.Duration // for the client to take the answer

	CORS         *CORS
	CacheControl string // of answers to GET and HEAD that have none of their own
	ReadOnly     bool   // GET and HEAD alone
}

// TLS are files on the box, in PEM. They are read anew when they change.
type TLS struct{ Cert, Key string }

// CORS says which pages of other origins may make requests. An empty list of
// origins, methods or headers allows any.
type CORS struct {
	Origins, Headers, Methods []string
	Exposed                   []string
	MaxAge                    time.Duration
}

// DefaultAddress is where it listens unless told otherwise, as classic wasmCloud
// does.
const DefaultAddress = "127.0.0.1:8000"

// Limits of the settings themselves.
const (
	MaxHosts    = 32
	MaxRoutes   = 64
	MaxBodyCap  = 64 << 20
	MaxTimeout  = 10 * time.Minute
	maxConns    = 65536
	maxRequests = 4096
	maxList     = 64
	maxText     = 1024
)

// Default returns what holds where nothing is said.
func Default() Settings {
	return Settings{
		Listen: DefaultAddress, Routes: []string{"/"}, MaxBody: 1 << 20, MaxConnections: 256, MaxRequests: 64,
		HeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, HandlerTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
	}
}

// A Problem is something that is wrong with a key.
type Problem struct{ Key, Reason string }

func (p Problem) Error() string { return p.Key + ": " + p.Reason }

// Problems are all that is wrong.
type Problems []Problem

func (p *Problems) add(key, format string, args ...any) {
	*p = append(*p, Problem{key, fmt.Sprintf(format, args...)})
}

// Err returns them as one error, nil if there are none.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Error()
	}
	return strings.Join(lines, "; ")
}

var (
	// Lengths are looked at elsewhere: expressions that count are large.
	methodForm = regexp.MustCompile(`^[A-Z]+$`)
	hostForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
)

// Check brings s into its normal form and returns what is wrong, by the key of
// the manifest.
func (s *Settings) Check() (bad Problems) {
	if a, err := ParseAddress(s.Listen); err != nil {
		bad.add("listen", "%v", err)
	} else {
		s.Listen = a.String()
	}
	s.checkPatterns(&bad)
	if (s.TLS.Cert == "") != (s.TLS.Key == "") {
		bad.add("tls", "cert and key belong together")
	}
	for key, name := range map[string]string{"tls.cert": s.TLS.Cert, "tls.key": s.TLS.Key} {
		if name != "" && (!filepath.IsAbs(name) || strings.ContainsRune(name, 0) || len(name) > maxText) {
			bad.add(key, "want the absolute path of a file on the box, got %q", clip(name))
		}
	}
	for _, n := range []struct {
		key       string
		is, least int64
		most      int64
	}{
		{"max_body", s.MaxBody, 0, MaxBodyCap},
		{"max_connections", int64(s.MaxConnections), 1, maxConns},
		{"max_requests", int64(s.MaxRequests), 1, maxRequests},
	} {
		if n.is < n.least || n.is > n.most {
			bad.add(n.key, "is %d, want %d to %d", n.is, n.least, n.most)
		}
	}
	for key, d := range map[string]time.Duration{
		"timeout.header": s.HeaderTimeout, "timeout.read": s.ReadTimeout, "timeout.handler": s.HandlerTimeout, "timeout.write": s.WriteTimeout,
	} {
		if d < time.Millisecond || d > MaxTimeout {
			bad.add(key, "is %s, want 1ms to %s", d, MaxTimeout)
		}
	}
	if !isHeaderValue(s.CacheControl) {
		bad.add("cache_control", "not the value of a header: %q", clip(s.CacheControl))
	}
	if s.CORS != nil {
		s.CORS.check(&bad)
	}
	slices.SortFunc(bad, func(a, b Problem) int { return strings.Compare(a.Key+a.Reason, b.Key+b.Reason) })
	return bad
}

func (s *Settings) checkPatterns(bad *Problems) {
	if len(s.Routes) == 0 {
		s.Routes = []string{"/"}
	}
	if len(s.Hosts) > MaxHosts {
		bad.add("hosts", "%d hosts, at most %d", len(s.Hosts), MaxHosts)
		return
	}
	if len(s.Routes) > MaxRoutes {
		bad.add("routes", "%d routes, at most %d", len(s.Routes), MaxRoutes)
		return
	}
	for i, h := range s.Hosts {
		if s.Hosts[i] = strings.ToLower(h); len(h) > 253 || !hostForm.MatchString(s.Hosts[i]) {
			bad.add("hosts", "not the name of a host, without a port: %q", clip(h))
			return
		}
	}
	mux := http.NewServeMux()
	for _, r := range s.Routes {
		method, path, named := strings.Cut(r, " ")
		if !named {
			method, path = "GET", r
		}
		if len(r) > maxText || len(method) > 32 || !methodForm.MatchString(method) || !strings.HasPrefix(path, "/") {
			bad.add("routes", `want a path like "/items/" or a method and a path like "GET /items/{id}", got %q`, clip(r))
			return
		}
	}
	for _, p := range s.Patterns() {
		if err := register(mux, p); err != nil {
			bad.add("routes", "%v", err)
			return
		}
	}
}

// Patterns returns the patterns for a ServeMux.
func (s *Settings) Patterns() (all []string) {
	hosts := s.Hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	for _, h := range hosts {
		for _, r := range s.Routes {
			if method, path, named := strings.Cut(r, " "); named {
				all = append(all, method+" "+h+path)
			} else {
				all = append(all, h+r)
			}
		}
	}
	return all
}

// register adds a pattern, or says why it can not be.
func register(mux *http.ServeMux, pattern string) (err error) {
	defer func() {
		if why := recover(); why != nil {
			// The text of ServeMux quotes the pattern; where it was registered is
			// nobody's business.
			text, _, _ := strings.Cut(fmt.Sprint(why), " (registered at ")
			if strings.Contains(fmt.Sprint(why), " conflicts with pattern ") {
				err = fmt.Errorf("%q is as good a match as another route for some requests", pattern)
				return
			}
			err = fmt.Errorf("%q: %s", clip(pattern), clip(text))
		}
	}()
	mux.HandleFunc(pattern, nothing)
	return nil
}

func nothing(http.ResponseWriter, *http.Request) {}

func (c *CORS) check(bad *Problems) {
	for _, list := range []struct {
		key    string
		values []string
		ok     func(string) bool
	}{
		{"cors.allowed_origins", c.Origins, isOrigin}, {"cors.allowed_headers", c.Headers, IsToken},
		{"cors.allowed_methods", c.Methods, IsToken}, {"cors.exposed_headers", c.Exposed, IsToken},
	} {
		if len(list.values) > maxList {
			bad.add(list.key, "%d values, at most %d", len(list.values), maxList)
			continue
		}
		for _, v := range list.values {
			if !list.ok(v) {
				bad.add(list.key, "makes no sense: %q", clip(v))
			}
		}
	}
	if c.MaxAge < 0 || c.MaxAge > 24*time.Hour {
		bad.add("cors.max_age_secs", "want 0 to 86400")
	}
}

// isOrigin is for "*", "null" and scheme://host[:port].
func isOrigin(s string) bool {
	if s == "*" || s == "null" {
		return true
	}
	scheme, rest, ok := strings.Cut(s, "://")
	return ok && IsToken(scheme) && rest != "" && len(s) < 300 && !strings.ContainsFunc(rest, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/?#,;"`, r)
	})
}

// IsToken says whether s can be the name of a header or a method (RFC 9110, 5.6.2).
func IsToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != "" && len(s) <= 256
}

// isHeaderValue says whether s can be a configured value of a header.
func isHeaderValue(s string) bool {
	return len(s) <= maxText && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
