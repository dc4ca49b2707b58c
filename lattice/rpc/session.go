package rpc

import (
	"context"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
)

// session is what is known of the session with a provider, for as long as it has a
// seed in common with this host.
type session struct {
	key wire.SessionKey

	mu     sync.Mutex // guards what follows
	name   string     // "" while there is none
	number uint64     // of the last call in it
	asking bool       // a call that is under way asks for one
}

// ShareSeed says that a provider has a seed from this host that nobody else has. Calls
// of it need no signature each, if it knows of sessions, as wire.HeaderSession has them.
func (l *Lattice) ShareSeed(provider, link string, seed claims.Seed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions[lattice.Entity{Key: provider, Link: link}] = &session{key: wire.NewSessionKey(seed)}
}

// UnshareSeed ends what ShareSeed began.
func (l *Lattice) UnshareSeed(provider, link string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sessions, lattice.Entity{Key: provider, Link: link})
}

// sessionOf returns the session with the target of an invocation, nil if there can be
// none.
func (l *Lattice) sessionOf(inv *wire.Invocation) *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sessions[lattice.Entity{Key: inv.Target.Key, Link: inv.Target.Link}]
}

// callInSession calls within the session, or asks for one in a call with a token. It
// says again if the call was not handled and has to be made with a token.
func (l *Lattice) callInSession(ctx context.Context, s *session, m *nats.Msg, inv *wire.Invocation) (reply []byte, again bool, err error) {
	name, number, asks := s.next()
	switch {
	case name != "":
		s.key.Seal(inv, inv.Payload, name, number)
	case asks:
		m.Header[wire.HeaderSession] = []string{wire.SessionAsk}
		defer s.asked()
		fallthrough
	default:
		if err := wire.Sign(inv, inv.Payload, l.signer); err != nil {
			return nil, false, err
		}
	}
	m.Data = inv.Append(nil)
	answer, err := l.request(ctx, m, inv, l.o.Timeout)
	if err != nil {
		return nil, false, err
	}
	reply, err = l.read(ctx, answer, inv)
	said := answer.Header[wire.HeaderSession]
	switch {
	case name != "" && slices.Equal(said, []string{wire.SessionUnknown}):
		s.forget(name)
		return nil, true, nil
	case name != "" && err != nil && len(said) == 0:
		s.forget(name) // somebody answers who knows nothing of it
	case asks && len(said) == 1 && len(said[0]) <= maxSessionName && wire.IsToken(said[0]):
		s.begin(said[0])
	}
	return reply, false, err
}

// maxSessionName is more than the name of a session has.
const maxSessionName = 64

// next returns what the next call is known by. Without a session one call asks for one.
func (s *session) next() (name string, number uint64, asks bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name == "" {
		asks, s.asking = !s.asking, true
		return "", 0, asks
	}
	s.number++
	return s.name, s.number, false
}

func (s *session) asked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking = false
}

func (s *session) begin(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name, s.number = name, 0
}

// forget ends the session, if it is still that one.
func (s *session) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.name == name {
		s.name = ""
	}
}
