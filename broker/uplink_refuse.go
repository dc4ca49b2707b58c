package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/edged-io/edged/store"
)

const (
	// silentTries is how often a message must stay without an answer, alone in
	// its batch, while the hub answers to a probe before and after, until it
	// counts as refused. A hub that forbids a subject says nothing.
	silentTries = 5
	// droppedTries is the same for a message after which the link goes down: a
	// hub closes the link for what is larger than it takes. A bad link does
	// that by chance.
	droppedTries = 20
	// droppedWithin is how soon the link must go down.
	droppedWithin = 3 * time.Second
	// probeSequence is one that no lane has.
	probeSequence = "18446744073709551615"
)

// suspect is the message that the hub did not take when it came alone.
type suspect struct {
	seq     uint64
	silent  int    // tries without an answer
	dropped int    // tries after which the link went down at once
	open    int    // 1: the last try was silent; 2: it dropped the link; not counted before a probe
	why     string // the last answer
	same    int    // refusals of a kind that is not known, in a row
}

// suspects notes that the message alone was not taken. It returns nil if it has
// become a tombstone.
func (l *uplinkLane) suspects(ctx context.Context, out outMsg, err error, took time.Duration) error {
	if l.suspect.seq != out.seq {
		l.suspect = suspect{seq: out.seq}
	}
	s := &l.suspect
	var hub *hubError
	switch {
	case isCode(err, codeMessageTooLarge, codeHeaderTooLarge), errors.Is(err, nats.ErrMaxPayload):
		return l.refuseSeq(out.seq, stoneTooLarge, err.Error(), 1)
	case errors.As(err, &hub):
		if s.why == err.Error() {
			s.same++
		} else {
			s.why, s.same = err.Error(), 1
		}
		if s.same >= silentTries {
			return l.refuseSeq(out.seq, stoneRefused, s.why, s.same)
		}
	case errors.Is(err, errHubSilent) && ctx.Err() == nil:
		s.open = 1
	case ctx.Err() != nil && took < droppedWithin:
		s.open = 2
	}
	return err
}

// examine counts a try that had no answer, if the hub answers now, and says
// whether the message has become a tombstone. It may be one already, whose own
// subject the hub does not take.
func (l *uplinkLane) examine(ctx context.Context, in *replies, out outMsg) (refused bool, err error) {
	if err := l.probe(ctx, in); err != nil {
		l.suspect.open = 0
		return false, err
	}
	s := &l.suspect
	switch s.open {
	case 1:
		s.silent++
	case 2:
		s.dropped++
	}
	s.open = 0
	switch {
	case s.silent >= silentTries:
		return true, l.refuseSeq(out.seq, stoneRefused, "the hub does not answer to this message, and does to others", s.silent)
	case s.dropped >= droppedTries:
		return true, l.refuseSeq(out.seq, stoneRefused, "the hub closes the link at this message", s.dropped)
	}
	return false, nil
}

// probe asks whether the hub takes messages of this lane at all, with one that
// it must refuse: its condition cannot hold. It leaves nothing behind.
func (l *uplinkLane) probe(ctx context.Context, in *replies) error {
	id := nuid.Next()
	m := &nats.Msg{Subject: tombstoneSubject(l.prefix), Reply: in.subject(id), Header: nats.Header{
		"Nats-Expected-Last-Subject-Sequence":         {probeSequence},
		"Nats-Expected-Last-Subject-Sequence-Subject": {l.filter},
	}}
	if err := l.api.nc.PublishMsg(m); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	late := time.NewTimer(l.p.o.Timing.Request)
	defer late.Stop()
	_, err := l.answer(ctx, in, id, late.C, false)
	if isCode(err, codeWrongLastSequence, codeWrongLastSequenceConstant) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: it took a message whose condition cannot hold", errHubAnswer)
	}
	return err
}

// refuseSeq is refuse for a message that has to be read again.
func (l *uplinkLane) refuseSeq(seq uint64, reason, why string, tries int) error {
	found := false
	err := l.db.Read(l.stream, seq, 1, 1, func(m store.Message) error {
		if found = m.Seq == seq; !found {
			return nil
		}
		return l.refuse(m, reason, why, tries)
	})
	if err == nil && !found {
		l.suspect = suspect{} // a limit of the stream took it meanwhile
	}
	return err
}

// refuse makes a message that the hub never takes a dead letter, and notes that
// a tombstone takes its place in the lane: in one turn, before the tombstone is
// sent, so that no crash leaves the one without the other.
func (l *uplinkLane) refuse(m store.Message, reason, why string, tries int) error {
	t := l.db.Begin()
	_, again := l.stones[m.Seq]
	if !again {
		t.DeadLetter(store.DeadLetter{
			Stream: l.stream, Seq: m.Seq, Subject: m.Subject, Subscription: l.sub,
			Attempts: max(1, tries), Reason: "uplink-refused", Error: why,
			Header: m.Header, Data: m.Data,
		})
	}
	if err := putRecord(t, l.stoneKey(stoneNumber(m.Seq)), reason); err != nil {
		t.Discard()
		return err
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("dead letter of message %d: %w", m.Seq, err)
	}
	l.stones[m.Seq] = reason
	l.suspect, l.badEnd = suspect{}, 0
	if again {
		return nil
	}
	l.log.Warn("the hub refuses a message for good", "seq", m.Seq, "subject", m.Subject[:min(len(m.Subject), 200)], "why", why)
	l.show(func(s *LaneStatus) { s.Refused++ })
	return nil
}
