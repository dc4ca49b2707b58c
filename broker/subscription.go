package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/edged-io/edged/internal/topic"
)

// Subscription hands the messages of a stream to a function, from a durable
// position of its own. Zero values mean the defaults.
type Subscription struct {
	Name   string // unique in the box
	Stream string
	Filter string // subjects; "" means all of the stream
	New    bool   // when it is created, begin after what the stream holds already

	MaxInFlight int           // messages in handlers at a time; 0 means 64
	AckWait     time.Duration // how long a handler may take; 0 means 30 s
	// Backoff are the pauses before the second, third, … attempt; the last one
	// goes on, and each is varied by a fifth. Nil means DefaultBackoff.
	Backoff []time.Duration
	// MaxDeliver is how many attempts a message gets before it becomes a dead
	// letter. 0 means that it never does.
	MaxDeliver int
	// OrderedBy is "subject" (the default: messages of a subject one at a time and
	// in order, through all attempts) or "none".
	OrderedBy string

	// Deliver handles one message, whose bytes it may keep but not change.
	// attempt counts from 1. The context carries the turn (store.TurnFrom) and
	// ends after AckWait. Nil acknowledges the message in that turn, and the turn is
	// committed; Deliver may be called again with the same attempt when the turn
	// lost a conflict. An error discards the turn: Reject makes the message a dead
	// letter, RetryAfter says when to try again, store.ErrFull waits without
	// counting as an attempt, any other is tried again by Backoff. An error may
	// implement Blame.
	Deliver func(ctx context.Context, m Message, attempt int) error
}

// DefaultBackoff is what a Subscription without one waits.
var DefaultBackoff = []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 10 * time.Second, 30 * time.Second}

// Blame is what an error of Deliver may tell for the dead letter: who failed.
type Blame interface {
	Actor() (name, version string)
}

type rejectError struct{ reason string }

func (e *rejectError) Error() string { return "rejected: " + e.reason }

// Reject is an error of Deliver: the message can never be handled.
func Reject(reason string) error { return &rejectError{reason} }

type retryError struct {
	after time.Duration
	err   error
}

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

// RetryAfter is an error of Deliver: try again after d, and not by the backoff.
// It counts as an attempt.
func RetryAfter(d time.Duration) error {
	return RetryAfterError(d, errors.New("the handler asked for another attempt"))
}

// RetryAfterError is RetryAfter with a cause.
func RetryAfterError(d time.Duration, cause error) error { return &retryError{max(d, 0), cause} }

const (
	orderedBySubject = "subject"
	orderedByNone    = "none"

	maxInFlight = 4096
)

// checkSubscriptions fills in the defaults and returns all faults.
func checkSubscriptions(streams []Stream, subs []Subscription) error {
	known := make(map[string]bool)
	for _, st := range streams {
		known[st.Name] = true
	}
	var faults []error
	names := make(map[string]bool)
	for i := range subs {
		sub := &subs[i]
		sub.setDefaults()
		if err := sub.check(); err != nil {
			faults = append(faults, fmt.Errorf("subscription %q: %w", sub.Name, err))
		}
		if !known[sub.Stream] {
			faults = append(faults, fmt.Errorf("subscription %q: no stream %q", sub.Name, sub.Stream))
		}
		if names[sub.Name] {
			faults = append(faults, fmt.Errorf("subscription %q: declared twice", sub.Name))
		}
		names[sub.Name] = true
	}
	return errors.Join(faults...)
}

func (sub *Subscription) setDefaults() {
	if sub.MaxInFlight == 0 {
		sub.MaxInFlight = 64
	}
	if sub.AckWait == 0 {
		sub.AckWait = 30 * time.Second
	}
	if len(sub.Backoff) == 0 {
		sub.Backoff = DefaultBackoff
	}
	if sub.OrderedBy == "" {
		sub.OrderedBy = orderedBySubject
	}
}

func (sub *Subscription) check() error {
	switch {
	case sub.Name == "" || len(sub.Name) > 512:
		return errors.New("name must have 1 to 512 bytes")
	case sub.Filter != "" && !topic.ValidFilter(sub.Filter):
		return fmt.Errorf("filter %q is not valid", sub.Filter)
	case sub.MaxInFlight < 1 || sub.MaxInFlight > maxInFlight:
		return fmt.Errorf("max_in_flight must be 1 to %d", maxInFlight)
	case sub.AckWait < 0:
		return errors.New("ack_wait is negative")
	case sub.MaxDeliver < 0:
		return errors.New("max_deliver is negative")
	case sub.OrderedBy != orderedBySubject && sub.OrderedBy != orderedByNone:
		return fmt.Errorf("ordered_by must be %q or %q", orderedBySubject, orderedByNone)
	case sub.Deliver == nil:
		return errors.New("no Deliver")
	}
	for _, d := range sub.Backoff {
		if d < 0 {
			return errors.New("a backoff is negative")
		}
	}
	return nil
}

func (sub *Subscription) matches(subject string) bool {
	return sub.Filter == "" || topic.Match(sub.Filter, subject)
}

// pause returns how long to wait after n failed attempts.
func (sub *Subscription) pause(n int) time.Duration {
	return jitter(sub.Backoff[min(n, len(sub.Backoff))-1])
}

// jitter varies d by a fifth, so that what failed together is not tried
// together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
