package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// fileName is the store in Options.Dir. Another file becomes it by a rename,
// and has a suffix until then.
const (
	fileName       = "store.db"
	newSuffix      = ".new"      // a new store, or a compacted one
	salvagedSuffix = ".salvaged" // what could be read of a damaged one
)

// Open opens the store in o.Dir, creating it if there is none. It fails with
// ErrLocked if another process has it open, and with ErrUnusable if the file or
// the folder can not be used.
//
// A file that is damaged is set aside in quarantine/ beside it, and what can be
// read of it is carried over into a new one; the log says what was lost.
func Open(o Options) (*DB, error) {
	o.setDefaults()
	path := filepath.Join(o.Dir, fileName)
	if most := maxHeld(strconv.IntSize); o.MaxBytes > most {
		o.Logger.Info("store may hold more than this machine can map, it is bounded", "max_bytes", o.MaxBytes, "bound", most)
		o.MaxBytes = most
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w: %w", path, ErrUnusable, err), lock.Close())
	}
	db, err := open(path, o)
	if errors.Is(err, ErrDamaged) {
		o.Logger.Error("store file is damaged", "file", path, "err", err)
		if _, err := salvage(context.Background(), path, o); err != nil {
			return nil, errors.Join(fmt.Errorf("open store %s: %w: salvage: %w", path, ErrUnusable, err), lock.Close())
		}
		db, err = open(path, o)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), lock.Close())
	}
	db.lock = lock
	if err := db.makeBallast(); errors.Is(err, ErrFull) {
		db.noteFull(err) // what pages are free are for those that a full disk serves
	} else if err != nil {
		o.Logger.Warn("store keeps no room for a full disk", "err", err)
	}
	db.loops.Add(2) // Close waits
	go db.writer()
	go db.confirmer()
	return db, nil
}

// removeStale removes what a crash left of a file that was to take the place of
// the store.
func removeStale(path string) error {
	return errors.Join(ignoreMissing(os.Remove(path+newSuffix)), ignoreMissing(os.Remove(path+salvagedSuffix)), forgetReports(path))
}

func open(path string, o Options) (_ *DB, err error) {
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		if err := create(path, o); err != nil {
			return nil, err
		}
	}
	notes, used, err := checkFile(path)
	if err != nil {
		return nil, err
	}
	for _, n := range notes {
		o.Logger.Warn("store is not quite as it should be", "file", path, "note", n)
	}
	if err := fits(path); err != nil {
		return nil, err
	}
	db := &DB{
		o: o, log: o.Logger, runID: newRunID(), notes: notes, spaces: used,
		streams:   make(map[string]*stream),
		subs:      make(map[string]*subscription),
		dead:      newDeadLetters(),
		delays:    delays{byStream: make(map[*stream]map[*parked]struct{})},
		wake:      make(chan struct{}, 1),
		confirmed: make(chan []*Turn, 4),
		failed:    make(chan struct{}),
		freeRoom:  freeRoom,
		quiet:     quiet{opened: time.Now()},
		state: stateView{
			pending: make(map[stateKey]queuedWrite),
			written: make(map[stateKey]uint64),
			active:  make(map[*Turn]uint64),
		},
	}
	db.holds = newHolds(db)
	defer func() {
		if err != nil && db.bolt != nil {
			_ = db.bolt.Close()
		}
	}()
	defer recoverDamage(&err)
	if db.bolt, err = openBolt(path, boltOptions(o)); err != nil {
		return nil, openError(err)
	}
	version, err := db.load()
	if err != nil {
		return nil, err
	}
	if err := db.upgrade(version); err != nil {
		return nil, err
	}
	return db, nil
}

func openError(err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return errLocked
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return fmt.Errorf("%w: %w", ErrUnusable, err)
}

// newRunID is part of the ids of turns.
func newRunID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// create makes an empty store at path. It appears there whole: a crash on the
// way leaves no file that looks like a store and is none.
func create(path string, o Options) (err error) {
	tmp := path + newSuffix
	b, err := newFile(tmp, boltOptions(o))
	if err == nil {
		err = b.Close()
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, errors.Join(err, ignoreMissing(os.Remove(tmp))))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// newFile makes a file with empty buckets.
func newFile(path string, o *bolt.Options) (*bolt.DB, error) {
	b, err := openBolt(path, o)
	if err != nil {
		return nil, err
	}
	err = b.Update(func(tx *bolt.Tx) error {
		for _, name := range allBuckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return putVersion(tx)
	})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// syncDir makes a file that was created or renamed in dir stay there.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// load reads what is kept in memory. All values were checked before.
func (db *DB) load() (version int, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		if version, err = readVersion(tx); err != nil {
			return err
		}
		if err := checkBuckets(tx, version); err != nil {
			return err
		}
		byID, err := db.loadStreams(tx)
		if err != nil {
			return err
		}
		for _, load := range []func(*bolt.Tx, map[uint32]*stream) error{
			db.loadWritten, db.loadIDs, db.loadSubscriptions, db.loadDeadLetters,
		} {
			if err := load(tx, byID); err != nil {
				return err
			}
		}
		if err := db.clock.load(tx, &db.o); err != nil {
			return err
		}
		if err := db.loadProducers(tx, byID); err != nil {
			return err
		}
		return db.loadDelayed(tx, byID)
	})
	return version, err
}

func (db *DB) loadStreams(tx *bolt.Tx) (map[uint32]*stream, error) {
	byID := make(map[uint32]*stream)
	err := tx.Bucket(bucketStreams).ForEach(func(k, v []byte) error {
		var r streamRecord
		if err := getJSON(k, v, &r); err != nil {
			return fmt.Errorf("stream %s: %w", k, err)
		}
		s := newStream(r.ID, r.Config)
		key := idKey(r.ID)
		if v := tx.Bucket(bucketCounters).Get(key); v != nil {
			var err error
			if s.disk, err = decodeCounters(key, v); err != nil {
				return fmt.Errorf("counters of stream %s: %w", k, err)
			}
		}
		if err := s.resume(tx); err != nil {
			return err
		}
		s.rollback()
		db.streams[r.Config.Name], byID[r.ID] = s, s
		return nil
	})
	return byID, err
}

// loadWritten finds the last message of each stream that the file has.
func (db *DB) loadWritten(tx *bolt.Tx, byID map[uint32]*stream) error {
	c := tx.Bucket(bucketMessages).Cursor()
	for id, s := range byID {
		k, _ := c.Seek(seqKey(id, math.MaxUint64))
		if k == nil {
			k, _ = c.Last()
		} else if of, _, _ := splitSeqKey(k); of != id {
			k, _ = c.Prev()
		}
		if of, seq, ok := splitSeqKey(k); ok && of == id {
			s.written = seq
		}
	}
	return nil
}

func (db *DB) loadIDs(tx *bolt.Tx, byID map[uint32]*stream) error {
	return tx.Bucket(bucketIDs).ForEach(func(k, v []byte) error {
		id, seq, ok := splitSeqKey(k)
		s := byID[id]
		body, err := unseal(k, v)
		if !ok || s == nil || err != nil || len(body) != len(idHash{}) && len(body) != 2*len(idHash{}) {
			return fmt.Errorf("identity of message under key %x: %w", k, ErrDamaged)
		}
		for h := range slices.Chunk(body, len(idHash{})) {
			s.ids.add(idHash(h), seq)
		}
		return nil
	})
}

func (db *DB) loadSubscriptions(tx *bolt.Tx, _ map[uint32]*stream) error {
	return tx.Bucket(bucketSubs).ForEach(func(k, v []byte) error {
		var r subscriptionRecord
		if err := getJSON(k, v, &r); err != nil {
			return fmt.Errorf("subscription %s: %w", k, err)
		}
		sub := &subscription{id: r.ID, name: string(k), stream: db.streams[r.Stream]}
		if sub.stream == nil {
			return fmt.Errorf("subscription %s of stream %s, which is missing: %w", k, r.Stream, ErrDamaged)
		}
		key := idKey(r.ID)
		var err error
		if sub.pos, err = decodePosition(key, tx.Bucket(bucketPositions).Get(key)); err != nil {
			return fmt.Errorf("position of subscription %s: %w", k, err)
		}
		sub.pos.resume(sub.stream)
		db.subs[sub.name] = sub
		return nil
	})
}
