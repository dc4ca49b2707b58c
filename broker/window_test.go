package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edged-io/edged/store"
)

// windowModel drives a window as deliveries and a store do: turns are queued one
// by one, committed in that order, or rolled back together.
type windowModel struct {
	*rapid.T
	w        *window
	now      time.Time
	next     uint64
	out      map[*item]string // handed out: "runs", "queued", "committed" or "lost"
	queue    []*item          // queued, in order
	finished map[string][]uint64
	undone   map[uint64]bool
	letters  uint64
}

func (m *windowModel) add() {
	if rapid.Bool().Draw(m.T, "matches") {
		subject := fmt.Sprint(rapid.IntRange(0, 2).Draw(m.T, "subject"))
		var expires time.Time
		if rapid.IntRange(0, 9).Draw(m.T, "expires") == 0 {
			expires = m.now.Add(time.Duration(rapid.IntRange(0, 9).Draw(m.T, "life")))
		}
		m.w.add(Message{
			Seq: m.next, Subject: subject, Data: make([]byte, rapid.IntRange(0, maxHeld).Draw(m.T, "size")),
		}, subject, 0, expires, nil)
		m.undone[m.next] = true
	}
	m.next++
}

func (m *windowModel) take() {
	m.w.advance(m.now)
	it, behind := m.w.takeChore()
	if it == nil {
		it, behind = m.w.take()
	}
	if it == nil {
		return
	}
	if m.w.ordered && it.letter == 0 {
		for _, l := range m.w.letters {
			if _, out := m.out[l]; !out && l.subject == it.subject {
				m.Fatalf("%d handed out before letter %d", it.seq, l.letter)
			}
		}
	}
	if it.due.After(m.now) {
		m.Fatalf("%d handed out too early", it.seq)
	}
	if _, twice := m.out[it]; twice || it.done {
		m.Fatalf("%d handed out twice", it.seq)
	}
	state := "runs"
	if m.w.ordered {
		for other, otherState := range m.out {
			if other.subject != it.subject {
				continue
			}
			if other.letter == it.letter && other.seq > it.seq || otherState == "runs" {
				m.Fatalf("%d handed out while %d %s", it.seq, other.seq, otherState)
			}
			if otherState == "lost" {
				state = "lost" // it cannot follow
			}
			if behind == nil {
				m.Fatalf("%d need not follow, but %d is out", it.seq, other.seq)
			}
		}
	}
	if !it.chore() && rapid.IntRange(0, 9).Draw(m.T, "pause") == 0 {
		m.w.untake(it)
		return
	}
	m.out[it] = state
}

// pick returns one that is out in one of these states.
func (m *windowModel) pick(states ...string) *item {
	var all []*item
	for it, state := range m.out {
		if slices.Contains(states, state) {
			all = append(all, it)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *item) int { return int(a.seq) - int(b.seq) })
	return rapid.SampledFrom(all).Draw(m.T, "item")
}

func (m *windowModel) handlerEnds(fail bool) {
	it := m.pick("runs")
	switch {
	case it == nil:
	case fail:
		m.again(it)
	default:
		m.out[it] = "queued"
		m.queue = append(m.queue, it)
		m.w.queued(it, new(store.Turn))
	}
}

func (m *windowModel) commit(n int) {
	for _, it := range m.queue[:n] {
		m.out[it] = "committed"
	}
	m.queue = m.queue[n:]
}

// rollback loses what is queued, and with it those that run behind one of them.
func (m *windowModel) rollback() {
	for _, it := range m.queue {
		m.out[it] = "lost"
		for other, state := range m.out {
			if m.w.ordered && other.subject == it.subject && state == "runs" {
				m.out[other] = "lost"
			}
		}
	}
	m.queue = nil
}

func (m *windowModel) report() {
	it := m.pick("committed", "lost")
	if it == nil {
		return
	}
	if m.out[it] == "lost" {
		m.again(it)
		return
	}
	delete(m.out, it)
	if it.letter == 0 {
		delete(m.undone, it.seq)
		m.finished[it.subject] = append(m.finished[it.subject], it.seq)
	}
	m.w.finish(it)
}

func (m *windowModel) again(it *item) {
	delete(m.out, it)
	m.w.retry(it, m.now.Add(time.Duration(rapid.IntRange(0, 3).Draw(m.T, "pause"))))
}

// addLetter has an older message come again.
func (m *windowModel) addLetter() {
	m.letters++
	subject := fmt.Sprint(rapid.IntRange(0, 2).Draw(m.T, "subject"))
	m.w.addLetter(m.letters, Message{Stream: "s", Seq: uint64(rapid.IntRange(1, 5).Draw(m.T, "seq")), Subject: subject}, subject)
}

func (m *windowModel) step() {
	switch rapid.IntRange(0, 8).Draw(m.T, "step") {
	case 8:
		m.addLetter()
	case 0, 1:
		m.add()
	case 2, 3:
		m.take()
	case 4:
		m.handlerEnds(rapid.IntRange(0, 3).Draw(m.T, "handler") == 0)
	case 5:
		if rapid.IntRange(0, 5).Draw(m.T, "disk") == 0 {
			m.rollback()
		} else {
			m.commit(rapid.IntRange(0, len(m.queue)).Draw(m.T, "group"))
		}
	case 6:
		m.report()
	default:
		m.now = m.now.Add(1)
	}
	m.check()
}

func (m *windowModel) check() {
	floor := m.w.floor(m.next)
	for seq := range m.undone {
		if seq <= floor {
			m.Fatalf("floor %d is beyond %d, which is not done", floor, seq)
		}
	}
	if len(m.undone) == 0 && floor != m.next-1 {
		m.Fatalf("floor %d, want %d: all is done", floor, m.next-1)
	}
	if m.w.held > 2*maxHeld {
		m.Fatalf("%d bytes held", m.w.held)
	}
}

// TestWindow_model: whatever fails, each item is finished once, those of a
// subject in the order of their commits, the floor never passes what is not
// done, nothing gets stuck, and nothing is held at the end.
func TestWindow_model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &windowModel{
			T: t, w: newWindow(rapid.Bool().Draw(t, "ordered")), now: time.Unix(1, 0), next: 1,
			out: make(map[*item]string), finished: make(map[string][]uint64), undone: make(map[uint64]bool),
		}
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			m.step()
		}
		for rounds := 0; len(m.undone)+len(m.w.letters) > 0; rounds++ {
			if rounds > 10_000 {
				t.Fatalf("stuck with %d undone", len(m.undone))
			}
			m.now = m.now.Add(10)
			m.take()
			m.handlerEnds(false)
			m.commit(len(m.queue))
			m.report()
		}
		m.check()
		if m.w.held != 0 || len(m.w.rows) != 0 || len(m.w.items) != 0 {
			t.Fatalf("left over: %d bytes, %d rows, %d items", m.w.held, len(m.w.rows), len(m.w.items))
		}
		for subject, seqs := range m.finished {
			slices.Sort(seqs) // reports may overtake each other, commits may not
			if len(slices.Compact(slices.Clone(seqs))) != len(seqs) {
				t.Fatalf("subject %s has repeats: %v", subject, seqs)
			}
		}
	})
}
