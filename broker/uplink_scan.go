package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// maxScan is how many messages are looked at, at most, for our last one.
	maxScan = 20_000
	// scanTries is how often the hub may fail to let us look, until we go on
	// without: a hub whose permissions do not allow it says nothing.
	scanTries = 3
	// scanBatch is how many are asked for at a time. They come without bodies.
	scanBatch = 256
)

// laneReader is the consumer by which a box looks into its own lanes. It has one
// name for each box, so that the hub can keep the box from touching any other.
func laneReader(device string) string { return "edged-" + device }

// ownLast is for a lane that ends with a message of somebody else: it returns our
// last one behind the message that we know of. ok is false if there is none, or
// if the hub does not let us look.
func (l *uplinkLane) ownLast(ctx context.Context, hub hubStream, end hubLast) (own hubLast, ok bool, err error) {
	if !l.rec.Created.Equal(hub.created) || end.hubSeq <= l.rec.HubSeq || l.knows(end.epoch) {
		l.scans = 0
		return own, false, nil
	}
	own, ok, err = l.scan(ctx, l.rec.HubSeq+1, end.hubSeq)
	if err == nil || ctx.Err() != nil {
		l.scans = 0
		return own, ok, err
	}
	if l.scans++; l.scans < scanTries {
		return own, false, fmt.Errorf("look for our last message in the lane: %w", err)
	}
	l.log.Warn("the hub does not let this box look into its own lane, what it has may be sent again; see edged hub permissions", "err", err)
	return own, false, nil
}

// knows says whether an epoch is ours, or was.
func (l *uplinkLane) knows(epoch string) bool {
	if epoch == l.p.epochs.current() {
		return true
	}
	_, known := l.p.epochs.find(epoch)
	return known
}

// scan returns the last message of ours in the lane, from one sequence of the
// hub to another.
func (l *uplinkLane) scan(ctx context.Context, from, to uint64) (own hubLast, ok bool, err error) {
	l.p.scanning.Lock() // there is one reader for all lanes
	defer l.p.scanning.Unlock()
	js, err := jetstream.NewWithAPIPrefix(l.api.nc, strings.TrimSuffix(l.api.prefix, "."))
	if err != nil {
		return own, false, err
	}
	ask, cancel := context.WithTimeout(ctx, l.api.timeout)
	defer cancel()
	name := laneReader(l.p.o.Device)
	if err := js.DeleteConsumer(ask, streamUp, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return own, false, fmt.Errorf("consumer %s: %w", name, err)
	}
	cons, err := js.CreateConsumer(ask, streamUp, jetstream.ConsumerConfig{
		Name: name, Description: "made by edged on the box", FilterSubject: l.filter,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
		AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true, MemoryStorage: true, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return own, false, fmt.Errorf("consumer %s: %w", name, err)
	}
	left := cons.CachedInfo().NumPending
	for seen := 0; left > 0 && seen < maxScan; {
		batch, err := cons.Fetch(scanBatch, jetstream.FetchMaxWait(l.api.timeout))
		if err != nil {
			return own, false, err
		}
		n := 0
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return own, false, fmt.Errorf("%w: message on %.200q is no delivery: %w", errHubAnswer, m.Subject(), err)
			}
			n, left = n+1, meta.NumPending
			if meta.Sequence.Stream > to {
				left = 0
				continue
			}
			if h := laneHeaders(meta.Sequence.Stream, m.Headers(), nil); l.knows(h.epoch) {
				own, ok = h, true
				own.size, _ = strconv.Atoi(m.Headers().Get("Nats-Msg-Size")) // 0 matches no message but an empty one
			}
			if left == 0 {
				break
			}
		}
		if err := batch.Error(); err != nil {
			return own, false, err
		}
		if n == 0 {
			return own, false, errHubSilent
		}
		seen += n
	}
	return own, ok, nil
}
