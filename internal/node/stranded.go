package node

import (
	"context"
	"fmt"
	"slices"

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

func (n *Node) rescueFrom(ctx context.Context, w *wants, sub *subscription, from map[string]uint64) (all []stranded, err error) {
	var at store.Position
	next, again := from[sub.Name]
	if !again {
		if at, err = n.db.Position(sub.Name); err != nil {
			return nil, nil // a new one
		}
		next = at.Floor + 1
	}
	defer func() { from[sub.Name] = next }()
	var filters []string
	for i := range w.subs {
		if w.subs[i].Stream == sub.Stream {
			filters = append(filters, w.subs[i].Filter)
		}
	}
	for {
		var batch []store.Message
		read := 0
		err := n.db.Read(sub.Stream, next, strandedBatch, strandedBytes, func(m store.Message) error {
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
				t.DeadLetter(store.DeadLetter{
					Stream: m.Stream, Seq: m.Seq, Subject: m.Subject, Subscription: sub.Name, Attempts: at.Attempts[m.Seq], Reason: "rejected",
					Error:  "the app was changed, and does not receive " + m.Subject + " through this inbox any more",
					Header: m.Header, Data: m.Data, ReplayTo: w.receiver(sub, m.Subject),
				})
				t.Ack(sub.Name, m.Seq)
			}
			return nil
		})
		if err != nil {
			return all, err
		}
		for _, m := range batch {
			all = append(all, stranded{sub.Name, m.Seq})
		}
	}
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
	if err != nil || len(to) == 0 {
		return err
	}
	return n.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		for id, subscription := range to {
			t.ReplayDeadLetter(id, subscription)
		}
		return nil
	})
}
