package httpclient

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/internal/outbound"
)

// Values of a link, as PutLink takes them. All but ValueAllow may be missing.
const (
	// ValueAllow has a rule in each line: "METHOD,METHOD URL" or "* URL", where URL is
	// as outbound.ParseRule has it. Without a rule nothing is allowed.
	ValueAllow       = "allow"
	ValueTimeout     = "timeout"       // of a request; 10s if missing
	ValueMaxResponse = "max_response"  // bytes of an answer's body; 1 MiB if missing
	ValueRedirects   = "redirects"     // that are followed; 5 if missing
	ValueInFlight    = "max_in_flight" // requests at a time; 8 if missing
	ValueCA          = "ca"            // file with more authorities
	ValueCert        = "cert"          // files with the box's certificate, and its key
	ValueKey         = "key"
)

const (
	dialTime      = 10 * time.Second
	handshakeTime = 10 * time.Second
	idleTime      = 30 * time.Second
)

// settings are the values of a link.
type settings struct {
	rules         []outbound.Rule
	timeout       time.Duration
	maxResponse   int64
	redirects     int
	inFlight      int
	ca, cert, key string
}

func readValues(v map[string]string) (s settings, err error) {
	s = settings{timeout: 10 * time.Second, maxResponse: 1 << 20, redirects: 5, inFlight: 8, ca: v[ValueCA], cert: v[ValueCert], key: v[ValueKey]}
	for line := range strings.Lines(v[ValueAllow]) {
		methods, text, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			return s, fmt.Errorf("%s: %.200q: want methods and a URL", ValueAllow, line)
		}
		var only []string
		if methods != "*" {
			only = strings.Split(methods, ",")
		}
		rule, err := outbound.ParseRule(text, only)
		if err != nil {
			return s, fmt.Errorf("%s: %w", ValueAllow, err)
		}
		s.rules = append(s.rules, rule)
	}
	if text := v[ValueTimeout]; text != "" {
		if s.timeout, err = time.ParseDuration(text); err != nil || s.timeout <= 0 {
			return s, fmt.Errorf("%s: %.40q: want a duration", ValueTimeout, text)
		}
	}
	for _, n := range []struct {
		value       string
		least, most int64
		set         func(int64)
	}{
		{ValueMaxResponse, 1, 64 << 20, func(n int64) { s.maxResponse = n }},
		{ValueRedirects, 0, 20, func(n int64) { s.redirects = int(n) }},
		{ValueInFlight, 1, 256, func(n int64) { s.inFlight = int(n) }},
	} {
		text := v[n.value]
		if text == "" {
			continue
		}
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil || i < n.least || i > n.most {
			return s, fmt.Errorf("%s: %.40q: want %d to %d", n.value, text, n.least, n.most)
		}
		n.set(i)
	}
	if (s.cert == "") != (s.key == "") {
		return s, errors.New("cert and key belong together")
	}
	return s, nil
}

// link is what an actor may ask for, and the connections it has.
type link struct {
	settings
	values    map[string]string // as they were given
	client    *http.Client
	transport *http.Transport
	room      chan struct{} // a place for each request under way
	refused   atomic.Bool   // the last request was, and the log says so
}

func (p *Provider) newLink(s settings) (*link, error) {
	l := &link{settings: s, room: make(chan struct{}, s.inFlight)}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	pem := [][]byte{p.o.CA}
	if s.ca != "" {
		own, err := os.ReadFile(s.ca)
		if err != nil {
			return nil, err
		}
		pem = append(pem, own)
	}
	if len(bytes.Join(pem, nil)) > 0 {
		var err error
		if config.RootCAs, err = authorities(pem...); err != nil {
			return nil, err
		}
	}
	if s.cert != "" {
		if _, err := tls.LoadX509KeyPair(s.cert, s.key); err != nil {
			return nil, err
		}
		// Read anew for each connection: certificates are renewed.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(s.cert, s.key)
			return &c, err
		}
	}
	l.transport = &http.Transport{
		DialContext: p.dial, TLSClientConfig: config, TLSHandshakeTimeout: handshakeTime,
		MaxIdleConnsPerHost: 2, MaxIdleConns: 8, IdleConnTimeout: idleTime, MaxResponseHeaderBytes: maxHeaderBytes,
	}
	if p.o.Proxy != nil {
		l.transport.Proxy = http.ProxyURL(p.o.Proxy)
	}
	l.client = &http.Client{Transport: l.transport, CheckRedirect: func(next *http.Request, via []*http.Request) error {
		return p.redirect(l, next, via)
	}}
	return l, nil
}

// authorities returns those of the system, and more in PEM.
func authorities(all ...[]byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a box may have none
	}
	for _, text := range all {
		if block, _ := pem.Decode(text); len(text) > 0 && (block == nil || !pool.AppendCertsFromPEM(text)) {
			return nil, errors.New("no certificates in PEM in the file of authorities")
		}
	}
	return pool, nil
}

func (l *link) allows(method string, u *url.URL) bool {
	for _, r := range l.rules {
		if r.Allows(method, u) {
			return true
		}
	}
	return false
}

// redirect decides whether the next hop is gone to, which is held against all that
// the first was.
func (p *Provider) redirect(l *link, next *http.Request, via []*http.Request) error {
	if l.redirects == 0 {
		return http.ErrUseLastResponse // the actor gets the redirect
	}
	if len(via) > l.redirects {
		return errRedirects
	}
	u, err := outbound.Clean(next.URL.String())
	if err != nil {
		return fmt.Errorf("%w: %w", errRedirect, err)
	}
	if last := via[len(via)-1].URL; last.Scheme == "https" && u.Scheme != "https" {
		return fmt.Errorf("%w: from https to http", errRedirect)
	}
	if err := p.permit(l, next.Method, u); err != nil {
		return fmt.Errorf("%w: %w", errRedirect, err)
	}
	next.URL = u
	next.Host = ""
	next.Header.Del("Referer") // it may hold a secret in its query
	return nil
}
