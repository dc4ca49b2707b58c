package wire_test

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// pairs encodes a map from keys and encoded values, in the order given.
func pairs(kv ...any) []byte {
	b := msgpack.AppendMapHeader(nil, len(kv)/2)
	for i := 0; i < len(kv); i += 2 {
		b = append(msgpack.AppendString(b, kv[i].(string)), kv[i+1].([]byte)...)
	}
	return b
}

func text(s string) []byte { return msgpack.AppendString(nil, s) }

func bin(s string) []byte { return msgpack.AppendBin(nil, []byte(s)) }

func array(values ...[]byte) []byte {
	b := msgpack.AppendArrayHeader(nil, len(values))
	for _, v := range values {
		b = append(b, v...)
	}
	return b
}

var (
	nothing = msgpack.AppendNil(nil)
	actor   = pairs("public_key", text("MA"), "link_name", nothing, "contract_id", nothing)
	target  = pairs("contract_id", text("c:d"), "link_name", text("l"), "public_key", text("V"), "more", array(nothing))
)

func TestDecodeInvocation_oddForms(t *testing.T) {
	want := wire.Invocation{
		Origin: wire.Entity{Key: "MA"}, Target: wire.Entity{Key: "V", Link: "l", Contract: "c:d"},
		Operation: "A.B", Payload: []byte("xy"), ID: "1", Token: "t", Host: "h", Length: 2,
	}
	usual := []any{
		"origin", actor, "target", target, "operation", text("A.B"), "msg", bin("xy"), "id", text("1"),
		"encoded_claims", text("t"), "host_id", text("h"), "content_length", []byte{0xcf, 0, 0, 0, 0, 0, 0, 0, 2}, "traceContext", nothing,
	}
	with := func(key string, value []byte) []byte {
		kv := append([]any{}, usual...)
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == key {
				kv[i+1] = value
			}
		}
		return pairs(kv...)
	}
	var backward []any
	for i := len(usual) - 2; i >= 0; i -= 2 {
		backward = append(backward, usual[i], usual[i+1])
	}
	for name, b := range map[string][]byte{
		"usual":             pairs(usual...),
		"any order":         pairs(backward...),
		"more keys":         pairs(append([]any{"instance_id", array(text("a"), pairs())}, usual...)...),
		"signed length":     with("content_length", []byte{0xd3, 0, 0, 0, 0, 0, 0, 0, 2}),
		"payload str":       with("msg", text("xy")),
		"payload array":     with("msg", array([]byte{'x'}, []byte{0xcc, 'y'})),
		"trace of no text":  with("traceContext", pairs("a", nothing, "b", array())),
		"trace is an array": with("traceContext", array()),
		"array for a map":   array(array(text("MA"), nothing, text("")), target, text("A.B"), bin("xy"), text("1"), text("t"), text("h"), []byte{2}),
		"longer array":      array(actor, target, text("A.B"), bin("xy"), text("1"), text("t"), text("h"), []byte{2}, pairs(), pairs()),
	} {
		got, err := wire.DecodeInvocation(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if got, err := wire.DecodeInvocation(with("traceContext", pairs("traceparent", text("00-a-b-01")))); err != nil || got.Trace["traceparent"] != "00-a-b-01" {
		t.Errorf("trace: got %+v, %v", got.Trace, err)
	}
	// Of a peer before content_length, and one that put its payload elsewhere.
	without := append(append([]any{}, usual[:14]...), "unknown", nothing)
	if got, err := wire.DecodeInvocation(pairs(without...)); err != nil || got.Length != 0 || got.Chunked() {
		t.Errorf("no content_length: got %+v, %v", got, err)
	}
	if got, err := wire.DecodeInvocation(with("content_length", []byte{3})); err != nil || !got.Chunked() || got.Object() != "1" {
		t.Errorf("chunked: got %+v, %v", got, err)
	}
	long := strings.Repeat("x", 2000)
	for name, b := range map[string][]byte{
		"nothing":            nil,
		"nil":                nothing,
		"text":               text("x"),
		"no id":              with("id", nothing),
		"long id":            with("id", text(long)),
		"id is a number":     with("id", []byte{1}),
		"no operation":       with("operation", text("")),
		"long operation":     with("operation", text(long)),
		"long host":          with("host_id", text(long)),
		"long token":         with("encoded_claims", text(strings.Repeat(long, 9))),
		"no origin":          with("origin", nothing),
		"long name":          with("target", pairs("public_key", text(long))),
		"target is text":     with("target", text("V")),
		"payload of words":   with("msg", array(text("x"))),
		"payload of numbers": with("msg", array([]byte{0xcd, 1, 0})),
		"negative length":    with("content_length", []byte{0xff}),
		"short length":       with("content_length", []byte{1}),
		"two ids":            pairs(append([]any{"id", text("2")}, usual...)...),
		"two keys":           with("target", pairs("public_key", text("V"), "public_key", text("W"))),
		"trailing":           append(pairs(usual...), 0xc0),
		"huge map":           {0xdf, 0xff, 0xff, 0xff, 0xff},
		"huge array":         {0xdd, 0xff, 0xff, 0xff, 0xff},
	} {
		if got, err := wire.DecodeInvocation(b); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	// Who sent something wrong can be told.
	if got, err := wire.DecodeInvocation(with("operation", text(""))); err == nil || got.ID != "1" {
		t.Errorf("got id %q, %v", got.ID, err)
	}
}

func TestDecodeResponse_oddForms(t *testing.T) {
	ok := wire.Response{Payload: []byte("xy"), ID: "1", Length: 2}
	failed := wire.Response{ID: "1", Failed: true, Error: "no"}
	tests := []struct {
		name string
		b    []byte
		want wire.Response
	}{
		{"str", pairs("msg", text("xy"), "invocation_id", text("1"), "content_length", []byte{2}), ok},
		{"empty error", pairs("msg", bin("xy"), "invocation_id", text("1"), "error", text(""), "content_length", []byte{2}), ok},
		{"nil error", pairs("error", nothing, "instance_id", text("i"), "msg", bin("xy"), "invocation_id", text("1"), "content_length", []byte{2}), ok},
		{"array", array(bin("xy"), text("1"), nothing, []byte{2}), ok},
		{"failed", pairs("msg", array(), "invocation_id", text("1"), "error", text("no"), "content_length", []byte{0}), failed},
		{"failed with more", pairs("msg", bin("xy"), "invocation_id", text("1"), "error", text("no"), "content_length", []byte{9}), failed},
		{"no length", pairs("msg", bin("xy"), "invocation_id", text("1")), wire.Response{Payload: []byte("xy"), ID: "1"}},
		{"nil payload", pairs("msg", nothing, "invocation_id", text("1"), "content_length", []byte{0}), wire.Response{ID: "1"}},
	}
	for _, test := range tests {
		if got, err := wire.DecodeResponse(test.b); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, %v, want %+v", test.name, got, err, test.want)
		}
	}
	if r, err := wire.DecodeResponse(pairs("msg", bin(""), "invocation_id", text("1"), "content_length", []byte{9})); err != nil || !r.Chunked() || r.Object() != "1-r" {
		t.Errorf("chunked: got %+v, %v", r, err)
	}
	if r, err := wire.DecodeResponse(pairs("error", text(strings.Repeat("é", wire.MaxError)))); err != nil || len(r.Error) > wire.MaxError || !strings.HasSuffix(r.Error, "é") {
		t.Errorf("long error: got %d bytes, %v", len(r.Error), err)
	}
	for name, b := range map[string][]byte{
		"nil": nothing, "nothing": nil, "short length": pairs("msg", bin("xy"), "content_length", []byte{1}),
		"long id": pairs("invocation_id", text(strings.Repeat("x", 65))), "error is a number": pairs("error", []byte{1}),
		"two payloads": pairs("msg", bin("x"), "msg", bin("y")), "trailing": append(pairs(), 1),
	} {
		if got, err := wire.DecodeResponse(b); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// PROTOCOL 3.8 and trap 19: what providers and hosts of old read.
func TestResponse_Append_forOldPeers(t *testing.T) {
	r := wire.Response{Payload: []byte{1}, ID: "i", Length: 1}
	if got, want := r.Append(nil), []byte("\x83\xa3msg\xc4\x01\x01\xadinvocation_id\xa1i\xaecontent_length\x01"); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.Text = true
	if got, want := r.Append(nil), []byte("\x83\xa3msg\xa1\x01\xadinvocation_id\xa1i\xaecontent_length\x01"); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r = wire.Response{ID: "i", Failed: true, Error: "no", Text: true}
	if got, want := r.Append(nil), []byte("\x84\xa3msg\xa0\xadinvocation_id\xa1i\xa5error\xa2no\xaecontent_length\x00"); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	i := wire.Invocation{}
	if b := i.Append(nil); !bytes.Contains(b, []byte("\xa3msg\xc4\x00")) {
		t.Errorf("no payload: got %q", b)
	}
}

// Every envelope that ends early is refused, whatever byte it ends at.
func TestDecode_truncated(t *testing.T) {
	i := increment(t)
	i.Token, i.Trace = "token", map[string]string{"traceparent": "x"}
	r := wire.Response{Payload: []byte("payload"), ID: "1", Length: 7, Trace: i.Trace}
	l := wire.Link{Actor: "M", Provider: "V", Name: "default", Contract: "c", Values: map[string]string{"a": "b"}}
	h := wire.Health{Message: "ill"}
	for name, test := range map[string]struct {
		b      []byte
		decode func([]byte) error
	}{
		"invocation": {i.Append(nil), func(b []byte) error { _, err := wire.DecodeInvocation(b); return err }},
		"response":   {r.Append(nil), func(b []byte) error { _, err := wire.DecodeResponse(b); return err }},
		"link":       {l.Append(nil), func(b []byte) error { _, err := wire.DecodeLink(b); return err }},
		"health":     {h.Append(nil), func(b []byte) error { _, err := wire.DecodeHealth(b); return err }},
	} {
		if err := test.decode(test.b); err != nil {
			t.Errorf("%s: whole: %v", name, err)
		}
		for n := range test.b {
			if err := test.decode(test.b[:n]); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("%s of %d bytes, %d of them: got %v", name, len(test.b), n, err)
			}
		}
	}
}

func TestDecodeLink(t *testing.T) {
	want := wire.Link{Actor: "M", Provider: "V", Name: "default", Contract: "c", Values: map[string]string{"a": "b", "c": ""}}
	got, err := wire.DecodeLink(want.Append(nil))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	// A host of old adds an id; a deletion may say no more than who.
	got, err = wire.DecodeLink(pairs("id", text("x"), "actor_id", text("M")))
	if err != nil || got.Actor != "M" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := wire.DecodeLink(pairs("provider_id", text("V"))); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("no actor: got %v", err)
	}
}

// PROTOCOL 4.4.
func TestHealth(t *testing.T) {
	h := wire.Health{Healthy: true}
	if got, want := h.Append(nil), []byte("\x81\xa7healthy\xc3"); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got, err := wire.DecodeHealth(pairs("healthy", msgpack.AppendBool(nil, false), "message", text("ill")))
	if err != nil || got != (wire.Health{Message: "ill"}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestEntity_URL(t *testing.T) {
	for want, e := range map[string]wire.Entity{
		"wasmbus://M1":                         {Key: "M1"},
		"wasmbus://m1":                         {Key: "m1", Link: "ignored", Contract: "ignored"},
		"wasmbus://wasmcloud/key_value/a_b/VX": {Key: "VX", Link: "A b", Contract: "wasmCloud:Key Value"},
		"wasmbus:////system":                   {Key: "system"},
	} {
		if got := e.URL(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestIsToken(t *testing.T) {
	for _, s := range []string{"default", "a_B-9", module} {
		if !wire.IsToken(s) {
			t.Errorf("%q is one", s)
		}
	}
	for _, s := range []string{"", "a.b", "*", ">", "a b", "a/b", "é", "a\n", strings.Repeat("a", 513)} {
		if wire.IsToken(s) {
			t.Errorf("%q is none", s)
		}
	}
}

func TestCheck_dates(t *testing.T) {
	seed, err := claims.ParseSeed(cluster)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1700000000, 0)
	at := func(seconds int64) *int64 { s := now.Unix() + seconds; return &s }
	for name, test := range map[string]struct {
		expires, notBefore *int64
		ok                 bool
	}{
		"none":    {nil, nil, true},
		"within":  {at(1), at(0), true},
		"expired": {at(0), nil, false},
		"early":   {nil, at(1), false},
	} {
		i := increment(t)
		i.Token = checkToken(t, i)
		c, err := claims.Verify[map[string]string](i.Token)
		if err != nil {
			t.Fatal(err)
		}
		c.Expires, c.NotBefore = test.expires, test.notBefore
		if i.Token, err = claims.Sign(c, seed); err != nil {
			t.Fatal(err)
		}
		if _, err := wire.Check(&i, i.Payload, now); (err == nil) != test.ok || err != nil && !errors.Is(err, wire.ErrForged) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := wire.Check(&i, i.Payload, time.Time{}); err != nil {
			t.Errorf("%s, without a clock: got %v", name, err)
		}
	}
}

func TestSign_clusterOnly(t *testing.T) {
	seed, err := claims.Generate(claims.Server)
	if err != nil {
		t.Fatal(err)
	}
	i := increment(t)
	if err := wire.Sign(&i, i.Payload, seed); !errors.Is(err, claims.ErrKey) {
		t.Errorf("got %v, want ErrKey", err)
	}
}
