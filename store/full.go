package store

import (
	"errors"
	"fmt"
	"time"
)

// A disk without room is a state, and not a failure: reading, delivering and
// acknowledging go on, and so do control and alarms. Whatever else would take
// room is refused before it gets to the disk, because a transaction that finds
// none is dear.

const (
	// smallWrite is what a turn that acknowledges may change of state, and still
	// be one that drains: how far the hub has come, a counter.
	smallWrite = 4 << 10
	// freePagesEnough is how many pages of the file that nobody uses any more
	// are room for everybody again: 2 MiB.
	freePagesEnough = 512
	// fullAgain is how long what is held waits for its next try.
	fullAgain = time.Second
)

// fullDisk is that state.
type fullDisk struct {
	on      bool // DB.mu guards it, and refused; the writer alone changes it
	refused uint64
	since   time.Time
	next    time.Time // of the next try to write what is held; the writer's
}

// waits says whether what is held is not to be tried yet.
func (f *fullDisk) waits() bool { return f.on && time.Now().Before(f.next) }

// drains says whether t only acknowledges, or is control or an alarm. Such turns
// go on while the disk is full.
func (t *Turn) drains() bool {
	if len(t.dead)+len(t.deadChanges) > 0 {
		return false
	}
	for _, p := range t.messages {
		if p.s.config.Priority != MaxPriority {
			return false
		}
	}
	return len(t.messages) > 0 || len(t.acks) > 0 && t.size <= smallWrite
}

// inMemory says whether nothing that t adds gets to the disk.
func (t *Turn) inMemory() bool {
	for _, p := range t.messages {
		if p.s.config.Durability != Memory || p.m.Delay > 0 || !p.m.NotBefore.IsZero() {
			return false
		}
	}
	return len(t.writes)+len(t.dead)+len(t.deadChanges) == 0
}

// checkDisk refuses what would take room while the disk has none. Call it with
// db.mu held.
func (db *DB) checkDisk(t *Turn) error {
	if !db.full.on || t.drains() || t.inMemory() {
		return nil
	}
	db.full.refused++
	return fmt.Errorf("disk of %s: %w", db.o.Dir, ErrFull)
}

// noRoom takes a group apart that found no room on the disk. What was told
// already stays and goes again. Turns that drain are tried by themselves, those
// that touch nothing that was told even without it. The others get err, and so
// do those that are queued behind, which may have seen them. It returns all
// whose fate is known.
func (db *DB) noRoom(group []*Turn, err error) []*Turn {
	db.giveUpBallast()
	if len(group) > 0 {
		group = db.retryDraining(group, err)
	}
	if len(db.held.turns) > 0 {
		if again := db.tryWrite(nil, true); again != nil && fatal(again) {
			err = again
		}
	}
	db.full.next = time.Now().Add(fullAgain)
	db.noteFull(err)
	return group
}

// retryDraining commits what it can of a group.
func (db *DB) retryDraining(group []*Turn, err error) []*Turn {
	db.mu.Lock()
	durable := db.state.durable
	group = db.rollback(group, err)
	free, bound := db.splitDraining(group, durable)
	db.mu.Unlock()
	told := group
	for _, part := range [][]*Turn{free, acknowledging(free)} {
		placed := db.placeAgain(part)
		if len(placed) == 0 {
			continue
		}
		err := db.tryWrite(placed, false)
		if err == nil {
			break
		}
		if fatal(err) {
			return told
		}
		told = append(told, db.takeBack(placed, err)...)
	}
	if placed := db.placeAgain(bound); len(placed) > 0 {
		if err := db.tryWrite(placed, true); err != nil && !fatal(err) {
			told = append(told, db.takeBack(placed, err)...)
		}
	}
	return told
}

// splitDraining returns the turns that may be tried again: those that have
// nothing to do with what is held, and those that have to go behind it. Call it
// with db.mu held.
func (db *DB) splitDraining(group []*Turn, durable uint64) (free, bound []*Turn) {
	behind := make(map[*stream]bool)
	for _, s := range db.streams {
		if s.tail.heldMsgs() > 0 || db.held.binds(s) {
			behind[s] = true
		}
	}
	for _, t := range group {
		if !t.drains() || t.seen > durable { // it may have read what is not to be
			continue
		}
		streams := make([]*stream, 0, len(t.messages)+len(t.acks))
		for _, p := range t.messages {
			streams = append(streams, p.s)
		}
		for i := range t.acks {
			streams = append(streams, t.acks[i].sub.stream)
		}
		late := false
		for _, s := range streams {
			late = late || behind[s]
		}
		if !late {
			free = append(free, t)
			continue
		}
		for _, s := range streams { // what comes after it in them does so on disk, too
			behind[s] = true
		}
		bound = append(bound, t)
	}
	return free, bound
}

// acknowledging returns the turns that publish nothing.
func acknowledging(turns []*Turn) (only []*Turn) {
	for _, t := range turns {
		if len(t.messages) == 0 {
			only = append(only, t)
		}
	}
	if len(only) == len(turns) {
		return nil // they were all tried
	}
	return only
}

// placeAgain gives turns that were rolled back new places in the queue.
func (db *DB) placeAgain(turns []*Turn) (placed []*Turn) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, t := range turns {
		for _, p := range t.messages {
			if !p.given {
				p.m.Time = time.Time{} // it gets another
			}
		}
		err := db.resolveAcks(t)
		if err == nil {
			err = db.checkRoom(t)
		}
		if t.err = err; err != nil {
			continue
		}
		db.place(t)
		db.state.queue(t)
		placed = append(placed, t)
	}
	return placed
}

// takeBack rolls back turns that were placed again, and returns those that were
// queued behind them meanwhile.
func (db *DB) takeBack(placed []*Turn, err error) []*Turn {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.rollback(placed, err)[len(placed):]
}

// noteFull begins the state of a full disk, unless there is room after all: a
// group may have been larger than what was left.
func (db *DB) noteFull(err error) {
	if !errors.Is(err, ErrFull) || db.full.on || db.makeBallast() == nil {
		return
	}
	db.mu.Lock()
	db.full.on, db.full.refused, db.full.since = true, 0, time.Now()
	db.mu.Unlock()
	db.log.Warn("disk is full: nothing is stored but what is acknowledged, and alarms", "err", err)
}

// checkFull ends the state of a full disk when there is room.
func (db *DB) checkFull() {
	switch {
	case !db.full.on:
		return
	case len(db.held.turns) > 0:
		if db.full.waits() {
			return
		}
		if db.flush(); len(db.held.turns) > 0 {
			return
		}
	}
	if db.bolt.Stats().FreePageN < freePagesEnough && db.makeBallast() != nil {
		return
	}
	db.mu.Lock()
	refused := db.full.refused
	db.full.on = false
	db.mu.Unlock()
	db.log.Info("disk has room again", "refused", refused, "took", time.Since(db.full.since))
	db.changed.fire()
}
