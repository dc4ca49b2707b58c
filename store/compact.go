package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

// CompactReport tells what a compaction gave back.
type CompactReport struct {
	Before int64         `json:"before"`    // bytes of the file
	After  int64         `json:"after"`     // bytes of the file that took its place
	Took   time.Duration `json:"took_ns"`   // in all
	Paused time.Duration `json:"paused_ns"` // of which nothing was committed for so long
}

// Bounds of a compaction.
const (
	compactPart   = 4 << 20                // bytes looked at in one transaction
	compactRounds = 8                      // before it is given up
	compactPause  = 500 * time.Millisecond // the longest that publishers are held up
	compactSlack  = 1 << 20                // beyond what the copy takes; a disk that is full is when room is needed most
	growStep      = 4 << 20                // by which the file grows
)

// ErrBusy: so much is written, or held, that the last step of a compaction
// would hold up publishers for too long. It can be tried later, or with the
// box stopped.
var ErrBusy = errors.New("too busy")

// Compact copies what the file holds into a new one, which takes its place, and
// so gives back to the disk what was freed. The store goes on meanwhile; it
// commits nothing only while the last changes are copied and the files swapped,
// for half a second at most. It fails with ErrFull where the disk has no room
// for the copy, and with ErrBusy. A failed one leaves the file as it was.
func (db *DB) Compact(ctx context.Context) (CompactReport, error) {
	return db.compact(ctx, compactPause)
}

// Compact is DB.Compact for a store that nobody has open. However long it
// takes, it is not given up for that.
func Compact(ctx context.Context, o Options) (CompactReport, error) {
	db, err := Open(o)
	if err != nil {
		return CompactReport{}, err
	}
	r, err := db.compact(ctx, 0)
	return r, errors.Join(err, db.Close())
}

// compact gives up if the last step is expected to take longer than pause, 0
// for no bound.
func (db *DB) compact(ctx context.Context, pause time.Duration) (CompactReport, error) {
	db.compacting.Lock()
	defer db.compacting.Unlock()
	start := time.Now()
	c := &compaction{db: db, path: filepath.Join(db.o.Dir, fileName+newSuffix)}
	r, err := c.run(ctx, pause)
	if err != nil {
		return CompactReport{}, fmt.Errorf("compact store: %w", err)
	}
	r.Took = time.Since(start)
	db.log.Info("store compacted", "before", r.Before, "after", r.After, "took", r.Took, "paused", r.Paused)
	return r, nil
}

// compaction is one under way. Everything but swap runs beside the writer.
type compaction struct {
	db   *DB
	path string // of the copy
	copy *bolt.DB
	old  *bolt.DB // what the copy took the place of
}

func (c *compaction) run(ctx context.Context, pause time.Duration) (r CompactReport, err error) {
	db := c.db
	if r.Before, err = fileSize(filepath.Join(db.o.Dir, fileName)); err != nil {
		return r, err
	}
	used, live, err := db.fileUse()
	if err != nil {
		return r, err
	}
	if err := db.roomFor(live + live/8 + compactSlack); err != nil {
		return r, err
	}
	if err := ignoreMissing(os.Remove(c.path)); err != nil {
		return r, err
	}
	o := boltOptions(db.o)
	o.MaxSize = max(o.MaxSize, clampInt(used)) // the file may be from when the limit was higher
	o.NoSync = true                            // until it takes the place of the other
	if c.copy, err = openBolt(c.path, o); err != nil {
		return r, errors.Join(full(err), ignoreMissing(os.Remove(c.path)))
	}
	defer func() {
		if c.old == nil { // it came to nothing
			err = errors.Join(err, c.copy.Close(), ignoreMissing(os.Remove(c.path)))
		}
	}()
	if err := c.catchUp(ctx, pause); err != nil {
		return r, full(err)
	}
	begun := time.Now()
	if err := db.inWriter(c.swap); err != nil {
		return r, full(err)
	}
	r.Paused = time.Since(begun)
	r.After, err = fileSize(filepath.Join(db.o.Dir, fileName))
	// Nobody reads the old file any more, since swap waited for them. It is gone
	// from the disk when it is closed.
	return r, errors.Join(err, c.old.Close())
}

// catchUp copies everything, and then, again and again, what has changed
// meanwhile, until what is left for swap takes no longer than pause. All keys
// are compared each time; for bbolt says nothing of what changed, and reading
// is cheap beside writing. A long read transaction would keep pages from being
// used again, so that the file would grow while it is being compacted. Hence
// many short ones: what is torn between two of them, the next round mends.
func (c *compaction) catchUp(ctx context.Context, pause time.Duration) error {
	var took time.Duration
	for round := range compactRounds {
		begun := time.Now()
		changed, err := c.mirror(ctx)
		if err != nil {
			return err
		}
		if err := c.copy.Sync(); err != nil {
			return err
		}
		took = time.Since(begun)
		if pause == 0 || round > 0 && took <= pause && changed <= compactPart {
			return nil
		}
	}
	return fmt.Errorf("publishers would have to wait for about %s: %w; try again later, or stop the box first", took.Round(time.Millisecond), ErrBusy)
}

// mirror makes the copy hold what the store holds, part by part, and returns
// how many bytes of keys and values it wrote.
func (c *compaction) mirror(ctx context.Context) (changed int64, err error) {
	for _, name := range allBuckets {
		for from := []byte{}; from != nil; {
			if err := ctx.Err(); err != nil {
				return changed, context.Cause(ctx)
			}
			if err := c.db.open(); err != nil {
				return changed, err
			}
			err := c.db.view(func(src *bolt.Tx) error {
				return c.copy.Update(func(dst *bolt.Tx) (err error) {
					b, err := dst.CreateBucketIfNotExists(name)
					if err != nil {
						return err
					}
					var n int64
					from, n, err = mirrorPart(src.Bucket(name), b, from)
					changed += n
					return err
				})
			})
			if err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

// change is a key that dst does not have as src has it; value nil deletes.
type change struct{ key, value []byte }

// mirrorPart makes dst hold what src holds from a key on. It looks at so many
// bytes only, and returns where to go on, nil at the end.
func mirrorPart(src, dst *bolt.Bucket, from []byte) (next []byte, changed int64, err error) {
	var todo []change // dst must not change under its cursor
	s, d := src.Cursor(), dst.Cursor()
	sk, sv := s.Seek(from)
	dk, dv := d.Seek(from)
	for n := 0; sk != nil || dk != nil; {
		if n > compactPart {
			next = slices.Clone(sk)
			if sk == nil || dk != nil && bytes.Compare(dk, sk) < 0 {
				next = slices.Clone(dk)
			}
			break
		}
		order := bytes.Compare(sk, dk)
		switch {
		case sk == nil || dk != nil && order > 0:
			n += len(dk) + len(dv)
			todo = append(todo, change{dk, nil})
			dk, dv = d.Next()
			continue
		case dk != nil && order == 0:
			if !bytes.Equal(sv, dv) {
				todo = append(todo, change{sk, sv})
			}
			dk, dv = d.Next()
		default:
			todo = append(todo, change{sk, sv})
		}
		n += len(sk) + len(sv)
		sk, sv = s.Next()
	}
	dst.FillPercent = 1
	for _, c := range todo {
		changed += int64(len(c.key) + len(c.value))
		if c.value == nil {
			err = dst.Delete(slices.Clone(c.key))
		} else {
			err = dst.Put(c.key, c.value)
		}
		if err != nil {
			return nil, changed, err
		}
	}
	if src.Sequence() != dst.Sequence() {
		err = dst.SetSequence(src.Sequence())
	}
	return next, changed, err
}

// swap runs in the writer, between two groups: it copies what has changed
// since catchUp and puts the copy in the place of the file.
//
// A power cut before the rename leaves the old file and a copy that the next
// Open removes; one after it leaves either of them under the name, and they
// hold the same, since nothing is committed before the folder is on disk too.
func (c *compaction) swap() error {
	db := c.db
	if _, err := c.mirror(context.Background()); err != nil {
		return err
	}
	if err := c.copy.Sync(); err != nil {
		return err
	}
	used := int64(0)
	if err := c.copy.View(func(tx *bolt.Tx) error { used = tx.Size(); return nil }); err != nil {
		return err
	}
	// bbolt takes room ahead of need; it does so again with the first commit.
	if err := os.Truncate(c.path, used); err != nil {
		return err
	}
	if err := db.o.Failpoint(FailpointBeforeSwap); err != nil {
		return err
	}
	db.readers.Lock()
	defer db.readers.Unlock()
	if err := os.Rename(c.path, filepath.Join(db.o.Dir, fileName)); err != nil {
		return err
	}
	c.copy.NoSync = false
	c.old, db.bolt = db.bolt, c.copy
	err := syncDir(db.o.Dir)
	if err == nil {
		err = db.o.Failpoint(FailpointAfterSwap)
	}
	if err != nil {
		// Whatever is committed to the new file might be gone with a power cut
		// that brings the old one back.
		err = fmt.Errorf("swap the file: %w", err)
		db.fail(err)
	}
	return err
}

// inWriter runs fn in the writer, between two groups.
func (db *DB) inWriter(fn func() error) error {
	return db.adminOf(true, func(*bolt.Tx) (func(), error) { return func() {}, fn() })
}

// open says whether the store is open, and has not failed.
func (db *DB) open() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.usable()
}

// fileUse returns up to where pages of the file were ever used, in bytes, and
// how much of it is in use now.
func (db *DB) fileUse() (used, live int64, err error) {
	err = db.view(func(tx *bolt.Tx) error {
		s := tx.DB().Stats()
		used = tx.Size()
		live = used - int64(s.FreePageN+s.PendingPageN)*int64(tx.DB().Info().PageSize)
		return nil
	})
	return used, live, err
}

// roomFor says whether the disk has room for so many bytes.
func (db *DB) roomFor(need int64) error {
	free, err := db.freeRoom(db.o.Dir)
	if err != nil {
		return fmt.Errorf("free room of %s: %w", db.o.Dir, err)
	}
	if free < need {
		return fmt.Errorf("%w: the copy needs %d bytes of room, the disk has %d", ErrFull, need, free)
	}
	return nil
}

// freeRoom returns what may be written to the file system of dir.
func freeRoom(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// full makes an error of a write that found no room ErrFull.
func full(err error) error {
	if noRoom(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
