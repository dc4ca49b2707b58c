package node

import (
	"fmt"

	"github.com/edged-io/edged/store"
)

// nearlyFull is the share of a limit, in percent, from which on an operator is
// told, while publishers are about to be refused or are already.
const nearlyFull = 95

// fullness returns which limits leave no room for publishers, a line each. It is a
// state with a policy: reading, delivering and acknowledging go on.
func (n *Node) fullness() (lines []string) {
	stats := n.db.Stats()
	if most := int64(n.o.Device.Store.MaxBytes); percent(stats.Bytes, most) >= nearlyFull {
		lines = append(lines, fmt.Sprintf("store: %d of %d bytes of store.max_bytes are in use: publishers are refused, except to streams of priority 9, until something is consumed", stats.Bytes, most))
	}
	for _, s := range n.db.Streams() {
		if s.OnFull != store.Reject {
			continue // it gives way, and counts
		}
		switch {
		case percent(s.Bytes, s.MaxBytes) >= nearlyFull:
			lines = append(lines, fmt.Sprintf("stream %s: %d of %d bytes of max_bytes are in use: publishers are refused until something is consumed", s.Name, s.Bytes, s.MaxBytes))
		case percent(s.Msgs+s.Delayed, s.MaxMsgs) >= nearlyFull:
			lines = append(lines, fmt.Sprintf("stream %s: it holds %d messages of max_msgs %d: publishers are refused until something is consumed", s.Name, s.Msgs+s.Delayed, s.MaxMsgs))
		}
	}
	if stats.DeadLettersDropped > 0 {
		lines = append(lines, fmt.Sprintf("dead letters: %d went since the start because there was no room for all: look at those that are left", stats.DeadLettersDropped))
	}
	return lines
}

// percent is how much of a limit is used; no limit is never used.
func percent(used, most int64) int64 {
	if most <= 0 {
		return 0
	}
	return int64(float64(used) * 100 / float64(most))
}
