package store

import (
	"fmt"
	"time"
)

// Durability says when the publisher of a message is told that it is stored.
type Durability int

const (
	// Synced: after the fsync. Nothing that was told is ever lost.
	Synced Durability = iota
	// Batch: when it is in memory. The fsync follows within
	// StreamConfig.BatchFor, and sooner when something synced is committed. A
	// crash in between loses it, and what was acknowledged of the stream comes
	// again.
	Batch
	// Memory: when it is in memory, where it stays until it is consumed. The end
	// of the process loses it, which is counted as "restart"; subscriptions then
	// begin with what comes next.
	Memory
)

var durabilityNames = [...]string{"synced", "batch", "memory"}

func (d Durability) String() string {
	if d < 0 || int(d) >= len(durabilityNames) {
		return fmt.Sprintf("durability %d", int(d))
	}
	return durabilityNames[d]
}

const (
	// maxBatchFor bounds BatchFor.
	maxBatchFor = time.Hour
	// memoryBytes is the max_bytes of a stream in memory that has none.
	memoryBytes = 64 << 20
	// besideMemory is how long it may be in memory alone what has to get to the
	// disk beside a stream that does not: acknowledgements of what it holds there
	// from before, and state (Turn.Loose).
	besideMemory = time.Second
)

func (c *StreamConfig) checkDurability() error {
	switch {
	case c.Durability < Synced || c.Durability > Memory:
		return fmt.Errorf("stream %s: there is no %s", c.Name, c.Durability)
	case c.Durability != Batch && c.BatchFor != 0:
		return fmt.Errorf("stream %s: batch_for goes with durability batch, not with %s", c.Name, c.Durability)
	case c.Durability == Batch && (c.BatchFor <= 0 || c.BatchFor > maxBatchFor):
		return fmt.Errorf("stream %s: durability batch for %s, at least 1ns and at most %s", c.Name, c.BatchFor, maxBatchFor)
	case c.Durability == Memory && c.MaxBytes == 0:
		c.MaxBytes = memoryBytes
	}
	return nil
}

// held are turns that were told that they are committed and are not on disk.
// Whatever is written next begins with them, so that all of them get there in
// order. Only the writer has to do with it.
type held struct {
	turns   []*Turn
	streams map[*stream]struct{} // which they change: these are trimmed when it is written
	bound   map[*stream]struct{} // those of which they acknowledge a message that they have made others of
	bytes   int64
	due     time.Time     // when the first of them has to be on disk
	order   uint64        // of the last turn that was told
	took    time.Duration // the last write
}

// ready says whether what is held should be written now.
func (h *held) ready(now time.Time) bool {
	return len(h.turns) > 0 && (!now.Before(h.due) || len(h.turns) >= groupTurns || h.bytes >= groupBytes)
}

func (h *held) add(t *Turn, due time.Time) {
	if len(h.turns) == 0 || due.Before(h.due) {
		h.due = due
	}
	t.told = true
	if h.streams == nil {
		h.streams = make(map[*stream]struct{})
	}
	for _, p := range t.messages {
		h.streams[p.s] = struct{}{}
	}
	for i := range t.acks {
		h.streams[t.acks[i].sub.stream] = struct{}{}
		if len(t.messages) > 0 {
			if h.bound == nil {
				h.bound = make(map[*stream]struct{})
			}
			h.bound[t.acks[i].sub.stream] = struct{}{}
		}
	}
	h.turns = append(h.turns, t)
	h.bytes += t.size
}

// binds says whether s must not be trimmed, nor its positions be written, without
// what is held: an acknowledgement would be on disk, and what its turn published
// would not.
func (h *held) binds(s *stream) bool {
	_, bound := h.bound[s]
	return bound
}

// wait is how long what t stages may be in memory alone: 0 if it has to be on
// disk before its committer is told, and less than that if it may stay where
// it is for ever. Call it with db.mu held, in the writer.
func (db *DB) wait(t *Turn) time.Duration {
	const ever = -1
	if len(t.messages)+len(t.acks) == 0 || len(t.dead)+len(t.deadChanges) > 0 {
		return 0
	}
	wait := time.Duration(ever)
	if len(t.writes) > 0 {
		if !t.loose || len(t.messages) == 0 {
			return 0
		}
		wait = besideMemory
	}
	note := func(s *stream, memory time.Duration) bool {
		d := memory
		switch s.config.Durability {
		case Batch:
			d = s.config.BatchFor
		case Synced:
			return false
		}
		if d != ever && (wait == ever || d < wait) {
			wait = d
		}
		return true
	}
	for _, p := range t.messages {
		if p.receipt.Duplicate && p.s.config.Durability != Synced {
			continue // what it repeats was told or is, and this is no more
		}
		if p.parked != nil || p.released != nil || !note(p.s, ever) || p.m.Seq > p.s.ahead || db.gives(p.s) || db.full.on && p.s.config.Durability == Batch {
			return 0
		}
	}
	for i := range t.acks {
		memory := time.Duration(ever)
		if t.acks[i].sub.stream.disk.msgs > 0 {
			memory = besideMemory
		}
		if sub := t.acks[i].sub; !sub.ephemeral && !note(sub.stream, memory) {
			return 0
		}
	}
	return wait
}

// gives says whether something that a stream in memory has on disk, from before,
// has to make room for what is queued. A limit that holds at all times then wants
// the disk. (A batch stream sheds it.)
func (db *DB) gives(s *stream) bool {
	c := &s.config
	if c.OnFull != DropOldest || c.Durability == Batch || s.disk.msgs == 0 {
		return false
	}
	return c.MaxMsgs > 0 && s.msgs > c.MaxMsgs || c.MaxBytes > 0 && s.bytes > c.MaxBytes || db.heldBytes() > db.o.level(s, false)
}

// relaxed says whether all of a group may be told before it is on disk.
func (db *DB) relaxed(group []*Turn) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.full.on && len(db.held.turns) > 2*groupTurns {
		return false // it would only become more
	}
	for _, t := range group {
		if t.wait = db.wait(t); t.wait == 0 {
			return false
		}
	}
	return true
}

// tell commits a group in memory, tells its committers so, and keeps what has
// to get to the disk.
func (db *DB) tell(group []*Turn) {
	now, age := time.Now(), db.clock.now()
	db.mu.Lock()
	touched := make(map[*stream]bool) // true where messages were added
	for _, t := range group {
		for _, p := range t.messages {
			if !p.receipt.Duplicate && !p.s.deleted {
				p.s.tail.add(p, age, p.s.config.Durability == Batch)
				p.s.marks.told(p)
				touched[p.s] = true
			}
		}
		for _, a := range t.acks {
			if db.subs[a.subscription] == a.sub {
				a.apply(&a.sub.pos)
				if _, ok := touched[a.sub.stream]; !ok {
					touched[a.sub.stream] = false
				}
			}
		}
		if t.wait > 0 {
			db.held.add(t, now.Add(t.wait-min(db.held.took, t.wait/2))) // the write takes a while, too
		}
		db.held.order = t.order
	}
	for s, added := range touched {
		db.trimMemory(s, age)
		db.shedOldest(s)
		if added {
			s.wakeWatchers()
		}
	}
	if len(db.held.turns) == 0 {
		db.state.durable = db.held.order
	}
	db.stats.turns.Add(uint64(len(group)))
	db.mu.Unlock()
	db.changed.fire()
	db.confirmed <- group
}

// flush writes what is held.
func (db *DB) flush() {
	if len(db.held.turns) > 0 {
		db.write(nil)
	}
}

// hurry makes the writer write what is held: somebody waits until it is on disk.
func (db *DB) hurryUp() {
	db.hurry.Store(true)
	db.wakeWriter()
}
