package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edged-io/edged/store"
)

var (
	// errHubBehind: the hub says that it has less than it acknowledged. It may
	// be a replica that lags.
	errHubBehind = errors.New("the hub has less than it acknowledged, asking again")
	errNoAtomic  = errors.New("stream " + streamUp + " of the hub does not take atomic batches; edged hub init allows them")
)

// sync asks the hub how far it has come and decides where to go on.
func (l *uplinkLane) sync(ctx context.Context) error {
	began := time.Now()
	hub, err := l.api.stream(ctx, streamUp)
	if err != nil {
		return err
	}
	l.p.queue.answered(time.Since(began))
	if !hub.atomic {
		return errNoAtomic
	}
	l.hub, l.maxMsg = hub, hub.maxMsg
	if l.maxMsg == 0 {
		l.maxMsg = defaultHubMessage
	}
	l.maxMsg = min(l.maxMsg, int(l.api.nc.MaxPayload()))
	last, ok, err := l.lastOnHub(ctx, hub)
	if err != nil {
		return err
	}
	end := last.hubSeq
	if ok {
		own, found, err := l.ownLast(ctx, hub, last)
		if err != nil {
			return err
		}
		if found {
			l.log.Warn(whatForeign, "hub_epoch", last.epoch, "hub_seq", last.hubSeq)
			last = own
		}
	}
	v, err := l.view(hub, last, ok)
	if err != nil {
		return err
	}
	return l.follow(ctx, v, v.resume(), end)
}

// lastOnHub asks for the last message of the lane. It comes with its body, which a
// narrow link may carry for longer than a question should take; each time that
// no answer came it gets twice as long.
func (l *uplinkLane) lastOnHub(ctx context.Context, hub hubStream) (last hubLast, ok bool, err error) {
	patient := *l.api
	patient.timeout <<= l.silences
	last, ok, err = patient.last(ctx, l.filter, hub.direct)
	switch {
	case err == nil:
		l.silences = 0
	case errors.Is(err, errHubSilent) && ctx.Err() == nil:
		l.silences = min(l.silences+1, maxSilences)
	}
	return last, ok, err
}

// view collects what decides where the lane goes on.
func (l *uplinkLane) view(hub hubStream, last hubLast, ok bool) (*laneView, error) {
	info, err := l.db.Stream(l.stream)
	if err != nil {
		return nil, err
	}
	l.epoch = l.p.epochs.current()
	v := &laneView{
		rec: l.rec, epoch: l.epoch, former: l.p.epochs.find, stream: l.stream,
		first: info.First, last: info.Last, floor: l.acked,
		hub: hub, hubHas: ok, hubAt: last,
	}
	if !ok || last.seq == 0 {
		return v, nil
	}
	err = l.db.Read(l.stream, last.seq, 1, 1, func(m store.Message) error {
		if m.Seq == last.seq {
			v.held, v.same = true, sameMessage(last, m)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read message %d: %w", last.seq, err)
	}
	return v, nil
}

// follow does what the verdict says. end is the hub's sequence of the last message
// of the lane, whoever wrote it.
func (l *uplinkLane) follow(ctx context.Context, v *laneView, d verdict, end uint64) error {
	if !d.lost.empty() {
		if l.losses++; l.losses < lossChecks {
			return errHubBehind
		}
		if err := l.reportLoss(v, d); err != nil {
			return err
		}
	} else {
		l.report(v, d)
	}
	l.losses = 0
	if d.diverged {
		if err := l.p.epochs.diverge(ctx, v.epoch); err != nil {
			return err
		}
		l.epoch = l.p.epochs.current()
		l.log.Warn("a new epoch begins", "epoch", l.epoch, "former", v.epoch)
	}
	l.next, l.expect = d.next, end
	if d.ackUpTo > l.acked {
		l.next = l.acked + 1
		l.ackedByHub(d.ackUpTo, v.hubAt.hubSeq)
		l.expect = end
	}
	if err := l.catchUp(v); err != nil {
		return err
	}
	if err := l.begin(); err != nil {
		return err
	}
	l.synced = true
	l.show(func(s *LaneStatus) { s.Synced, s.Hub.Time = true, time.Now() })
	return nil
}

// begin notes where the lane ends on a hub that has nothing of ours that we know
// of, before the first message is sent: should a crash come before its
// acknowledgement is kept, what is ours is looked for behind it.
func (l *uplinkLane) begin() error {
	if l.rec.Created.Equal(l.hub.created) {
		return nil
	}
	rec := laneRecord{Created: l.hub.created, HubSeq: l.expect}
	l.proof.turnTo(l.hub.created, l.epoch, l.next)
	if err := l.note(rec); err != nil {
		return fmt.Errorf("note where the lane begins: %w", err)
	}
	return nil
}

// note makes rec what is known of the lane on the hub.
func (l *uplinkLane) note(rec laneRecord) error {
	l.rec, l.dirty = rec, true
	return l.settle()
}

// report logs what happened to the lane, once.
func (l *uplinkLane) report(v *laneView, d verdict) {
	if d.what != "" && d.what != l.said {
		l.log.Warn(d.what, "from", d.next, "hub_epoch", v.hubAt.epoch, "hub_seq", v.hubAt.hubSeq)
	}
	l.said = d.what
}

// reportLoss logs what the hub lost and notes how far it has come now, so that
// it is reported once.
func (l *uplinkLane) reportLoss(v *laneView, d verdict) error {
	lost, held := d.lost.to-d.lost.from+1, uint64(0)
	if from := max(d.lost.from, v.first); from <= d.lost.to {
		held = d.lost.to - from + 1
	}
	l.log.Error(d.what, "from", d.lost.from, "to", d.lost.to, "count", lost, "sent_again", held)
	rec := laneRecord{}
	if v.hubHas && d.lost.from == v.hubAt.seq+1 {
		rec = l.rec
		rec.Seq, rec.HubSeq = v.hubAt.seq, v.hubAt.hubSeq
	}
	l.lose(v, max(d.next, v.first))
	if err := l.note(rec); err != nil {
		return fmt.Errorf("note what the hub lost: %w", err)
	}
	l.said = d.what
	l.show(func(s *LaneStatus) { s.Lost += lost - held })
	return nil
}
