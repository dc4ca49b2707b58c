package httpserver

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/edged-io/edged/internal/httpsettings"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// The MessagePack of wasmcloud:httpserver. A request is a map of method, path,
// queryString (str), header (map of str to arrays of str) and body (bin), all of
// them always there; a response of statusCode, header and body.

// appendRequest appends a request. Path and query are as they were sent, escapes
// included.
func appendRequest(b []byte, r *http.Request, body []byte) []byte {
	b = msgpack.AppendMapHeader(b, 5)
	b = msgpack.AppendString(msgpack.AppendString(b, "method"), r.Method)
	b = msgpack.AppendString(msgpack.AppendString(b, "path"), r.URL.EscapedPath())
	b = msgpack.AppendString(msgpack.AppendString(b, "queryString"), text(r.URL.RawQuery))
	header := endToEnd(r.Header)
	header["host"] = []string{r.Host}
	b = msgpack.AppendMapHeader(msgpack.AppendString(b, "header"), len(header))
	for _, name := range slices.Sorted(maps.Keys(header)) {
		b = msgpack.AppendArrayHeader(msgpack.AppendString(b, name), len(header[name]))
		for _, v := range header[name] {
			b = msgpack.AppendString(b, text(v))
		}
	}
	return msgpack.AppendBin(msgpack.AppendString(b, "body"), body)
}

// sizeOfRequest is about what a request takes without its body.
func sizeOfRequest(r *http.Request) int {
	n := 256 + len(r.URL.Path) + len(r.URL.RawQuery)
	for name, values := range r.Header {
		n += len(name) + 8
		for _, v := range values {
			n += len(v) + 8
		}
	}
	return n
}

// text makes UTF-8 of bytes that a client may send and a str may not have.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// hopByHop are headers of a connection and not of a message (RFC 9110, 7.6.1).
var hopByHop = map[string]bool{
	"connection": true, "keep-alive": true, "proxy-connection": true, "proxy-authenticate": true, "proxy-authorization": true,
	"te": true, "trailer": true, "transfer-encoding": true, "upgrade": true, "http2-settings": true,
}

// endToEnd returns a header without what belongs to its connection, names in
// lower case.
func endToEnd(h http.Header) map[string][]string {
	out := make(map[string][]string, len(h)+1)
	for name, values := range h {
		if name = strings.ToLower(name); !hopByHop[name] {
			out[name] = append(out[name], values...)
		}
	}
	for _, v := range h["Connection"] { // it names others
		for name := range strings.SplitSeq(v, ",") {
			delete(out, strings.ToLower(strings.TrimSpace(name)))
		}
	}
	return out
}

// response is what an actor answered.
type response struct {
	status int
	header http.Header
	body   []byte
}

const (
	maxHeaders     = 256      // values in the header of a response
	maxHeaderBytes = 64 << 10 // names and values
)

// errResponse is an answer that can not be sent.
var errResponse = errors.New("not a response")

// decodeResponse reads what an actor answered, and refuses what can not be sent:
// a status outside 200 to 599, header names and values that are none. The body is
// a part of b.
func decodeResponse(b []byte) (response, error) {
	if len(b) == 0 {
		return response{}, fmt.Errorf("%w: the actor gave no bytes", errResponse)
	}
	r := response{header: make(http.Header)}
	d := providers.Decoder(b)
	var bad error
	providers.Struct(d, []string{"statusCode", "header", "body"}, func(name string) {
		if bad != nil {
			return
		}
		switch name {
		case "statusCode":
			r.status = int(d.IntIn(0, 65535))
		case "header":
			bad = decodeHeader(d, r.header)
		case "body":
			r.body = d.Bin()
		default:
			d.Skip()
		}
	})
	switch {
	case bad != nil:
		return response{}, fmt.Errorf("%w: %w", errResponse, bad)
	case d.Done() != nil:
		return response{}, fmt.Errorf("%w: %w", errResponse, d.Done())
	case r.status < 200 || r.status > 599:
		return response{}, fmt.Errorf("%w: status %d, want 200 to 599", errResponse, r.status)
	}
	return r, nil
}

// decodeHeader reads a map of str to arrays of str, or to one str. What belongs
// to the connection is left out, and so is the length, which is that of the body.
func decodeHeader(d *msgpack.Decoder, h http.Header) error {
	values, size := 0, 0
	for range d.Map() {
		name := d.Str()
		n := 1
		if d.Kind() != msgpack.Str {
			n = d.Array()
		}
		if !httpsettings.IsToken(name) && d.Err() == nil {
			return fmt.Errorf("header name %.100q", name)
		}
		lower := strings.ToLower(name)
		drop := hopByHop[lower] || lower == "content-length"
		for range n {
			v := d.Str()
			if values++; values > maxHeaders {
				return fmt.Errorf("more than %d values in the header", maxHeaders)
			}
			if size += len(name) + len(v); size > maxHeaderBytes {
				return fmt.Errorf("more than %d bytes in the header", maxHeaderBytes)
			}
			if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				return fmt.Errorf("value %.100q of header %s", v, name)
			}
			if !drop {
				h.Add(name, v)
			}
		}
	}
	return nil
}
