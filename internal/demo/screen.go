package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Screen shows the demo. Its methods are called by one goroutine at a time.
type Screen interface {
	// Tell says what happens, at a time since the start.
	Tell(at time.Duration, text string)
	// Show shows the present, some times a second.
	Show(v View)
	// Close leaves the terminal as it was. Nothing is shown after it.
	Close()
}

type quiet struct{}

func (quiet) Tell(time.Duration, string) {}
func (quiet) Show(View)                  {}
func (quiet) Close()                     {}

// NewPlain returns a screen of plain lines: what happens when it does, and the
// present each second.
func NewPlain(w io.Writer) Screen { return &plain{w: w} }

type plain struct {
	w    io.Writer
	next time.Duration // of the present
}

func (p *plain) Tell(at time.Duration, text string) {
	fmt.Fprintf(p.w, "%5s  %s\n", seconds(at), text)
}

func (p *plain) Show(v View) {
	if v.Elapsed < p.next {
		return
	}
	p.next = v.Elapsed.Truncate(time.Second) + time.Second
	fmt.Fprintf(p.w, "%5s    %s\n", seconds(v.Elapsed), v.line())
}

func (p *plain) Close() {}

// NewLive returns a screen for a terminal: what happens scrolls by, and below it
// the present is redrawn in place. size asks for the columns and rows of the
// terminal, which may change.
func NewLive(w io.Writer, size func() (columns, rows int), color bool) Screen {
	return &live{w: w, size: size, paint: paint(color)}
}

type live struct {
	w     io.Writer
	size  func() (columns, rows int)
	paint paint
	drawn []int // lengths of the lines that stand below
	view  View
	begun bool
}

const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	clearBelow = "\r\x1b[J"
	resetStyle = "\x1b[0m"
)

// erase goes up to where the drawn lines begin, and clears from there. When the
// terminal has become narrower, the lines take more rows than they did.
func (l *live) erase(columns int) string {
	rows := 0
	for _, n := range l.drawn {
		rows += max((n+columns-1)/columns, 1)
	}
	l.drawn = nil
	if rows == 0 {
		return clearBelow
	}
	return fmt.Sprintf("\x1b[%dA", rows) + clearBelow
}

func (l *live) draw(columns, rows int) string {
	lines := l.view.lines(columns, l.paint)
	lines = lines[:min(len(lines), max(rows-1, 1))]
	for range lines {
		l.drawn = append(l.drawn, columns-1)
	}
	return strings.Join(lines, "\n") + "\n"
}

// print writes in one piece, so that the terminal does not flicker.
func (l *live) print(text func(columns, rows int) string) {
	columns, rows := l.size()
	columns, rows = max(columns, 2), max(rows, 2)
	out := l.erase(columns) + text(columns, rows)
	if !l.begun {
		out, l.begun = hideCursor+out, true
	}
	_, _ = io.WriteString(l.w, out) // the terminal
}

func (l *live) Tell(at time.Duration, text string) {
	l.print(func(columns, rows int) string {
		var b strings.Builder
		label := fmt.Sprintf("%5s  ", seconds(at))
		for _, line := range wrap(text, max(columns-1-utf8.RuneCountInString(label), 10)) {
			b.WriteString(l.paint.in(faint, label) + line + "\n")
			label = strings.Repeat(" ", len(label))
		}
		if l.view.Round > 0 {
			b.WriteString(l.draw(columns, rows))
		}
		return b.String()
	})
}

func (l *live) Show(v View) {
	l.view = v
	l.print(l.draw)
}

func (l *live) Close() {
	if l.begun {
		_, _ = io.WriteString(l.w, resetStyle+showCursor)
	}
}
