package store

import (
	"context"
	"errors"
	"time"
)

// When a file is compacted without being asked to.
const (
	quietAfter    = time.Minute      // not before Open is so long ago: a box has other things to do when it starts
	quietFor      = 10 * time.Second // the disk has been idle for two thirds of each second
	quietAgain    = 10 * time.Minute // after one that failed
	worthBytes    = 16 << 20         // of a file
	worthMultiple = 4                // of what is live in it
)

// quiet finds the time for a compaction. Only the writer asks.
type quiet struct {
	opened time.Time
	since  time.Time     // the writer has been mostly idle
	asked  time.Time     // the last time
	busy   time.Duration // by then
	not    time.Time     // before
}

// lasts says whether the writer, which has been at the disk for busy since
// Open, has had little to do for long enough.
func (q *quiet) lasts(now time.Time, busy time.Duration) bool {
	if q.asked.IsZero() || (busy-q.busy)*3 > now.Sub(q.asked) {
		q.since = now
	}
	q.asked, q.busy = now, busy
	return now.Sub(q.since) >= quietFor && now.Sub(q.opened) >= quietAfter && !now.Before(q.not)
}

// worthCompacting says whether most of a file is room that was given up.
func worthCompacting(used, live int64) bool { return used > worthBytes && used > worthMultiple*live }

// compactWhenQuiet starts a compaction when there is something to gain and
// little else to do. The writer calls it every second.
func (db *DB) compactWhenQuiet() {
	now := time.Now()
	if !db.quiet.lasts(now, time.Duration(db.busy.Load())) {
		return
	}
	used, live, err := db.fileUse()
	if err != nil || !worthCompacting(used, live) {
		return
	}
	db.quiet.not = now.Add(quietAgain)
	db.loops.Go(func() { // Close waits
		_, err := db.Compact(context.Background())
		switch {
		case err == nil, errors.Is(err, ErrClosed), errors.Is(err, ErrFailed):
		default:
			db.log.Warn("store keeps room that it does not need", "bytes", used, "live", live, "err", err)
		}
	})
}
