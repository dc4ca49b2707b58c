package httpclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"github.com/edged-io/edged/internal/outbound"
	"github.com/edged-io/edged/providers"
)

// Errors of a request under way, beside those of the network.
var (
	errTooMuch   = errors.New("too much comes back")
	errRedirect  = errors.New("redirected to where it may not go")
	errRedirects = errors.New("too many redirects")
	errUpgrade   = errors.New("the server answered 101 Switching Protocols, and upgrades are not for actors")
)

// results are the ends of a request, as counted.
var results = []string{"ok", "refused", "malformed", "too_large", "timed_out", "failed"}

func fail(kind, cause error) error { return providers.Fail("httpclient", kind, cause) }

// explain says what went wrong, as an actor may know it: no addresses, no names of
// resolvers or proxies. The log has the rest.
func explain(err error) error {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var alert tls.AlertError
	var dial *net.OpError
	switch {
	case errors.Is(err, outbound.ErrBound):
		return fail(providers.ErrNotPermitted, outbound.ErrBound)
	case errors.Is(err, errRedirect), errors.Is(err, outbound.ErrURL):
		return fail(providers.ErrNotPermitted, errRedirect)
	case errors.Is(err, errRedirects):
		return fail(providers.ErrUnavailable, errRedirects)
	case errors.Is(err, errUpgrade):
		return fail(providers.ErrUnavailable, errUpgrade)
	case errors.Is(err, errTooMuch):
		return fail(providers.ErrTooLarge, err)
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return fail(providers.ErrTimedOut, errors.New("no answer in time"))
	case errors.As(err, &certificate), errors.As(err, &unknown):
		return fail(providers.ErrUnavailable, errors.New("the certificate of the server is not to be trusted"))
	case errors.As(err, &alert):
		return fail(providers.ErrUnavailable, errors.New("the server refused the TLS connection"))
	case errors.As(err, &dns):
		return fail(providers.ErrUnavailable, errors.New("the name of the server cannot be looked up"))
	case errors.As(err, &dial) && dial.Op == "dial":
		return fail(providers.ErrUnavailable, errors.New("no connection to the server"))
	}
	return fail(providers.ErrUnavailable, errors.New("the connection ended without an answer"))
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// count counts a failure and returns it.
func (p *Provider) count(err error) error {
	result := "failed"
	switch {
	case errors.Is(err, providers.ErrNotPermitted):
		result = "refused"
	case errors.Is(err, providers.ErrFormat):
		result = "malformed"
	case errors.Is(err, providers.ErrTooLarge):
		result = "too_large"
	case errors.Is(err, providers.ErrTimedOut):
		result = "timed_out"
	}
	p.requests.WithLabelValues(result).Inc()
	return err
}
