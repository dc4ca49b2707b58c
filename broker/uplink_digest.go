package broker

import (
	"fmt"
	"slices"
	"time"

	"github.com/edged-io/edged/store"
)

// The digest of a lane is written in the turn that notes how far the hub has come, so
// that no crash parts the two. What it costs: the closed ranges, some kilobytes, once
// for each range; the open one, some hundred bytes, each time.
func digestKey(stream string) string       { return "digest/" + stream }
func openDigestKey(stream string) string   { return "digest-open/" + stream }
func formerDigestKey(stream string) string { return "digest-former/" + stream }

// proof is the digest of a lane, as its pump keeps it.
type proof struct {
	now    *LaneDigest // nil before the first message
	former []*LaneDigest
	hasher *hasher

	// What is not in the store yet.
	openDirty, closedDirty, formerDirty bool
}

// readDigests returns what the store has of a lane.
func readDigests(t *store.Turn, stream string) (now *LaneDigest, former []*LaneDigest, err error) {
	var d LaneDigest
	var open DigestRange
	ok, err := getRecord(t, digestKey(stream), &d)
	if err != nil {
		return nil, nil, err
	}
	if ok {
		if _, err := getRecord(t, openDigestKey(stream), &open); err != nil {
			return nil, nil, err
		}
		d.Ranges = append(d.Ranges, open)
		now = &d
	}
	_, err = getRecord(t, formerDigestKey(stream), &former)
	return now, former, err
}

func (p *proof) load(t *store.Turn, stream string) (err error) {
	p.now, p.former, err = readDigests(t, stream)
	return err
}

// write puts what has changed into a turn. After its commit, written notes that.
func (p *proof) write(t *store.Turn, stream string) error {
	if p.now == nil {
		return nil
	}
	end := len(p.now.Ranges) - 1
	if p.closedDirty {
		closed := *p.now
		closed.Ranges = p.now.Ranges[:end]
		if err := putRecord(t, digestKey(stream), closed); err != nil {
			return err
		}
	}
	if p.openDirty || p.closedDirty {
		if err := putRecord(t, openDigestKey(stream), p.now.Ranges[end]); err != nil {
			return err
		}
	}
	if p.formerDirty {
		return putRecord(t, formerDigestKey(stream), p.former)
	}
	return nil
}

func (p *proof) written() { p.openDirty, p.closedDirty, p.formerDirty = false, false, false }

// matches says whether the digest that goes on is that of an epoch on a hub.
func (p *proof) matches(created time.Time, epoch string) bool {
	return p.now != nil && p.now.Epoch == epoch && p.now.Created.Equal(created)
}

// turnTo lets the digest of an epoch on a hub go on: the one that does, one of before,
// or a new one, whose first message is from.
func (p *proof) turnTo(created time.Time, epoch string, from uint64) {
	if p.matches(created, epoch) {
		return
	}
	if p.now != nil {
		p.former = append([]*LaneDigest{p.now}, p.former...)
		p.formerDirty = true
	}
	p.now, p.closedDirty = nil, true
	p.former = slices.DeleteFunc(p.former, func(d *LaneDigest) bool {
		if p.now != nil || d.Epoch != epoch || !d.Created.Equal(created) {
			return false
		}
		p.now, p.formerDirty = d, true
		return true
	})
	p.former = p.former[:min(len(p.former), maxDigests)]
	if p.now == nil {
		p.now = newDigest(created, epoch, from)
	}
}

// add takes in what the hub has acknowledged.
func (p *proof) add(e entry, hubSeq uint64) {
	p.openDirty = true
	if p.now.add(e, hubSeq) {
		p.closedDirty = true
	}
}

// hash notes the hash of each message of a batch, while the hub is at work.
func (l *uplinkLane) hash(batch []outMsg) {
	for i := range batch {
		m := batch[i].msg
		batch[i].entry = l.proof.hasher.entry(batch[i].seq, m.Subject[len(l.prefix):], m.Header, m.Data)
	}
}

// prove takes a batch into the digest; hubSeq is that of its last message.
func (l *uplinkLane) prove(batch []outMsg, hubSeq uint64) {
	l.proof.turnTo(l.hub.created, l.epoch, l.next)
	for i := range batch {
		l.proof.add(batch[i].entry, hubSeq-uint64(len(batch)-1-i))
	}
}

// catchUp takes into the digest what the hub turned out to have: a batch whose
// acknowledgement got lost.
func (l *uplinkLane) catchUp(v *laneView) error {
	if !v.hubHas || !l.proof.matches(l.hub.created, v.hubAt.epoch) {
		return nil
	}
	reached, known := v.reached()
	reached = min(reached, l.next-1)
	from := l.proof.now.to() + 1
	if !known || reached < from {
		return nil
	}
	var all []entry
	for whole := true; whole && len(all) < int(reached-from)+1; {
		next, n := from+uint64(len(all)), len(all)
		err := l.db.Read(l.stream, next, maxBatchMessages, maxBatchBytes, func(m store.Message) error {
			if m.Seq > reached {
				return nil
			}
			if whole = whole && m.Seq == from+uint64(len(all)); !whole {
				return nil
			}
			out := l.sent(m)
			all = append(all, l.proof.hasher.entry(m.Seq, out.msg.Subject[len(l.prefix):], out.msg.Header, out.msg.Data))
			return nil
		})
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		whole = whole && len(all) > n
	}
	l.dirty = true
	for _, e := range all {
		l.proof.add(e, v.hubAt.hubSeq)
	}
	if uint64(len(all)) < reached-from+1 {
		l.proof.now.skip(reached, whyNotHeld)
		l.proof.closedDirty = true
	}
	return nil
}

// sent returns a message as it was sent.
func (l *uplinkLane) sent(m store.Message) outMsg {
	if reason, ok := l.stones[m.Seq]; ok {
		return l.tombstone(m, reason)
	}
	out, _ := l.lift(m)
	return out
}

// lose takes out of the digest what the hub acknowledged and does not have. What is
// held, from a sequence on, is sent again.
func (l *uplinkLane) lose(v *laneView, held uint64) {
	if !l.proof.matches(v.hub.created, v.epoch) {
		return
	}
	has := uint64(0)
	if v.hubHas {
		if seq, known := v.reached(); known {
			has = seq
		}
	}
	d := l.proof.now
	d.cut(has, whyLost)
	if len(d.Ranges) == 0 {
		*d = *newDigest(d.Created, d.Epoch, has+1)
	}
	d.skip(held-1, whyLost)
	l.proof.closedDirty = true
}
