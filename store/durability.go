package store

import "fmt"

// Durability says when the publisher of a message is told that it is stored.
type Durability int

const (
	// Synced: after the fsync. Nothing that was told is ever lost.
	Synced Durability = iota
	// Batch: when it is queued in memory. The fsync follows within
	// StreamConfig.BatchFor.
	Batch
	// Memory: when it is in memory, where it stays.
	Memory
)

var durabilityNames = [...]string{"synced", "batch", "memory"}

func (d Durability) String() string {
	if d < 0 || int(d) >= len(durabilityNames) {
		return fmt.Sprintf("durability %d", int(d))
	}
	return durabilityNames[d]
}

func (c *StreamConfig) checkDurability() error {
	if c.Durability != Synced || c.BatchFor != 0 {
		return fmt.Errorf("stream %s: durability %s: not in this version", c.Name, c.Durability)
	}
	return nil
}
