package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/store"
)

// session is what the listener remembers of one client id, connected or not.
type session struct {
	id      string
	repeats *repeats
	online  atomic.Bool

	// These belong to the connection, or to who holds Listener.mu while there is none.
	conn      *conn
	kept      bool          // it outlives its connection
	recorded  bool          // it has a record on disk
	expiry    time.Duration // how long it is kept without a connection
	saved     time.Duration // expiry in the record
	awaySince time.Time
	received  map[uint16]bool // QoS 2 from the client: PUBREC owed (false) or sent (true), PUBREL not yet come
	will      *time.Timer     // a delayed will

	mu   sync.Mutex // guards what follows
	subs map[string]subscription
	out  outbound
	wake func() // of the connection's writer; nil when there is none
}

// sessionRecord is the session on disk. Its queue is not.
type sessionRecord struct {
	Version       int            `json:"v"`
	Epoch         []byte         `json:"epoch"`
	ExpirySeconds int64          `json:"expiry"`
	Subs          []subscription `json:"subs,omitempty"`
}

const sessionVersion = 1

func (l *Listener) newSession(id string) *session {
	s := &session{id: id, subs: make(map[string]subscription), received: make(map[uint16]bool)}
	s.repeats = listenerRepeats(id, newEpoch())
	s.out.maxMessages, s.out.maxBytes = l.o.MaxQueued, l.o.MaxQueuedBytes
	return s
}

func (s *session) record() sessionRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := sessionRecord{Version: sessionVersion, Epoch: s.repeats.epoch[:], ExpirySeconds: int64(s.expiry / time.Second)}
	for _, filter := range slices.Sorted(maps.Keys(s.subs)) {
		r.Subs = append(r.Subs, s.subs[filter])
	}
	return r
}

// save brings the record of a kept session to disk and returns after the fsync.
func (l *Listener) save(ctx context.Context, s *session) error {
	value, err := json.Marshal(s.record())
	if err != nil {
		return fmt.Errorf("save session %q: %w", s.id, err)
	}
	err = l.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error { return t.Put(spaceSessions, sessionKey(s.id), value) })
	if err != nil {
		return fmt.Errorf("save session %q: %w", s.id, err)
	}
	s.recorded, s.saved = true, s.expiry
	return nil
}

func sessionKey(id string) string { return "l\x00" + id }

// loadSessions brings back the sessions that were kept. How long each has been away is counted from now on, since the clock may have jumped while the
// box was off. A record that makes no sense is left alone and reported.
func (l *Listener) loadSessions() error {
	prefix := sessionKey("")
	err := l.o.Store.List(spaceSessions, prefix, func(key string, value []byte) error {
		r, err := decodeSession(value)
		if err != nil {
			l.log.Warn("session on disk makes no sense", "client", key[len(prefix):], "err", err)
			return nil
		}
		s := l.newSession(key[len(prefix):])
		s.repeats.epoch = epoch(r.Epoch)
		s.kept, s.recorded, s.awaySince = true, true, time.Now()
		s.expiry = l.limitExpiry(uint32(r.ExpirySeconds))
		s.saved = s.expiry
		for _, sub := range r.Subs {
			s.subs[sub.Filter] = sub
			if err := l.subscribe(s, sub); err != nil {
				return err
			}
		}
		l.sessions[s.id] = s
		return nil
	})
	if err != nil {
		return fmt.Errorf("load MQTT sessions: %w", err)
	}
	return nil
}

func decodeSession(value []byte) (sessionRecord, error) {
	var r sessionRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return r, err
	}
	switch {
	case r.Version != sessionVersion:
		return r, fmt.Errorf("version %d", r.Version)
	case len(r.Epoch) != len(epoch{}):
		return r, errors.New("no epoch")
	case r.ExpirySeconds < 0 || r.ExpirySeconds > math.MaxUint32:
		return r, fmt.Errorf("expiry of %d s", r.ExpirySeconds)
	}
	for _, sub := range r.Subs {
		if !validFilter(sub.Filter) || sub.QoS > 2 {
			return r, fmt.Errorf("subscription %.80q", sub.Filter)
		}
	}
	return r, nil
}

// end ends a session for good: nobody can resume it, and what was on disk for it is removed. The repeats go first, so that a power cut in
// between leaves a session that ends again, and not entries that nobody knows. The caller owns the session.
func (l *Listener) end(ctx context.Context, s *session) error {
	s.stopWill()
	s.mu.Lock()
	subs := s.subs
	s.subs = make(map[string]subscription)
	l.stats.dropped.Add(uint64(len(s.out.queue) + len(s.out.inFlight)))
	s.out = outbound{maxMessages: l.o.MaxQueued, maxBytes: l.o.MaxQueuedBytes}
	s.mu.Unlock()
	for filter := range subs {
		l.unsubscribe(s, filter)
	}
	clear(s.received)
	if !s.recorded {
		return nil
	}
	if err := s.repeats.forget(ctx, l.o.Store); err != nil {
		return fmt.Errorf("end session %q: %w", s.id, err)
	}
	err := l.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error { return t.Delete(spaceSessions, sessionKey(s.id)) })
	if err != nil {
		return fmt.Errorf("end session %q: %w", s.id, err)
	}
	s.recorded = false
	s.repeats.epoch = newEpoch()
	return nil
}

// stopWill says whether a delayed will was waiting.
func (s *session) stopWill() bool {
	stopped := s.will != nil && s.will.Stop()
	s.will = nil
	return stopped
}

// deliver queues a message for the client.
func (l *Listener) deliver(s *session, m *message, how match, retained bool) {
	how.qos = min(how.qos, m.qos)
	d := &delivery{m: m, match: how, retain: retained || m.retain && how.retain}
	s.mu.Lock()
	ok := (how.qos > 0 || s.wake != nil) && s.out.offer(d)
	wake := s.wake
	s.mu.Unlock()
	switch {
	case !ok && (how.qos > 0 || wake != nil):
		l.stats.dropped.Add(1)
		l.dropping.begin(l.log, "messages to subscribers are dropped", "client", s.id)
	case ok && wake != nil:
		wake()
	}
}

// fanOut brings a message to all who are subscribed to its topic.
func (l *Listener) fanOut(m *message) {
	for s, how := range l.tree.find(m.topic, m.origin) {
		l.deliver(s, m, how, false)
	}
}

// subscribe makes a subscription of s known. unsubscribe undoes it; it is no error if there is none.
func (l *Listener) subscribe(s *session, sub subscription) error {
	if !l.tree.add(s, sub) {
		return nil
	}
	if err := l.taps.add(sub.Filter); err != nil {
		l.tree.remove(s, sub.Filter)
		return fmt.Errorf("subscribe to %s: %w", sub.Filter, err)
	}
	return nil
}

func (l *Listener) unsubscribe(s *session, filter string) {
	l.tree.remove(s, filter)
	l.taps.remove(filter)
}
