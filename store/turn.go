package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Turn is one atomic change: what it stages is committed together, or not at
// all. A turn is used by one goroutine at a time and ends with one of Commit,
// Submit and Discard.
type Turn struct {
	db     *DB
	number uint64
	causes []string // ids of turns that wait for this one

	reads  map[stateKey]uint64 // how many turns were queued when the key was first read
	writes map[stateKey][]byte // nil deletes
	seen   uint64              // the last queued turn whose effects were read
	lost   bool                // what was read can not be committed any more

	messages    []*pendingMessage
	acks        []pendingAck
	dead        []DeadLetter
	deadChanges []deadChange
	before      []func() error
	after       []func()
	afterEnd    []func(committed bool)
	size        int64
	spaces      map[string]*spaceTurn // that it writes with PutWithin, or deletes from
	reserved    int64                 // of what all spaces may hold together

	kept     int64 // bytes in memory, reads included
	bounded  bool  // kept may not grow for ever
	borrowed int64 // of what all bounded turns may hold

	calls       uint64 // as counted by NextCall
	loose       bool
	irrevocable bool
	insists     bool // lost too often, and holds what it has met
	ended       bool
	order       uint64        // its place in the queue, from 1
	wait        time.Duration // how long it may be in memory alone; see DB.wait
	told        bool          // of its commit, before it is on disk
	onQueued    func()
	done        func(error)
	err         error // why it was not committed; DB.mu guards it until done is called
}

// Receipt tells where a published message went. It is filled in when the turn
// has been committed.
type Receipt struct {
	Stream string
	Seq    uint64
	// Duplicate: it is a repeat, and Seq is that of the first; or, if that is one
	// of a producer's which the stream does not remember, of the producer's last.
	Duplicate bool
	Due       time.Time // when it enters its stream, as far as is known; while it is parked, and Seq is 0
}

// Begin starts a turn. Use Do where the work can be run again.
func (db *DB) Begin() *Turn {
	return &Turn{db: db, number: db.turns.Add(1)}
}

// ID names the turn; no other turn of this store, before or after a restart,
// has the same.
func (t *Turn) ID() string { return t.db.runID + "-" + strconv.FormatUint(t.number, 10) }

// Causes are the turns that wait for t, as WithCause has named them.
func (t *Turn) Causes() []string { return t.causes }

// maxConflicts is how often a turn may lose before it holds its keys.
const maxConflicts = 8

// Do runs fn in a turn and commits it. If ctx carries a turn, fn joins that
// one, and it is the other's beginner who commits. Otherwise, when another
// turn changed what fn read, fn runs again from the start; from the ninth time
// on others that want to write the keys it has met so far are held back. An
// error of fn discards the turn and is returned as it is.
func (db *DB) Do(ctx context.Context, fn func(ctx context.Context, t *Turn) error) error {
	if t := TurnFrom(ctx); t != nil {
		return fn(ctx, t)
	}
	var met map[stateKey]struct{} // by attempts that lost
	for try := 0; ; try++ {
		held := db.changed.wait()
		t := db.Begin()
		t.causes = causes(ctx)
		err := db.attempt(ctx, t, try >= maxConflicts, met, fn)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if met == nil {
			met = make(map[stateKey]struct{})
		}
		for _, k := range t.keys() {
			met[k] = struct{}{}
		}
		if t.blocked() {
			// The key is held by a turn that can not lose. Running again
			// before that one has ended could only conflict again.
			select {
			case <-held:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			try--
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
	}
}

func (db *DB) attempt(ctx context.Context, t *Turn, insist bool, met map[stateKey]struct{}, fn func(context.Context, *Turn) error) error {
	defer t.Discard()
	if insist {
		if err := db.holds.insist(ctx, t, met); err != nil {
			return err
		}
	}
	if err := fn(WithTurn(ctx, t), t); err != nil {
		if t.stale() {
			t.fail(ErrConflict)
			return ErrConflict
		}
		return err
	}
	return t.Commit()
}

// stale says whether something that t read has changed, which makes any error
// of its handler meaningless.
func (t *Turn) stale() bool {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	return t.lost || t.db.state.conflicts(t)
}

func (t *Turn) fail(err error) {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	if t.order == 0 { // of one that was queued its committer knows
		t.err = err
	}
}

// Err returns, once the turn has ended, why it could not be committed
// (ErrConflict and ErrFull say nothing about its work); nil if it was committed,
// or if it was discarded before anybody tried.
func (t *Turn) Err() error {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	return t.err
}

// blocked says whether a key of t is held by another turn now.
func (t *Turn) blocked() bool {
	t.db.mu.Lock()
	defer t.db.mu.Unlock()
	return t.db.holds.blocker(t) != nil
}

// Get returns the value of key in space: what this turn wrote, else what is
// queued, else what is on disk. The bytes are not to be changed.
func (t *Turn) Get(space, key string) (value []byte, ok bool, err error) {
	k, err := newStateKey(space, key)
	if err != nil {
		return nil, false, err
	}
	if v, ok := t.writes[k]; ok {
		return v, v != nil, nil
	}
	return t.read(k)
}

// read is Get without what t wrote itself.
func (t *Turn) read(k stateKey) (value []byte, ok bool, err error) {
	db := t.db
	db.mu.Lock()
	if err := db.usable(); err != nil {
		db.mu.Unlock()
		return nil, false, err
	}
	if err := t.hold(k); err != nil {
		db.mu.Unlock()
		return nil, false, err
	}
	if err := t.keepRead(k); err != nil {
		db.mu.Unlock()
		space, key := k.split()
		return nil, false, fmt.Errorf("get %s in space %s: %w", key, space, err)
	}
	v, ok := db.state.read(t, k)
	db.mu.Unlock()
	if ok {
		return v, v != nil, nil
	}
	v, err = db.readState(k)
	return v, v != nil, err
}

// Put stages value for key in space. The turn keeps value.
func (t *Turn) Put(space, key string, value []byte) error {
	if len(value) > maxValue {
		return fmt.Errorf("put %s in space %s: value of %d bytes, at most %d: %w", key, space, len(value), maxValue, ErrTooLarge)
	}
	return t.write(space, key, nonNil(value))
}

// Delete stages the removal of key from space. It is no error if there is no
// such key.
func (t *Turn) Delete(space, key string) error { return t.write(space, key, nil) }

func (t *Turn) write(space, key string, value []byte) error {
	k, err := newStateKey(space, key)
	if err != nil {
		return err
	}
	if t.irrevocable {
		t.db.mu.Lock()
		err := t.hold(k)
		t.db.mu.Unlock()
		if err != nil {
			return err
		}
	}
	more, kept := int64(len(k)+len(value)+32), int64(len(k)+len(value)+writeBytes)
	if old, again := t.writes[k]; again {
		more = int64(len(value) - len(old))
		kept = more
	}
	if value == nil { // which makes room, and is never refused
		err = t.deleted(space, k)
	} else if err = t.Keep(kept); err != nil {
		err = fmt.Errorf("write %s in space %s: %w", key, space, err)
	}
	if err != nil {
		return err
	}
	if t.writes == nil {
		t.writes = make(map[stateKey][]byte)
	}
	t.writes[k] = value
	t.size += more
	return nil
}

// Publish stages a message for a stream. The turn keeps header and data of m.
// It fails with ErrNoStream and ErrTooLarge; ErrFull is found when the turn is
// committed.
func (t *Turn) Publish(stream string, m Message) (*Receipt, error) {
	db := t.db
	db.mu.Lock()
	s, ok := db.streams[stream]
	limit := int64(0)
	if ok {
		limit = s.config.MaxBytes
	}
	db.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("publish %s to stream %s: %w", m.Subject, stream, ErrNoStream)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("publish %s to stream %s: %w", m.Subject, stream, err)
	}
	size := m.size()
	if len(m.Subject) > 1<<16-1 || size-messageOverhead > int64(db.o.MaxMessage) || limit > 0 && size > limit {
		return nil, fmt.Errorf("publish %s to stream %s: message of %d bytes: %w", m.Subject, stream, size-messageOverhead, ErrTooLarge)
	}
	if err := t.Keep(size + pendingBytes); err != nil {
		return nil, fmt.Errorf("publish %s to stream %s: %w", m.Subject, stream, err)
	}
	p := &pendingMessage{m: m, s: s, receipt: Receipt{Stream: stream}, given: !m.Time.IsZero()}
	p.identify()
	t.messages = append(t.messages, p)
	t.size += size
	return &p.receipt, nil
}

// Ack stages that the subscription has done with message seq.
func (t *Turn) Ack(subscription string, seq uint64) {
	t.acks = append(t.acks, pendingAck{subscription: subscription, seq: seq})
}

// AckUpTo stages that the subscription has done with every message up to seq.
func (t *Turn) AckUpTo(subscription string, seq uint64) {
	t.acks = append(t.acks, pendingAck{subscription: subscription, seq: seq, upTo: true})
}

// Attempt stages that message seq was tried n times by the subscription.
func (t *Turn) Attempt(subscription string, seq uint64, n int) {
	t.acks = append(t.acks, pendingAck{subscription: subscription, seq: seq, attempts: n})
}

// DeadLetter stages a dead letter. Error is cut to 8 KiB.
func (t *Turn) DeadLetter(d DeadLetter) {
	d.cutError()
	t.dead = append(t.dead, d)
	t.size += d.size()
}

// Loose says that the state which t changes is worth no more than the messages
// it publishes, such as a note by which a repeat of one is recognised. Where
// those need not be on disk before their publisher is told (Batch, Memory), the
// turn need not be either. Other turns see the change at once, List does not.
func (t *Turn) Loose() { t.loose = true }

// BeforeCommit lets fn run when the turn is about to be committed, in the
// goroutine that does it: for what has to be on disk before the turn is, such as a
// file that it refers to. An error of fn refuses the turn, and is what its committer
// gets. It may wait for the disk; it does not run for a turn that is discarded.
func (t *Turn) BeforeCommit(fn func() error) { t.before = append(t.before, fn) }

// AfterCommit lets fn run once the turn is committed, before its committer is
// told. All such functions of a store run in one goroutine, in the order of
// the commits; fn must not block and must not commit. It does not run if the
// turn is not committed, nor after a crash.
func (t *Turn) AfterCommit(fn func()) { t.after = append(t.after, fn) }

// AfterEnd lets fn run once the fate of the turn is known, whatever it is:
// committed is false if the turn was discarded, lost, or refused, and what was
// taken for it is to be given back. Of a turn that was queued fn runs where
// AfterCommit's functions do, behind them and before its committer is told;
// else in the goroutine that ends the turn. fn must not block and must not
// commit. Each attempt of Do is a turn of its own. It does not run after a
// crash.
func (t *Turn) AfterEnd(fn func(committed bool)) { t.afterEnd = append(t.afterEnd, fn) }

// Commit ends the turn and returns when it is on disk. ErrConflict means that
// the work should be done again from the start; ErrFull that trying later can
// help; ErrTooLarge that it can not. Once queued, a turn is not given up before its fate is known.
func (t *Turn) Commit() error {
	result := make(chan error, 1)
	t.Submit(func(err error) { result <- err })
	return <-result
}

// Submit ends the turn and lets done be called once its fate is known: in one
// goroutine of the store, in the order of commits. done must not block and must
// not commit. Submit waits while too much is queued, or a turn that must not
// lose is under way; a turn that can not be queued is told so before Submit
// returns.
func (t *Turn) Submit(done func(error)) {
	t.done = done
	err := t.prepare()
	if err == nil {
		err = t.db.enqueue(t)
	}
	if err != nil {
		t.fail(err)
		t.Discard()
		done(err)
	}
}

// prepare runs what has to be done before t is queued.
func (t *Turn) prepare() error {
	for _, fn := range t.before {
		if err := fn(); err != nil {
			return err
		}
	}
	return nil
}

// Discard ends the turn without effect. After Commit or Submit it does nothing.
func (t *Turn) Discard() {
	t.db.mu.Lock()
	was := t.ended
	t.db.end(t)
	if !was {
		t.db.releaseGrowth(t)
	}
	t.db.mu.Unlock()
	if !was {
		t.tellEnd(false)
	}
}

// tellEnd runs what wants to know the fate of t.
func (t *Turn) tellEnd(committed bool) {
	t.giveBack()
	for _, fn := range t.afterEnd {
		fn(committed)
	}
}

// NextCall counts the calls to the outside that are made in t, from 1: with the
// same work they get the same numbers in each attempt, which is a part of what a
// repeat is recognised by.
func (t *Turn) NextCall() uint64 {
	t.calls++
	return t.calls
}
