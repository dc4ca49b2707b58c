package store

import (
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// DeadLetter is a message that was given up, with what is known about why. It
// is kept until somebody deletes it, or until there are more than the store
// has room for and it is the oldest.
type DeadLetter struct {
	ID           uint64    `json:"id"` // set by the store
	Stream       string    `json:"stream"`
	Seq          uint64    `json:"seq"`
	Subject      string    `json:"subject"`
	Subscription string    `json:"subscription"`
	Attempts     int       `json:"attempts"`
	Reason       string    `json:"reason"` // "max-deliver", "rejected", "expired", "uplink-refused", "too-large"
	Error        string    `json:"error"`
	Actor        string    `json:"actor"`
	ActorVersion string    `json:"actor_version"`
	Time         time.Time `json:"time"` // when it was given up; set by the store when zero
	Header       []byte    `json:"header,omitempty"`
	Data         []byte    `json:"data,omitempty"`
}

// Bounds of the dead letters, beside a quarter of the store's bytes.
const (
	maxDeadLetters = 10_000
	maxErrorText   = 8 << 10
)

// deadLetters is what is known of them in memory.
type deadLetters struct {
	count   int
	bytes   int64
	dropped uint64 // since Open
}

func (d *DeadLetter) size() int64 {
	return int64(len(d.Subject)+len(d.Header)+len(d.Data)+len(d.Error)) + 256
}

// DeadLetters calls fn for each dead letter, oldest first, until fn fails. The
// bytes are fn's to keep.
func (db *DB) DeadLetters(fn func(DeadLetter) error) error {
	var from []byte
	for {
		var batch []DeadLetter
		err := db.view(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucketDead).Cursor()
			for k, v := c.Seek(from); k != nil && len(batch) < 64; k, v = c.Next() {
				var d DeadLetter
				if err := getJSON(k, v, &d); err != nil {
					return fmt.Errorf("dead letter %x: %w", k, err)
				}
				batch = append(batch, d)
			}
			return nil
		})
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, d := range batch {
			if err := fn(d); err != nil {
				return err
			}
		}
		from = deadKey(batch[len(batch)-1].ID + 1)
	}
}

// DeadLetter returns one dead letter, or ErrNoDeadLetter.
func (db *DB) DeadLetter(id uint64) (DeadLetter, error) {
	var d DeadLetter
	err := db.view(func(tx *bolt.Tx) error {
		key := deadKey(id)
		v := tx.Bucket(bucketDead).Get(key)
		if v == nil {
			return fmt.Errorf("dead letter %d: %w", id, ErrNoDeadLetter)
		}
		return getJSON(key, slices.Clone(v), &d)
	})
	return d, err
}

// DeadLetterCount returns how many there are.
func (db *DB) DeadLetterCount() int {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.dead.count
}

// putDeadLetters writes those of a group and drops the oldest beyond the
// bounds. It returns what is known of them afterwards.
func putDeadLetters(tx *bolt.Tx, d deadLetters, group []*Turn, now time.Time, maxBytes int64) (deadLetters, error) {
	b := tx.Bucket(bucketDead)
	for _, t := range group {
		for i := range t.dead {
			l := &t.dead[i]
			id, err := b.NextSequence()
			if err != nil {
				return d, err
			}
			l.ID = id
			if l.Time.IsZero() {
				l.Time = now
			}
			if err := putJSON(b, deadKey(l.ID), l); err != nil {
				return d, err
			}
			d.count++
			d.bytes += l.size()
		}
	}
	c := b.Cursor()
	for d.count > maxDeadLetters || d.bytes > maxBytes && d.count > 1 {
		k, v := c.First()
		var l DeadLetter
		if err := getJSON(k, v, &l); err != nil {
			return d, err
		}
		d.count--
		d.bytes -= l.size()
		d.dropped++
		if err := c.Delete(); err != nil {
			return d, err
		}
	}
	return d, nil
}
