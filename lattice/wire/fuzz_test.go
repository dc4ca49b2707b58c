package wire_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/edged-io/edged/lattice/wire"
)

// What was read is written so that it reads the same.

func FuzzDecodeInvocation(f *testing.F) {
	i := increment(f)
	i.Token = "token"
	f.Add(i.Append(nil))
	f.Add(array(array(text("MA")), target, text("A.B"), array([]byte{1}), text("1")))
	f.Add(pairs("id", text("1"), "traceContext", pairs("a", text("b"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := wire.DecodeInvocation(b)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("got %v", err)
			}
			return
		}
		again, err := wire.DecodeInvocation(got.Append(nil))
		got.Payload, again.Payload = append([]byte{}, got.Payload...), append([]byte{}, again.Payload...)
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("got %+v, then %+v, %v", got, again, err)
		}
		if _, err := wire.Check(&got, got.Payload, time.Now()); err != nil && !errors.Is(err, wire.ErrForged) {
			t.Fatalf("check: %v", err)
		}
	})
}

func FuzzDecodeResponse(f *testing.F) {
	for _, r := range []wire.Response{{Payload: []byte("x"), ID: "1", Length: 1}, {ID: "1", Failed: true, Error: "no"}, {ID: "1", Length: 1 << 40}} {
		f.Add(r.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := wire.DecodeResponse(b)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("got %v", err)
			}
			return
		}
		for _, asText := range []bool{false, true} {
			got.Text = asText
			again, err := wire.DecodeResponse(got.Append(nil))
			again.Text = asText
			got.Payload, again.Payload = append([]byte{}, got.Payload...), append([]byte{}, again.Payload...)
			if err != nil || !reflect.DeepEqual(got, again) {
				t.Fatalf("got %+v, then %+v, %v", got, again, err)
			}
		}
	})
}

func FuzzDecodeLink(f *testing.F) {
	l := wire.Link{Actor: "M", Provider: "V", Name: "default", Contract: "c", Values: map[string]string{"a": "b"}}
	f.Add(l.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := wire.DecodeLink(b)
		if err != nil {
			return
		}
		again, err := wire.DecodeLink(got.Append(nil))
		if len(got.Values) == 0 {
			got.Values, again.Values = nil, nil
		}
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("got %+v, then %+v, %v", got, again, err)
		}
	})
}

func FuzzCheck_token(f *testing.F) {
	i := increment(f)
	f.Add(checkToken(f, i))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		i := increment(t)
		i.Token = token
		if _, err := wire.Check(&i, i.Payload, time.Now()); err == nil {
			if token != checkToken(t, i) {
				t.Fatalf("another token is accepted: %s", token)
			}
		} else if !errors.Is(err, wire.ErrForged) {
			t.Fatalf("got %v", err)
		}
	})
}
