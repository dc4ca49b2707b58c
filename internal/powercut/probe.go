package powercut

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/edged-io/edged/store"
)

// again is a message that is published again, and what to expect of that.
type again struct {
	a       *act
	i       int
	stream  string
	known   bool   // it is there: this is a repeat
	seq     uint64 // of the first, or that it gets; 0 where it is parked
	beyond  bool   // it gets a higher one than seq
	receipt *store.Receipt
}

// probe publishes again some of what was told, and all that was begun and not
// told: a repeat is to be recognised if the first is there, and stored if not.
func (v *view) probe(r *rand.Rand) error {
	messages := v.repeats(r)
	if len(messages) == 0 {
		return nil
	}
	err := v.db.Do(context.Background(), func(_ context.Context, t *store.Turn) (err error) {
		for i := range messages {
			m := &messages[i]
			message := store.Message{Subject: "again", ID: m.a.id(m.i), Data: m.a.body(m.i)}
			if m.stream == numbered {
				message = m.a.numbered()
			}
			if m.receipt, err = t.Publish(m.stream, message); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("publish again: %w", err)
	}
	for _, m := range messages {
		if m.receipt.Duplicate != m.known || m.beyond && m.receipt.Seq <= m.seq || !m.beyond && m.receipt.Seq != m.seq {
			return fmt.Errorf("%s, message %d: it was published again, and is said to be message %d (repeat: %v), not %d (repeat: %v)",
				m.a, m.i, m.receipt.Seq, m.receipt.Duplicate, m.seq, m.known)
		}
	}
	return nil
}

func (v *view) repeats(r *rand.Rand) (messages []again) {
	s, p := v.streams[jobs], v.streams[parked]
	if s == nil || p == nil {
		return nil
	}
	var told, lost []again
	next := s.Last
	for _, a := range v.c.acts {
		switch {
		case !a.begun(v.cut):
		case a.op == opMemory && v.told(a):
			lost = append(lost, again{a: a, stream: inMemory, seq: v.lastTold(inMemory), beyond: true})
		case a.op == opBatch && v.told(a):
			m := again{a: a, stream: batched}
			if m.seq, m.known = v.streams[batched].seqs[item{a.N, 0}]; m.known {
				told = append(told, m)
				continue
			}
			m.seq, m.beyond = v.lastTold(batched), true
			lost = append(lost, m)
		case a.op == opPark && v.told(a):
			told = append(told, again{a: a, stream: parked, known: true})
		case a.op == opJob && v.told(a):
			i := r.IntN(a.K)
			told = append(told, again{a: a, i: i, stream: jobs, known: true, seq: a.Seqs[i]})
		case a.op == opJob:
			for i := range a.K {
				m := again{a: a, i: i, stream: jobs}
				if m.seq, m.known = s.seqs[item{a.N, i}]; !m.known {
					next++
					m.seq = next
				}
				messages = append(messages, m)
			}
		}
	}
	messages = append(messages, v.numbers()...)
	for range min(len(lost), 3) {
		m := lost[r.IntN(len(lost))]
		if !slices.ContainsFunc(messages, func(o again) bool { return o.a == m.a }) {
			messages = append(messages, m)
		}
	}
	for range min(len(told), 4) {
		messages = append(messages, told[r.IntN(len(told))])
	}
	return messages
}

// numbers are, of each producer, the last message that is there or was, and one
// that is not: its number is a repeat, or is none.
func (v *view) numbers() (messages []again) {
	s := v.streams[numbered]
	if s == nil {
		return nil
	}
	last := make(map[int]*act) // by hand
	next := s.Last
	for _, a := range v.c.acts {
		if a.op != opNumber || !a.begun(v.cut) {
			continue
		}
		if seq, there := s.seqs[item{a.N, 0}]; there || v.told(a) {
			last[a.Hand] = a
			if there && !v.told(a) {
				messages = append(messages, again{a: a, stream: numbered, known: true, seq: seq})
				delete(last, a.Hand)
			}
			continue
		}
		next++
		messages = append(messages, again{a: a, stream: numbered, seq: next})
		delete(last, a.Hand)
	}
	for _, a := range last {
		messages = append(messages, again{a: a, stream: numbered, known: true, seq: a.Seqs[0]})
	}
	return messages
}
