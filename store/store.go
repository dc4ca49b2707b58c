// Package store keeps what a box must not lose: the messages of streams, how
// far each subscription has come, the state of actors, and dead letters. It
// holds all of it in one bbolt file, because its two promises need one
// transaction:
//
//   - Acknowledged means on disk. A [Turn] is reported as committed after the
//     fsync that made it safe, never before.
//   - A turn is atomic. The messages it publishes, the state it changes, the
//     message it acknowledges and the dead letters it writes are all there
//     after a power cut, or none is.
//
// The nouns: a stream is a numbered sequence of messages; a subscription is a
// durable position in a stream; a space is a set of keys with values; a turn
// is one atomic change of any of these. Turns of many goroutines share one
// transaction (group commit), and a turn sees what is queued before it, so
// that a hot key is not bound by the disk.
//
// The package knows bytes. What a subject means, who is subscribed and what a
// value holds is its callers' business. DESIGN.md beside this file tells how
// turns are ordered, validated and committed, and what is on disk.
package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Errors of Open.
var (
	ErrLocked   = errors.New("locked by another process")
	ErrUnusable = errors.New("not usable")
)

// Errors of turns and readers.
var (
	// ErrConflict: what the turn read was changed by another one. Running it
	// again from the start can help; DB.Do does.
	ErrConflict = errors.New("another turn changed what this one read")
	// ErrFull: a limit or the disk leaves no room. Trying later can help.
	ErrFull = errors.New("full")
	// ErrTooLarge: the message, key or value, or all that a turn adds to a stream,
	// can never be stored.
	ErrTooLarge = errors.New("too large")
	// ErrDeadlock: the turn needs a key that its own caller holds.
	ErrDeadlock = errors.New("deadlock: the key is held by the turn that caused this one")
	// ErrFailed: the disk failed. Nothing more can be committed, and the
	// process should end.
	ErrFailed = errors.New("store failed")
	// ErrDamaged: stored bytes are not what was written.
	ErrDamaged = errors.New("damaged")

	ErrClosed         = errors.New("store is closed")
	ErrNoStream       = errors.New("no such stream")
	ErrNoSubscription = errors.New("no such subscription")
	ErrNoDeadLetter   = errors.New("no such dead letter")
)

// Options are what Open needs to know.
type Options struct {
	// Dir is the folder of the store file. It must exist and be writable.
	Dir string
	// MaxBytes bounds what streams and dead letters hold together. 0 means 1 GiB.
	MaxBytes int64
	// MaxState bounds what spaces hold together, for PutWithin. 0 means no bound.
	MaxState int64
	// MaxMessage bounds a message with its subject and header. 0 means 8 MiB.
	MaxMessage int
	// MaxStaged bounds what turns that are bounded (Turn.Bound) hold in memory, one
	// and all together, beside 256 KiB, or a thirty-second of it where that is less,
	// that each may hold in any case. 0 means 64 MiB.
	MaxStaged int64
	// Logger takes the story of the store; nil discards it.
	Logger *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// ClockSynced says whether the wall clock is known to be right, and is asked
	// about once a second. Nil asks the kernel, whose clock an NTP client sets;
	// and where Now is not the kernel's clock, it never is.
	ClockSynced func() bool
	// Failpoint, if set, is called by the writer at the points named by the
	// constants Failpoint…. Tests of crashes end the process in it; an error
	// stands for one of the disk.
	Failpoint func(point string) error
}

// Points at which Options.Failpoint is called.
const (
	FailpointBeforeSync = "store-before-sync" // a group is written, and not synced
	FailpointAfterSync  = "store-after-sync"  // a group is on disk, and nobody was told
	FailpointUpgrade    = "store-upgrade"     // a file of an earlier format was changed, and not synced
	FailpointBeforeSwap = "store-before-swap" // a compacted file is on disk, beside the one that counts
	FailpointAfterSwap  = "store-after-swap"  // it counts
)

func (o *Options) setDefaults() {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = 8 << 20
	}
	if o.MaxStaged <= 0 {
		o.MaxStaged = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ClockSynced == nil {
		o.ClockSynced = kernelSynced
		if o.Now != nil {
			o.ClockSynced = func() bool { return false }
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Failpoint == nil {
		o.Failpoint = func(string) error { return nil }
	}
}

// DB is an open store. Its methods may be called from any goroutine.
type DB struct {
	o     Options
	lock  *os.File // of the folder; held until Close
	log   *slog.Logger
	runID string
	notes []string // of Open
	clock clock

	readers sync.RWMutex // guards bolt, which only the writer changes; held while others read the file
	bolt    *bolt.DB

	mu      sync.Mutex // guards all below up to the blank line; never held across I/O
	err     error      // why nothing can be committed any more
	closing bool
	streams map[string]*stream
	subs    map[string]*subscription
	dead    deadLetters
	delays  delays
	queue   queue
	state   stateView
	spaces  spaces
	holds   holds

	changed   broadcast      // after each commit, release and failure
	held      held           // only the writer's, but what it does to streams
	full      fullDisk       // see there
	hurry     atomic.Bool    // somebody waits until what is held is on disk
	wake      chan struct{}  // tells the writer that the queue is not empty
	confirmed chan []*Turn   // groups on disk, for the confirmer
	loops     sync.WaitGroup // writer and confirmer; Close waits
	failed    chan struct{}
	turns     atomic.Uint64 // numbers turns for their ids
	borrowed  atomic.Int64  // bytes that bounded turns hold
	stats     stats
	closeOnce sync.Once

	compacting sync.Mutex // held by the one compaction that may be under way
	freeRoom   func(dir string) (int64, error)
	busy       atomic.Int64 // nanoseconds the writer has been at the disk
	quiet      quiet        // the writer's own
}

// Stats counts what the store did since Open.
type Stats struct {
	Turns   uint64 // committed
	Commits uint64 // groups written; each costs two fsyncs in this version
	Bytes   int64  // held by streams and dead letters now
	State   int64  // held by spaces now
	Queued  int    // turns waiting for the disk now
	// DiskFull says that the disk has no room: only what acknowledges, and
	// streams of priority 9, are served.
	DiskFull bool
	// Bounded counts what was refused to bounded turns because they, or all of
	// them, held too much.
	Bounded uint64
	// DeadLettersDropped counts dead letters that went because there was no room
	// for all of them.
	DeadLettersDropped uint64
}

type stats struct{ turns, commits, bounded atomic.Uint64 }

// Stats returns the counters. It is cheap.
func (db *DB) Stats() Stats {
	db.mu.Lock()
	defer db.mu.Unlock()
	return Stats{
		Turns:    db.stats.turns.Load(),
		Commits:  db.stats.commits.Load(),
		Bytes:    db.storedBytes(),
		State:    db.spaces.total.Bytes,
		Queued:   len(db.queue.turns),
		DiskFull: db.full.on,
		Bounded:  db.stats.bounded.Load(),

		DeadLettersDropped: db.dead.dropped,
	}
}

// Failed is closed when the store can commit nothing more: a sync failed, or
// stored bytes turned out to be damaged. Err says why. A failed fsync is not
// retried, since the kernel may have dropped the pages; the process should
// end and start again from what is on disk.
func (db *DB) Failed() <-chan struct{} { return db.failed }

// Err returns why the store failed, or nil.
func (db *DB) Err() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.err
}

// fail ends all committing. Turns that wait get err.
func (db *DB) fail(err error) {
	db.mu.Lock()
	first := db.err == nil
	if first {
		db.err = fmt.Errorf("%w: %w", ErrFailed, err)
		close(db.failed)
	}
	db.mu.Unlock()
	if first {
		db.log.Error("store failed", "err", err)
	}
	db.changed.fire()
	db.wakeWriter()
}

// Notes are what Open saw that is no damage, but that somebody should know, a
// line each.
func (db *DB) Notes() []string { return slices.Clone(db.notes) }

// Close waits for queued turns to be committed, then releases the file. Turns
// begun later fail with ErrClosed. It may be called twice.
func (db *DB) Close() error {
	var err error
	db.closeOnce.Do(func() {
		db.mu.Lock()
		db.closing = true
		db.mu.Unlock()
		db.changed.fire()
		db.wakeWriter()
		db.loops.Wait()
		db.compacting.Lock() // one that was asked for ends at its next step
		defer db.compacting.Unlock()
		if db.err == nil {
			if err := db.settle(); err != nil { // the next Open takes it for a crash
				db.log.Warn("store cannot note that it was closed", "err", err)
			}
		}
		err = errors.Join(db.bolt.Close(), db.lock.Close())
	})
	return err
}

func (db *DB) wakeWriter() {
	select {
	case db.wake <- struct{}{}:
	default:
	}
}

// broadcast wakes everybody who waits for a change.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that is closed at the next fire. Take it before
// looking at the condition.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) fire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
