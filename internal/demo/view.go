package demo

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// View is what there is to see at one moment.
type View struct {
	Elapsed   time.Duration
	RoundEnds time.Duration // on the same clock
	Round     int

	Sensors, Rate int
	Sent, Acked   int // readings, in this round

	Box   bool
	Lives int    // how often the box has started
	Turns uint64 // since it started
	Relay bool   // closed

	Waiting uint64 // messages on the box's disk that the hub has not
	Cut     bool   // the link
	Link    bool   // the box says that it is up

	HubReadings, HubAlarms uint64 // that the hub holds, of this round

	waited []uint64      // Waiting, the highest of each historyStep; the last ones
	noted  time.Duration // when the last of these began
}

// The backlog's curve looks so far back, by these steps.
const (
	historyLen  = 200
	historyStep = 500 * time.Millisecond
)

func (v *View) note() {
	last := len(v.waited) - 1
	if last >= 0 && v.Elapsed < v.noted+historyStep {
		v.waited[last] = max(v.waited[last], v.Waiting)
		return
	}
	v.noted = v.Elapsed.Truncate(historyStep)
	v.waited = append(v.waited[max(len(v.waited)-historyLen+1, 0):], v.Waiting)
}

// paint colours text for a terminal, or leaves it.
type paint bool

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	faint  = "2"
)

func (p paint) in(color, text string) string {
	if !p || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// lines draws the view as lines of less than width columns.
func (v View) lines(width int, p paint) []string {
	head := " edged demo "
	clock := fmt.Sprintf(" %s of %s ", seconds(v.Elapsed), seconds(v.RoundEnds))
	if v.Round > 1 {
		clock = fmt.Sprintf(" round %d, %s of %s ", v.Round, seconds(v.Elapsed), seconds(v.RoundEnds))
	}
	rule := max(width-3-len(head)-len(clock)-2, 1)
	out := []string{p.in(faint, clip("──"+head+strings.Repeat("─", rule)+clock+"──", width-1))}
	row := func(label, color, state, more string) {
		text := clip(state, width-1-11)
		more = clip(more, width-1-11-utf8.RuneCountInString(text))
		mark := "●"
		if color == red {
			mark = "×"
		}
		out = append(out, clip(fmt.Sprintf(" %-7s ", label), width-1)+p.in(color, clip(mark, width-10))+clip(" ", width-11)+text+p.in(faint, more))
	}
	row("sensors", green, fmt.Sprintf("%d sent, %d acknowledged", v.Sent, v.Acked),
		fmt.Sprintf("  %d sensors, %d a second", v.Sensors, v.Rate))
	if v.Box {
		again := ""
		if v.Lives > 1 {
			again = " again"
		}
		row("box", green, fmt.Sprintf("%d turns", v.Turns), "  since it started"+again)
	} else {
		row("box", red, "killed", "")
	}
	relay, color := "open", faint
	if v.Relay {
		relay, color = "closed", yellow
	}
	if !v.Box {
		relay, color = "as it was", faint // kill -9 moves no line
	}
	row("relay", color, relay, "")
	v.diskRow(row, width)
	switch {
	case v.Cut:
		row("link", red, "cut", "")
	case !v.Box:
		row("link", red, "down", "")
	case !v.Link:
		row("link", yellow, "connecting", "")
	default:
		row("link", green, "up", "")
	}
	row("hub", green, fmt.Sprintf("%d readings, %d alarms", v.HubReadings, v.HubAlarms), "")
	return out
}

// diskRow shows the backlog and its past.
func (v View) diskRow(row func(label, color, state, more string), width int) {
	color := green
	if v.Waiting > 0 {
		color = yellow
	}
	text := fmt.Sprintf("%d wait for the hub", v.Waiting)
	row("disk", color, text, "  "+curve(v.waited, min(width-1-11-utf8.RuneCountInString(text)-2, historyLen)))
}

// curve draws the last values as bars, the highest as high as a line, at most
// width of them.
func curve(values []uint64, width int) string {
	if width <= 0 {
		return ""
	}
	values = values[max(len(values)-width, 0):]
	var top uint64 = 1
	for _, v := range values {
		top = max(top, v)
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	out := make([]rune, len(values))
	for i, v := range values {
		out[i] = bars[v*uint64(len(bars)-1)/top]
	}
	return string(out)
}

// line is the view in one line, for where it can not be redrawn.
func (v View) line() string {
	box, relay, link := fmt.Sprintf("%d turns", v.Turns), "open", "up"
	if v.Relay {
		relay = "closed"
	}
	if !v.Box {
		box, relay = "killed", "as it was"
	}
	switch {
	case v.Cut:
		link = "cut"
	case !v.Box:
		link = "down"
	case !v.Link:
		link = "connecting"
	}
	return fmt.Sprintf("sent %d, acknowledged %d | box: %s, relay %s | waiting on disk %d | link %s | hub: %d readings, %d alarms",
		v.Sent, v.Acked, box, relay, v.Waiting, link, v.HubReadings, v.HubAlarms)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%d s", int(d.Seconds())) }

// clip keeps the first columns of a text. All that is shown here is of single
// width.
func clip(text string, columns int) string {
	if columns <= 0 {
		return ""
	}
	if utf8.RuneCountInString(text) <= columns {
		return text
	}
	return string([]rune(text)[:columns])
}

// wrap breaks a text between words into lines of at most columns.
func wrap(text string, columns int) []string {
	words := strings.Split(text, " ")
	out, line := []string(nil), words[0]
	for _, word := range words[1:] {
		if strings.TrimSpace(line) != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
			out = append(out, line)
			line = word
			continue
		}
		line += " " + word
	}
	return append(out, line)
}
