package store

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Bounds of a group, and of what may wait for the next one.
const (
	groupTurns = 4096
	groupBytes = 4 << 20
	queueTurns = 4 * groupTurns
	queueBytes = 8 * groupBytes
	trimLimit  = 4 * groupTurns // messages removed in one commit, so that none takes long
)

// writer commits what is queued, one group after the other. Whatever waits
// when it comes back from the disk is the next group.
func (db *DB) writer() {
	defer db.loops.Done()
	defer close(db.confirmed)
	tick, due := time.NewTicker(time.Second), time.NewTimer(time.Hour)
	defer tick.Stop()
	defer due.Stop()
	var p pace
	for {
		select {
		case <-tick.C:
			db.housekeep()
		default:
		}
		db.releaseDue()
		db.gather(p)
		group, admin, end := db.nextGroup()
		switch {
		case end:
			if db.Err() == nil {
				db.flush()
				if n := len(db.held.turns); n > 0 {
					db.log.Error("disk is full: what was told before it was on disk is lost", "turns", n)
				}
				db.saveClock()
			}
			db.refuse(group, admin)
			return
		case len(admin) > 0 || len(group) > 0:
			for _, r := range admin {
				r.done <- db.runAdmin(r)
			}
			if len(group) > 0 {
				p = db.commitPaced(group)
			}
		case db.flushNow():
			db.flush()
			p = pace{}
		default:
			due.Reset(min(db.untilRelease(), db.untilDue()))
			select {
			case <-db.wake:
			case <-due.C:
			case <-tick.C:
				db.housekeep()
			}
		}
	}
}

// flushNow says whether what is held should be written though nothing else is.
func (db *DB) flushNow() bool {
	return db.held.ready(time.Now()) && !db.full.waits() || db.hurry.Swap(false) && len(db.held.turns) > 0
}

// untilDue is how long what is held may wait.
func (db *DB) untilDue() time.Duration {
	if len(db.held.turns) == 0 || db.full.waits() {
		return time.Hour
	}
	return time.Until(db.held.due)
}

// commitPaced commits a group and returns what to expect of the next.
func (db *DB) commitPaced(group []*Turn) pace {
	if db.relaxed(group) && db.mayShed(group) {
		db.tell(group)
		if db.flushNow() {
			db.flush()
		}
		return pace{}
	}
	n, start := len(group), time.Now()
	db.write(group)
	db.mu.Lock()
	defer db.mu.Unlock()
	db.held.took = time.Since(start)
	return pace{expect: n + len(db.queue.turns), took: db.held.took}
}

// pace is what the last group tells about the next one.
type pace struct {
	expect int           // turns to wait for a moment: those just told, and those queued meanwhile
	took   time.Duration // to write the last group
}

const (
	// gatherTurns is as large as a group must be for waiting not to pay.
	gatherTurns = 64
	// maxGather bounds the wait for a group to become complete.
	maxGather = 500 * time.Microsecond
)

// gather lets publishers who were just told get into the next group, and not
// only into the one after it. Without it, 16 publishers over a socket end up in
// two groups of 8 that take turns, and each message costs twice the syncs. It
// waits for no more than there were, half as long as a write takes, and never
// for a single publisher.
func (db *DB) gather(p pace) {
	var deadline <-chan time.Time
	for yields := 0; ; yields++ {
		db.mu.Lock()
		n := len(db.queue.turns)
		enough := n == 0 || n >= min(p.expect, gatherTurns) || len(db.queue.admin) > 0 || db.err != nil || db.closing
		db.mu.Unlock()
		if enough {
			return
		}
		if yields < 3 {
			runtime.Gosched()
			continue
		}
		if deadline == nil {
			deadline = time.After(min(p.took/2, maxGather))
		}
		select {
		case <-db.wake:
		case <-deadline:
			return
		}
	}
}

// nextGroup takes the next group off the queue.
func (db *DB) nextGroup() (group []*Turn, admin []adminRequest, end bool) {
	db.mu.Lock()
	defer db.mu.Unlock()
	admin, db.queue.admin = db.queue.admin, nil
	if db.err != nil {
		group, db.queue.turns = db.queue.turns, nil
		db.state.rollback()
		return group, admin, true
	}
	var bytes int64
	n := 0
	for n < len(db.queue.turns) && n < groupTurns && (n == 0 || bytes+db.queue.turns[n].size <= groupBytes) {
		bytes += db.queue.turns[n].size
		n++
	}
	group, db.queue.turns = db.queue.turns[:n:n], db.queue.turns[n:]
	db.queue.bytes -= bytes
	return group, admin, db.closing && n == 0 && len(admin) == 0
}

// refuse tells everybody who still waits why the store ended.
func (db *DB) refuse(group []*Turn, admin []adminRequest) {
	err := db.Err()
	if err == nil {
		err = ErrClosed
	}
	for _, r := range admin {
		r.done <- err
	}
	db.mu.Lock()
	for _, t := range group {
		t.err = err
	}
	db.mu.Unlock()
	db.confirmed <- group
}

func (db *DB) runAdmin(r adminRequest) error {
	var apply func()
	var refused error
	stage := func(tx *bolt.Tx) error {
		apply, refused = r.fn(tx)
		return refused
	}
	var err error
	if r.memory {
		err = stage(nil)
	} else {
		err = db.update(stage)
	}
	if err != nil {
		// What r.fn refuses has changed nothing.
		if refused == nil && fatal(err) || errors.Is(err, ErrDamaged) {
			db.fail(err)
		}
		return err
	}
	db.mu.Lock()
	apply()
	db.mu.Unlock()
	return nil
}

// changesNothing says whether there is nothing to write for a group: its turns
// have only read, and all that is older is on the disk, so what they have seen is
// too.
func (db *DB) changesNothing(group []*Turn) bool {
	for _, t := range group {
		if len(t.writes)+len(t.messages)+len(t.acks)+len(t.dead)+len(t.deadChanges) > 0 {
			return false
		}
	}
	return len(db.held.turns) == 0
}

// write puts what is held and then a group on the disk, and hands the group on
// to the confirmer.
func (db *DB) write(group []*Turn) {
	if db.changesNothing(group) {
		db.mu.Lock()
		db.state.committed(group)
		db.settled(group, true)
		db.mu.Unlock()
		db.stats.turns.Add(uint64(len(group)))
	} else if err := db.tryWrite(group, true); err != nil && !fatal(err) {
		group = db.noRoom(group, err)
	}
	db.changed.fire()
	db.confirmed <- group
}

// tryWrite makes one transaction of a group, behind what is held if it goes
// withHeld. If the disk has no room, nothing has happened.
func (db *DB) tryWrite(group []*Turn, withHeld bool) error {
	all := group
	if withHeld && len(db.held.turns) > 0 {
		all = append(slices.Clip(db.held.turns), group...)
	}
	w := newGroupWrite(db)
	w.withHeld = withHeld
	err := db.update(func(tx *bolt.Tx) error {
		if err := w.write(tx, all); err != nil {
			return err
		}
		return db.o.Failpoint(FailpointBeforeSync)
	})
	if err == nil {
		err = db.o.Failpoint(FailpointAfterSync)
	}
	switch {
	case err == nil:
		db.mu.Lock()
		w.apply()
		for _, t := range all {
			db.releaseGrowth(t)
		}
		db.state.committed(all)
		db.settled(group, withHeld)
		db.mu.Unlock()
		db.stats.commits.Add(1)
		db.stats.turns.Add(uint64(len(group)))
	case fatal(err):
		db.fail(err)
		db.mu.Lock()
		for _, t := range group {
			t.err = db.err
		}
		db.mu.Unlock()
	}
	return err
}

// settled notes that a group is on disk, and what was held with it. Call it with
// db.mu held.
func (db *DB) settled(group []*Turn, withHeld bool) {
	h := &db.held
	if len(group) > 0 {
		h.order = max(h.order, group[len(group)-1].order)
	}
	if withHeld {
		h.turns, h.streams, h.bound, h.bytes = nil, nil, nil, 0
	}
	if len(h.turns) == 0 {
		db.state.durable = h.order
	}
}

// rollback undoes in memory what did not reach the disk: the group, and the
// turns queued behind it, which may have seen it.
func (db *DB) rollback(group []*Turn, err error) []*Turn {
	group = append(group, db.queue.turns...)
	db.queue.turns, db.queue.bytes = nil, 0
	for _, t := range group {
		t.err = err
	}
	for _, s := range db.streams {
		s.rollback()
	}
	db.state.rollback()
	for _, t := range db.held.turns { // they are not on disk, whatever is taken back
		db.state.queue(t)
		db.held.order = t.order
	}
	clear(db.dead.queued)
	db.delays.rollback()
	return group
}

// fatal says whether err leaves the state of the file in doubt. A transaction
// that found no room was not begun on disk: bbolt writes its meta page last.
func fatal(err error) bool {
	return !errors.Is(err, ErrFull)
}

// update is bolt's Update, with errors told apart and damage not a panic.
func (db *DB) update(fn func(*bolt.Tx) error) (err error) {
	defer recoverDamage(&err)
	defer faultsPanic()()
	begun := time.Now()
	defer func() { db.busy.Add(int64(time.Since(begun))) }()
	tx, err := db.bolt.Begin(true)
	if err != nil {
		return full(err)
	}
	// bbolt's own Update would, after a panic, read the whole file again in another
	// goroutine, where a page that can not be read ends the process. After Commit
	// this does nothing.
	defer func() { _ = tx.Rollback() }()
	if err := fn(tx); err != nil {
		return full(err)
	}
	return full(tx.Commit())
}

// noRoom says whether err is of a write that found no room. A sync may find none
// either, where the room is only claimed then; but after it nobody knows what is
// on the disk, and the meta page may be.
func noRoom(err error) bool {
	if errors.Is(err, bolterrors.ErrMaxSizeReached) {
		return true
	}
	var op *fs.PathError
	return errors.As(err, &op) && op.Op == "write" && (errors.Is(op, syscall.ENOSPC) || errors.Is(op, syscall.EDQUOT))
}

func (db *DB) view(fn func(*bolt.Tx) error) (err error) {
	defer func() {
		if errors.Is(err, ErrDamaged) {
			db.fail(err)
		}
	}()
	defer recoverDamage(&err)
	defer faultsPanic()()
	db.readers.RLock()
	defer db.readers.RUnlock()
	err = db.bolt.View(fn)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// faultsPanic makes a page that the kernel can not bring in, because the file
// ends before it or the disk can not read it, a panic and not the end of the
// process. It is for the goroutine that calls it, until it calls what it got.
func faultsPanic() func() {
	before := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(before) }
}

// recoverDamage turns the panics by which bbolt reports a page that makes no
// sense into ErrDamaged.
func recoverDamage(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrDamaged, p)
	}
}

// confirmer tells committers of their turns' fate, in order.
func (db *DB) confirmer() {
	defer db.loops.Done()
	for group := range db.confirmed {
		for _, t := range group {
			if t.err == nil {
				for _, fn := range t.after {
					fn()
				}
			}
			if t.err != nil && t.spaces != nil {
				db.mu.Lock()
				db.releaseGrowth(t)
				db.mu.Unlock()
			}
			t.tellEnd(t.err == nil)
			t.done(t.err)
		}
	}
}
