package powercut

import (
	"slices"

	"github.com/edged-io/edged/store"
)

// opReplay marks a dead letter to be handled again.
var opReplay = &operation{
	name: "replay",
	run: func(h *hand) error {
		return h.withLetter("replay", false, func(t *store.Turn, id uint64) { t.ReplayDeadLetter(id, "") })
	},
	evidence: func(v *view, a *act) {
		l := v.letters[a.Of]
		v.part(len(l) > 0 && l[0].ReplayTo == crew || v.buried(a.Of), "the mark")
	},
}

// opBury drops a dead letter.
var opBury = &operation{
	name: "bury",
	run: func(h *hand) error {
		return h.withLetter("bury", true, func(t *store.Turn, id uint64) { t.DropDeadLetter(id) })
	},
	evidence: func(v *view, a *act) { v.part(len(v.letters[a.Of]) == 0, "the absence of the dead letter") },
}

// withLetter does something to a dead letter that is the hand's own meanwhile,
// and for good if take.
func (h *hand) withLetter(op string, take bool, stage func(t *store.Turn, id uint64)) error {
	h.w.mu.Lock()
	if len(h.w.letters) == 0 {
		h.w.mu.Unlock()
		return nil
	}
	i := h.rand.IntN(len(h.w.letters))
	of := h.w.letters[i]
	h.w.letters = slices.Delete(h.w.letters, i, i+1)
	h.w.mu.Unlock()
	var id uint64
	err := h.w.db.DeadLetters(func(d store.DeadLetter) error {
		if n, _ := split(d.Data); n == of {
			id = d.ID
		}
		return nil
	})
	if err != nil {
		return err
	}
	a := h.begin(op, act{Of: of})
	err = h.do(a, func(t *store.Turn) ([]*store.Receipt, error) {
		stage(t, id)
		return nil, nil
	})
	if err == nil && !take && h.rand.IntN(2) == 0 {
		h.w.mu.Lock()
		h.w.letters = append(h.w.letters, of)
		h.w.mu.Unlock()
	}
	return err
}

// buried says whether somebody has begun to drop the dead letter of act n.
func (v *view) buried(n int) bool {
	return slices.ContainsFunc(v.c.acts, func(a *act) bool { return a.op == opBury && a.Of == n && a.begun(v.cut) })
}
