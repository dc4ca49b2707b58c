package outbound_test

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/outbound"
)

func rule(t testing.TB, text string, methods ...string) outbound.Rule {
	t.Helper()
	r, err := outbound.ParseRule(text, methods)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"https://api.example.com":                 "https://api.example.com/",
		"HTTPS://API.Example.COM:443/v1":          "https://api.example.com/v1",
		"http://api.example.com.:80/":             "http://api.example.com/",
		"http://a:0080/x?y=%2e%2e#z":              "http://a/x?y=%2e%2e",
		"https://a:8443":                          "https://a:8443/",
		"http://[::1]:80/":                        "http://[::1]/",
		"http://[2001:DB8:0::1]:8080/":            "http://[2001:db8::1]:8080/",
		"http://[::ffff:127.0.0.1]/":              "http://127.0.0.1/",
		"http://192.168.1.20/":                    "http://192.168.1.20/",
		"http://a_b.local/":                       "http://a_b.local/",
		"http://xn--bcher-kva.example/%C3%BC?q=1": "http://xn--bcher-kva.example/%C3%BC?q=1",
		"http://a/v1//x;y=1/.well-known/..a":      "http://a/v1//x;y=1/.well-known/..a",
		"http://a//b@c/":                          "http://a//b@c/",
		"http://a/?u=http://b/":                   "http://a/?u=http://b/",
		"http://a/100%25":                         "http://a/100%25",
		"http://1.example/":                       "http://1.example/",
	} {
		u, err := outbound.Clean(in)
		if err != nil || u.String() != want {
			t.Errorf("%s: got %v, %v, want %s", in, u, err, want)
		}
	}
	for _, bad := range []string{
		"", "x", "/x", "//a/x", "ftp://a/", "file:///etc/passwd", "http:a", "http:///x", "http://", "http:/a/x", "javascript:x",
		"http://user@a/", "http://user:p@a/", "http://@a/", "http://a@b@c/", "http://a:b@c/", `http://a\@b/`, `http:\\a\x`, `http://a/b\c`,
		"http://a b/", "http://a/ b", "http://a/?a b", "http://a/\r\nHost: b", "http://a/\x00", "http://a/%0d%0a", "http://a/%00", "http://a/%5c..%5cx",
		"http://bücher.example/", "http://a/ü", "http://ａ/", "http://%61/", "http://a%2eb/", "http://a%00b/",
		"http://a/..", "http://a/../b", "http://a/b/./c", "http://a/%2e%2e/b", "http://a/%2E./b", "http://a/b%2f..%2fc", "http://a/%252e%252e/b", "http://a/..;/b",
		"http://a/..;x=y/b", "http://a/%2e%2e%3b/b", "http://a/%25252525252e", "http://a/.",
		"http://a:0/", "http://a:65536/", "http://a:-1/", "http://a:x/", "http://a:080000/", "http://a:80:80/",
		"http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1/", "http://::1/", "http://[127.0.0.1]/", "http://[a]/", "http://[]/",
		"http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.0.0.1.5/", "http://1.2.3/", "http://a.0x1/",
		"http://.a/", "http://a..b/", "http://-a/", "http://a,b/", "http://a!/", "http://*/", "http://" + strings.Repeat("a", 64) + "/", "http://" + strings.Repeat("a.", 130) + "a/",
		"http://a/" + strings.Repeat("x", outbound.MaxURL),
	} {
		if u, err := outbound.Clean(bad); !errors.Is(err, outbound.ErrURL) {
			t.Errorf("%.80q: got %v, %v, want ErrURL", bad, u, err)
		}
	}
	if _, err := outbound.Clean("http://user:geheim@a/"); strings.Contains(err.Error(), "geheim") {
		t.Errorf("the error shows a password: %v", err)
	}
}

func TestRule_Allows(t *testing.T) {
	for _, c := range []struct {
		rule   string
		yes    string
		no     string
		method []string
	}{
		{"https://api.example.com/v1/*", "https://api.example.com/v1/ https://api.example.com/v1/a/b?c https://API.example.com:443/v1/x https://api.example.com/v1//x https://api.example.com/v1/a%2fb",
			"https://api.example.com/v1 https://api.example.com/v2/ http://api.example.com/v1/ https://api.example.com:8443/v1/ https://api.example.com/V1/ " +
				"https://xapi.example.com/v1/ https://api.example.com.evil.example/v1/ https://example.com/v1/ https://api.example.com/v1%2fx https://api.example.com/%761/x https://evil.example/https://api.example.com/v1/ " +
				"https://evil.example/?https://api.example.com/v1/ https://evil.example/#https://api.example.com/v1/", nil},
		{"https://a/v1*", "https://a/v1 https://a/v1/x https://a/v1beta", "https://a/ https://a/v", nil},
		{"https://a/x", "https://a/x https://a/x?y=1", "https://a/x/ https://a/xy https://a/%78 https://a/", nil},
		{"https://a/a%2fb/*", "https://a/a%2Fb/c https://a/a%2fb/", "https://a/a/b/c", nil},
		{"https://a/", "https://a https://a/ https://a/?x", "https://a//", nil},
		{"http://*.example.com/*", "http://a.example.com/ http://a.b.example.com/x", "http://example.com/ http://aexample.com/ http://a.example.com:8080/", nil},
		{"http://*.example.com:*/*", "http://a.example.com/ http://a.example.com:8080/", "https://a.example.com/ http://example.com:1/", nil},
		{"https://*/*", "https://a/ https://1.2.3.4/x https://any/", "https://a:8443/ http://a/", nil},
		{"https://*:8443/hook", "https://a:8443/hook", "https://a/hook", nil},
		{"http://[::1]:8080/*", "http://[0:0::1]:8080/", "http://[::2]:8080/ http://[::1]/", nil},
		{"http://192.168.1.20:*/*", "http://192.168.1.20/ http://192.168.1.20:81/ http://[::ffff:192.168.1.20]/", "http://192.168.1.200/", nil},
		{"http://any/*", "http://any/", "http://other/", nil},
	} {
		r := rule(t, c.rule, c.method...)
		for _, text := range strings.Fields(c.yes) {
			if u, err := outbound.Clean(text); err != nil || !r.Allows("GET", u) {
				t.Errorf("%s refuses %s: %v", c.rule, text, err)
			}
		}
		for _, text := range strings.Fields(c.no) {
			if u, err := outbound.Clean(text); err == nil && r.Allows("GET", u) {
				t.Errorf("%s allows %s", c.rule, text)
			}
		}
	}
	u, _ := outbound.Clean("https://a/")
	if r := rule(t, "https://a/*", "GET", "HEAD"); !r.Allows("HEAD", u) || r.Allows("POST", u) || r.Allows("get", u) {
		t.Error("methods are not held")
	}
	if (outbound.Rule{}).Allows("GET", u) || (outbound.Rule{}).Allows("GET", &url.URL{}) {
		t.Error("the zero rule allows something")
	}
}

func TestParseRule_refuses(t *testing.T) {
	for _, bad := range []string{
		"", "*", "a/b", "https://a", "https://*", "https:///x", "ftp://a/*", "*://a/*", "https://a/*/b", "https://a/?*", "https://a/x?y=1", "https://a/#x",
		"https://user@a/*", "https://a*/x", "https://a.*/x", "https://*.*/x", "https://**/x", "https://*.1.2.3.4/x", "https://a:*0/x", "https://a:0/x", "https://a/../*",
		"https://bücher.example/*", "https://[::1/*", "https://*./x", "https://a/%zz", "https://a/x*y*",
	} {
		if _, err := outbound.ParseRule(bad, nil); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	for _, m := range []string{"", "get", "CONNECT", "TRACE", "G T", "GET\n", strings.Repeat("A", 33)} {
		if _, err := outbound.ParseRule("https://a/*", []string{m}); err == nil {
			t.Errorf("method %q is taken", m)
		}
	}
}

func TestBound(t *testing.T) {
	bound := func(allow, deny string) outbound.Bound {
		b, err := outbound.ParseBound(strings.Fields(allow), strings.Fields(deny))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct{ allow, deny, yes, no string }{
		{"public", "", "a=93.184.216.34:443 a=[2606:4700::1]:443 x=8.8.8.8:53",
			"a=127.0.0.1:80 a=10.1.2.3:80 a=169.254.169.254:80 a=[::1]:80 a=[fe80::1]:80 a=[fd00:ec2::254]:80 a=[::ffff:10.0.0.1]:80 a=0.0.0.0:80 a=[::]:80 a=100.64.0.1:80 a=224.0.0.1:80 " +
				"a=[64:ff9b::a00:1]:80 a=[2002:7f00:1::1]:80 a=255.255.255.255:80 a=192.168.0.1:80 a=172.16.0.1:80 a=[ff02::1]:80 a=[2001:db8::1]:80 a=[fec0::1]:80 a=198.18.0.1:80"},
		{"", "", "", "a=93.184.216.34:443 a=127.0.0.1:80"},
		{"public 192.168.1.0/24 127.0.0.1:8080 [::1]:8080 10.0.0.7", "", "p=192.168.1.9:631 p=127.0.0.1:8080 p=[::1]:8080 p=[::ffff:127.0.0.1]:8080 p=10.0.0.7:1 p=9.9.9.9:1",
			"p=192.168.2.9:631 p=127.0.0.1:9180 p=[::1]:80 p=10.0.0.8:1"},
		// A name lets nobody in whose address is not public, wherever it leads.
		{"*.example.com hub.local", "", "api.example.com=93.184.216.34:443 hub.local=8.8.4.4:80", "api.example.com=169.254.169.254:80 hub.local=192.168.1.1:80 example.com=93.184.216.34:443 evil.example=93.184.216.34:443"},
		{"api.example.com:443", "", "api.example.com=93.184.216.34:443", "api.example.com=93.184.216.34:80"},
		{"public 10.0.0.0/8", "*.bad.example 10.1.0.0/16 9.9.9.9 bad.example:80", "a=10.2.0.1:80 bad.example=8.8.8.8:443", "x.bad.example=8.8.8.8:443 a=10.1.0.1:80 a=9.9.9.9:53 a=[64:ff9b::909:909]:53 bad.example=8.8.8.8:80"},
	} {
		b := bound(c.allow, c.deny)
		ask := func(text string) error {
			host, at, _ := strings.Cut(text, "=")
			return b.Addr(host, netip.MustParseAddrPort(at))
		}
		for _, text := range strings.Fields(c.yes) {
			if err := ask(text); err != nil {
				t.Errorf("allow %s, deny %s: %s: %v", c.allow, c.deny, text, err)
			}
		}
		for _, text := range strings.Fields(c.no) {
			if err := ask(text); !errors.Is(err, outbound.ErrBound) {
				t.Errorf("allow %s, deny %s: %s is let through", c.allow, c.deny, text)
			}
		}
	}
	if err := (outbound.Bound{}).Host("a", 80); !errors.Is(err, outbound.ErrBound) {
		t.Error("the zero bound lets something through")
	}
	b := bound("*.example.com 10.0.0.0/8", "x.example.com")
	for host, ok := range map[string]bool{"a.example.com": true, "x.example.com": false, "10.1.1.1": true, "10.1.1.1.x": true, "8.8.8.8": false, "127.0.0.1": false} {
		if err := b.Host(host, 80); (err == nil) != ok {
			t.Errorf("%s: got %v", host, err)
		}
	}
}

func TestParseBound_refuses(t *testing.T) {
	for _, bad := range []string{"", "*", "*.*", "10.0.0.1/8", "10.0.0.0/33", "a:0", "a:x", "a:b:c", "http://a", "fe80::1%eth0", "[::1", "a b", "127.1", "*.", ":80", "ä"} {
		if _, err := outbound.ParseBound([]string{bad}, nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
		if _, err := outbound.ParseBound(nil, []string{bad}); err == nil {
			t.Errorf("%q is taken to deny", bad)
		}
	}
}

// FuzzClean: what is clean has one reading, and what a rule allows is on its host and
// below its path in everybody's eyes.
func FuzzClean(f *testing.F) {
	for _, seed := range []string{
		"https://api.example.com/v1/x?y", "http://api.example.com/v1/%2e%2e/x", "https://a@api.example.com/v1/", "https://api.example.com:443/v1/..;/", "http://[::ffff:1.2.3.4]:80/",
		"https://api.example.com/v1//..//", "https://api.example.com%2f@b/v1/", "https://API.EXAMPLE.COM./v1/%252e", "https://api.example.com/v1/%5c..",
	} {
		f.Add(seed)
	}
	r := rule(f, "https://api.example.com/v1/*")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := outbound.Clean(text)
		if err != nil {
			if !errors.Is(err, outbound.ErrURL) {
				t.Errorf("got %v", err)
			}
			return
		}
		again, err := outbound.Clean(u.String())
		if err != nil || again.String() != u.String() {
			t.Errorf("%q is %q, and then %v, %v", text, u, again, err)
		}
		req, err := http.NewRequest("GET", u.String(), nil)
		if err != nil || req.URL.Host != u.Host || req.URL.User != nil {
			t.Errorf("%q: the request goes to %+v, %v", text, req, err)
		}
		if strings.ContainsAny(req.URL.RequestURI(), " \r\n\t") {
			t.Errorf("%q: the request line is %q", text, req.URL.RequestURI())
		}
		if !r.Allows("GET", u) {
			return
		}
		if u.Hostname() != "api.example.com" || u.Scheme != "https" || u.Port() != "" {
			t.Errorf("%q is allowed", text)
		}
		for p, i := u.Path, 0; i < 6; i++ { // decoded as often as some server may
			if !strings.HasPrefix(path.Clean(p)+"/", "/v1/") {
				t.Errorf("%q leads to %q", text, path.Clean(p))
			}
			q, err := url.PathUnescape(p)
			if err != nil {
				break
			}
			p = q
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"https://a/*", "http://*.b:*/x*", "https://*/*", "10.0.0.0/8", "[::1]:80", "*.a:1", "public"} {
		f.Add(seed)
	}
	loop := netip.MustParseAddrPort("127.0.0.1:80")
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := outbound.ParseRule(text, nil); err == nil {
			if u, err := outbound.Clean("https://nobody.example/"); err == nil && r.Allows("GET", u) && !strings.HasPrefix(strings.ToLower(text), "https://*") && !strings.Contains(strings.ToLower(text), "example") {
				t.Errorf("%q allows %s", text, u)
			}
		}
		if b, err := outbound.ParseBound([]string{text}, nil); err == nil && b.Addr("a", loop) == nil && !strings.ContainsAny(text, "0127:") {
			t.Errorf("%q lets through to loopback", text)
		}
	})
}
