package broker

import "time"

// laneRecord is what the store remembers of a lane on the hub, committed
// together with the acknowledgement of its messages.
type laneRecord struct {
	Created time.Time `json:"created"` // of the hub's stream: which hub it is
	HubSeq  uint64    `json:"hub_seq"` // the hub's sequence of the last message
	Seq     uint64    `json:"seq"`     // ours of the last message: what the hub has, as far as we know
	Since   uint64    `json:"since"`   // ours of the first message that this hub got
}

// laneView is all that decides where a lane goes on.
type laneView struct {
	rec    laneRecord // zero if nothing was ever sent
	epoch  string     // ours
	former func(id string) (formerEpoch, bool)
	stream string

	first, last uint64 // what the stream on the box holds
	floor       uint64 // acknowledged

	hub    hubStream
	hubHas bool // the lane on the hub is not empty
	hubAt  hubLast
	// same says whether the hub's last message is ours of that sequence, and
	// held is false if the box does not have that one any more.
	same, held bool
}

// verdict says where a lane goes on, and what happened to it.
type verdict struct {
	next     uint64 // the first sequence to send
	ackUpTo  uint64 // the hub has all up to here, which we did not know; 0 for nothing new
	diverged bool   // the hub has other messages under our epoch: a new one must begin
	what     string // for the log; "" when all is as it was
	lost     span   // what the hub acknowledged and does not have
}

// What can have happened to a lane.
const (
	whatLost     = "the hub lost messages that it had acknowledged"
	whatForeign  = "another store writes to the lane of this device"
	whatOther    = "this is another hub, it gets what is still held"
	whatDiverged = "the hub has messages of this epoch that are not this store's"
	whatEarlier  = "an earlier store wrote to this lane, a new epoch begins behind it"
)

type span struct{ from, to uint64 }

func (s span) empty() bool { return s.from == 0 || s.from > s.to }

// resume decides where a lane goes on after the hub was asked for its last
// message.
//
// What the hub has of us counts, not what we believe: a batch whose answer got
// lost is either there whole or not at all.
func (v *laneView) resume() verdict {
	if !v.hubHas {
		return v.resumeEmpty()
	}
	reached, known := v.reached()
	if !known {
		return v.resumeForeign()
	}
	switch {
	case reached > v.last || reached > v.floor && v.conflict(reached):
		// Sequences that we never gave away, or gave to other messages.
		if v.hubAt.epoch == v.epoch {
			return verdict{next: v.floor + 1, diverged: true, what: whatDiverged}
		}
		return verdict{next: v.floor + 1}
	case reached > v.floor:
		return verdict{next: reached + 1, ackUpTo: reached}
	case v.rec.Seq != 0 && reached < v.rec.Seq && !v.rec.Created.Equal(v.hub.created):
		return verdict{next: reached + 1, what: whatOther} // it never had the rest
	case v.rec.Seq != 0 && reached < v.rec.Seq && v.hubAt.hubSeq > v.rec.HubSeq:
		return verdict{next: v.floor + 1, what: whatForeign} // it came behind our last
	case v.rec.Seq != 0 && reached < v.rec.Seq:
		return verdict{next: reached + 1, lost: span{max(reached+1, v.rec.Since), v.rec.Seq}, what: whatLost}
	}
	return verdict{next: reached + 1}
}

// reached returns up to which of our sequences the hub has our messages,
// judging by the epoch of the last one. known is false if that is not ours.
func (v *laneView) reached() (seq uint64, known bool) {
	if v.hubAt.epoch == v.epoch {
		return v.hubAt.seq, true
	}
	f, known := v.former(v.hubAt.epoch)
	switch {
	case !known:
		return 0, false
	case f.Ended == epochMoved:
		// All that the store held when it woke up here was of that epoch, so a
		// lane that went on elsewhere has it.
		return min(v.hubAt.seq, f.Bounds[v.stream]), true
	case v.held && v.same:
		return v.hubAt.seq, true
	}
	// The copy of this store went on; nothing beyond our floor is ours.
	return min(v.hubAt.seq, v.floor), true
}

// conflict says whether the hub's last message is another one than ours of the
// same sequence.
func (v *laneView) conflict(reached uint64) bool {
	return reached == v.hubAt.seq && v.held && !v.same
}

// resumeEmpty is for a lane without a message.
func (v *laneView) resumeEmpty() verdict {
	switch {
	case v.rec.Seq == 0:
		return verdict{next: v.first}
	case !v.rec.Created.Equal(v.hub.created):
		return verdict{next: v.first, what: whatOther}
	case v.hub.first > v.rec.HubSeq:
		return verdict{next: v.floor + 1} // the hub's own limits took them
	}
	return verdict{next: v.first, lost: span{v.rec.Since, v.rec.Seq}, what: whatLost}
}

// resumeForeign is for a lane whose last message is of an epoch we do not know.
func (v *laneView) resumeForeign() verdict {
	switch {
	case v.rec.Seq == 0:
		return verdict{next: v.first, what: whatEarlier}
	case !v.rec.Created.Equal(v.hub.created):
		return verdict{next: v.first, what: whatOther}
	case v.hubAt.hubSeq < v.rec.HubSeq:
		return verdict{next: v.first, lost: span{v.rec.Since, v.rec.Seq}, what: whatLost}
	}
	return verdict{next: v.floor + 1, what: whatForeign}
}
