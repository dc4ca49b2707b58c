package wire

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"

	"github.com/edged-io/edged/internal/claims"
)

// A session spares a host and a provider the signature of each call. It is an addition
// of ours to the protocol: both have the seed that the host gave the provider and
// nobody else, and where both know of sessions, a code under a key made from it stands
// in the place of the token. Either side may forget a session at any time: the next
// call has a token again.
//
// A host asks for one by HeaderSession with SessionAsk in a call with a token; the
// answer has the name of one there if the provider knows of sessions. A call in a
// session has "edged-session.NAME.NUMBER.CODE" in encoded_claims. The code is
// HMAC-SHA256, in lower-case hex, over "NAME.NUMBER.ID.HASH" with the id of the
// invocation and the hash that a token would have. NUMBER counts from 1 and no number is
// taken twice. An answer that has SessionUnknown in the header says that the call was
// not handled and is to come again with a token.
const (
	HeaderSession  = "Edged-Session"
	SessionAsk     = "?"
	SessionUnknown = "unknown"
)

const (
	sessionPrefix = "edged-session."
	// sessionWindow is how far numbers may come out of order.
	sessionWindow = 4096
	maxSessions   = 8 // that a receiver remembers
	sessionName   = 26
)

// SessionKey is what both ends of a session have. It prints nothing of itself.
type SessionKey struct {
	macs *sync.Pool // of hash.Hash under the key: to make one costs as much as to use it
}

// NewSessionKey makes the key of a provider from the seed that its host gave it and
// nobody else.
func NewSessionKey(seed claims.Seed) SessionKey {
	key := sha256.Sum256([]byte("edged session key 1\n" + seed.Reveal()))
	return SessionKey{&sync.Pool{New: func() any { return hmac.New(sha256.New, key[:]) }}}
}

// String keeps the key out of texts.
func (SessionKey) String() string { return "[session key]" }

// GoString keeps the key out of %#v.
func (SessionKey) GoString() string { return "[session key]" }

// code is what a call in a session is known by.
func (k *SessionKey) code(i *Invocation, payload []byte, name string, number uint64) string {
	c := claimsOf(i, payload)
	mac := k.macs.Get().(hash.Hash)
	defer k.macs.Put(mac)
	mac.Reset()
	b := make([]byte, 0, 256)
	b = append(append(b, name...), '.')
	b = append(strconv.AppendUint(b, number, 10), '.')
	b = append(append(b, i.ID...), '.')
	mac.Write(append(b, c.Hash...))
	var sum [sha256.Size]byte
	return hex.EncodeToString(mac.Sum(sum[:0]))
}

// Seal gives i a code in the place of a token. payload is the whole one. A number must
// not be used twice.
func (k *SessionKey) Seal(i *Invocation, payload []byte, name string, number uint64) {
	i.Token = sessionPrefix + name + "." + strconv.FormatUint(number, 10) + "." + k.code(i, payload, name, number)
}

// InSession says whether i has a code in the place of a token.
func InSession(i *Invocation) bool { return strings.HasPrefix(i.Token, sessionPrefix) }

// Sessions are those of a receiver, a provider. Its methods may be called from any
// goroutine.
type Sessions struct {
	key SessionKey

	mu    sync.Mutex // guards known, which has the newest last
	known []*session
}

// NewSessions returns the sessions under a key; there are none yet.
func NewSessions(key SessionKey) *Sessions { return &Sessions{key: key} }

// session has a window of numbers that were taken.
type session struct {
	name  string
	last  uint64
	taken [sessionWindow / 64]uint64
}

// New begins a session and returns its name. The oldest is forgotten when there are too
// many.
func (s *Sessions) New() string {
	name := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) == maxSessions {
		s.known = s.known[1:]
	}
	s.known = append(s.known, &session{name: name})
	return name
}

// Check holds an invocation against its code, once. payload is the whole one. Errors
// wrap ErrForged.
func (s *Sessions) Check(i *Invocation, payload []byte) error {
	rest, ok := strings.CutPrefix(i.Token, sessionPrefix)
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 3 || len(parts[0]) != sessionName {
		return forged("not the form of a session")
	}
	number, err := strconv.ParseUint(parts[1], 10, 63)
	if err != nil || number == 0 {
		return forged("not the number of a call in a session")
	}
	if !hmac.Equal([]byte(s.key.code(i, payload, parts[0], number)), []byte(parts[2])) {
		return forged("the code of the session does not fit")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.known {
		if k.name == parts[0] {
			return k.take(number)
		}
	}
	return forged("the session is not known")
}

// take notes a number.
func (s *session) take(n uint64) error {
	switch {
	case n > s.last:
		if n-s.last >= sessionWindow {
			clear(s.taken[:])
		} else {
			for i := s.last + 1; i < n; i++ {
				s.set(i, false)
			}
		}
		s.last = n
	case s.last-n >= sessionWindow, s.taken[n/64%uint64(len(s.taken))]>>(n%64)&1 == 1:
		return fmt.Errorf("%w: call %d of the session was seen before", ErrForged, n)
	}
	s.set(n, true)
	return nil
}

func (s *session) set(n uint64, taken bool) {
	word, bit := &s.taken[n/64%uint64(len(s.taken))], uint64(1)<<(n%64)
	if taken {
		*word |= bit
	} else {
		*word &^= bit
	}
}
