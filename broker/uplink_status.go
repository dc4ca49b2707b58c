package broker

import (
	"time"

	"github.com/edged-io/edged/store"
)

// show changes what Status returns.
func (l *uplinkLane) show(change func(*LaneStatus)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.shown)
	l.shown.Epoch, l.shown.Acked, l.shown.HubSeq = l.epoch, l.acked, l.rec.HubSeq
	if d := l.proof.now; d != nil {
		l.shown.Hub.Last, l.shown.Hub.Msgs = d.to(), d.count()
	}
}

func (l *uplinkLane) status() LaneStatus {
	l.mu.Lock()
	s := l.shown
	s.Rate = l.meter.rate(time.Now())
	l.mu.Unlock()
	s.Stream = l.stream
	info, err := l.db.Stream(l.stream)
	if err != nil {
		return s
	}
	s.Last = info.Last
	s.Lag, s.Bytes = Backlog(l.db, info, s.Acked)
	return s
}

// Backlog returns how many messages a stream holds beyond a sequence, and how many
// bytes, both about: sequences that have no message are not told from others, unless
// there is no message at all.
func Backlog(db *store.DB, info store.StreamInfo, acked uint64) (msgs uint64, bytes int64) {
	from := max(acked+1, info.First)
	if info.Last < from || info.Msgs <= 0 {
		return 0, 0
	}
	any := false
	err := db.Read(info.Name, from, 1, 1, func(store.Message) error { any = true; return nil })
	if err == nil && !any {
		return 0, 0 // sequences that a crash took
	}
	msgs = min(info.Last-from+1, uint64(info.Msgs))
	return msgs, int64(float64(info.Bytes) * float64(msgs) / float64(info.Msgs))
}
