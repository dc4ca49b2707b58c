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

// opRelay publishes to one stream of that kind, and then handles the message in
// a turn that publishes to another.
var opRelay = &operation{
	name:    "relay",
	relaxed: true,
	run: func(h *hand) error {
		m := h.begin(opRaw.name, act{K: 1, Size: h.size()})
		if err := h.do(m, func(t *store.Turn) ([]*store.Receipt, error) { return m.publish(t, raw, nil) }); err != nil {
			return err
		}
		a := h.begin("relay", act{K: 1, Size: h.size(), Of: m.N, Seq: m.Seqs[0]})
		return h.do(a, func(t *store.Turn) ([]*store.Receipt, error) {
			t.Ack(cook, a.Seq)
			return a.publish(t, cooked, nil)
		})
	},
	evidence: func(v *view, a *act) {
		v.messages(cooked, a, 0)
		_, there := v.streams[raw].seqs[item{a.Of, 0}]
		_, made := v.streams[cooked].seqs[item{a.N, 0}]
		// A subscription that had everything goes on behind what was lost: that is
		// no acknowledgement.
		lost := !there && !made && !v.c.byN[a.Of].safe(v.cut)
		v.part(v.acked(cook, a.Seq) && !lost, "the acknowledgement")
	},
}

var opRaw = &operation{
	name:     "raw",
	relaxed:  true,
	evidence: func(v *view, a *act) { v.messages(raw, a, v.floor(cook)) },
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
var relaxedStreams = map[string]*operation{batched: opBatch, raw: opRaw, cooked: opRelay, inMemory: opMemory}

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
