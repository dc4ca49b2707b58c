package broker

import (
	"errors"
	"sync"

	"github.com/edged-io/edged/store"
)

// unsaved says whether the store should be told something that no message
// carries along.
func (d *delivery) unsaved() bool {
	l := &d.loop
	return len(l.unsaved) > 0 || l.win.floor(l.next) > l.saved
}

func (d *delivery) startSave(wg *sync.WaitGroup) {
	l := &d.loop
	if l.saving || !d.unsaved() {
		return
	}
	l.saving = true
	floor, attempts := d.toSave()
	wg.Go(func() { l.results <- d.save(floor, attempts) })
}

// toSave takes what is to be written.
func (d *delivery) toSave() (floor uint64, attempts map[uint64]int) {
	l := &d.loop
	attempts, l.unsaved = l.unsaved, make(map[uint64]int)
	if floor = l.win.floor(l.next); floor <= l.saved {
		floor = 0
	}
	return floor, attempts
}

func (d *delivery) noteSaved(r result) {
	l := &d.loop
	l.saving = false
	switch {
	case r.err == nil:
		d.raise(r.floor)
	case errors.Is(r.err, store.ErrFull):
		for seq, n := range r.saved {
			if _, newer := l.unsaved[seq]; !newer {
				l.unsaved[seq] = n
			}
		}
	default:
		d.broke(r.err)
	}
}
