// Package logtext writes a log for people: a line of key=value pairs for each
// record, as slog has it, and beneath it, indented and as it is, what an error in
// the record tells in several lines, such as the stack of a guest. In one line
// with escaped line ends nobody could read that in a terminal or in the journal.
package logtext

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"unicode"
)

// Tracer is an error that tells more than its text, in several lines. Text beneath
// a record is that of the first error of its kind in a chain; "" is nothing.
type Tracer interface {
	error
	Trace() string
}

// LogTracer is a Tracer whose log may have another trace, or none.
type LogTracer interface {
	error
	LogTrace() string
}

// maxLines bounds what is written beneath a record.
const maxLines = 64

// NewHandler returns a handler that writes text to w, a record with what belongs
// to it in one piece. It may be used from many goroutines.
func NewHandler(w io.Writer, o *slog.HandlerOptions) slog.Handler {
	out := &output{w: w}
	return &handler{slog.NewTextHandler(&out.line, o), out}
}

type handler struct {
	text slog.Handler // writes to out.line
	out  *output
}

// output is shared by a handler and those made of it.
type output struct {
	w    io.Writer
	mu   sync.Mutex   // guards line
	line bytes.Buffer // of the record that is being written
}

func (h *handler) Enabled(ctx context.Context, l slog.Level) bool { return h.text.Enabled(ctx, l) }

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.text.WithAttrs(attrs), h.out}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.text.WithGroup(name), h.out}
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.line.Reset()
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			h.out.beneath(trace(err))
		}
		return true
	})
	_, err := h.out.w.Write(h.out.line.Bytes())
	return err
}

func trace(err error) string {
	var log LogTracer
	if errors.As(err, &log) {
		return log.LogTrace()
	}
	var t Tracer
	if errors.As(err, &t) {
		return t.Trace()
	}
	return ""
}

// beneath adds text to the line, four spaces further in. What a terminal would
// take for a command is left out of it.
func (o *output) beneath(text string) {
	if text == "" {
		return
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if i == maxLines {
			o.line.WriteString("    …\n")
			return
		}
		o.line.WriteString("    ")
		o.line.WriteString(strings.Map(func(r rune) rune {
			switch {
			case r == '\t':
				return ' '
			case unicode.IsControl(r):
				return -1
			}
			return r
		}, strings.ToValidUTF8(line, "\uFFFD")))
		o.line.WriteByte('\n')
	}
}
