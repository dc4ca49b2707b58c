package store

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// SubscriptionConfig describes a durable position in a stream.
type SubscriptionConfig struct {
	Name   string
	Stream string
	// New lets a subscription that is created begin after the last message
	// there is; else it begins with the first that is kept.
	New bool
}

// Position is how far a subscription has come, on disk.
type Position struct {
	Stream   string
	Floor    uint64         // every message up to here is acknowledged
	Above    []uint64       // acknowledged beyond Floor, ascending
	Attempts map[uint64]int // how often messages not acknowledged were tried
}

type subscriptionRecord struct {
	ID     uint32 `json:"id"`
	Stream string `json:"stream"`
}

// subscription is a subscription in memory; pos is what the file says.
type subscription struct {
	id     uint32
	name   string
	stream *stream
	pos    position
}

// EnsureSubscription creates the subscription if there is none of that name.
// From then on a message of the stream is kept until it is acknowledged, or a
// limit of the stream takes it. One of that name in another stream is an
// error.
func (db *DB) EnsureSubscription(c SubscriptionConfig) error {
	if c.Name == "" || len(c.Name) > 512 {
		return fmt.Errorf("subscription %q: name of %d bytes", c.Name, len(c.Name))
	}
	if _, there, err := db.findSubscription(c); there || err != nil {
		return err
	}
	return db.admin(func(tx *bolt.Tx) (func(), error) {
		s, there, err := db.findSubscription(c) // somebody may have been faster
		if there || err != nil {
			return func() {}, err
		}
		id, err := tx.Bucket(bucketSubs).NextSequence()
		if err != nil {
			return nil, err
		}
		sub := &subscription{id: uint32(id), name: c.Name, stream: s}
		sub.pos.floor = s.disk.first - 1
		if c.New {
			sub.pos.floor = s.disk.last
		}
		if err := putJSON(tx.Bucket(bucketSubs), []byte(c.Name), subscriptionRecord{ID: sub.id, Stream: c.Stream}); err != nil {
			return nil, err
		}
		key := idKey(sub.id)
		if err := tx.Bucket(bucketPositions).Put(key, sub.pos.encode(key)); err != nil {
			return nil, err
		}
		return func() { db.subs[c.Name] = sub }, nil
	})
}

// findSubscription returns the stream of c, and whether the subscription is
// there.
func (db *DB) findSubscription(c SubscriptionConfig) (s *stream, there bool, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	s, ok := db.streams[c.Stream]
	sub := db.subs[c.Name]
	switch {
	case !ok:
		return nil, false, fmt.Errorf("subscription %s of stream %s: %w", c.Name, c.Stream, ErrNoStream)
	case sub != nil && sub.stream != s:
		return nil, false, fmt.Errorf("subscription %s is one of stream %s, not of %s", c.Name, sub.stream.config.Name, c.Stream)
	}
	return s, sub != nil, nil
}

// DeleteSubscription forgets a position. What was kept for it alone goes with
// the next commits. It fails with ErrNoSubscription if there is none.
func (db *DB) DeleteSubscription(name string) error {
	return db.admin(func(tx *bolt.Tx) (func(), error) {
		sub := db.subscription(name)
		if sub == nil {
			return nil, fmt.Errorf("delete subscription %s: %w", name, ErrNoSubscription)
		}
		if err := deleteSubscription(tx, sub); err != nil {
			return nil, err
		}
		return func() { delete(db.subs, name) }, nil
	})
}

func deleteSubscription(tx *bolt.Tx, sub *subscription) error {
	if err := tx.Bucket(bucketPositions).Delete(idKey(sub.id)); err != nil {
		return err
	}
	return tx.Bucket(bucketSubs).Delete([]byte(sub.name))
}

// Subscriptions returns the names of all subscriptions and their streams.
func (db *DB) Subscriptions() map[string]string {
	db.mu.Lock()
	defer db.mu.Unlock()
	names := make(map[string]string, len(db.subs))
	for name, sub := range db.subs {
		names[name] = sub.stream.config.Name
	}
	return names
}

// Position returns how far a subscription has come, or ErrNoSubscription.
func (db *DB) Position(name string) (Position, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	sub, ok := db.subs[name]
	if !ok {
		return Position{}, fmt.Errorf("subscription %s: %w", name, ErrNoSubscription)
	}
	p := Position{Stream: sub.stream.config.Name, Floor: sub.pos.floor, Attempts: make(map[uint64]int)}
	for i := range uint64(len(sub.pos.ahead) * 64) {
		if seq := sub.pos.floor + 1 + i; sub.pos.acked(seq) {
			p.Above = append(p.Above, seq)
		}
	}
	for seq, n := range sub.pos.attempts {
		p.Attempts[seq] = n
	}
	return p, nil
}

// keepFrom returns the first sequence that a subscription of s still needs,
// and false if s has no subscription. Call it with db.mu held.
func (db *DB) keepFrom(s *stream) (uint64, bool) {
	from, any := uint64(0), false
	for _, sub := range db.subs {
		if sub.stream == s && (!any || sub.pos.floor+1 < from) {
			from, any = sub.pos.floor+1, true
		}
	}
	return from, any
}
