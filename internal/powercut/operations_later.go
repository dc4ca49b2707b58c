package powercut

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edged-io/edged/store"
)

// opPark publishes a message that enters its stream after the test is over.
var opPark = &operation{
	name: "park",
	run: func(h *hand) error {
		a := h.begin("park", act{K: 1, Size: h.size(), Delay: int64(time.Hour)})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) { return a.publish(t, parked, a.id) })
	},
	evidence: func(*view, *act) {}, // they are counted, and published again
}

// checkParked counts what is parked for long.
func (v *view) checkParked() error {
	var told, begun int64
	for _, a := range v.c.acts {
		if a.op == opPark && a.begun(v.cut) {
			begun++
			if v.told(a) {
				told++
			}
		}
	}
	if s := v.streams[parked]; s != nil && (s.Delayed < told || s.Delayed > begun || s.Last > 0) || s == nil && told > 0 {
		return fmt.Errorf("of %d messages that were parked, %d for sure, the stream has %+v", begun, told, s)
	}
	return nil
}

// opLater publishes messages that enter their stream in a moment.
var opLater = &operation{
	name: "later",
	run: func(h *hand) error {
		a := h.begin("later", act{K: 1 + h.rand.IntN(2), Size: h.size(), Delay: int64(time.Duration(1+h.rand.IntN(5)) * time.Millisecond)})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) { return a.publish(t, later, nil) })
	},
	evidence: func(v *view, a *act) { v.messages(later, a, 0) },
}

// due waits until what was parked for a moment is in its stream: it is due soon
// after the store was opened, since the time that the power was off counts only
// where it is known.
func due(db *store.DB) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Microsecond) {
		info, err := db.Stream(later)
		if errors.Is(err, store.ErrNoStream) || err == nil && info.Delayed == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("stream %s has %d messages that do not become due", later, info.Delayed)
		}
	}
}

// opCompact gives room back to the disk while everybody else goes on.
var opCompact = &operation{
	name: "compact",
	run: func(h *hand) error {
		a := h.begin("compact", act{})
		_, err := h.w.db.Compact(context.Background())
		if errors.Is(err, store.ErrBusy) {
			return nil
		}
		if err == nil {
			h.told(a)
		}
		return err
	},
	evidence: func(*view, *act) {}, // it changes nothing
}
