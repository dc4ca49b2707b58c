package httpclient

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/edged-io/edged/internal/httpsettings"
	"github.com/edged-io/edged/internal/outbound"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Limits of a request and of the header of an answer.
const (
	MaxRequestBody  = 16 << 20 // bytes
	maxHeaderValues = 256
	maxHeaderBytes  = 64 << 10
)

// idempotencyKey is written as it stands here: under its usual name net/http would
// send a request again by itself when a connection fails, and whether that is right is
// for the actor to say.
const idempotencyKey = "idempotency-key"

// request is one that an actor asks for.
type request struct {
	method string
	url    *url.URL
	header http.Header
	keys   []string // values of the header that idempotencyKey names
	body   []byte   // a part of the payload
}

// hop are headers that are about the connection, which is the box's.
var hop = map[string]bool{
	"connection": true, "keep-alive": true, "proxy-connection": true, "proxy-authorization": true, "proxy-authenticate": true, "te": true,
	"trailer": true, "transfer-encoding": true, "upgrade": true, "content-length": true, "expect": true, "http2-settings": true,
}

// decodeRequest reads {method, url, headers, body}.
func decodeRequest(payload []byte) (*request, error) {
	r := &request{method: "GET", header: http.Header{}}
	var text string
	var bad error
	d := providers.Decoder(payload)
	providers.Struct(d, []string{"method", "url", "headers", "body"}, func(name string) {
		if bad != nil {
			return
		}
		switch name {
		case "method":
			r.method = cmp.Or(strings.ToUpper(d.Str()), "GET")
		case "url":
			text = d.Str()
		case "headers":
			bad = r.readHeaders(d)
		case "body":
			r.body = d.Bin()
		default:
			d.Skip()
		}
	})
	if bad != nil {
		return nil, bad
	}
	if err := d.Done(); err != nil {
		return nil, err
	}
	if !outbound.ValidMethod(r.method) {
		return nil, fmt.Errorf("method %.40q", r.method)
	}
	if len(r.body) > MaxRequestBody {
		return nil, fmt.Errorf("a body of %d bytes, at most %d", len(r.body), MaxRequestBody)
	}
	var err error
	if r.url, err = outbound.Clean(text); err != nil {
		return nil, err
	}
	return r, r.checkHost()
}

// readHeaders reads a map of lists. Some kits send a text where there is one value.
func (r *request) readHeaders(d *msgpack.Decoder) error {
	values, size := 0, 0
	add := func(name, value string) error {
		values++
		if size += len(name) + len(value); values > maxHeaderValues || size > maxHeaderBytes {
			return fmt.Errorf("more than %d headers or %d bytes of them", maxHeaderValues, maxHeaderBytes)
		}
		if !httpsettings.IsToken(name) {
			return fmt.Errorf("header %.80q", name)
		}
		if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return fmt.Errorf("header %s has a control character in its value", name)
		}
		if lower := strings.ToLower(name); lower == idempotencyKey {
			r.keys = append(r.keys, value)
		} else if !hop[lower] {
			r.header.Add(name, value)
		}
		return nil
	}
	for range d.Map() {
		name, n := d.Str(), 1
		if d.Kind() != msgpack.Str {
			n = d.Array()
		}
		for range n {
			if err := add(name, d.Str()); err != nil && d.Err() == nil {
				return err
			}
		}
	}
	return d.Err()
}

// checkHost refuses a header Host that says something else than the URL: the server
// would answer for a host that was not allowed.
func (r *request) checkHost() error {
	for _, host := range r.header["Host"] {
		u, err := outbound.Clean(r.url.Scheme + "://" + host)
		if err != nil || u.Host != r.url.Host {
			return errors.New("the header Host is not the host of the URL")
		}
	}
	r.header.Del("Host")
	return nil
}

// setKey gives the request a key, if the actor has not.
func (r *request) setKey(key string) {
	if len(r.keys) == 0 {
		r.keys = []string{key}
	}
}

// setTrace hands a trace context on, if the actor has given none of its own.
func (r *request) setTrace(trace map[string]string) {
	if r.header.Get(lattice.TraceParent) != "" {
		return
	}
	for name, value := range trace {
		r.header.Set(name, value)
	}
}

// key is the same for the same request at the same place in the handling of the same
// message, and no other.
func (r *request) key(box, handled, actor string, ordinal uint64) string {
	h := sha256.New()
	for _, part := range []string{box, handled, actor, strconv.FormatUint(ordinal, 10), r.method, r.url.String()} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	h.Write(r.body)
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:20])
}

func hostPort(u *url.URL) (host string, port uint16) {
	text := u.Port()
	if text == "" {
		n, _ := net.LookupPort("tcp", u.Scheme) // http and https are built in
		return u.Hostname(), uint16(n)
	}
	n, _ := strconv.ParseUint(text, 10, 16) // Clean has read it
	return u.Hostname(), uint16(n)
}

// send makes the request and returns the answer for the actor: {statusCode, header,
// body}.
func (l *link) send(ctx context.Context, r *request) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url.String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header = r.header
	if len(r.keys) > 0 {
		map[string][]string(req.Header)[idempotencyKey] = r.keys
	}
	if len(req.Header["User-Agent"]) == 0 {
		req.Header.Set("User-Agent", "edged")
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // only read from
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// What follows is no body, and may never end.
		return nil, errUpgrade
	}
	if resp.ContentLength > l.maxResponse && r.method != "HEAD" {
		return nil, fmt.Errorf("%w: a body of %d bytes, at most %d", errTooMuch, resp.ContentLength, l.maxResponse)
	}
	b, err := appendHead(make([]byte, 0, 2<<10), resp.StatusCode, resp.Header)
	if err != nil {
		return nil, err
	}
	if resp.ContentLength > 0 && r.method != "HEAD" {
		b = slices.Grow(b, int(resp.ContentLength)+16)
	}
	return appendBody(b, resp.Body, l.maxResponse)
}

// appendHead writes an answer up to its body. Names are in lower case, as the provider
// of wasmCloud has them.
func appendHead(b []byte, status int, header http.Header) ([]byte, error) {
	values := 0
	for _, v := range header {
		values += len(v)
	}
	if values > maxHeaderValues {
		return nil, fmt.Errorf("%w: %d headers, at most %d", errTooMuch, values, maxHeaderValues)
	}
	b = msgpack.AppendMapHeader(b, 3)
	b = msgpack.AppendInt(msgpack.AppendString(b, "statusCode"), int64(status))
	b = msgpack.AppendMapHeader(msgpack.AppendString(b, "header"), len(header))
	for _, name := range slices.Sorted(maps.Keys(header)) {
		b = msgpack.AppendArrayHeader(msgpack.AppendString(b, strings.ToLower(name)), len(header[name]))
		for _, v := range header[name] {
			b = msgpack.AppendString(b, strings.ToValidUTF8(v, "\uFFFD"))
		}
	}
	return b, nil
}

// appendBody reads the body to where it goes, so that it is in memory once: its length
// is written, in the widest form, when it is known.
func appendBody(b []byte, body io.Reader, most int64) ([]byte, error) {
	b = append(msgpack.AppendString(b, "body"), 0xc6, 0, 0, 0, 0)
	start := len(b)
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, 16<<10)
		}
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)-start) > most {
			return nil, fmt.Errorf("%w: a body of more than %d bytes", errTooMuch, most)
		}
		if errors.Is(err, io.EOF) {
			binary.BigEndian.PutUint32(b[start-4:], uint32(len(b)-start))
			return b, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
