package child

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	maxLine   = 2 << 10 // bytes of a line that are logged
	lineRate  = 20      // lines a second that are
	lineBurst = 400     // lines that may come at once
	readRate  = 4 << 20 // bytes a second that are read; more makes the writer wait
)

// output takes what a process writes to the log of the box, so much of it: a loop that
// writes must wear out neither the flash nor who reads.
type output struct {
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	tokens  float64
	at      time.Time
	dropped int // since lines began to be
	last    string
	bytes   int // read since second
	second  time.Time
}

func newOutput(log *slog.Logger) *output {
	return &output{log: log, tokens: lineBurst, at: time.Now()}
}

// read logs the lines of a stream until it ends, and closes it.
func (o *output) read(f io.ReadCloser, stream string) {
	defer f.Close() // only read from
	r := bufio.NewReaderSize(f, maxLine)
	whole := true // the next read begins a line
	for {
		line, err := r.ReadSlice('\n')
		cut := errors.Is(err, bufio.ErrBufferFull)
		if len(line) > 0 && whole {
			o.line(stream, string(line), cut)
		}
		if whole = !cut; err != nil && !cut {
			o.settle()
			return
		}
		o.pace(len(line))
	}
}

// pace waits when too much was read in this second.
func (o *output) pace(n int) {
	o.mu.Lock()
	now := time.Now()
	if now.Sub(o.second) >= time.Second {
		o.second, o.bytes = now, 0
	}
	o.bytes += n
	var wait time.Duration
	if o.bytes > readRate {
		wait = time.Second - now.Sub(o.second)
	}
	o.mu.Unlock()
	if wait > 0 {
		time.Sleep(wait)
	}
}

// line logs a line, if it may come now.
func (o *output) line(stream, text string, cut bool) {
	text = strings.ToValidUTF8(strings.TrimRight(text, "\r\n"), "\uFFFD")
	if cut {
		text += "…"
	}
	o.mu.Lock()
	now := time.Now()
	o.tokens, o.at = min(o.tokens+now.Sub(o.at).Seconds()*lineRate, lineBurst), now
	if strings.TrimSpace(text) != "" {
		o.last = text
	}
	dropped := o.dropped
	admitted := o.tokens >= 1 && (dropped == 0 || o.tokens >= lineRate) // in blocks, once it floods
	if admitted {
		o.tokens--
		o.dropped = 0
	} else {
		o.dropped++
	}
	o.mu.Unlock()
	switch {
	case admitted:
		o.tellDropped(dropped)
		o.log.LogAttrs(context.Background(), slog.LevelInfo, "provider output", slog.String("stream", stream), slog.String("text", text))
	case dropped == 0:
		o.log.Warn("provider writes more than the log takes, lines are dropped", "lines_a_second", lineRate)
	}
}

// settle tells what was dropped last.
func (o *output) settle() {
	o.mu.Lock()
	dropped := o.dropped
	o.dropped = 0
	o.mu.Unlock()
	o.tellDropped(dropped)
}

func (o *output) tellDropped(n int) {
	if n > 0 {
		o.log.Warn("provider output was dropped", "lines", n)
	}
}

// lastLine is the last line with something on it: mostly why the process ended.
func (o *output) lastLine() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}
