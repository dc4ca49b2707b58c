package httpsettings

import (
	"encoding/base64"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFromValues_classic(t *testing.T) {
	doc := `{"address":"0.0.0.0:8443","tls":{"cert_file":"/c","priv_key_file":"/k"},"cors":{"allowed_origins":["https://a"],"allowed_methods":["GET"],"allowed_headers":["x"],
	"exposed_headers":["y"],"max_age_secs":60},"timeout_ms":500,"readonly_mode":true,"cache_control":"no-cache"}`
	full := Default()
	full.Listen, full.TLS, full.HandlerTimeout, full.ReadOnly, full.CacheControl = "0.0.0.0:8443", TLS{"/c", "/k"}, 500*time.Millisecond, true, "no-cache"
	full.CORS = &CORS{Origins: []string{"https://a"}, Methods: []string{"GET"}, Headers: []string{"x"}, Exposed: []string{"y"}, MaxAge: time.Minute}
	other := full
	other.Listen, other.ReadOnly, other.CacheControl = "127.0.0.1:9", false, "x"
	at := func(listen string) Settings { s := Default(); s.Listen = listen; return s }
	for _, test := range []struct {
		values map[string]string
		want   Settings
	}{
		{nil, Default()},
		{map[string]string{"port": "81"}, at("127.0.0.1:81")},
		{map[string]string{"address": "localhost:82", "port": "81"}, at("127.0.0.1:82")},
		{map[string]string{"address": "[::]:0"}, at("[::]:0")},
		{map[string]string{"config_json": doc}, full},
		{map[string]string{"config_b64": base64.StdEncoding.EncodeToString([]byte(doc))}, full},
		{map[string]string{"config_json": doc, "port": "9", "readonly_mode": "false", "cache_control": "x"}, other},
	} {
		got, err := FromValues(test.values)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%v: got %+v, %v, want %+v", test.values, got, err, test.want)
		}
		// What comes out goes in again.
		again, err := FromValues(map[string]string{"config_json": got.JSON()})
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s: got %+v, %v", got.JSON(), again, err)
		}
	}
}

func TestFromValues_refuses(t *testing.T) {
	for _, test := range []struct{ key, value, want string }{
		{"port", "65536", "port: want 0 to 65535"},
		{"address", "example.com:80", `listen: want an IP address or localhost, got "example.com"`},
		{"address", "127.0.0.1", "listen: want ADDRESS:PORT"},
		{"address", "127.0.0.1:080", "listen: port must be 0 to 65535"},
		{"color", "red", "color: unknown value"},
		{"readonly_mode", "maybe", "readonly_mode: want true or false"},
		{"cache_control", "a\nb", "cache_control: not the value of a header"},
		{"config_b64", "%", "config_b64: not base64"},
		{"config_json", "{} {}", "config_json: there is more behind the document"},
		{"config_json", `{"log":{"level":"debug"}}`, "config_json: log is not enforced by this version: edged run --log-level is"},
		{"config_json", `{"addr":"x"}`, `config_json: unknown field "addr"`},
		{"config_json", `{"address":"127.0.0.1:1","address":"127.0.0.1:2"}`, `config_json: the key "address" is there twice`},
		{"config_json", `{"address":"127.0.0.1:1","Address":"127.0.0.1:2"}`, `config_json: the key "Address" is not "address"`},
		{"config_json", `{"tls":{"cert_file":"/c","priv_key_file":"/k","cert_file":"/d"}}`, `config_json: the key "cert_file" is there twice`},
		{"config_json", `[]`, "config_json: the document is array, which it can not be"},
		{"config_json", `{"cors":{"allowed_origins":"*"}}`, "config_json: cors.allowed_origins is string, which it can not be"},
		{"config_json", `{"timeout_ms":0}`, "config_json: timeout_ms: want 1 to 600000"},
		{"config_json", `{"timeout":{"read":"1y"}}`, "config_json: timeout.read: want a duration"},
		{"config_json", `{"timeout":{"read":"1h"}}`, "timeout.read: is 1h0m0s, want 1ms to 10m0s"},
		{"config_json", `{"tls":{"cert_file":"c","priv_key_file":"/k"}}`, "tls.cert: want the absolute path"},
		{"config_json", `{"tls":{"cert_file":"/c"}}`, "tls: cert and key belong together"},
		{"config_json", `{"max_body":-1}`, "max_body: is -1, want 0 to 67108864"},
		{"config_json", `{"max_requests":0}`, "max_requests: is 0, want 1 to"},
		{"config_json", `{"hosts":["a:80"]}`, "hosts: not the name of a host"},
		{"config_json", `{"routes":["x"]}`, "routes: want a path"},
		{"config_json", `{"routes":["GET example.com/x"]}`, "routes: want a path"},
		{"config_json", `{"routes":["get /x"]}`, "routes: want a path"},
		{"config_json", `{"routes":["/{x"]}`, "routes: "},
		{"config_json", `{"routes":["/a/{x}","/a/{y}"]}`, "as good a match as another route"},
		{"config_json", `{"cors":{"allowed_origins":["example.com"]}}`, "cors.allowed_origins: makes no sense"},
		{"config_json", `{"cors":{"max_age_secs":100000}}`, "cors.max_age_secs"},
		{"config_json", strings.Repeat(" ", MaxDocument+1), "config_json: 65537 bytes, at most 65536"},
	} {
		if _, err := FromValues(map[string]string{test.key: test.value}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s = %.60s: got %v, want %q", test.key, test.value, err, test.want)
		}
	}
}

func TestPermit(t *testing.T) {
	for _, test := range []struct {
		permit, address string
		want            bool
	}{
		{"127.0.0.1:*", "127.0.0.1:80", true}, {"localhost:*", "127.0.0.1:80", true}, {"127.0.0.1:*", "127.0.0.2:80", false}, {"127.0.0.1:*", "0.0.0.0:80", false},
		{"127.0.0.1:80", "127.0.0.1:81", false}, {"0.0.0.0:80", "127.0.0.1:80", true}, {"0.0.0.0:80", "10.0.0.1:80", true}, {"0.0.0.0:80", "[::1]:80", false},
		{"[::]:*", "10.0.0.1:80", true}, {"[::]:*", "[::1]:80", true}, {"[::1]:*", "[::1]:0", true}, {"127.0.0.1:*", "[::ffff:127.0.0.1]:80", true},
	} {
		p, err := ParsePermit(test.permit)
		if err != nil {
			t.Fatal(err)
		}
		a, err := ParseAddress(test.address)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Covers(a); got != test.want {
			t.Errorf("%s covers %s: got %v", test.permit, test.address, got)
		}
	}
	for _, text := range []string{"", "*", "*:80", "127.0.0.1", "example.com:*", "127.0.0.1:x", ":80"} {
		if p, err := ParsePermit(text); err == nil {
			t.Errorf("%q is a permit: %v", text, p)
		}
	}
	if a, err := ParseAddress("[::ffff:10.0.0.1]:1"); err != nil || a != netip.MustParseAddrPort("10.0.0.1:1") {
		t.Errorf("got %v, %v", a, err)
	}
}

func TestConflicts(t *testing.T) {
	place := func(name, listen string, routes ...string) Place {
		s := Default()
		s.Listen, s.Routes = listen, routes
		if bad := s.Check(); bad != nil {
			t.Fatal(bad)
		}
		return Place{name, s}
	}
	secure := place("secure", "127.0.0.1:1", "/s")
	secure.TLS = TLS{"/c", "/k"}
	host := place("host", "127.0.0.1:1", "/")
	host.Hosts = []string{"a.example"}
	for _, test := range []struct {
		places []Place
		want   string
	}{
		{[]Place{place("a", "127.0.0.1:1", "/"), place("b", "127.0.0.1:1", "/b/", "GET /c"), host, place("c", "127.0.0.1:2", "/")}, ""},
		{[]Place{place("a", "127.0.0.1:0", "/"), place("b", "127.0.0.1:0", "/")}, ""},
		{[]Place{place("a", "127.0.0.1:1", "/"), place("b", "127.0.0.1:1", "/x", "/")}, `route "/" on 127.0.0.1:1 is also one of a`},
		{[]Place{place("a", "127.0.0.1:1", "/{x}/b"), place("b", "127.0.0.1:1", "/a/{y}")},
			`route "/a/{y}" on 127.0.0.1:1 and "/{x}/b" of a match the same requests, and neither is the narrower one`},
		{[]Place{place("a", "127.0.0.1:1", "/"), secure}, "the listener on 127.0.0.1:1 is also that of a, with another tls"},
		{[]Place{place("a", "0.0.0.0:1", "/"), place("b", "127.0.0.1:1", "/b")}, "listens on 127.0.0.1:1, which a holds with 0.0.0.0:1: write the same address in both"},
		// One that is refused leaves nothing behind that is blamed for others.
		{[]Place{place("a", "127.0.0.1:1", "/"), place("b", "127.0.0.1:1", "/x", "/"), place("c", "127.0.0.1:1", "/y")}, `route "/" on 127.0.0.1:1 is also one of a`},
	} {
		var all []string
		for _, c := range Conflicts(test.places) {
			all = append(all, c.Reason)
		}
		if got := strings.Join(all, "; "); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}

func TestPatterns(t *testing.T) {
	s := Default()
	s.Hosts, s.Routes = []string{"A.example", "b.example"}, []string{"/x", "GET /y"}
	if bad := s.Check(); bad != nil {
		t.Fatal(bad)
	}
	want := []string{"a.example/x", "GET a.example/y", "b.example/x", "GET b.example/y"}
	if got := s.Patterns(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzDocument(f *testing.F) {
	s := Default()
	f.Add(s.JSON())
	f.Add(`{"address":"[::1]:0","routes":["GET /{a}/{b...}","/x/{$}"],"hosts":["a"],"cors":{},"tls":{"cert_file":"/c","priv_key_file":"/k"}}`)
	f.Add(`{"timeout_ms":9223372036854775807,"timeout":{"header":"-1s"},"max_body":1e3}`)
	f.Fuzz(func(t *testing.T, doc string) {
		s, err := FromValues(map[string]string{"config_json": doc})
		if err != nil {
			return
		}
		again, err := FromValues(map[string]string{"config_json": s.JSON()})
		if err != nil || again.JSON() != s.JSON() {
			t.Fatalf("%s came back as %s, %v", s.JSON(), again.JSON(), err)
		}
		if c := Conflicts([]Place{{"a", s}}); c != nil {
			t.Fatalf("alone and in conflict: %v", c)
		}
		Conflicts([]Place{{"a", s}, {"b", again}, {"c", Default()}})
	})
}
