package powercut

import "github.com/edged-io/edged/store"

// opBatch publishes to a stream whose publishers are told before the disk is.
// What is lost is the end of what they were told.
var opBatch = &operation{
	name:    "batch",
	relaxed: true,
	run: func(h *hand) error {
		a := h.begin("batch", act{K: 1 + h.rand.IntN(3), Size: h.size()})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) { return a.publish(t, batched, a.id) })
	},
	evidence: func(v *view, a *act) { v.messages(batched, a, 0) },
}

// opMemory publishes to a stream that no restart leaves anything of.
var opMemory = &operation{
	name:    "memory",
	relaxed: true,
	run: func(h *hand) error {
		a := h.begin("memory", act{K: 1 + h.rand.IntN(3), Size: h.size()})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) { return a.publish(t, inMemory, nil) })
	},
	evidence: func(*view, *act) {},
}

// opRestart is that the store was closed.
var opRestart = &operation{
	name:     "restart",
	settles:  true,
	evidence: func(*view, *act) {},
}

// relaxedStreams do not end with their last message after a power cut: they go
// on behind every sequence that somebody may have been told.
var relaxedStreams = map[string]*operation{batched: opBatch, inMemory: opMemory}

// lastTold is the highest sequence of the stream that somebody was told.
func (v *view) lastTold(stream string) (last uint64) {
	for _, a := range v.c.acts {
		if a.op == relaxedStreams[stream] && v.told(a) {
			for _, seq := range a.Seqs {
				last = max(last, seq)
			}
		}
	}
	return last
}
