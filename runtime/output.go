package runtime

import (
	"bytes"
	"context"
	"log/slog"
)

const (
	maxLineBytes   = 4 << 10 // of a guest's line in the log
	maxOutputBytes = 4 << 10 // of stderr kept for a trap
	lineWork       = 8 << 10 // what handing on a line is as good as, in bytes moved
)

// guestLog hands on what an actor prints.
type guestLog struct {
	actor string
	write func(ctx context.Context, actor string, level slog.Level, stream string, text []byte)
}

func (g *guestLog) line(ctx context.Context, level slog.Level, stream string, text []byte) {
	if len(text) > 0 {
		g.write(ctx, g.actor, level, stream, text[:min(len(text), maxLineBytes)])
	}
}

// lineWriter cuts a guest's stdout or stderr into lines. It belongs to an
// instance and is for its goroutine.
type lineWriter struct {
	in     *instance
	level  slog.Level
	stream string
	rest   []byte // a line that has not ended
	tail   []byte // the end of all that was written in this call
	held   []byte // the lines of a panic, which the error tells if it ends in one
}

// keep keeps what a guest says for the error, if the call ends in a trap.
func (w *lineWriter) keep(p []byte) {
	p = p[max(0, len(p)-maxOutputBytes):]
	// Moved to the front, since what is cut off there is lost to the next append: a
	// guest that does nothing but log had it make a new one for every line.
	if over := len(w.tail) + len(p) - maxOutputBytes; over > 0 {
		w.tail = append(w.tail[:0], w.tail[over:]...)
	}
	w.tail = append(w.tail, p...)
}

// said is what a guest said last. Of a report that is longer than what is kept
// its beginning says why.
func (w *lineWriter) said() []byte {
	if len(w.held) == maxOutputBytes {
		return w.held
	}
	return w.tail
}

func (w *lineWriter) write(p []byte) {
	w.keep(p)
	for len(p) > 0 {
		line, after, found := bytes.Cut(p, []byte{'\n'})
		w.in.work(uint64(len(line)))
		w.rest = append(w.rest, line[:min(len(line), maxLineBytes-len(w.rest))]...)
		if found {
			if len(w.rest) > 0 {
				w.in.work(lineWork)
			}
			w.flush()
		}
		p = after
	}
}

// flush ends the line that has been begun. Those in which a program in Go says
// why it ends wait for its end: the error has them.
func (w *lineWriter) flush() {
	panics := bytes.HasPrefix(w.rest, []byte("panic: ")) || bytes.HasPrefix(w.rest, []byte("fatal error: "))
	if len(w.held) > 0 || panics {
		w.held = append(append(w.held, w.rest...), '\n')
		w.held = w.held[:min(len(w.held), maxOutputBytes)]
	} else {
		w.in.actor.output.line(w.in.ctx, w.level, w.stream, w.rest)
	}
	w.rest = w.rest[:0]
}

// end is the end of a call.
func (w *lineWriter) end() {
	if len(w.tail) > 0 {
		w.finish()
	}
}

func (w *lineWriter) finish() {
	if len(w.rest) > 0 {
		w.flush()
	}
	if len(w.held) > 0 && !w.in.dead {
		for line := range bytes.Lines(w.held) {
			w.in.actor.output.line(w.in.ctx, w.level, w.stream, bytes.TrimRight(line, "\n"))
		}
	}
	w.tail, w.held = w.tail[:0], w.held[:0]
}
