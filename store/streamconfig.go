package store

import (
	"fmt"
	"time"
)

// OnFull says what a full stream does with one more message.
type OnFull int

const (
	Reject OnFull = iota
	DropOldest
)

// StreamConfig describes a stream. Limits of 0 mean none but the store's own.
type StreamConfig struct {
	Name     string        `json:"name"`
	MaxBytes int64         `json:"max_bytes,omitempty"`
	MaxMsgs  int64         `json:"max_msgs,omitempty"`
	MaxAge   time.Duration `json:"max_age,omitempty"` // the time that the box was off counts once it is known
	OnFull   OnFull        `json:"on_full,omitempty"`
	// Durability says when a publisher is told that its message is stored.
	Durability Durability `json:"durability,omitempty"`
	// BatchFor is how long a message of a Batch stream may be in memory alone.
	BatchFor time.Duration `json:"batch_for,omitempty"`
	// Priority is from 0 to 9. Streams of priority 9, for control and alarms,
	// have room of their own when the store or the disk is full.
	Priority int `json:"priority,omitempty"`
	// Dedupe is how many identities of messages are remembered, so that a
	// repeat is recognised: 0 means 65,536, -1 none, and at most 1<<20, which
	// costs about 80 MiB of memory.
	Dedupe int `json:"dedupe,omitempty"`
}

// MaxPriority is the priority of control and alarms.
const MaxPriority = 9

// check refuses what can not be meant.
func (c *StreamConfig) check() error {
	switch {
	case c.Name == "" || len(c.Name) > 255:
		return fmt.Errorf("stream %q: name of %d bytes", c.Name, len(c.Name))
	case c.MaxBytes < 0 || c.MaxMsgs < 0 || c.MaxAge < 0:
		return fmt.Errorf("stream %s: a limit is negative", c.Name)
	case c.Priority < 0 || c.Priority > MaxPriority:
		return fmt.Errorf("stream %s: priority %d is not one of 0 to %d", c.Name, c.Priority, MaxPriority)
	case c.Dedupe < -1 || c.Dedupe > maxDedupe:
		return fmt.Errorf("stream %s: dedupe %d is not one of -1 to %d", c.Name, c.Dedupe, maxDedupe)
	}
	return c.checkDurability()
}

// How many identities of messages a stream remembers: by default, and at most.
const (
	defaultDedupe = 1 << 16
	maxDedupe     = 1 << 20
)

// remembers is how many identities the stream remembers.
func (c *StreamConfig) remembers() int {
	switch {
	case c.Dedupe < 0:
		return 0
	case c.Dedupe == 0:
		return defaultDedupe
	}
	return c.Dedupe
}
