package httpclient_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/providers/httpclient"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

func TestProvider_Call(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Add("X-Two", "1")
		w.Header().Add("X-Two", "\xff2")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %s", req.Method, req.URL, req.Header.Get("X-Mine"), body)
	}, nil)
	r.allow("* " + r.server.URL + "/v1/*")
	a, err := r.ask(t.Context(), "post", strings.ToUpper(r.server.URL)+"/v1/x?y=%20z#f", "body", "X-Mine", "1", "Connection", "close", "Host", r.server.Listener.Addr().String())
	if err != nil || a.status != 418 || a.body != "POST /v1/x?y=%20z 1 body" {
		t.Errorf("got %+v, %v", a, err)
	}
	if got := a.header["x-two"]; len(got) != 2 || got[1] != "\uFFFD2" || a.header["content-type"][0] != "text/plain" {
		t.Errorf("header is %v", a.header)
	}
	req := r.took()[0]
	if req.Header.Get("User-Agent") != "edged" || len(req.Header.Values("Idempotency-Key")) != 1 || req.ContentLength != 4 {
		t.Errorf("the server got %+v", req)
	}
	a, err = r.ask(t.Context(), "", r.server.URL+"/v1/", "", "User-Agent", "mine")
	if err != nil || !strings.HasPrefix(a.body, "GET /v1/") {
		t.Errorf("got %+v, %v", a, err)
	}
	if req := r.took()[1]; req.Header.Get("User-Agent") != "mine" || req.Header.Get("Idempotency-Key") != "" {
		t.Errorf("the server got %+v", req)
	}
}

// What is not allowed is never asked.
func TestProvider_Call_closed(t *testing.T) {
	var log strings.Builder
	r := newRig(t, nil, func(o *httpclient.Options) {
		o.Logger, o.ActorName = slog.New(slog.NewTextHandler(&log, nil)), func(string) string { return "lab/guest" }
	})
	at := r.server.URL
	if _, err := r.ask(t.Context(), "GET", at, ""); !errors.Is(err, providers.ErrNotPermitted) {
		t.Errorf("without a link: got %v", err)
	}
	for _, c := range []struct{ rules, method, url string }{
		{"", "GET", at + "/"},
		{"* " + at + "/v1/*", "GET", at + "/v2"},
		{"GET " + at + "/*", "POST", at + "/"},
		{"* https://127.0.0.1/*", "GET", at + "/"},
		{"* http://127.0.0.1/*", "GET", at + "/"}, // another port
		{"* http://*/*", "GET", at + "/"},
		{"* http://*:*/*", "GET", "http://10.0.0.1/"},
		{"* http://*:*/*", "GET", "http://169.254.169.254/latest/meta-data/"},
		{"* http://*:*/*", "GET", "http://[::1]:" + r.port() + "/"},
		{"* http://*:*/*", "GET", "http://[::ffff:10.0.0.1]/"},
		{"* http://*:*/*", "GET", "http://0.0.0.0:" + r.port() + "/"},
	} {
		r.allow(c.rules)
		if _, err := r.ask(t.Context(), c.method, c.url, ""); !errors.Is(err, providers.ErrNotPermitted) {
			t.Errorf("%s: %s %s: got %v", c.rules, c.method, c.url, err)
		}
	}
	if n := len(r.took()); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	if err := r.DeleteLink(t.Context(), link(nil)); err != nil {
		t.Error(err)
	}
	if _, err := r.ask(t.Context(), "GET", at, ""); !errors.Is(err, providers.ErrNotPermitted) {
		t.Errorf("after the link is gone: got %v", err)
	}
	if !strings.Contains(log.String(), `msg="actor asks for what it may not" actor=lab/guest link=default`) {
		t.Errorf("the log is %s", log.String())
	}
}

// A name that leads to an address that is not public is not connected to, however
// often it is looked up and whatever it was before.
func TestProvider_Call_rebinding(t *testing.T) {
	r := newRig(t, nil, func(o *httpclient.Options) { o.Bound = bound(t, "public *.test") })
	r.allow("* http://*:*/*")
	for name, addrs := range map[string][]string{
		"loop.test": {"127.0.0.1"}, "meta.test": {"169.254.169.254"}, "lan.test": {"192.168.7.7"}, "any.test": {"0.0.0.0"}, "carrier.test": {"100.64.1.1"},
	} {
		r.names.set(name, addrs...)
		_, err := r.ask(t.Context(), "GET", "http://"+name+":"+r.port()+"/", "")
		if !errors.Is(err, providers.ErrNotPermitted) || strings.Contains(err.Error(), addrs[0]) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if n := len(r.took()); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	// It is the address that is dialled that counts: this name is one of the box's at
	// first, and of its network later.
	named := newRig(t, nil, func(o *httpclient.Options) { o.Bound = bound(t, "127.0.0.1") })
	named.allow("* http://*:*/*")
	named.names.set("flip.test", "127.0.0.1", "127.0.0.2")
	for i, want := range []error{nil, providers.ErrNotPermitted} {
		_, err := named.ask(t.Context(), "GET", "http://flip.test:"+named.port()+"/", "", "Connection", "close")
		if !errors.Is(err, want) {
			t.Errorf("lookup %d: got %v, want %v", i+1, err, want)
		}
		named.server.CloseClientConnections()
		if err := named.DeleteLink(t.Context(), link(nil)); err != nil { // and its connections with it
			t.Fatal(err)
		}
		named.allow("* http://*:*/*")
	}
}

func TestProvider_Call_redirects(t *testing.T) {
	var to atomic.Value
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/end" {
			body, _ := io.ReadAll(req.Body)
			fmt.Fprint(w, req.Method, " ", req.Header.Get("Referer"), string(body))
			return
		}
		w.Header().Set("Location", to.Load().(string))
		w.WriteHeader(http.StatusTemporaryRedirect)
	}, func(o *httpclient.Options) { o.Bound = bound(t, "public 127.0.0.1") })
	r.names.set("inside.test", "10.9.8.7")
	r.names.set("loop.test", "127.0.0.3")
	rules := "* " + r.server.URL + "/*\n* http://*.test:*/*\n* http://10.9.8.7/*"
	for where, want := range map[string]error{
		"/end":                                  nil,
		r.server.URL + "/end":                   nil,
		"http://elsewhere.example/":             providers.ErrNotPermitted,
		"http://169.254.169.254/":               providers.ErrNotPermitted,
		"http://10.9.8.7/":                      providers.ErrNotPermitted,
		"http://inside.test/":                   providers.ErrNotPermitted,
		"http://loop.test:" + r.port() + "/end": providers.ErrNotPermitted,
		"file:///etc/passwd":                    providers.ErrNotPermitted,
		"http://user:pw@127.0.0.1/":             providers.ErrNotPermitted,
		"/again":                                providers.ErrUnavailable, // for ever
	} {
		r.allow(rules)
		to.Store(where)
		a, err := r.ask(t.Context(), "POST", r.server.URL+"/begin?secret", "body")
		if !errors.Is(err, want) || err == nil && a.body != "POST body" {
			t.Errorf("to %s: got %+v, %v, want %v", where, a, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "10.9.8.7") {
			t.Errorf("to %s: the actor is told %v", where, err)
		}
	}
	r.allow(rules, httpclient.ValueRedirects, "0")
	to.Store("http://elsewhere.example/")
	if a, err := r.ask(t.Context(), "GET", r.server.URL, ""); err != nil || a.status != 307 || a.header["location"][0] != "http://elsewhere.example/" {
		t.Errorf("not followed: got %+v, %v", a, err)
	}
	// To another method than is allowed.
	see := newRig(t, func(w http.ResponseWriter, req *http.Request) { http.Redirect(w, req, "/end", http.StatusSeeOther) }, nil)
	see.allow("POST " + see.server.URL + "/*")
	if _, err := see.ask(t.Context(), "POST", see.server.URL, ""); !errors.Is(err, providers.ErrNotPermitted) || len(see.took()) != 1 {
		t.Errorf("see other: got %v after %d requests", err, len(see.took()))
	}
}

func TestProvider_Call_limits(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/large":
			w.Header().Set("Content-Length", "1001")
			_, _ = w.Write(make([]byte, 1001))
		case "/endless":
			for i := 0; i < 1000 && req.Context().Err() == nil; i++ {
				_, _ = w.Write(make([]byte, 1<<10))
			}
		case "/headers":
			for i := range 300 {
				w.Header().Set(fmt.Sprintf("X-%d", i), "x")
			}
		case "/longheader":
			w.Header().Set("X", strings.Repeat("x", 100<<10))
		case "/fits":
			_, _ = w.Write(make([]byte, 1000))
		}
	}, nil)
	r.allow("* "+r.server.URL+"/*", httpclient.ValueMaxResponse, "1000")
	for path, want := range map[string]error{
		"/large": providers.ErrTooLarge, "/endless": providers.ErrTooLarge, "/headers": providers.ErrTooLarge, "/longheader": providers.ErrUnavailable, "/fits": nil,
	} {
		if a, err := r.ask(t.Context(), "GET", r.server.URL+path, ""); !errors.Is(err, want) || err == nil && len(a.body) != 1000 {
			t.Errorf("%s: got %v, want %v", path, err, want)
		}
	}
	if a, err := r.ask(t.Context(), "HEAD", r.server.URL+"/large", ""); err != nil || a.body != "" || a.header["content-length"][0] != "1001" {
		t.Errorf("HEAD: got %+v, %v", a, err)
	}
}

func TestProvider_Call_time(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t, func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-release:
		case <-req.Context().Done():
		}
	}, nil)
	defer close(release)
	r.allow("* "+r.server.URL+"/*", httpclient.ValueTimeout, "20ms")
	if _, err := r.ask(t.Context(), "GET", r.server.URL, ""); !errors.Is(err, providers.ErrTimedOut) {
		t.Errorf("got %v, want ErrTimedOut", err)
	}
	// The time of the call bounds it, and the actor hears of it before that is over.
	r.allow("* "+r.server.URL+"/*", httpclient.ValueTimeout, "10m")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := r.ask(ctx, "GET", r.server.URL, ""); !errors.Is(err, providers.ErrTimedOut) {
		t.Errorf("got %v, want ErrTimedOut", err)
	}
	// One at a time: the second waits for its own time.
	r.allow("* "+r.server.URL+"/*", httpclient.ValueInFlight, "1", httpclient.ValueTimeout, "30s")
	before := len(r.took())
	first, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := r.ask(first, "GET", r.server.URL+"/first", ""); ended <- err }()
	for len(r.took()) == before {
		select {
		case err := <-ended:
			t.Fatalf("the first request ended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.ask(short, "GET", r.server.URL+"/second", ""); !errors.Is(err, providers.ErrTimedOut) || len(r.took()) != before+1 {
		t.Errorf("got %v after %d requests", err, len(r.took())-before)
	}
	end()
	if err := <-ended; err == nil {
		t.Error("the first request did not end")
	}
}

// What an actor is told of a failure helps it, and says nothing of the network.
func TestProvider_Call_failures(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := closed.Addr().String()
	closed.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		if req.URL.Path == "/upgrade" {
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
		}
		conn.Close()
	}, nil)
	r.allow("* http://*:*/*\n* https://*:*/*")
	r.names.set("gone.test", "127.0.0.1")
	_, port, _ := net.SplitHostPort(gone)
	for at, want := range map[string]string{
		"http://gone.test:" + port: "no connection to the server",
		"http://nowhere.test/":     "the name of the server cannot be looked up",
		r.server.URL:               "the connection ended without an answer",
		r.server.URL + "/upgrade":  "the server answered 101 Switching Protocols, and upgrades are not for actors",
		secure.URL:                 "the certificate of the server is not to be trusted",
		"https" + strings.TrimPrefix(r.server.URL, "http") + "/plain": "the connection ended without an answer",
	} {
		_, err := r.ask(t.Context(), "GET", at, "")
		if err == nil || err.Error() != "httpclient: unavailable: "+want {
			t.Errorf("%s: got %v", at, err)
		}
	}
}

func TestProvider_Call_badRequests(t *testing.T) {
	registry := prometheus.NewRegistry()
	r := newRig(t, nil, func(o *httpclient.Options) { o.Registerer = registry })
	r.allow("* http://*:*/*")
	at := r.server.URL
	header := func(pairs ...string) []byte { return request("GET", at, "", pairs...) }
	many := make([]string, 2*300)
	for i := range many {
		many[i] = "x"
	}
	for name, payload := range map[string][]byte{
		"nothing":            nil,
		"cut":                request("GET", at, "")[:20],
		"trailing":           append(request("GET", at, ""), 0xc0),
		"no map":             msgpack.AppendString(nil, at),
		"no URL":             request("GET", "", ""),
		"bad URL":            request("GET", "http://user@x/", ""),
		"no HTTP":            request("GET", "file:///etc/passwd", ""),
		"method":             request("G ET", at, ""),
		"method with a line": request("GET / HTTP/1.1\r\nX: y\r\n\r\nGET", at, ""),
		"CONNECT":            request("CONNECT", at, ""),
		"TRACE":              request("TRACE", at, ""),
		"header name":        header("a b", "x"),
		"empty header name":  header("", "x"),
		"header value":       header("X", "a\r\nHost: evil"),
		"zero in a value":    header("X", "a\x00b"),
		"another host":       header("Host", "evil.example"),
		"many headers":       header(many...),
		"a long header":      header("X", strings.Repeat("x", 100<<10)),
		"large body":         request("POST", at, strings.Repeat("x", httpclient.MaxRequestBody+1)),
	} {
		if _, err := r.raw(t.Context(), payload); !errors.Is(err, providers.ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
	if n := len(r.took()); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	if _, err := r.Call(t.Context(), lattice.Invocation{Operation: "HttpClient.Other"}); !errors.Is(err, providers.ErrFormat) {
		t.Errorf("another operation: got %v", err)
	}
	// Some kits send one value as a text, and fields that nobody asked for.
	b := msgpack.AppendMapHeader(nil, 3)
	b = msgpack.AppendString(msgpack.AppendString(b, "url"), at)
	b = msgpack.AppendMapHeader(msgpack.AppendString(b, "headers"), 1)
	b = msgpack.AppendString(msgpack.AppendString(b, "X-One"), "1")
	b = msgpack.AppendNil(msgpack.AppendString(b, "timeout"))
	if a, err := r.raw(t.Context(), b); err != nil || a.status != 200 || r.took()[0].Header.Get("X-One") != "1" {
		t.Errorf("got %+v, %v", a, err)
	}
	// Others write a struct as an array, and put a marker in front.
	b = append([]byte{0xc1, 0x94, 0xa4, 'P', 'O', 'S', 'T'}, msgpack.AppendString(nil, at)...)
	if a, err := r.raw(t.Context(), append(b, "\x81\xa5X-Two\x91\xa12\x92\x68\x69"...)); err != nil || a.status != 200 ||
		r.took()[1].Method != "POST" || r.took()[1].Header.Get("X-Two") != "2" || r.took()[1].ContentLength != 2 {
		t.Errorf("got %+v, %v", a, err)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "edged_httpclient_requests_total" {
		t.Fatalf("got %v, %v", families, err)
	}
	counted := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	if len(counted) != 6 || counted["malformed"] != 19 || counted["ok"] != 2 || counted["failed"] != 0 {
		t.Errorf("counted %v", counted)
	}
}

func TestProvider_PutLink_refuses(t *testing.T) {
	r := newRig(t, nil, nil)
	for name, v := range map[string]map[string]string{
		"rule":      {httpclient.ValueAllow: "* nonsense"},
		"no method": {httpclient.ValueAllow: "https://a/*"},
		"method":    {httpclient.ValueAllow: "get https://a/*"},
		"timeout":   {httpclient.ValueTimeout: "-1s"},
		"response":  {httpclient.ValueMaxResponse: "99999999999"},
		"redirects": {httpclient.ValueRedirects: "x"},
		"in flight": {httpclient.ValueInFlight: "0"},
		"half cert": {httpclient.ValueCert: "/x"},
		"no cert":   {httpclient.ValueCert: "/nowhere", httpclient.ValueKey: "/nowhere"},
		"no ca":     {httpclient.ValueCA: "/nowhere"},
		"not a ca":  {httpclient.ValueCA: os.Args[0]},
	} {
		if err := r.PutLink(t.Context(), link(v)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := httpclient.New(httpclient.Options{}); err == nil {
		t.Error("no store is taken")
	}
	if _, err := httpclient.New(httpclient.Options{Store: r.db, CA: []byte("x")}); err == nil {
		t.Error("authorities without a certificate are taken")
	}
}

func TestProvider_Call_tls(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		fmt.Fprint(w, len(req.TLS.PeerCertificates), " ", req.TLS.ServerName)
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own := server.TLS.Certificates[0]
	ca := write("ca.pem", "CERTIFICATE", server.Certificate().Raw)
	key, err := pkcs8(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := write("cert.pem", "CERTIFICATE", own.Certificate[0])
	keyFile := write("key.pem", "PRIVATE KEY", key)
	authority, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ca    []byte
		pairs []string
		want  string
	}{
		"of the system": {nil, nil, ""},
		"of the link":   {nil, []string{httpclient.ValueCA, ca}, "0 example.com"},
		"of the box":    {authority, nil, "0 example.com"},
		"with its own":  {authority, []string{httpclient.ValueCert, cert, httpclient.ValueKey, keyFile}, "1 example.com"},
	} {
		r := newRig(t, nil, func(o *httpclient.Options) { o.CA = c.ca })
		r.names.set("example.com", "127.0.0.1") // which is in the certificate
		r.allow("* https://example.com:*/*", c.pairs...)
		_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
		a, err := r.ask(t.Context(), "GET", "https://example.com:"+port, "")
		if a.body != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: got %+v, %v", name, a, err)
		}
	}
}

// A link that is put again, as at each reload, keeps what it has.
func TestProvider_PutLink_again(t *testing.T) {
	r := newRig(t, nil, nil)
	var from []string
	for _, values := range [][]string{nil, nil, {httpclient.ValueRedirects, "1"}} {
		r.allow("* "+r.server.URL+"/*", values...)
		if _, err := r.ask(t.Context(), "GET", r.server.URL, ""); err != nil {
			t.Fatal(err)
		}
		seen := r.took()
		from = append(from, seen[len(seen)-1].RemoteAddr)
	}
	if from[0] != from[1] || from[1] == from[2] {
		t.Errorf("requests came from %v, want the first two on one connection", from)
	}
}

func TestProvider_Call_proxy(t *testing.T) {
	var asked atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked.Store(req.URL.String() + " " + req.Header.Get("Proxy-Authorization"))
		fmt.Fprint(w, "by proxy")
	}))
	defer proxy.Close()
	at, _ := url.Parse(proxy.URL)
	at.User = url.UserPassword("u", "p")
	r := newRig(t, nil, func(o *httpclient.Options) { o.Proxy, o.Bound = at, bound(t, "public") })
	r.allow("* http://*:*/*")
	a, err := r.ask(t.Context(), "GET", "http://nobody.test/x", "", "Proxy-Authorization", "mine")
	if err != nil || a.body != "by proxy" || asked.Load() != "http://nobody.test/x Basic dTpw" {
		t.Errorf("got %+v, %v, the proxy %v", a, err, asked.Load())
	}
	// What needs no lookup is refused here.
	if _, err := r.ask(t.Context(), "GET", "http://127.0.0.1/", ""); !errors.Is(err, providers.ErrNotPermitted) {
		t.Errorf("got %v", err)
	}
	// Variables of the environment are nobody's business.
	t.Setenv("HTTP_PROXY", proxy.URL)
	plain := newRig(t, nil, nil)
	plain.allow("* http://*:*/*")
	if a, err := plain.ask(t.Context(), "GET", plain.server.URL, ""); err != nil || a.body != "" {
		t.Errorf("got %+v, %v", a, err)
	}
}

// What is more than a question is irrevocable, and has the key of its place.
func TestProvider_Call_turn(t *testing.T) {
	r := newRig(t, nil, func(o *httpclient.Options) {
		o.Handled = func(ctx context.Context) string { s, _ := ctx.Value(handled{}).(string); return s }
	})
	r.allow("* " + r.server.URL + "/*")
	// touched says whether another turn may change a key that a turn has read, after it
	// made a request. One that the first waits for would get the error instead of
	// waiting itself.
	touched := func(method string) error {
		turn := r.db.Begin()
		defer turn.Discard()
		if _, _, err := turn.Get("s", "k"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ask(store.WithTurn(t.Context(), turn), method, r.server.URL, ""); err != nil {
			t.Fatal(err)
		}
		return r.db.Do(store.WithCause(t.Context(), turn.ID()), func(_ context.Context, o *store.Turn) error { return o.Put("s", "k", nil) })
	}
	for method, want := range map[string]error{"GET": nil, "HEAD": nil, "OPTIONS": nil, "POST": store.ErrDeadlock, "PUT": store.ErrDeadlock, "DELETE": store.ErrDeadlock} {
		if err := touched(method); !errors.Is(err, want) {
			t.Errorf("%s: another turn got %v, want %v", method, err, want)
		}
	}

	keys := func(message, body string, calls int) (all []string) {
		t.Helper()
		err := r.db.Do(context.WithValue(t.Context(), handled{}, message), func(ctx context.Context, _ *store.Turn) error {
			before := len(r.took())
			for range calls {
				if _, err := r.ask(ctx, "POST", r.server.URL, body); err != nil {
					return err
				}
			}
			for _, req := range r.took()[before:] {
				all = append(all, req.Header.Get("Idempotency-Key"))
			}
			return errors.New("and fails")
		})
		if err == nil || len(all) != calls {
			t.Fatalf("got %v, %v", all, err)
		}
		return all
	}
	first, again := keys("s/1", "x", 2), keys("s/1", "x", 2)
	if first[0] != again[0] || first[1] != again[1] || first[0] == first[1] || len(first[0]) != 32 {
		t.Errorf("keys are %v, and %v when the message comes again", first, again)
	}
	for name, other := range map[string][]string{"another message": keys("s/2", "x", 1), "another body": keys("s/1", "y", 1), "no message": keys("", "x", 1)} {
		if other[0] == first[0] {
			t.Errorf("%s: the same key", name)
		}
	}
	if a, b := keys("", "x", 1), keys("", "x", 1); a[0] == b[0] {
		t.Error("two turns of no message have one key")
	}
	if _, err := r.ask(t.Context(), "POST", r.server.URL, "", "Idempotency-Key", "mine"); err != nil {
		t.Fatal(err)
	}
	seen := r.took()
	if got := seen[len(seen)-1].Header.Values("Idempotency-Key"); len(got) != 1 || got[0] != "mine" {
		t.Errorf("the actor's own key became %v", got)
	}
}

// Keys are those of a store, and outlive the process.
func TestProvider_Call_keysOfStore(t *testing.T) {
	r := newRig(t, nil, nil)
	key := func(db httpclient.Store) string {
		t.Helper()
		p, err := httpclient.New(httpclient.Options{Store: db, Bound: bound(t, "127.0.0.1"), Handled: func(context.Context) string { return "s/1" }})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.PutLink(t.Context(), link(map[string]string{httpclient.ValueAllow: "* " + r.server.URL + "/*"})); err != nil {
			t.Fatal(err)
		}
		err = db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
			_, err := p.Call(ctx, lattice.Invocation{
				Origin: lattice.Entity{Key: "a/x"}, Target: lattice.Entity{Link: "default"}, Operation: httpclient.Request, Payload: request("POST", r.server.URL, "x"),
			})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		seen := r.took()
		return seen[len(seen)-1].Header.Get("Idempotency-Key")
	}
	dir := t.TempDir()
	open := func(dir string) *store.DB {
		t.Helper()
		db, err := store.Open(store.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open(dir)
	first := key(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(dir)
	defer db.Close()
	if again := key(db); again != first || first == "" {
		t.Errorf("after a restart the key is %q, before it was %q", again, first)
	}
	anew := open(t.TempDir())
	defer anew.Close()
	if other := key(anew); other == first {
		t.Error("a store that begins anew has the keys of the old one")
	}
}

type handled struct{}

// A request that may have arrived is not sent again behind the actor's back.
func TestProvider_Call_noRetry(t *testing.T) {
	var n atomic.Int32
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		if n.Add(1) > 1 { // on the connection of the first
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
		}
	}, nil)
	r.allow("* " + r.server.URL + "/*")
	if _, err := r.ask(t.Context(), "POST", r.server.URL, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ask(t.Context(), "POST", r.server.URL, "x"); !errors.Is(err, providers.ErrUnavailable) || n.Load() != 2 {
		t.Errorf("got %v after %d requests, want a failure after 2", err, n.Load())
	}
}
