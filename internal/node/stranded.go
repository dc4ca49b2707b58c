package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// Inboxes are named by the place of their tables in the manifest. With a new
// version another table may stand there, or the same one with another topic, and
// what is still in the inbox is none of its topic: the subscription would pass it
// over as handled.

// strandedBatch bounds what one turn takes out of an inbox.
const strandedBatch = 256

// strandedBytes is the same in bytes, about.
const strandedBytes = 1 << 20

// stranded is a message that was taken out of an inbox.
type stranded struct {
	subscription string
	seq          uint64
}

// rescue makes dead letters of the messages in inboxes that nobody receives from
// there any more, and marks each for the subscription of the same app that
// receives its subject now, if there is one. Call it when no handler of these
// inboxes is at work: before their subscriptions are configured, and, with the same
// from, for what came in meanwhile, when nobody puts anything there any more.
func (n *Node) rescue(ctx context.Context, w *wants, from map[string]uint64) (all []stranded, err error) {
	for i := range w.subs {
		// The subscription of an inbox has its name; those of sources beside it have
		// longer ones.
		sub := &w.subs[i]
		if sub.inbox == "" || sub.Name != sub.Stream {
			continue
		}
		some, err := n.rescueFrom(ctx, w, sub, from)
		all = append(all, some...)
		if err != nil {
			return all, fmt.Errorf("inbox %s: keep what is none of its topic: %w", sub.Stream, err)
		}
		if len(some) > 0 {
			n.log.Warn("messages of a topic that is not received through this inbox any more are dead letters, for who receives it now",
				"stream", sub.Stream, "count", len(some))
		}
	}
	return all, nil
}

func (n *Node) rescueFrom(ctx context.Context, w *wants, sub *subscription, from map[string]uint64) ([]stranded, error) {
	var filters []string
	for i := range w.subs {
		if w.subs[i].Stream == sub.Stream {
			filters = append(filters, w.subs[i].Filter)
		}
	}
	return n.takeOut(ctx, sub.Stream, sub.Name, filters, from, func(t *store.Turn, m store.Message, attempts int) error {
		t.DeadLetter(strandedLetter(m, sub.Name, attempts, w.receiver(sub, m.Subject)))
		return nil
	})
}

// strandedLetter is the dead letter of a message that is none of where it is.
func strandedLetter(m store.Message, subscription string, attempts int, to string) store.DeadLetter {
	return store.DeadLetter{
		Stream: m.Stream, Seq: m.Seq, Subject: m.Subject, Subscription: subscription, Attempts: attempts, Reason: "rejected",
		Error:  "the app was changed, and has nothing to do with " + m.Subject + " in this place any more",
		Header: m.Header, Data: m.Data, ReplayTo: to,
	}
}

// takeOut hands messages that a subscription has not acknowledged, and whose subjects
// none of the filters match, to put, which finds another place for them, and
// acknowledges them, in turns of many. It begins where from says, else at the
// position, and notes where it ended.
func (n *Node) takeOut(
	ctx context.Context, stream, subscription string, filters []string, from map[string]uint64, put func(*store.Turn, store.Message, int) error,
) (all []stranded, err error) {
	var at store.Position
	next, again := from[subscription]
	if !again {
		if at, err = n.db.Position(subscription); err != nil {
			return nil, nil // a new one
		}
		next = at.Floor + 1
	}
	defer func() { from[subscription] = next }()
	for {
		var batch []store.Message
		read := 0
		err := n.db.Read(stream, next, strandedBatch, strandedBytes, func(m store.Message) error {
			read++
			next = m.Seq + 1
			_, done := slices.BinarySearch(at.Above, m.Seq)
			if !done && !slices.ContainsFunc(filters, func(f string) bool { return topic.Match(f, m.Subject) }) {
				batch = append(batch, m)
			}
			return nil
		})
		if err != nil || read == 0 {
			return all, err
		}
		if len(batch) == 0 {
			continue
		}
		err = n.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
			for _, m := range batch {
				if err := put(t, m, at.Attempts[m.Seq]); err != nil {
					return err
				}
				t.Ack(subscription, m.Seq)
			}
			return nil
		})
		if err != nil {
			return all, err
		}
		for _, m := range batch {
			all = append(all, stranded{subscription, m.Seq})
		}
	}
}

// reclaim gives letters that rescue marked for a subscription that is gone, because
// the old version is back, to the inbox they were taken from.
func (n *Node) reclaim(ctx context.Context, w *wants) error {
	back := make(map[uint64]string)
	err := n.db.DeadLetters(func(d store.DeadLetter) error {
		if d.ReplayTo == "" || d.Reason != "rejected" || w.subscription(d.ReplayTo) != nil {
			return nil
		}
		if s := w.subscription(d.Subscription); s != nil && s.inbox != "" && topic.Match(s.Filter, d.Subject) {
			back[d.ID] = d.Subscription
		}
		return nil
	})
	if err != nil {
		return err
	}
	return n.replayThose(ctx, back)
}

// sortOutboxes moves what waits in an outbox of an app for a broker elsewhere, and
// is none of its topics any more, to the outbox of the app that has its topic now;
// if there is none, or more than one, it becomes a dead letter. Call it when no client
// of these outboxes runs.
func (n *Node) sortOutboxes(ctx context.Context, s appSet) {
	for _, a := range s.sorted() {
		for _, o := range a.config.Outlets {
			moved, err := n.sortOutbox(ctx, o, a.config.Outlets, true)
			if errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrTooLarge) {
				var more []stranded
				more, err = n.sortOutbox(ctx, o, a.config.Outlets, false)
				moved = append(moved, more...)
			}
			if len(moved) > 0 {
				n.log.Warn("messages in an outbox are for another broker now, or dead letters", "stream", o.Stream, "count", len(moved))
			}
			if err != nil {
				n.log.Error("messages may go to a broker that they are not for", "stream", o.Stream, "err", err)
			}
		}
	}
}

func (n *Node) sortOutbox(ctx context.Context, o config.Outlet, all []config.Outlet, move bool) ([]stranded, error) {
	name := outboxSubscription(o.Stream)
	return n.takeOut(ctx, o.Stream, name, o.Filters, make(map[string]uint64), func(t *store.Turn, m store.Message, attempts int) error {
		var to []string
		for _, other := range all {
			if slices.ContainsFunc(other.Filters, func(f string) bool { return topic.Match(f, m.Subject) }) {
				to = append(to, other.Stream)
			}
		}
		if len(to) != 1 || !move || m.TTL < 0 { // of several, nobody knows which
			t.DeadLetter(strandedLetter(m, name, attempts, ""))
			return nil
		}
		_, err := t.Publish(to[0], store.Message{
			Subject: m.Subject, Header: m.Header, Data: m.Data, TTL: m.TTL, ID: event.Identity(event.Header(m.Header), m.Data),
		})
		return err
	})
}

// receiver returns the subscription that has the messages of a subject now, of an
// app that sub is of, "" if there is none.
func (w *wants) receiver(sub *subscription, subject string) string {
	for i := range w.subs {
		s := &w.subs[i]
		if s.inbox != "" && s.inbox == sub.inbox && slices.ContainsFunc(s.apps, func(app string) bool { return slices.Contains(sub.apps, app) }) &&
			topic.Match(s.Filter, subject) {
			return s.Name
		}
	}
	return ""
}

// rescued lets those who now have the messages know; or, with back, those who had
// them, because all stays as it was.
func (n *Node) rescued(ctx context.Context, all []stranded, back bool) error {
	if len(all) == 0 {
		return nil
	}
	was := make(map[stranded]bool, len(all))
	for _, s := range all {
		was[s] = true
	}
	to := make(map[uint64]string)
	err := n.db.DeadLetters(func(d store.DeadLetter) error {
		if was[stranded{d.Subscription, d.Seq}] {
			switch {
			case back:
				to[d.ID] = d.Subscription
			case d.ReplayTo != "":
				to[d.ID] = d.ReplayTo
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return n.replayThose(ctx, to)
}

// replayThose marks dead letters for subscriptions, but for those that have ended
// meanwhile.
func (n *Node) replayThose(ctx context.Context, to map[uint64]string) error {
	for len(to) > 0 {
		err := n.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
			for id, subscription := range to {
				t.ReplayDeadLetter(id, subscription)
			}
			return nil
		})
		if !errors.Is(err, store.ErrNoDeadLetter) {
			return err
		}
		for id := range to {
			if _, gone := n.db.DeadLetter(id); errors.Is(gone, store.ErrNoDeadLetter) {
				delete(to, id)
			}
		}
	}
	return nil
}
