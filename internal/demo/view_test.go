package demo

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// scenes are views of a run, by what is special about them.
func views() (names []string, all map[string]View) {
	calm := View{
		Elapsed: 4 * time.Second, RoundEnds: 31 * time.Second, Round: 1, Sensors: 6, Rate: 100, Sent: 400, Acked: 399,
		Box: true, Lives: 1, Turns: 399, Waiting: 3, Link: true, HubReadings: 396, HubAlarms: 4, waited: []uint64{0, 1, 3},
	}
	cut := calm
	cut.Cut, cut.Link, cut.Relay, cut.Waiting, cut.Round = true, false, true, 1400, 2
	cut.waited = nil
	for i := range uint64(90) {
		cut.waited = append(cut.waited, i*i)
	}
	killed := calm
	killed.Box, killed.Link, killed.Relay = false, false, true
	started := calm
	started.Lives, started.Turns, started.Link, started.waited = 2, 0, false, nil
	return []string{"calm", "cut", "killed", "started"}, map[string]View{"calm": calm, "cut": cut, "killed": killed, "started": started}
}

func TestView_lines(t *testing.T) {
	var out strings.Builder
	names, all := views()
	for _, width := range []int{80, 30} {
		for _, name := range names {
			fmt.Fprintf(&out, "%s, %d columns\n%s\n\n", name, width, strings.Join(all[name].lines(width, false), "\n"))
		}
	}
	fmt.Fprintf(&out, "in colour\n%q\n", all["cut"].lines(60, true))
	golden(t, "view", out.String())
}

func TestView_line(t *testing.T) {
	var out strings.Builder
	names, all := views()
	p := NewPlain(&out)
	p.Tell(3*time.Second, "It begins.")
	for i, name := range names {
		v := all[name]
		v.Elapsed += time.Duration(i) * 500 * time.Millisecond // a line each second
		p.Show(v)
	}
	p.Close()
	golden(t, "plain", out.String())
}

// However narrow, a line that is drawn never takes two rows, or redrawing would
// leave some of it behind.
func TestView_lines_fit(t *testing.T) {
	_, all := views()
	for name, v := range all {
		for width := 2; width < 200; width++ {
			for _, line := range v.lines(width, false) {
				if n := utf8.RuneCountInString(line); n > width-1 {
					t.Errorf("%s: %d columns in a terminal of %d: %q", name, n, width, line)
				}
			}
		}
	}
}

func TestView_note_keepsTheHighestOfEachStep(t *testing.T) {
	var v View
	for i, n := range []uint64{1, 5, 2, 9, 3, 3, 4} {
		v.Elapsed, v.Waiting = time.Duration(i)*200*time.Millisecond, n
		v.note()
	}
	if got := fmt.Sprint(v.waited); got != "[5 9 4]" {
		t.Errorf("got %s", got)
	}
	for i := range 1000 {
		v.Elapsed = time.Minute + time.Duration(i)*time.Second
		v.note()
	}
	if len(v.waited) != historyLen {
		t.Errorf("%d values are kept", len(v.waited))
	}
}

func TestLive_redrawsInPlace(t *testing.T) {
	var out bytes.Buffer
	columns := 60
	l := NewLive(&out, func() (int, int) { return columns, 24 }, false)
	l.Tell(0, "Here is a sentence that is longer than what fits into one row.")
	if text := out.String(); strings.Contains(text, "\x1b[1A") || !strings.HasPrefix(text, hideCursor) {
		t.Errorf("the beginning is %q", text)
	}
	_, all := views()
	for _, step := range []struct {
		columns int
		up      string
	}{{60, clearBelow}, {60, "\x1b[7A"}, {30, "\x1b[14A"}, {30, "\x1b[7A"}} {
		out.Reset()
		columns = step.columns
		l.Show(all["calm"])
		if !strings.HasPrefix(out.String(), step.up) {
			t.Errorf("at %d columns it begins with %.20q, want %q", columns, out.String(), step.up)
		}
	}
	out.Reset()
	l.Close()
	if !strings.HasSuffix(out.String(), showCursor) {
		t.Errorf("the end is %q", out.String())
	}
}

func TestWrap(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "",
		"one":                 "one",
		"one two three":       "one two|three",
		"  edged status --x":  "  edged|status|--x",
		"incomprehensible it": "incomprehensible|it",
	} {
		if got := strings.Join(wrap(text, 8), "|"); got != want {
			t.Errorf("wrap %q: got %q, want %q", text, got, want)
		}
	}
}

func TestResult_Print(t *testing.T) {
	r := Result{
		Same: true, Rounds: 1, Kills: 2, Cuts: 1, Peak: 1527,
		Readings: []Comparison{{Sensor: "east", Due: 500, Held: 500}, {Sensor: "roof", Due: 500, Held: 501}},
		Alarms:   []Comparison{{Sensor: "roof", Due: 240, Held: 240}},
	}
	var out strings.Builder
	r.Print(&out)
	r.Same, r.Kills = false, 1
	r.Readings[1].Missing, r.Readings[1].OutOfOrder = 2, 1
	r.Print(&out)
	Result{}.Print(&out) // nothing was compared
	golden(t, "result", out.String())
}
