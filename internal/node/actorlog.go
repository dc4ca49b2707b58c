package node

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/broker"
)

const (
	// logUnit is how much of a line the log rate counts as one.
	logUnit = 256
	// logBurst is how many seconds' worth of lines may come at once.
	logBurst = 10
	// How often it is told that lines are dropped: at first, and while it lasts.
	dropFirst, dropAgain = time.Second, 10 * time.Second
)

// actorLog writes what an actor says, by whichever way, to the log of the box,
// and holds it to its rate: a loop that logs must wear out neither the flash nor
// who reads. What is beyond it is dropped, counted, and told.
type actorLog struct {
	log    atomic.Pointer[slog.Logger]
	met    func(lines uint64) // counts what is dropped
	bucket bucket

	mu      sync.Mutex // guards all below
	dropped uint64     // since it was told
	total   uint64     // since lines began to be dropped
	timer   *time.Timer
}

// rate sets how many lines a second there may be.
func (l *actorLog) rate(lines int) { l.bucket.set(float64(lines), float64(logBurst*lines)) }

// line writes a line that came from a stream, "" for Logging.WriteLog. It is of 8
// KiB at most.
func (l *actorLog) line(ctx context.Context, level slog.Level, stream, text string) {
	if l.admits(ctx, level, len(text)) {
		l.write(ctx, level, stream, text)
	}
}

// admits says whether a line of n bytes is to be written. If it is not, it is
// counted, where it has to be.
func (l *actorLog) admits(ctx context.Context, level slog.Level, n int) bool {
	if !l.log.Load().Enabled(ctx, level) {
		return false
	}
	if !l.bucket.take(time.Now(), float64(1+max(n-1, 0)/logUnit)) {
		l.drop()
		return false
	}
	return true
}

// write writes a line that was admitted.
func (l *actorLog) write(ctx context.Context, level slog.Level, stream, text string) {
	attrs := make([]slog.Attr, 0, 3)
	message := "actor says"
	if stream != "" {
		message, attrs = "actor output", append(attrs, slog.String("stream", stream))
	}
	attrs = append(attrs, slog.String("text", strings.ToValidUTF8(text, "\uFFFD")))
	if of := handled(ctx); of != "" {
		attrs = append(attrs, slog.String("message", of))
	}
	l.log.Load().LogAttrs(ctx, level, message, attrs...)
}

// drop counts a line that is not written, and has that told.
func (l *actorLog) drop() {
	l.met(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped++
	l.total++
	if l.timer == nil {
		l.timer = time.AfterFunc(dropFirst, l.tell) // ends when nothing is dropped any more
	}
}

// tell says what was dropped, and, once nothing is, that it is over.
func (l *actorLog) tell() {
	l.mu.Lock()
	dropped, total := l.dropped, l.total
	l.dropped = 0
	if dropped > 0 {
		l.timer.Reset(dropAgain)
	} else {
		l.timer, l.total = nil, 0
	}
	l.mu.Unlock()
	switch {
	case dropped == 0:
		l.log.Load().Info("actor keeps its log_rate again", "dropped", total)
	default:
		l.log.Load().Warn("actor logs more than its log_rate, lines are dropped", "dropped", dropped)
	}
}

type handledKey struct{}

// withHandled returns a context that says which message is handled in it.
func withHandled(ctx context.Context, m broker.Message) context.Context {
	return context.WithValue(ctx, handledKey{}, place{m.Stream, m.Seq})
}

// place is where a message is kept.
type place struct {
	stream string
	seq    uint64
}

func (p place) String() string { return p.stream + "/" + strconv.FormatUint(p.seq, 10) }

// handled returns the message that is handled under ctx, as stream/sequence, or "".
func handled(ctx context.Context) string {
	p, ok := ctx.Value(handledKey{}).(place)
	if !ok {
		return ""
	}
	return p.String()
}
