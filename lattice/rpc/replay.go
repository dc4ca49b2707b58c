package rpc

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

// maxSeen bounds how many invocations are remembered, at some 50 bytes each. The
// oldest are forgotten first.
const maxSeen = 1 << 16

// mark stands for an invocation: its issuer and id.
type mark [16]byte

// memory knows which invocations came within a time. It holds only what was
// signed by somebody trusted, so that strangers can not make it forget.
type memory struct {
	window time.Duration

	mu    sync.Mutex // guards what follows
	known map[mark]struct{}
	queue []seenAt // a ring
	head  int      // of the oldest in queue
	n     int      // in queue
}

type seenAt struct {
	mark mark
	at   time.Time
}

func newMemory(window time.Duration) *memory {
	return &memory{window: window, known: make(map[mark]struct{})}
}

// first says whether an invocation comes for the first time, and remembers it.
func (m *memory) first(issuer claims.Key, id string) bool {
	sum := sha256.Sum256([]byte(issuer.String() + " " + id))
	k := mark(sum[:16])
	now := time.Now() // its monotonic part: what a clock is set to is of no account
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.n > 0 && now.Sub(m.queue[m.head].at) >= m.window {
		m.forget()
	}
	if _, seen := m.known[k]; seen {
		return false
	}
	if m.n == maxSeen {
		m.forget()
	}
	if m.n == len(m.queue) {
		m.grow()
	}
	m.queue[(m.head+m.n)%len(m.queue)] = seenAt{k, now}
	m.n++
	m.known[k] = struct{}{}
	return true
}

// forget drops the oldest.
func (m *memory) forget() {
	delete(m.known, m.queue[m.head].mark)
	m.head = (m.head + 1) % len(m.queue)
	m.n--
}

// grow makes room in the ring.
func (m *memory) grow() {
	next := make([]seenAt, max(64, 2*len(m.queue)))
	copied := copy(next, m.queue[m.head:])
	copy(next[copied:], m.queue[:m.head])
	m.queue, m.head = next, 0
}
