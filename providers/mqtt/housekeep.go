package mqtt

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/edged-io/edged/store"
)

// housekeep does what is due by time, until ctx ends or nobody can be accepted any more.
func (l *Listener) housekeep(ctx context.Context, accepted <-chan error) error {
	sweep := time.NewTicker(sweepInterval)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-accepted:
			return fmt.Errorf("MQTT listener: %w", err)
		case m := <-l.wills:
			l.publishWill(ctx, m)
		case now := <-sweep.C:
			l.sweep(ctx, now)
		}
	}
}

// sweep ends the sessions that were away too long, removes the retained messages that have expired, and ends conditions in the log.
func (l *Listener) sweep(ctx context.Context, now time.Time) {
	l.refusing.end(l.log, "messages of clients are accepted again", now)
	l.dropping.end(l.log, "messages to subscribers are not dropped any more", now)
	for _, s := range l.overdue(now) {
		if err := l.end(ctx, s); err != nil {
			l.log.Warn("session could not be removed", "client", s.id, "err", err)
		}
		l.letGo(s)
	}
	for _, topic := range l.retained.expired(now) {
		if err := l.expireRetained(ctx, topic, now); err != nil {
			l.log.Warn("retained message could not be removed", "topic", topic, "err", err)
		}
	}
}

// overdue takes the sessions whose time is up, so that no client can resume them meanwhile.
func (l *Listener) overdue(now time.Time) (found []*session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		if s.conn == nil && now.Sub(s.awaySince) > s.expiry {
			l.hold(s)
			found = append(found, s)
		}
	}
	return found
}

// hold takes a session without a connection, so that it can be removed: a client that comes meanwhile waits a moment. Call it with l.mu held, and
// letGo afterwards without.
func (l *Listener) hold(s *session) {
	c := &conn{ended: make(chan struct{}), finished: make(chan struct{}), closing: true, wakeCh: make(chan struct{}, 1)}
	c.room = sync.NewCond(&c.mu)
	s.conn = c
}

func (l *Listener) letGo(s *session) {
	held := s.conn
	l.free(s)
	close(held.finished)
}

// expireRetained removes a retained message, unless a new one has come.
func (l *Listener) expireRetained(ctx context.Context, topic string, now time.Time) error {
	return l.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error {
		value, ok, err := t.Get(spaceRetained, topic)
		if err != nil || !ok {
			return err
		}
		if m, err := decodeRetained(value); err == nil && !m.expired(now) {
			return nil
		}
		t.AfterCommit(func() { l.retained.apply(retainedChange{topic: topic}) })
		return t.Delete(spaceRetained, topic)
	})
}

// makeRoomForSession ends the session that has been away longest if there are too many.
func (l *Listener) makeRoomForSession(ctx context.Context) error {
	l.mu.Lock()
	var oldest *session
	if len(l.sessions) > l.o.MaxSessions {
		for _, s := range l.sessions {
			if s.conn == nil && (oldest == nil || s.awaySince.Before(oldest.awaySince)) {
				oldest = s
			}
		}
	}
	if oldest == nil {
		l.mu.Unlock()
		return nil
	}
	l.hold(oldest)
	l.mu.Unlock()
	defer l.letGo(oldest)
	return l.end(ctx, oldest)
}
