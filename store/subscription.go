package store

import (
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// SubscriptionConfig describes a position in a stream.
type SubscriptionConfig struct {
	Name   string // at most 512 bytes
	Stream string
	// Start is where a subscription begins that is created. One that is there
	// stays where it is.
	Start Start
	// Ephemeral keeps the position in memory only: it ends with DeleteSubscription,
	// with its stream, or when the store is closed. While it lives, it keeps
	// messages as any other does. What it acknowledges costs no write of its own.
	Ephemeral bool
}

// Start is where a subscription begins. The zero value is the first message
// that is kept.
type Start struct {
	At   StartAt
	Seq  uint64    // with StartSeq
	Time time.Time // with StartTime
}

// StartAt says what a Start means.
type StartAt int

// Where a subscription can begin. Whatever is not there yet begins with the
// next message that is stored.
const (
	StartFirst StartAt = iota // the first message that is kept
	StartNew                  // after the last one there is
	StartLast                 // the last one there is
	StartSeq                  // message Seq, or the first after it that is kept; beyond the last, the next one that comes
	StartTime                 // the first message stored at Time or later; the next one that comes, if there is none
)

func (at StartAt) String() string {
	names := [...]string{"first", "new", "last", "seq", "time"}
	if at < 0 || int(at) >= len(names) {
		return fmt.Sprintf("StartAt(%d)", int(at))
	}
	return names[at]
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
	id        uint32 // 0 for an ephemeral one
	name      string
	stream    *stream
	ephemeral bool // pos is nowhere but here
	pos       position
}

// EnsureSubscription creates the subscription if there is none of that name.
// From then on a message of the stream is kept until it is acknowledged, or a
// limit of the stream takes it. One of that name in another stream is an error,
// and so is asking for an ephemeral one where there is one that lasts. One that
// was ephemeral and is asked to last goes on where it is.
func (db *DB) EnsureSubscription(c SubscriptionConfig) error {
	if c.Name == "" || len(c.Name) > 512 {
		return fmt.Errorf("subscription %q: name of %d bytes, at least 1 and at most 512", c.Name, len(c.Name))
	}
	if c.Start.At < StartFirst || c.Start.At > StartTime {
		return fmt.Errorf("subscription %s: no start %d", c.Name, c.Start.At)
	}
	if _, _, there, err := db.findSubscription(c); there || err != nil {
		return err
	}
	from := c.Start.Seq
	if c.Start.At == StartTime {
		var err error
		// Looked for out here, so that a long stream holds up nobody. What comes
		// meanwhile comes after it.
		if from, err = db.seqAt(c.Stream, c.Start.Time); err != nil {
			return err
		}
	}
	return db.adminOf(c.Ephemeral, func(tx *bolt.Tx) (func(), error) {
		s, sub, there, err := db.findSubscription(c) // somebody may have been faster
		if there || err != nil {
			return func() {}, err
		}
		n := &subscription{name: c.Name, stream: s, ephemeral: c.Ephemeral}
		if sub != nil {
			n.pos = sub.pos.clone()
		} else {
			n.pos.floor = c.Start.floor(s, from)
		}
		if c.Ephemeral {
			return func() { db.subs[c.Name] = n }, nil
		}
		id, err := tx.Bucket(bucketSubs).NextSequence()
		if err != nil {
			return nil, err
		}
		n.id = uint32(id)
		if err := putJSON(tx.Bucket(bucketSubs), []byte(c.Name), subscriptionRecord{ID: n.id, Stream: c.Stream}); err != nil {
			return nil, err
		}
		key := idKey(n.id)
		if err := tx.Bucket(bucketPositions).Put(key, n.pos.encode(key)); err != nil {
			return nil, err
		}
		return func() {
			if sub == nil {
				db.subs[c.Name] = n
			} else {
				// Turns that are queued know it already.
				sub.id, sub.ephemeral = n.id, false
			}
		}, nil
	})
}

// floor is what a subscription of s that begins there has no need of any more.
// Only the writer calls it.
func (a Start) floor(s *stream, seq uint64) uint64 {
	before, last := s.firstSeq()-1, s.lastSeq()
	switch a.At {
	case StartNew:
		return last
	case StartLast:
		if s.heldMsgs() > 0 {
			return max(before, s.lastHeld()-1)
		}
		return last
	case StartSeq, StartTime:
		return min(max(before, max(seq, 1)-1), last)
	}
	return before
}

// seqAt returns the first message of the stream that was stored at t or later,
// or the one after the last.
func (db *DB) seqAt(stream string, t time.Time) (seq uint64, err error) {
	for seq = 1; ; {
		n := 0
		err = db.Read(stream, seq, 4096, 4<<20, func(m Message) error {
			n++
			if !m.Time.Before(t) {
				return errFound
			}
			seq = m.Seq + 1
			return nil
		})
		switch {
		case errors.Is(err, errFound), err == nil && n == 0:
			return seq, nil
		case err != nil:
			return 0, err
		}
	}
}

var errFound = errors.New("found")

// findSubscription returns the stream of c, the subscription of that name, and
// whether it is there as c wants it.
func (db *DB) findSubscription(c SubscriptionConfig) (s *stream, sub *subscription, there bool, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	s, ok := db.streams[c.Stream]
	sub = db.subs[c.Name]
	switch {
	case !ok:
		return nil, nil, false, fmt.Errorf("subscription %s of stream %s: %w", c.Name, c.Stream, ErrNoStream)
	case sub != nil && sub.stream != s:
		return nil, nil, false, fmt.Errorf("subscription %s is one of stream %s, not of %s", c.Name, sub.stream.config.Name, c.Stream)
	case sub != nil && c.Ephemeral && !sub.ephemeral:
		return nil, nil, false, fmt.Errorf("subscription %s lasts, and is not ephemeral: delete it first", c.Name)
	}
	return s, sub, sub != nil && sub.ephemeral == c.Ephemeral, nil
}

// DeleteSubscription forgets a position. What was kept for it alone goes with
// the next commits. It fails with ErrNoSubscription if there is none.
func (db *DB) DeleteSubscription(name string) error {
	db.mu.Lock()
	sub := db.subs[name]
	memory := sub != nil && sub.ephemeral
	db.mu.Unlock()
	return db.adminOf(memory, func(tx *bolt.Tx) (func(), error) {
		sub := db.subscription(name)
		if sub == nil {
			return nil, fmt.Errorf("delete subscription %s: %w", name, ErrNoSubscription)
		}
		if tx == nil && !sub.ephemeral {
			return nil, fmt.Errorf("delete subscription %s: it has just been made to last, try again", name)
		}
		if err := deleteSubscription(tx, sub); err != nil {
			return nil, err
		}
		return func() { delete(db.subs, name) }, nil
	})
}

func deleteSubscription(tx *bolt.Tx, sub *subscription) error {
	if sub.ephemeral {
		return nil
	}
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
