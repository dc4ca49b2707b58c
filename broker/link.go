package broker

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// linkPoll is how often the embedded server is asked whether the leaf
// connection is there. It tells nobody of its own accord without a system
// account client, and the question is one lock.
const linkPoll = 100 * time.Millisecond

// leafRemote is the leaf connection to the hub. Its local account is LINK.
func leafRemote(h *HubOptions) (*server.RemoteLeafOpts, error) {
	u, err := parseHubURL(h.URL)
	if err != nil {
		return nil, err
	}
	r := &server.RemoteLeafOpts{
		LocalAccount: AccountLink,
		Credentials:  h.Credentials,
		// Narrow links are slow to begin with.
		FirstInfoTimeout: 5 * time.Second,
		// Addresses that the hub's servers have among themselves are rarely
		// reachable from where a box stands; it calls where its file says.
		IgnoreDiscoveredServers: true,
	}
	// nats-server 2.15.2 never dials again when the connection is reset between
	// the hub's greeting and the answer that negotiates compression.
	r.Compression.Mode = server.CompressionOff
	r.URLs = append(r.URLs, u)
	if u.Scheme == "tls" || u.Scheme == "wss" {
		r.TLS = true
		r.TLSTimeout = 5
	}
	return r, nil
}

// linkState knows which leaf connection is up, and tells who asks.
type linkState struct {
	mu      sync.Mutex // guards the fields below
	id      uint64     // of the connection; 0 while there is none
	since   time.Time
	downs   uint64
	changed chan struct{} // closed at the next change
}

func newLinkState(now time.Time) *linkState {
	return &linkState{since: now, changed: make(chan struct{})}
}

// set notes the connection and returns the one before; lasted is for how long
// that state had been.
func (l *linkState) set(id uint64, now time.Time) (before uint64, lasted time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, lasted = l.id, now.Sub(l.since)
	if id == before {
		return before, lasted
	}
	l.id, l.since = id, now
	if before != 0 {
		l.downs++
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return before, lasted
}

// LinkUp says whether the leaf connection to the hub is there. A connection
// that fell into a black hole counts as there until its pings go unanswered.
func (s *Server) LinkUp() bool {
	up, _ := s.LinkState()
	return up
}

// LinkState returns what LinkUp does, and a channel that is closed at the next
// change: up, down, or another connection than before.
func (s *Server) LinkState() (up bool, changed <-chan struct{}) {
	l := s.link
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id != 0, l.changed
}

// watchLink follows the leaf connection until ctx ends.
func (s *Server) watchLink(ctx context.Context) {
	tick := time.NewTicker(linkPoll)
	defer tick.Stop()
	for {
		s.noteLink(s.nats.leafID())
		select {
		case <-ctx.Done():
			s.link.set(0, time.Now())
			return
		case <-tick.C:
		}
	}
}

// leafID returns the id of the leaf connection, 0 if there is none. A connection
// that was lost and made again between two looks has another id.
func (e *embedded) leafID() uint64 {
	if e.ns.NumLeafNodes() == 0 {
		return 0
	}
	z, err := e.ns.Leafz(nil)
	if err != nil || len(z.Leafs) == 0 {
		return 0
	}
	return z.Leafs[0].ID
}

func (s *Server) noteLink(id uint64) {
	before, lasted := s.link.set(id, time.Now())
	switch {
	case id == before:
	case before == 0:
		s.nats.log.forget()
		s.log.Info("link to the hub is up", "down_for", lasted.Round(time.Millisecond))
	case id == 0:
		s.log.Warn("link to the hub is down", "up_for", lasted.Round(time.Millisecond))
	default:
		s.log.Warn("link to the hub was lost and is up again", "up_for", lasted.Round(time.Millisecond))
	}
}
