package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/edged-io/edged/store"
)

// DeadLetterChoice says which dead letters a verb is about: those with these
// ids, or all that a filter leaves. Empty fields of the filter leave all.
type DeadLetterChoice struct {
	IDs          []uint64 `json:"ids,omitempty"`
	All          bool     `json:"all,omitempty"`
	Stream       string   `json:"stream,omitempty"`
	Subscription string   `json:"subscription,omitempty"`
	Reason       string   `json:"reason,omitempty"`
	// To is the subscription that is to handle them, when they are replayed; ""
	// for the one each comes from.
	To string `json:"to,omitempty"`
}

func (c DeadLetterChoice) matches(d store.DeadLetter) bool {
	return (c.Stream == "" || c.Stream == d.Stream) && (c.Subscription == "" || c.Subscription == d.Subscription) &&
		(c.Reason == "" || c.Reason == d.Reason)
}

// listDeadLetters lists them without header and body.
func (n *Node) listDeadLetters(r *http.Request) (any, error) {
	q := r.URL.Query()
	all, err := n.chooseDeadLetters(DeadLetterChoice{
		All: true, Stream: q.Get("stream"), Subscription: q.Get("subscription"), Reason: q.Get("reason"),
	})
	return items(all), err
}

func (n *Node) showDeadLetter(r *http.Request) (any, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("dead letter %q: %w", r.PathValue("id"), store.ErrNoDeadLetter)
	}
	return n.db.DeadLetter(id)
}

// chooseDeadLetters returns the chosen ones, without header and body.
func (n *Node) chooseDeadLetters(c DeadLetterChoice) (all []store.DeadLetter, err error) {
	if !c.All {
		for _, id := range c.IDs {
			d, err := n.db.DeadLetter(id)
			if err != nil {
				return nil, err
			}
			d.Header, d.Data = nil, nil
			all = append(all, d)
		}
		return all, nil
	}
	err = n.db.DeadLetters(func(d store.DeadLetter) error {
		if c.matches(d) {
			d.Header, d.Data = nil, nil
			all = append(all, d)
		}
		return nil
	})
	return all, err
}

// maxChoice is how long a request with ids may be.
const maxChoice = 1 << 20

func readChoice(r *http.Request) (c DeadLetterChoice, err error) {
	b, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxChoice))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil && c.All == (len(c.IDs) > 0) {
		err = errors.New("want ids, or all")
	}
	if err != nil {
		return c, fmt.Errorf("%w: %w", errRequest, err)
	}
	slices.Sort(c.IDs)
	c.IDs = slices.Compact(c.IDs)
	return c, nil
}

// changeDeadLetters does something to the chosen dead letters, all or none, and
// answers with which they were.
func (n *Node) changeDeadLetters(change func(context.Context, DeadLetterChoice, []store.DeadLetter) error) http.HandlerFunc {
	return answer(func(r *http.Request) (any, error) {
		c, err := readChoice(r)
		if err != nil {
			return nil, err
		}
		for tries := 1; ; tries++ {
			all, err := n.chooseDeadLetters(c)
			if err == nil && len(all) > 0 {
				err = change(r.Context(), c, all)
			}
			// One of all may have ended since it was chosen.
			if c.All && errors.Is(err, store.ErrNoDeadLetter) && tries < 10 {
				continue
			}
			if err != nil {
				return nil, err
			}
			return items(all), nil
		}
	})
}

// maxDrop is how many dead letters end in one turn.
const maxDrop = 1000

func (n *Node) dropDeadLetters(ctx context.Context, _ DeadLetterChoice, all []store.DeadLetter) error {
	for some := range slices.Chunk(all, maxDrop) {
		err := n.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
			for _, d := range some {
				t.DropDeadLetter(d.ID)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	n.log.Info("dead letters dropped", "count", len(all))
	return nil
}

// replayDeadLetters lets subscriptions handle them once more. They end when they
// have been, in the same commit.
func (n *Node) replayDeadLetters(ctx context.Context, c DeadLetterChoice, all []store.DeadLetter) error {
	serving := make(map[string]bool)
	for _, s := range n.broker.Stats().Subscriptions {
		serving[s.Name] = true
	}
	ids := make([]uint64, len(all))
	for i, d := range all {
		ids[i] = d.ID
		if to := cmp.Or(c.To, d.Subscription); !serving[to] {
			return fmt.Errorf("dead letter %d: nobody serves subscription %q, name another one with --to: %w", d.ID, to, store.ErrNoSubscription)
		}
	}
	if err := n.broker.ReplayDeadLetters(ctx, ids, c.To); err != nil {
		return err
	}
	n.log.Info("dead letters replayed", "count", len(all), "to", c.To)
	return nil
}
