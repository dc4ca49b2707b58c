package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// attach makes sure of the consumer: that it delivers what comes after the
// watermark, in order, and that we know the number of its next delivery.
//
// A consumer that waits for nothing and has delivered nothing that we do not
// have is taken as it is. Any other is made anew, from the message at the
// watermark on: that one comes first and shows whether the hub still has the
// history that we know.
func (in *inlet) attach(ctx context.Context, hub hubStream) (jetstream.Consumer, error) {
	cons, err := in.js.Consumer(ctx, streamDown, in.consumer)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, fmt.Errorf("consumer %s: %w", in.consumer, err)
	}
	var have *jetstream.ConsumerInfo
	if err == nil {
		have = cons.CachedInfo()
	}
	in.compare(hub, have)
	if have != nil {
		idle := have.NumAckPending == 0 && have.NumPending == 0 && have.Delivered.Stream <= in.mark.Seq
		if idle && have.Config.FilterSubject == in.address+">" && have.Config.AckPolicy == jetstream.AckExplicitPolicy {
			in.next, in.started = have.Delivered.Consumer+1, true
			return cons, nil
		}
		if err := in.js.DeleteConsumer(ctx, streamDown, in.consumer); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil, fmt.Errorf("consumer %s: delete: %w", in.consumer, err)
		}
	}
	cons, err = in.js.CreateConsumer(ctx, streamDown, in.config())
	if err != nil {
		return nil, fmt.Errorf("consumer %s: create: %w", in.consumer, err)
	}
	in.next, in.started = 1, false
	return cons, nil
}

// compare sets the watermark right when the hub is not the one it was.
func (in *inlet) compare(hub hubStream, have *jetstream.ConsumerInfo) {
	switch {
	case in.mark.Created.IsZero() && have != nil:
		// A store that was wiped goes on where the one before it ended.
		in.mark = watermark{Created: hub.created, Seq: have.AckFloor.Stream}
		if in.mark.Seq > 0 {
			in.log.Info("downlink goes on behind what an earlier store acknowledged", "hub_seq", in.mark.Seq)
		}
	case in.mark.Created.IsZero():
		in.mark = watermark{Created: hub.created}
	case !in.mark.Created.Equal(hub.created):
		if in.mark != (watermark{Created: in.mark.Created}) {
			in.log.Warn("this is another hub, its messages are taken from the first", "created", hub.created)
		}
		in.change(hub.created)
	case in.mark.Seq > hub.last:
		in.log.Error("the hub lost messages that this box has", "from", hub.last+1, "to", in.mark.Seq)
		in.mark.Seq = hub.last
	}
}

// change takes up the watermark of another hub: that of the last time it was here,
// or a new one. Those of hubs before are remembered.
func (in *inlet) change(created time.Time) {
	next := watermark{Created: created}
	former := []watermark{in.mark}
	for _, w := range in.former {
		if w.Created.Equal(created) {
			next = w
		} else {
			former = append(former, w)
		}
	}
	in.mark, in.former = next, former[:min(len(former), maxFormerHubs)]
}

func (in *inlet) config() jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		Durable:       in.consumer,
		Description:   "made by edged on the box",
		FilterSubject: in.address + ">",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       downAckWait,
		MaxAckPending: pullMessages,
		DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	switch {
	case in.mark.Seq > 0:
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, in.mark.Seq
	case !in.mark.Time.IsZero():
		c.DeliverPolicy, c.OptStartTime = jetstream.DeliverByStartTimePolicy, &in.mark.Time
	}
	return c
}
