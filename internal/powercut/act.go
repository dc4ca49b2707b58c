package powercut

import (
	"encoding/json"
	"fmt"
	"slices"
)

// act is one thing that a hand of the workload does to the store: all of it is
// there after a power cut or nothing, and all once the hand was told so. What
// its fields mean is up to its operation.
type act struct {
	N     int    `json:"n"` // from 1
	Op    string `json:"op,omitempty"`
	Hand  int    `json:"hand,omitempty"`
	Key   string `json:"key,omitempty"`   // a later act with this key may undo it
	K     int    `json:"k,omitempty"`     // messages it publishes
	Seq   uint64 `json:"seq,omitempty"`   // of the message it is about
	Delay int64  `json:"delay,omitempty"` // of each message, in nanoseconds
	Of    int    `json:"of,omitempty"`    // the act whose dead letter it is about
	Size  int    `json:"size,omitempty"`  // of each message or value
	// After is the act without which this one can not be.
	After int      `json:"after,omitempty"`
	Told  bool     `json:"told,omitempty"`
	Seqs  []uint64 `json:"seqs,omitempty"` // what it was told about its messages

	op             *operation
	bodies         [][]byte // see body
	begunAt        int      // moment of the record
	toldAt         int      // 0: never
	settledAt      int      // of a relaxed act: moment at which something behind it was told to be on disk; 0: never
	next           *act
	parts, present int // in the state that is looked at
}

func (a *act) String() string {
	return fmt.Sprintf("act %d (%s, hand %d, key %q, seq %d, messages %v)", a.N, a.Op, a.Hand, a.Key, a.Seq, a.Seqs)
}

// seq is the sequence of message i, if the hand was told it before the cut.
func (a *act) seq(i, cut int) (uint64, bool) {
	if !a.told(cut) || i >= len(a.Seqs) {
		return 0, false
	}
	return a.Seqs[i], true
}

func (a *act) begun(cut int) bool { return a.begunAt < cut }
func (a *act) told(cut int) bool  { return a.toldAt > 0 && a.toldAt < cut }

// safe says whether it has to be there after a cut.
func (a *act) safe(cut int) bool {
	if a.op.relaxed {
		return a.settledAt > 0 && a.settledAt < cut
	}
	return a.told(cut)
}

// history returns the acts of a record, in the order in which they began.
func history(r *Record) ([]*act, error) {
	byN := make(map[int]*act)
	last := make(map[string]*act) // by key
	var acts []*act
	var open []*act // relaxed, told and not settled
	for at, m := range r.Moments {
		o := &r.Ops[m.Op]
		if o.Kind != Mark {
			continue
		}
		var mark act
		if err := json.Unmarshal(o.Data, &mark); err != nil {
			return nil, fmt.Errorf("mark %q: %w", o.Data, err)
		}
		a := byN[mark.N]
		if !mark.Told {
			a = &mark
			a.begunAt = at
			if a.op = findOperation(a.Op); a.op == nil || byN[a.N] != nil {
				return nil, fmt.Errorf("mark %q makes no sense", o.Data)
			}
			byN[a.N] = a
			acts = append(acts, a)
			if a.Key != "" {
				if before := last[a.Key]; before != nil {
					before.next = a
				}
				last[a.Key] = a
			}
			continue
		}
		if a == nil || a.toldAt > 0 {
			return nil, fmt.Errorf("mark %q makes no sense", o.Data)
		}
		a.toldAt, a.Seqs = at, mark.Seqs
		switch {
		case a.op.relaxed:
			open = append(open, a)
		case a.op.settles:
			// What was told before it began is on the disk with it.
			open = slices.DeleteFunc(open, func(o *act) bool {
				if o.toldAt < a.begunAt {
					o.settledAt = at
				}
				return o.settledAt > 0
			})
		}
	}
	return acts, nil
}
