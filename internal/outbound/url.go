// Package outbound says which servers on the network an app may reach.
//
// A Rule is a line of an app's manifest: URLs it may ask for. A Bound is what the box
// lets any app reach: names and addresses, of which those that are not public have to
// be named. Both are closed: what no rule names is refused.
//
// The URL of a request comes from a guest, and the server that gets it may read it in
// another way than we do. So Clean refuses what has two readings (user names, dot
// segments, backslashes, names that are not ASCII, numbers that look like addresses),
// and a path has to match as it stands and as it is decoded.
package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// MaxURL is the longest URL, in bytes.
const MaxURL = 8 << 10

// ErrURL is a URL that is not one that may be asked for.
var ErrURL = errors.New("not a URL that may be asked for")

// Clean reads the URL of a request, and brings scheme and host into lower case and the
// port into the shortest form. The error wraps ErrURL.
func Clean(text string) (*url.URL, error) {
	u, err := clean(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrURL, err)
	}
	return u, nil
}

func clean(text string) (*url.URL, error) {
	if len(text) > MaxURL {
		return nil, fmt.Errorf("%d bytes, at most %d", len(text), MaxURL)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }); i >= 0 {
		return nil, errors.New("a space, or a character beyond ASCII: a path and query have them percent-encoded, a host as xn--")
	}
	if strings.Contains(text, `\`) {
		return nil, errors.New("a backslash")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it cannot be read") // the cause would quote it
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("it begins with neither http:// nor https://")
	case u.Opaque != "" || u.Host == "":
		return nil, errors.New("no host")
	case u.User != nil:
		return nil, errors.New("a user name: use the header Authorization")
	}
	host, err := cleanHost(u.Hostname(), strings.HasPrefix(u.Host, "["))
	if err != nil {
		return nil, err
	}
	port, err := cleanPort(u.Port(), u.Scheme)
	if err != nil {
		return nil, err
	}
	if err := checkPath(u.Path); err != nil {
		return nil, err
	}
	u.Host = joinHost(host, port, u.Scheme)
	u.Fragment, u.RawFragment = "", ""
	u.ForceQuery = false
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}

// labelForm is a part of a name as DNS has it, of at most 63 characters, and as
// people have it on their networks.
var labelForm = regexp.MustCompile(`^[a-z0-9_][a-z0-9_-]*$`)

func isHostName(host string) bool {
	for label := range strings.SplitSeq(host, ".") {
		if len(label) > 63 || !labelForm.MatchString(label) {
			return false
		}
	}
	return len(host) <= 253
}

// cleanHost returns a name in lower case without a final dot, or an address in its one
// form.
func cleanHost(host string, bracketed bool) (string, error) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if bracketed || strings.Contains(host, ":") {
		ip, err := netip.ParseAddr(host)
		if err != nil || !ip.Is6() || ip.Zone() != "" || !bracketed {
			return "", errors.New("the host is not an address of IPv6 without a zone")
		}
		return ip.Unmap().String(), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String(), nil
	}
	if !isHostName(host) {
		return "", errors.New("the host is neither a name nor an address")
	}
	// 127.1, 0x7f000001 and 2130706433 are addresses to some.
	last := host[strings.LastIndexByte(host, '.')+1:]
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		return "", errors.New("the host is a number, and not an address in its usual form")
	}
	return host, nil
}

func cleanPort(port, scheme string) (uint16, error) {
	if port == "" {
		return defaultPort(scheme), nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || len(port) > 5 {
		return 0, errors.New("the port is not 1 to 65535")
	}
	return uint16(n), nil
}

func defaultPort(scheme string) uint16 {
	if scheme == "https" {
		return 443
	}
	return 80
}

// joinHost leaves the usual port out.
func joinHost(host string, port uint16, scheme string) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != defaultPort(scheme) {
		host += ":" + strconv.Itoa(int(port))
	}
	return host
}

// checkPath refuses a decoded path that leads somewhere else in the eyes of a server
// that decodes it once more, or takes parameters off its segments.
func checkPath(path string) error {
	for range 5 {
		if strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
			return errors.New("a control character or a backslash in the path")
		}
		for segment := range strings.SplitSeq(path, "/") {
			if name, _, _ := strings.Cut(segment, ";"); name == "." || name == ".." {
				return errors.New("the path has a segment . or .. in it")
			}
		}
		again, err := url.PathUnescape(path)
		if err != nil || again == path {
			return nil // what is left is not an encoding
		}
		path = again
	}
	return errors.New("the path is encoded again and again")
}

// A Rule is what may be asked for: some methods of some URLs. The zero Rule allows
// nothing.
type Rule struct {
	methods []string // nil for all
	scheme  string
	host    string // "*" for any, "*.x" for all below x
	port    uint16 // 0 for any
	path    string // as it stands in a URL
	decoded string
	prefix  bool // of the path
}

// ParseRule reads a rule: a URL with a path that may end with * for all that begins
// with it, a host that may be *.NAME for all below NAME, or * for any, and a port that
// may be *. Methods restrict it, if there are any.
func ParseRule(text string, methods []string) (Rule, error) {
	r, err := parseRule(text)
	if err != nil {
		return Rule{}, fmt.Errorf("%.200q: %w", text, err)
	}
	for _, m := range methods {
		if !ValidMethod(m) {
			return Rule{}, fmt.Errorf("method %.40q: want one in capital letters, and not CONNECT or TRACE", m)
		}
		r.methods = append(r.methods, m)
	}
	return r, nil
}

func parseRule(text string) (r Rule, err error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return r, errors.New("want a URL like https://api.example.com/v1/*")
	}
	authority, path, ok := strings.Cut(rest, "/")
	if !ok {
		return r, fmt.Errorf("no path: say %s://%s/* for all of the host", scheme, authority)
	}
	r.prefix = strings.HasSuffix(path, "*")
	path = "/" + strings.TrimSuffix(path, "*")
	if strings.ContainsAny(path, "*?#") {
		return r, errors.New("a path holds no ? or #, and a * only at its end")
	}
	// What is a wildcard is taken out, and what is left has to be right as a URL.
	if a, ok := strings.CutSuffix(authority, ":*"); ok {
		authority, r.port = a, 0
	} else {
		r.port = 1 // replaced below
	}
	plain, below := strings.CutPrefix(authority, "*.")
	host := plain
	if authority == "*" || strings.HasPrefix(authority, "*:") {
		host = "any" + strings.TrimPrefix(authority, "*")
	}
	u, err := clean(scheme + "://" + host + path)
	if err != nil {
		return r, err
	}
	r.scheme, r.host = u.Scheme, u.Hostname()
	if r.port != 0 {
		if r.port, err = cleanPort(u.Port(), u.Scheme); err != nil {
			return r, err
		}
	}
	if _, err := netip.ParseAddr(r.host); below && err == nil {
		return r, errors.New("nothing is below an address")
	}
	if below {
		r.host = "*." + r.host
	}
	if host != plain {
		r.host = "*"
	}
	r.path, r.decoded = escaped(u), u.Path
	return r, nil
}

// escaped is the path of a URL as it stands in it, its encodings in capital letters.
func escaped(u *url.URL) string {
	path := []byte(u.EscapedPath())
	for i := 0; i+2 < len(path); i++ {
		if path[i] == '%' {
			copy(path[i:], strings.ToUpper(string(path[i:i+3])))
		}
	}
	return string(path)
}

// Allows says whether the rule allows a method of a URL that Clean returned.
func (r Rule) Allows(method string, u *url.URL) bool {
	if r.scheme == "" || u.Scheme != r.scheme || len(r.methods) > 0 && !slices.Contains(r.methods, method) {
		return false
	}
	host := u.Hostname()
	below, wide := strings.CutPrefix(r.host, "*.")
	switch {
	case r.host == "*", host == r.host:
	case wide && strings.HasSuffix(host, "."+below):
	default:
		return false
	}
	if port, err := cleanPort(u.Port(), u.Scheme); err != nil || r.port != 0 && port != r.port {
		return false
	}
	if !r.prefix {
		return escaped(u) == r.path
	}
	return strings.HasPrefix(escaped(u), r.path) && strings.HasPrefix(u.Path, r.decoded)
}

// ValidMethod says whether a request may have that method: a token in capital letters
// that asks a server, and not a proxy, for something.
func ValidMethod(m string) bool {
	return m != "" && len(m) <= 32 && strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == "" && m != "CONNECT" && m != "TRACE"
}
