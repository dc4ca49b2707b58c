package broker

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/store"
)

// noRoomPause is the least time between two lines that a stream has no room: one
// that is always nearly full takes and refuses by turns.
const noRoomPause = time.Minute

// noRoom tells of a stream that refuses what clients publish because it, or the
// disk, is full: when that begins, and when it ends. Each publisher is told
// anyway, if it asks.
type noRoom struct {
	log    *slog.Logger
	stream string
	lasts  atomic.Bool // while messages are refused; the usual way takes no lock

	mu      sync.Mutex // guards the fields below
	since   time.Time
	refused int
	said    bool // that it began
}

// note takes what came of a message.
func (r *noRoom) note(err error) {
	full := errors.Is(err, store.ErrFull)
	if !full && (err != nil || !r.lasts.Load()) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch began := r.lasts.Swap(full); {
	case full && !began:
		r.said = time.Since(r.since) >= noRoomPause
		r.refused = 1
		if r.said {
			r.since = time.Now()
			r.log.Warn("stream has no room, messages are refused", "stream", r.stream, "err", err)
		}
	case full:
		r.refused++
	case began && r.said:
		r.log.Info("stream takes messages again", "stream", r.stream, "refused", r.refused, "took", time.Since(r.since))
	}
}
