package wire

import (
	"strings"
	"testing"
)

// The code that package lattice/wire has for the same call: both ends agree.
func TestSessions_check(t *testing.T) {
	s := NewSessions(clusterSeed)
	const name = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	const known = sessionPrefix + name + ".7.aa0bb94e3838a749411916884e016bb6babcc47f69bd0fd6a64dafa6823887a7"
	e, payload := example(t)
	e.Token = known
	if s.Check(&e, payload) == nil {
		t.Error("a session that has not begun is known")
	}
	s.begin()
	s.known[0].name = name
	for what, token := range map[string]string{
		"another number": strings.Replace(known, ".7.", ".8.", 1), "another code": known[:len(known)-1] + "8", "no code": known[:60], "nothing": sessionPrefix,
		"not a number": strings.Replace(known, ".7.", ".x.", 1), "long": known + strings.Repeat("0", 300),
	} {
		e.Token = token
		if s.Check(&e, payload) == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	e.Token = known
	if s.Check(&e, payload[1:]) == nil {
		t.Error("another payload is accepted")
	}
	if err := s.Check(&e, payload); err != nil {
		t.Error(err)
	}
	if s.Check(&e, payload) == nil {
		t.Error("the same call is accepted again")
	}
	for range maxSessions {
		s.begin()
	}
	if len(s.known) != maxSessions || s.known[0].name == name {
		t.Errorf("%d sessions are known, the first is %s", len(s.known), s.known[0].name)
	}
}

func TestSession_take(t *testing.T) {
	var s session
	for _, n := range []uint64{1, 3, 2, 4096, 5, 9000, 8999, 4905, 1 << 40} {
		if !s.take(n) {
			t.Errorf("%d is refused", n)
		}
		if s.take(n) {
			t.Errorf("%d is taken twice", n)
		}
	}
	if s.take(9000) || s.take(1<<40-sessionWindow) || !s.take(1<<40-sessionWindow+1) {
		t.Error("the window has another size")
	}
}
