package wire_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/wire"
)

func sessionKey(t testing.TB) wire.SessionKey {
	t.Helper()
	seed, err := claims.ParseSeed(cluster)
	if err != nil {
		t.Fatal(err)
	}
	return wire.NewSessionKey(seed)
}

// The constructed value: others who implement a session compare with it.
func TestSessionKey_Seal_checkValue(t *testing.T) {
	k := sessionKey(t)
	i := increment(t)
	k.Seal(&i, i.Payload, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", 7)
	const want = "edged-session.ABCDEFGHIJKLMNOPQRSTUVWXYZ.7.aa0bb94e3838a749411916884e016bb6babcc47f69bd0fd6a64dafa6823887a7"
	if i.Token != want {
		t.Errorf("got %s, want %s", i.Token, want)
	}
	if !wire.InSession(&i) {
		t.Error("it is not known as one of a session")
	}
}

func TestSessions_Check(t *testing.T) {
	k := sessionKey(t)
	s := wire.NewSessions(k)
	first := s.New()
	check := func(name string, number uint64, change func(*wire.Invocation)) error {
		i := increment(t)
		k.Seal(&i, i.Payload, name, number)
		if change != nil {
			change(&i)
		}
		return s.Check(&i, i.Payload)
	}
	for _, n := range []uint64{1, 3, 2, 4096, 5, 9000, 8999, 4905} { // in and out of order
		if err := check(first, n, nil); err != nil {
			t.Errorf("call %d: %v", n, err)
		}
	}
	for name, err := range map[string]error{
		"again":           check(first, 8999, nil),
		"the last again":  check(first, 9000, nil),
		"too far back":    check(first, 4904, nil),
		"far back again":  check(first, 3, nil),
		"number zero":     check(first, 0, nil),
		"another payload": check(first, 9001, func(i *wire.Invocation) { i.Payload = []byte("x") }),
		"another target":  check(first, 9001, func(i *wire.Invocation) { i.Target.Link = "x" }),
		"another caller":  check(first, 9001, func(i *wire.Invocation) { i.Origin.Key = provider }),
		"operation":       check(first, 9001, func(i *wire.Invocation) { i.Operation = "x" }),
		"id":              check(first, 9001, func(i *wire.Invocation) { i.ID = "x" }),
		"number":          check(first, 9001, func(i *wire.Invocation) { i.Token = strings.Replace(i.Token, ".9001.", ".9002.", 1) }),
		"no code":         check(first, 9001, func(i *wire.Invocation) { i.Token = i.Token[:strings.LastIndex(i.Token, ".")+1] }),
		"session":         check(strings.Repeat("A", 26), 9001, nil),
		"a token":         check(first, 9001, func(i *wire.Invocation) { i.Token = "a.b.c" }),
	} {
		if !errors.Is(err, wire.ErrForged) {
			t.Errorf("%s: got %v, want ErrForged", name, err)
		}
	}
	if err := check(first, 9001, nil); err != nil {
		t.Errorf("what was refused has taken the number: %v", err)
	}
	for range 7 {
		s.New()
	}
	if err := check(first, 9002, nil); err != nil {
		t.Errorf("one of eight sessions: %v", err)
	}
	s.New()
	if err := check(first, 9003, nil); !errors.Is(err, wire.ErrForged) {
		t.Errorf("a forgotten session: got %v, want ErrForged", err)
	}
}

func FuzzSessions_Check(f *testing.F) {
	k := sessionKey(f)
	s := wire.NewSessions(k)
	i := increment(f)
	k.Seal(&i, i.Payload, s.New(), 1)
	f.Add(i.Token, i.Payload)
	f.Add("edged-session...", []byte(nil))
	f.Add("edged-session.ABCDEFGHIJKLMNOPQRSTUVWXYZ.18446744073709551615.", []byte("x"))
	good := i.Token
	f.Fuzz(func(t *testing.T, token string, payload []byte) {
		i := increment(t)
		i.Token = token
		if err := s.Check(&i, payload); err == nil && token != good {
			t.Errorf("%q is accepted", token)
		}
	})
}
