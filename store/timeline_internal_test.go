package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// history is a timeline and the truth about it.
type history struct {
	line    *timeline
	own     time.Duration   // the store's own clock now
	truth   []time.Duration // real time minus own, of each start of the box
	starts  []time.Duration
	correct []bool // whether the wall clock was ever right since that start
}

func (h *history) real(own time.Duration) time.Duration {
	i := len(h.starts) - 1
	for h.starts[i] > own {
		i--
	}
	return own + h.truth[i]
}

// Whatever happens to a box, nothing is taken for older than it is; and for no
// younger, when the clock was right before and after.
func TestTimeline_neverOlder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{line: newTimeline(), truth: []time.Duration{1000 * time.Hour}, starts: []time.Duration{0}, correct: []bool{false}}
		var marks []time.Duration // moments of the own clock at which something was stored
		t.Repeat(map[string]func(*rapid.T){
			"run": func(t *rapid.T) {
				h.own += time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "for"))
				marks = append(marks, h.own)
			},
			"off": func(t *rapid.T) {
				off := time.Duration(rapid.Int64Range(0, int64(100*time.Hour)).Draw(t, "for"))
				h.own++
				h.line = h.line.opened(h.own)
				h.truth = append(h.truth, h.truth[len(h.truth)-1]+off)
				h.starts, h.correct = append(h.starts, h.own), append(h.correct, false)
			},
			"synced": func(t *rapid.T) {
				h.line = h.line.anchored(h.truth[len(h.truth)-1])
				h.correct[len(h.correct)-1] = true
			},
			"saved": func(t *rapid.T) {
				l, err := decodeTimeline(timelineKey, h.line.encode(timelineKey))
				if err != nil || !slices.Equal(l.sessions, h.line.sessions) {
					t.Fatalf("saved %v, loaded %v, %v", h.line, l, err)
				}
			},
			"": func(t *rapid.T) { h.check(t, marks) },
		})
	})
}

func (h *history) check(t *rapid.T, marks []time.Duration) {
	if n := len(h.line.sessions); n > maxSessions {
		t.Fatalf("%d sessions", n)
	}
	now := len(h.starts) - 1
	for _, m := range marks {
		age, truth := h.line.between(m, h.own), h.real(h.own)-h.real(m)
		if age > truth || age < h.own-m {
			t.Fatalf("what was stored at %v is %v old now at %v, and was taken for %v", m, truth, h.own, age)
		}
		i := now
		for h.starts[i] > m {
			i--
		}
		stamp, known := h.line.stamp(m, time.Unix(0, 0))
		off := stamp.Sub(time.Unix(0, int64(h.real(m))))
		if len(h.starts) > maxSessions {
			continue // some were merged
		}
		if h.correct[i] && h.correct[now] && age != truth {
			t.Fatalf("the clock was right at %v and is at %v, and %v was taken for %v", m, h.own, truth, age)
		}
		if known != h.correct[i] || known && off != 0 {
			t.Fatalf("stamp of %v is off by %v, known: %t", m, off, known)
		}
	}
}

// An unknown stamp is put between what is known to be before and after.
func TestTimeline_stamp(t *testing.T) {
	const h = time.Hour
	l := &timeline{[]session{{0, 100 * h, true}, {1 * h, 0, false}, {2 * h, 110 * h, true}, {3 * h, 0, false}}}
	for _, c := range []struct{ own, guess, want time.Duration }{
		{h / 2, 0, 100*h + h/2},
		{h + h/2, 0, 101*h + h/2},
		{h + h/2, 105 * h, 105 * h},
		{h + h/2, 999 * h, 111*h + h/2},
		{2*h + h/2, 999 * h, 112*h + h/2},
		{3*h + h/2, 0, 113*h + h/2},
		{3*h + h/2, 999 * h, 999 * h},
	} {
		got, known := l.stamp(c.own, realTime(c.guess, 0))
		if want := realTime(c.want, 0); !got.Equal(want) || known != l.sessions[l.at(c.own)].known {
			t.Errorf("at %v, with a guess of %v: %v, known %t; want %v", c.own, c.guess, got.Sub(realTime(0, 0)), known, c.want)
		}
	}
}

// A box that restarts for ever keeps the long gaps, and loses the short ones.
func TestTimeline_bounded(t *testing.T) {
	l := newTimeline().anchored(0)
	own, offset := time.Duration(0), time.Duration(0)
	for i := range 1000 {
		own += time.Minute
		off := time.Second
		if i%100 == 50 {
			off = 30 * 24 * time.Hour
		}
		offset += off
		l = l.opened(own).anchored(offset)
	}
	if len(l.sessions) != maxSessions {
		t.Fatalf("%d sessions", len(l.sessions))
	}
	truth := own + offset
	if got := l.between(0, own); got > truth || truth-got > 1000*time.Second {
		t.Errorf("all of it took %v, and was taken for %v", truth, got)
	}
	if l, err := decodeTimeline(timelineKey, l.encode(timelineKey)); err != nil || len(l.sessions) != maxSessions {
		t.Error(fmt.Errorf("loaded: %v, %w", l, err))
	}
}
