package mqtt

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/edged-io/edged/store"
)

// repeats recognises messages that a session sends again. For each packet identifier of the session the store holds the hash of what was last
// published under it, written in the turn of that message. A PUBLISH with DUP whose hash agrees is a repeat.
//
// epoch is part of the hash and is new with each session, so that nothing an earlier session left behind can match.
type repeats struct {
	prefix string // of the keys: who publishes
	epoch  epoch
}

type epoch [8]byte

func newEpoch() (e epoch) {
	_, _ = rand.Read(e[:]) // it never fails
	return e
}

// listenerRepeats is for a client of the listener, clientRepeats for a session that we have with a broker.
func listenerRepeats(clientID string, e epoch) *repeats {
	return &repeats{prefix: "l\x00" + clientID + "\x00", epoch: e}
}

func clientRepeats(url, clientID string, e epoch) *repeats {
	return &repeats{prefix: "c\x00" + clientKey(url, clientID) + "\x00", epoch: e}
}

func (r *repeats) key(id uint16) string {
	return r.prefix + string([]byte{byte(id >> 8), byte(id)})
}

func (r *repeats) hash(topic string, payload []byte) []byte {
	h := sha256.New()
	h.Write(r.epoch[:])
	_ = binary.Write(h, binary.BigEndian, uint32(len(topic)))
	h.Write([]byte(topic))
	h.Write(payload)
	return h.Sum(nil)[:16]
}

// note says whether the message is a repeat of what t can see, and otherwise puts it in its place.
func (r *repeats) note(t *store.Turn, id uint16, dup bool, topic string, payload []byte) (repeat bool, err error) {
	key, hash := r.key(id), r.hash(topic, payload)
	if dup {
		last, ok, err := t.Get(spaceRepeats, key)
		if err != nil {
			return false, err
		}
		if ok && string(last) == string(hash) {
			return true, nil
		}
	}
	return false, t.Put(spaceRepeats, key, hash)
}

// done forgets a message of QoS 2 for good: it was released, and what comes under its identifier now is another one, also if it looks the same.
func (r *repeats) done(t *store.Turn, id uint16) error { return t.Delete(spaceRepeats, r.key(id)) }

// forget removes all entries, some at a time.
func (r *repeats) forget(ctx context.Context, db *store.DB) error {
	const chunk = 4096
	errFull := errors.New("enough")
	for {
		var keys []string
		err := db.List(spaceRepeats, r.prefix, func(key string, _ []byte) error {
			if len(keys) == chunk {
				return errFull
			}
			keys = append(keys, key)
			return nil
		})
		if err != nil && !errors.Is(err, errFull) {
			return err
		}
		if len(keys) == 0 {
			return nil
		}
		err = db.Do(ctx, func(_ context.Context, t *store.Turn) error {
			for _, k := range keys {
				if err := t.Delete(spaceRepeats, k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// submit runs stage in a turn and submits it; settle is told its fate once: after the fsync, in the order of commits, in a goroutine of the store that it
// must not block; or before submit returns if the turn could not be queued. A turn that lost is staged again.
func submit(ctx context.Context, db *store.DB, stage func(*store.Turn) error, settle func(error)) {
	for range 3 {
		t := db.Begin()
		if err := stage(t); err != nil {
			t.Discard()
			if errors.Is(err, store.ErrConflict) {
				continue
			}
			settle(err)
			return
		}
		// The store tells of a conflict before Submit returns, and of nothing else later than of what is queued behind.
		lost, queued := false, make(chan struct{})
		t.Submit(func(err error) {
			if errors.Is(err, store.ErrConflict) {
				select {
				case <-queued:
				default:
					lost = true
					return
				}
			}
			settle(err)
		})
		close(queued)
		if !lost {
			return
		}
	}
	// Somebody holds what was read. Do knows how to wait for that.
	settle(db.Do(ctx, func(_ context.Context, t *store.Turn) error { return stage(t) }))
}
