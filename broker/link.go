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
	}
	r.URLs = append(r.URLs, u)
	if u.Scheme == "tls" || u.Scheme == "wss" {
		r.TLS = true
		r.TLSTimeout = 5
	}
	return r, nil
}

// linkState knows whether the leaf connection is up, and tells who asks.
type linkState struct {
	mu      sync.Mutex // guards the fields below
	up      bool
	since   time.Time
	downs   uint64
	changed chan struct{} // closed at the next change
}

func newLinkState(now time.Time) *linkState {
	return &linkState{since: now, changed: make(chan struct{})}
}

// set notes the state and says whether it is news; took is how long the last
// one lasted.
func (l *linkState) set(up bool, now time.Time) (news bool, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up == up {
		return false, 0
	}
	took = now.Sub(l.since)
	l.up, l.since = up, now
	if !up {
		l.downs++
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return true, took
}

// LinkUp says whether the leaf connection to the hub is there. A connection
// that fell into a black hole counts as there until its pings go unanswered.
func (s *Server) LinkUp() bool {
	up, _ := s.LinkState()
	return up
}

// LinkState returns what LinkUp does, and a channel that is closed at the next
// change.
func (s *Server) LinkState() (up bool, changed <-chan struct{}) {
	l := s.link
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up, l.changed
}

// watchLink follows the leaf connection until ctx ends.
func (s *Server) watchLink(ctx context.Context) {
	tick := time.NewTicker(linkPoll)
	defer tick.Stop()
	for {
		s.noteLink(s.nats.ns.NumLeafNodes() > 0)
		select {
		case <-ctx.Done():
			s.link.set(false, time.Now())
			return
		case <-tick.C:
		}
	}
}

func (s *Server) noteLink(up bool) {
	news, took := s.link.set(up, time.Now())
	switch {
	case !news:
	case up:
		s.nats.log.forget()
		s.log.Info("link to the hub is up", "down_for", took)
	default:
		s.log.Warn("link to the hub is down", "up_for", took)
	}
}
