package wire

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"strconv"
	"strings"
	"sync"
)

// In a session with its own host a provider is called without the signature of a token
// each time: an addition of edged's to the protocol. The host asks for one by the header
// with "?" in a call that has a token; the name of the session comes with the answer.
// From then on encoded_claims is "edged-session.NAME.NUMBER.CODE", where the code is
// HMAC-SHA256 over "NAME.NUMBER.ID.HASH", with the hash of a token, under the SHA-256 of
// "edged session key 1\n" and the invocation seed. No number is taken twice.
const (
	HeaderSession  = "Edged-Session"
	sessionPrefix  = "edged-session."
	sessionUnknown = "unknown" // the call was not handled, and is to come with a token
	sessionWindow  = 4096      // how far numbers may come out of order
	maxSessions    = 8
)

var errSession = errors.New("the session is not known, or the call was seen before")

// Sessions are those with the own host. Its methods may be called from any goroutine.
type Sessions struct {
	macs  sync.Pool  // of hash.Hash under the key: to make one costs as much as to use it
	mu    sync.Mutex // guards known, which has the newest last
	known []*session
}

type session struct {
	name  string
	last  uint64
	taken [sessionWindow]bool // by number
}

func (s *Sessions) begin() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = append(s.known, &session{name: rand.Text()})
	s.known = s.known[max(0, len(s.known)-maxSessions):]
	return s.known[len(s.known)-1].name
}

// NewSessions returns the sessions under an invocation seed; there are none yet.
func NewSessions(seed string) *Sessions {
	key := sha256.Sum256([]byte("edged session key 1\n" + seed))
	return &Sessions{macs: sync.Pool{New: func() any { return hmac.New(sha256.New, key[:]) }}}
}

// InSession says whether a call has the code of a session in the place of a token.
func InSession(e *Call) bool { return strings.HasPrefix(e.Token, sessionPrefix) }

// Check fails for a call that is not of a session, with this payload, or was seen
// before.
func (s *Sessions) Check(e *Call, payload []byte) error {
	name, rest, _ := strings.Cut(strings.TrimPrefix(e.Token, sessionPrefix), ".")
	digits, code, _ := strings.Cut(rest, ".")
	number, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || number == 0 || len(e.Token) > 256 || !hmac.Equal([]byte(code), s.code(e, payload, name, number)) {
		return errSession
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.known {
		if k.name == name && k.take(number) {
			return nil
		}
	}
	return errSession
}

// code is what a call in a session is known by, in lower-case hex.
func (s *Sessions) code(e *Call, payload []byte, name string, number uint64) []byte {
	var c Claims
	c.describe(e, payload)
	text := make([]byte, 0, 256)
	text = append(append(text, name...), '.')
	text = append(strconv.AppendUint(text, number, 10), '.')
	text = append(append(append(text, e.ID...), '.'), c.Wascap.Hash...)
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	mac.Write(text)
	return hex.AppendEncode(nil, mac.Sum(text[:0]))
}

func (s *session) take(n uint64) bool {
	if n+sessionWindow <= s.last || n <= s.last && s.taken[n%sessionWindow] {
		return false
	}
	for i := max(s.last, n-min(n, sessionWindow)) + 1; i < n; i++ { // those between are still to come
		s.taken[i%sessionWindow] = false
	}
	s.taken[n%sessionWindow], s.last = true, max(s.last, n)
	return true
}

// Say is what the answer to a call says of its session, in the header, "" for nothing:
// asked is what the call has there, err why it failed.
func (s *Sessions) Say(e *Call, asked string, err error) string {
	switch {
	case errors.Is(err, errSession):
		return sessionUnknown
	case InSession(e) && err != nil:
		return "known"
	case asked == "?" && err == nil:
		return s.begin()
	}
	return ""
}
