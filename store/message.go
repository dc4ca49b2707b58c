package store

import (
	"errors"
	"fmt"
	"time"
)

// Message is what a stream holds. Header and Data are opaque to the store.
type Message struct {
	Stream  string // set by the store
	Seq     uint64 // set by the store: 1, 2, 3, … in each stream
	Subject string // at most 65535 bytes
	Header  []byte // kept as it is
	Data    []byte // kept as it is
	ID      string // identity by which a repeat is recognised in the stream; "" for none. Not read back.
	// Time is when it was stored. The store sets it when it is zero, and corrects
	// what it set once more is known of when that was; else it stays as it is,
	// and Trust with it.
	Time  time.Time
	Trust TimeTrust // how far Time can be trusted
	// TTL is how long the message is of use, from when it is published; 0 is for
	// ever. Read back, it is what is left, and negative when it is over. The time
	// that the box was off counts once it is known.
	TTL time.Duration
	// NotBefore and Delay park the message: it enters its stream, and gets its
	// sequence, at that time, or when so much time has passed since it was
	// published. Give one of them. A time that is past changes nothing. What is
	// parked is on disk, whatever the durability of its stream. Neither is read
	// back.
	NotBefore time.Time
	Delay     time.Duration
	// Producer and ProducerSeq number the messages of a producer, upwards; gaps
	// are fine. The highest number is remembered for ever, and a message with that
	// or a lower one is a repeat. 0 is for none. In a stream in memory it is
	// remembered as long as the messages are. Neither is read back.
	Producer    string // at most 4096 bytes
	ProducerSeq uint64
}

// check refuses what can not be stored as it is.
func (m *Message) check() error {
	if y := m.Time.Year(); !m.Time.IsZero() && (y < 1700 || y > 2200) {
		return fmt.Errorf("its time %s is out of range", m.Time.Format(time.RFC3339))
	}
	if m.Trust < TimeUnknown || m.Trust > TimeSynced {
		return fmt.Errorf("its time has no trust %d", int(m.Trust))
	}
	return errors.Join(m.checkDelay(), m.checkProducer())
}
