package runtime

import (
	"bytes"
	"context"
	"log/slog"
)

const (
	maxLineBytes   = 4 << 10 // of a guest's line in the log
	maxOutputBytes = 4 << 10 // of stderr kept for a trap
)

// guestLog hands on what an actor prints.
type guestLog struct {
	actor string
	write func(ctx context.Context, actor string, level slog.Level, stream, text string)
}

func (g *guestLog) line(ctx context.Context, level slog.Level, stream string, text []byte) {
	if len(text) > 0 {
		g.write(ctx, g.actor, level, stream, string(text[:min(len(text), maxLineBytes)]))
	}
}

// lineWriter cuts a guest's stdout or stderr into lines. It belongs to an
// instance and is for its goroutine.
type lineWriter struct {
	log    *guestLog
	level  slog.Level
	stream string
	rest   []byte // a line that has not ended
	tail   []byte // the end of all that was written since the last reset
}

// Write implements io.Writer; it never fails.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.tail = append(w.tail, p[max(0, len(p)-maxOutputBytes):]...)
	w.tail = w.tail[max(0, len(w.tail)-maxOutputBytes):]
	n := len(p)
	for len(p) > 0 {
		line, after, found := bytes.Cut(p, []byte{'\n'})
		if len(w.rest) < maxLineBytes {
			w.rest = append(w.rest, line...)
		}
		if found {
			w.flush()
		}
		p = after
	}
	return n, nil
}

// flush ends the line that has been begun.
func (w *lineWriter) flush() {
	w.log.line(context.Background(), w.level, w.stream, w.rest)
	w.rest = w.rest[:0]
}

// reset forgets what was written, for the next call.
func (w *lineWriter) reset() {
	w.flush()
	w.tail = w.tail[:0]
}
