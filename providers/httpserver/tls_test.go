package httpserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/lattice"
)

// writeCertificate makes a certificate of its own for a name, in two files.
func writeCertificate(t testing.TB, dir, name string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func tlsDoc(cert, key string) string {
	return fmt.Sprintf(`"tls":{"cert_file":%q,"priv_key_file":%q}`, cert, key)
}

// secureClient trusts any certificate, and speaks HTTP/2 if asked to.
func secureClient(t testing.TB, h2 bool) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func get(t testing.TB, c *http.Client, url string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, c, req)
}

func TestTLS(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir, "one")
	r.serve(tlsDoc(cert, key)+`,"max_body":10`, echo)
	at := r.addr("a-1")
	for _, h2 := range []bool{false, true} {
		c := secureClient(t, h2)
		a := get(t, c, "https://"+at+"/x?y")
		if a.body != "GET /x?y " || (a.ProtoMajor == 2) != h2 || a.TLS.PeerCertificates[0].Subject.CommonName != "one" {
			t.Errorf("HTTP/2 %v: %q over %s", h2, a.body, a.Proto)
		}
		req, err := http.NewRequest("POST", "https://"+at+"/", strings.NewReader(strings.Repeat("x", 11)))
		if err != nil {
			t.Fatal(err)
		}
		if a := do(t, c, req); a.StatusCode != 413 {
			t.Errorf("HTTP/2 %v: status %d for a body that is too large", h2, a.StatusCode)
		}
		if a := get(t, c, "https://"+at+"/after"); a.StatusCode != 200 {
			t.Errorf("HTTP/2 %v: status %d afterwards", h2, a.StatusCode)
		}
	}
	// Who does not speak TLS is told in words of HTTP.
	if got := raw(t, at, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); !strings.Contains(got, "400 Bad Request") {
		t.Errorf("got %q", got)
	}
	// Without TLS again, at the same place.
	url := r.serve("", echo)
	if a := ask(t, "GET", url+"/", ""); a.StatusCode != 200 {
		t.Errorf("status %d without TLS", a.StatusCode)
	}
}

// Many requests at a time over one connection of HTTP/2.
func TestTLS_streams(t *testing.T) {
	r := newRig(t)
	cert, key := writeCertificate(t, t.TempDir(), "one")
	h := newHold()
	r.serve(tlsDoc(cert, key), h.handle)
	c := secureClient(t, true)
	get := func() <-chan answer {
		done := make(chan answer, 1)
		go func() { done <- get(t, c, "https://"+r.addr("a-1")+"/") }()
		return done
	}
	var all []<-chan answer
	for range 10 {
		all = append(all, get())
	}
	for range 10 {
		<-h.in
	}
	close(h.out)
	for _, done := range all {
		if a := <-done; a.StatusCode != 200 || a.ProtoMajor != 2 {
			t.Errorf("status %d over %s", a.StatusCode, a.Proto)
		}
	}
}

// Certificates are read again when they change; one that makes no sense changes
// nothing.
func TestCertificate_changes(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir, "one")
	r.serve(tlsDoc(cert, key), echo)
	shown := func() string {
		return get(t, secureClient(t, false), "https://"+r.addr("a-1")+"/").TLS.PeerCertificates[0].Subject.CommonName
	}
	if got := shown(); got != "one" {
		t.Fatalf("got %s", got)
	}
	if err := os.WriteFile(cert, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.eventually("the log says what is wrong", func() bool {
		if got := shown(); got != "one" {
			t.Fatalf("got %s", got)
		}
		return strings.Contains(r.log.String(), "certificate can not be read")
	})
	writeCertificate(t, dir, "two")
	r.eventually("the new certificate is shown", func() bool { return shown() == "two" })
	if n := strings.Count(r.log.String(), "certificate can not be read"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
}

// An app may come before its certificate: the listener waits for it, where that
// is so at the start of the box.
func TestCertificate_later(t *testing.T) {
	r := newRig(t)
	r.stop()
	dir := t.TempDir()
	p := New(Options{Store: r.db, Call: func(context.Context, lattice.Invocation) ([]byte, error) { return reply(200, "late"), nil }})
	doc := tlsDoc(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err := p.SetLinks(t.Context(), []lattice.Link{link("a", doc)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	<-p.Ready()
	if l := p.Listeners()[0]; l.Addr != "" || !strings.Contains(l.Error, "certificate") {
		t.Fatalf("%+v", l)
	}
	writeCertificate(t, dir, "one")
	r.eventually("it listens", func() bool { return p.Listeners()[0].Addr != "" })
	if a := get(t, secureClient(t, true), "https://"+p.Listeners()[0].Addr+"/"); a.body != "late" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}

func TestCORS(t *testing.T) {
	r := newRig(t)
	url := r.serve(`"routes":["GET /","POST /"],"cors":{"allowed_origins":["https://good.example"],"allowed_methods":["POST"],"allowed_headers":["X-One"],"exposed_headers":["X-Two"],"max_age_secs":60}`, echo)
	for _, test := range []struct {
		origin, method, headers string
		status                  int
	}{
		{"https://good.example", "POST", "x-one", 204},
		{"https://good.example", "POST", "", 204},
		{"https://bad.example", "POST", "", 403},
		{"https://good.example", "GET", "", 403},
		{"https://good.example", "POST", "x-one, x-three", 403},
		{"https://good.example", "DELETE", "", 405}, // no route has it
	} {
		a := ask(t, "OPTIONS", url+"/", "", "Origin", test.origin, "Access-Control-Request-Method", test.method, "Access-Control-Request-Headers", test.headers)
		if a.StatusCode != test.status {
			t.Errorf("%+v: status %d %s", test, a.StatusCode, a.body)
		}
		if h := a.Header; test.status == 204 && (h.Get("Access-Control-Allow-Origin") != test.origin || h.Get("Access-Control-Max-Age") != "60" || h.Get("Access-Control-Allow-Methods") != "POST") {
			t.Errorf("%+v: header %v", test, h)
		}
	}
	a := ask(t, "GET", url+"/", "", "Origin", "https://good.example")
	if a.StatusCode != 200 || a.Header.Get("Access-Control-Allow-Origin") != "https://good.example" || a.Header.Get("Access-Control-Expose-Headers") != "X-Two" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	a = ask(t, "GET", url+"/", "", "Origin", "https://bad.example")
	if a.StatusCode != 200 || a.Header.Get("Access-Control-Allow-Origin") != "" || a.Header.Get("Vary") != "Origin" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	// Without a table of its own, such a request is the actor's like any other.
	url = r.serve("", echo)
	if a := ask(t, "OPTIONS", url+"/", "", "Origin", "https://x", "Access-Control-Request-Method", "GET"); a.body != "OPTIONS /? " {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}

func TestReadOnlyAndCacheControl(t *testing.T) {
	r := newRig(t)
	url := r.serve(`"readonly_mode":true,"cache_control":"max-age=60"`, func(_ context.Context, q request) ([]byte, error) {
		if q.path == "/own" {
			return reply(200, "", "Cache-Control", "no-store"), nil
		}
		return reply(map[bool]int{true: 404, false: 200}[q.path == "/404"], ""), nil
	})
	for path, want := range map[string]string{"/": "max-age=60", "/own": "no-store", "/404": ""} {
		if a := ask(t, "GET", url+path, ""); a.Header.Get("Cache-Control") != want {
			t.Errorf("%s: %q, want %q", path, a.Header.Get("Cache-Control"), want)
		}
	}
	if a := ask(t, "HEAD", url+"/", ""); a.StatusCode != 200 {
		t.Errorf("HEAD: %d", a.StatusCode)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if a := ask(t, method, url+"/", ""); a.StatusCode != 405 || a.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", method, a.StatusCode)
		}
	}
}

func TestMetrics(t *testing.T) {
	r := newRig(t)
	url := r.serve(`"routes":["/a"]`, func(context.Context, request) ([]byte, error) { return reply(204, ""), nil })
	ask(t, "GET", url+"/a", "")
	ask(t, "GET", url+"/b", "")
	r.eventually("both are counted", func() bool {
		m := r.gathered()
		return m["edged_httpserver_requests_total a 2xx"] == 1 && m["edged_httpserver_requests_total - 4xx"] == 1 && m["edged_httpserver_request_seconds a"] == 1 &&
			m["edged_httpserver_requests_in_flight"] == 0
	})
	if err := r.SetLinks(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	r.eventually("connections are given back, and the app is forgotten", func() bool {
		m := r.gathered()
		_, there := m["edged_httpserver_requests_total a 2xx"]
		return m["edged_httpserver_connections"] == 0 && !there
	})
	if log := r.log.String(); !strings.Contains(log, "msg=request app=a method=GET") || strings.Contains(log, "level=WARN") {
		t.Errorf("log:\n%s", log)
	}
}

func TestDecodeResponse_none(t *testing.T) {
	if _, err := decodeResponse(nil); !errors.Is(err, errResponse) || !strings.Contains(err.Error(), "no bytes") {
		t.Errorf("got %v", err)
	}
}

func FuzzDecodeResponse(f *testing.F) {
	f.Add(reply(200, "body", "X-A", "1", "Set-Cookie", "a=b"))
	f.Add([]byte("\x83\xa4body\x92\x68\x69\xa6header\x81\xa1x\xa1y\xaastatusCode\xcc\xc8"))
	f.Add([]byte("\x82\xaastatusCode\xcd\x01\xf4\xa6header\xdf\xff\xff\xff\xff"))
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeResponse(data)
		if err != nil {
			return
		}
		if r.status < 200 || r.status > 599 || len(r.body) > len(data) {
			t.Fatalf("%d, %d bytes of %d", r.status, len(r.body), len(data))
		}
		n := 0
		for name, values := range r.header {
			if n += len(values); n > maxHeaders || name == "Content-Length" || name == "Connection" || name == "Transfer-Encoding" {
				t.Fatalf("header %q", r.header)
			}
			if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
				t.Fatalf("header %q", r.header)
			}
		}
		// What is accepted can be sent.
		resp := &http.Response{StatusCode: r.status, ProtoMajor: 1, ProtoMinor: 1, Header: r.header, Body: http.NoBody}
		if err := resp.Write(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
}
