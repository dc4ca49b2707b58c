package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWindow_model: whatever order attempts end in, each item is finished once,
// those of a subject in order, the floor never passes what is not done, and
// nothing is held at the end.
func TestWindow_model(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ordered := rapid.Bool().Draw(t, "ordered")
		w := newWindow(ordered)
		now := time.Unix(0, 0)
		next := uint64(1)
		var out []*item
		finished := make(map[string][]uint64)
		undone := make(map[uint64]bool)
		add := func() {
			if rapid.Bool().Draw(t, "matches") {
				m := Message{Seq: next, Subject: fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "subject")), Data: make([]byte, rapid.IntRange(0, maxHeld).Draw(t, "size"))}
				w.add(m, 0)
				undone[next] = true
			}
			next++
		}
		take := func() {
			w.advance(now)
			if it := w.next(); it != nil {
				out = append(out, it)
			}
		}
		end := func() {
			if len(out) == 0 {
				return
			}
			i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
			it := out[i]
			out = slices.Delete(out, i, i+1)
			if rapid.IntRange(0, 2).Draw(t, "ends") == 0 {
				w.retry(it, now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "pause"))))
				return
			}
			finished[it.subject] = append(finished[it.subject], it.seq)
			delete(undone, it.seq)
			w.finish(it)
		}
		check := func() {
			floor := w.floor(next)
			for seq := range undone {
				if seq <= floor {
					t.Fatalf("floor %d is beyond %d, which is not done", floor, seq)
				}
			}
			if len(undone) == 0 && floor != next-1 {
				t.Fatalf("floor %d, want %d: all is done", floor, next-1)
			}
			if w.held > 2*maxHeld {
				t.Fatalf("%d bytes held", w.held)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				add()
			case 1:
				take()
			case 2:
				end()
			default:
				now = now.Add(1)
			}
			check()
		}
		for len(undone) > 0 {
			now = now.Add(10)
			take()
			end()
		}
		check()
		if w.held != 0 || len(w.lanes) != 0 || len(w.items) != 0 {
			t.Fatalf("left over: %d bytes, %d lanes, %d items", w.held, len(w.lanes), len(w.items))
		}
		for subject, seqs := range finished {
			if ordered && !slices.IsSorted(seqs) {
				t.Fatalf("subject %s out of order: %v", subject, seqs)
			}
		}
	})
}
