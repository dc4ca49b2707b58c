package store

import (
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// queue is what waits for the writer. DB.mu guards it.
type queue struct {
	turns []*Turn
	bytes int64
	admin []adminRequest
}

type adminRequest struct {
	fn     func(*bolt.Tx) (apply func(), err error)
	memory bool // nothing of it goes to the disk: fn gets no transaction
	done   chan error
}

func (db *DB) usable() error {
	if db.err != nil {
		return db.err
	}
	if db.closing {
		return ErrClosed
	}
	return nil
}

// admin runs fn in a transaction of its own, in the writer, and then apply
// with db.mu held.
func (db *DB) admin(fn func(*bolt.Tx) (apply func(), err error)) error {
	return db.adminOf(false, fn)
}

// adminOf is admin, but for what is in memory only fn gets no transaction.
func (db *DB) adminOf(memory bool, fn func(*bolt.Tx) (apply func(), err error)) error {
	r := adminRequest{fn, memory, make(chan error, 1)}
	db.mu.Lock()
	if err := db.usable(); err != nil {
		db.mu.Unlock()
		return err
	}
	db.queue.admin = append(db.queue.admin, r)
	db.mu.Unlock()
	db.wakeWriter()
	return <-r.done
}

// enqueue validates t and puts it at the end of the queue, where it is visible
// to turns that read from then on. It waits while there is no room.
func (db *DB) enqueue(t *Turn) error {
	for {
		changed := db.changed.wait()
		db.mu.Lock()
		wait, err := db.tryEnqueue(t)
		db.mu.Unlock()
		if err != nil {
			return err
		}
		if !wait {
			db.wakeWriter()
			if t.onQueued != nil {
				t.onQueued()
			}
			return nil
		}
		<-changed
	}
}

func (db *DB) tryEnqueue(t *Turn) (wait bool, err error) {
	if t.ended {
		return false, errors.New("the turn has ended")
	}
	if err := db.usable(); err != nil {
		return false, err
	}
	if t.lost || db.state.conflicts(t) {
		return false, ErrConflict
	}
	if o := db.holds.blocker(t); o != nil {
		if t.causedBy(o) {
			return false, ErrDeadlock
		}
		if len(t.reads) > 0 {
			return false, ErrConflict // what it read is likely to change
		}
		return true, nil
	}
	if len(db.queue.turns) >= queueTurns || db.queue.bytes+t.size > queueBytes && len(db.queue.turns) > 0 {
		return true, nil
	}
	if err := db.resolveAcks(t); err != nil {
		return false, err
	}
	dead, err := db.resolveDead(t)
	if err != nil {
		return false, err
	}
	if err := db.checkRoom(t); err != nil {
		return false, err
	}
	if err := db.checkDisk(t); err != nil {
		return false, err
	}
	db.place(t)
	db.state.queue(t)
	db.dead.queue(dead, t.order)
	db.queue.turns = append(db.queue.turns, t)
	db.queue.bytes += t.size
	db.end(t)
	return false, nil
}

// end takes t out of what is under way. Call it with db.mu held.
func (db *DB) end(t *Turn) {
	if t.ended {
		return
	}
	t.ended = true
	delete(db.state.active, t)
	if db.holds.release(t) {
		db.changed.fire()
	}
}

func (db *DB) resolveAcks(t *Turn) error {
	for i := range t.acks {
		a := &t.acks[i]
		sub, ok := db.subs[a.subscription]
		if !ok {
			return fmt.Errorf("acknowledge %d: subscription %s: %w", a.seq, a.subscription, ErrNoSubscription)
		}
		if a.seq > sub.stream.last {
			return fmt.Errorf("acknowledge %d: subscription %s: stream %s ends at %d", a.seq, a.subscription, sub.stream.config.Name, sub.stream.last)
		}
		a.sub = sub
		if a.upTo || a.attempts > 0 || a.seq <= sub.pos.floor+maxAhead {
			continue
		}
		if floor := t.floor(i); a.seq > floor+maxAhead {
			return fmt.Errorf("acknowledge %d: subscription %s: more than %d ahead of %d", a.seq, a.subscription, maxAhead, floor+1)
		}
	}
	return nil
}

// floor returns up to where the subscription of ack i will have acknowledged
// everything, by what t acknowledges before it.
func (t *Turn) floor(i int) uint64 {
	sub := t.acks[i].sub
	floor := sub.pos.floor
	for _, a := range t.acks[:i] {
		if a.sub == sub && a.upTo {
			floor = max(floor, a.seq)
		}
	}
	return floor
}

// place gives the messages of t their sequences.
func (db *DB) place(t *Turn) {
	now, trust := db.clock.real()
	for _, p := range t.messages {
		s := p.s
		p.parked, p.value, p.held, p.remembered = nil, nil, false, nil // it may be placed again
		p.receipt.Duplicate, p.receipt.Due = false, time.Time{}
		if first, ok := s.repeated(p); ok && p.released == nil {
			p.receipt.Seq, p.receipt.Duplicate = first, true
			if first == 0 {
				p.receipt.Due = db.dueOf(s.isParked(p))
			}
			continue
		}
		if p.released == nil && p.m.delayed(now) {
			db.park(p, now)
			s.marks.raise(p.numbered, 0)
			continue
		}
		s.last++
		if p.released == nil { // else it is counted where it is parked
			s.msgs++
			s.bytes += p.m.size()
		}
		p.remembered = p.identities(s)
		for _, h := range p.remembered {
			s.ids.add(h, s.last)
		}
		s.marks.raise(p.numbered, s.last)
		if !p.given {
			p.m.Time, p.m.Trust = now, trust
		}
		p.m.Seq, p.receipt.Seq = s.last, s.last
	}
}
