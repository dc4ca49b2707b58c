package broker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// Subscription hands the messages of a stream to a receiver, from a durable
// position of its own. The receiver is a function (Deliver), clients of a NATS
// subject (PushTo), or whoever asks (Pull). Zero values mean the defaults.
type Subscription struct {
	Name   string // unique in the box
	Stream string
	Filter string // subjects; "" means all of the stream
	// Start is where it begins when it is created; one that is there stays where
	// it is.
	Start store.Start
	// Ephemeral ends it, with its position, when it is left out of a Configure and
	// when the store is closed.
	Ephemeral bool

	MaxInFlight int           // messages in handlers at a time; 0 means 64
	AckWait     time.Duration // how long a handler may take; 0 means 30 s
	// Backoff are the pauses before the second, third, … attempt; the last one
	// goes on, and each is varied by a fifth. Nil means DefaultBackoff.
	Backoff []time.Duration
	// MaxDeliver is how many attempts a message gets before it becomes a dead
	// letter. 0 means that it never does.
	MaxDeliver int
	// OrderedBy is "subject" (the default: messages of a subject one at a time and
	// in order, through all attempts), "key", or "none". The key of a message is
	// its header Edged-Key, else the partitionkey of the CloudEvent that it is,
	// else its subject. A turn may receive several of one key, in order.
	OrderedBy string
	// AtMostOnce acknowledges a message before its receiver has it (QoS 0).
	// What fails is not tried again.
	AtMostOnce bool

	// Deliver handles one message, whose bytes it may keep but not change.
	// attempt counts from 1. The context carries the turn (store.TurnFrom) and
	// ends after AckWait. Nil acknowledges the message in that turn, and the turn is
	// committed; Deliver may be called again with the same attempt when the turn
	// lost a conflict. An error discards the turn: Reject makes the message a dead
	// letter, RetryAfter says when to try again, store.ErrFull waits without
	// counting as an attempt, any other is tried again by Backoff. An error may
	// implement Blame.
	Deliver func(ctx context.Context, m Message, attempt int) error
	// PushTo, in place of Deliver, is the subject of APP on which each message is
	// published, with a reply subject to which one of those who are subscribed
	// acknowledges it, as in JetStream. While nobody is subscribed messages wait.
	PushTo string
	// Pull, in place of Deliver, leaves it to receivers to ask: with
	// Server.Receive, or as NATS clients with JetStream's pull request. They
	// share the messages.
	Pull bool
	// Paused has a subscription that was not configured before begin as Pause would
	// leave it: its messages wait for Resume.
	Paused bool
}

// DefaultBackoff is what a Subscription without one waits.
var DefaultBackoff = []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 10 * time.Second, 30 * time.Second}

// Blame is what an error of Deliver may tell for the dead letter: who failed.
type Blame interface {
	Actor() (name, version string)
}

// Tracer is an error that can tell more than its text, in several lines. A dead
// letter has all of it.
type Tracer interface {
	Trace() string
}

// Failure is an attempt at a message that failed, and what becomes of it: it is
// tried again After some time, or is dead letter Letter, or is lost to who
// failed since it has QoS 0.
type Failure struct {
	Subscription string
	Stream       string
	Seq          uint64
	Subject      string
	ID           string // of the message, "" for none
	Attempt      int    // counted from 1
	Err          error
	After        time.Duration
	Letter       uint64 // 0 for none
	Reason       string // of the dead letter
	Lost         bool
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
	orderedByKey     = "key"
	orderedByNone    = "none"

	// maxKey bounds what is kept of a key; the hash of a longer one stands for it.
	maxKey = 128

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
		if sub.PushTo != "" {
			for _, st := range streams {
				for _, f := range st.Subjects {
					if topic.ValidFilter(f) && topic.ValidSubject(sub.PushTo) && topic.Match(f, sub.PushTo) {
						faults = append(faults, fmt.Errorf("subscription %q: subject %s to push to belongs to stream %s (%s)", sub.Name, sub.PushTo, st.Name, f))
					}
				}
			}
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
	case !subscriptionName(sub.Name):
		return errors.New("name must have 1 to 512 bytes of text, without control characters")
	case sub.Filter != "" && !topic.ValidFilter(sub.Filter):
		return fmt.Errorf("filter %q is not valid", sub.Filter)
	case sub.MaxInFlight < 1 || sub.MaxInFlight > maxInFlight:
		return fmt.Errorf("max_in_flight must be 1 to %d", maxInFlight)
	case sub.AckWait < 0:
		return errors.New("ack_wait is negative")
	case sub.MaxDeliver < 0:
		return errors.New("max_deliver is negative")
	case sub.OrderedBy != orderedBySubject && sub.OrderedBy != orderedByKey && sub.OrderedBy != orderedByNone:
		return fmt.Errorf("ordered_by must be %q, %q or %q", orderedBySubject, orderedByKey, orderedByNone)
	}
	receivers := 0
	for _, has := range [...]bool{sub.Deliver != nil, sub.PushTo != "", sub.Pull} {
		if has {
			receivers++
		}
	}
	if receivers != 1 {
		return errors.New("needs one receiver: Deliver, PushTo or Pull")
	}
	if to := sub.PushTo; to != "" && (!topic.ValidSubject(to) || len(to) > MaxSubject || topic.Reserved(to)) {
		return fmt.Errorf("subject %.200q is not one to push to", to)
	}
	for _, d := range sub.Backoff {
		if d < 0 {
			return errors.New("a backoff is negative")
		}
	}
	return nil
}

// subscriptionName says whether a subscription may have this name. It is a key and
// never part of a path, so nearly all may.
func subscriptionName(s string) bool {
	return s != "" && len(s) <= 512 && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// remote says whether NATS clients may receive its messages.
func (sub *Subscription) remote() bool { return sub.Pull || sub.PushTo != "" }

// key returns what messages are ordered by. Keys and subjects that stand for one
// are never the same.
func (sub *Subscription) key(m Message) string {
	switch sub.OrderedBy {
	case orderedByNone:
		return ""
	case orderedByKey:
		if k := messageKey(m); k != "" {
			return "k" + k
		}
		return "s" + m.Subject
	}
	return m.Subject
}

// messageKey is the key that a message names, "" for none.
func messageKey(m Message) string {
	h := event.Header(m.Header)
	k, ok := h.Get(headerKey)
	if !ok || k == "" {
		if k, ok = h.Get("ce-partitionkey"); ok {
			if plain, err := url.PathUnescape(k); err == nil { // as the HTTP binding writes it
				k = plain
			}
		} else if e, ok := event.Parse(h, "", m.Data); ok {
			k = e.Extensions["partitionkey"]
		}
	}
	if len(k) > maxKey {
		sum := sha256.Sum256([]byte(k))
		return "#" + string(sum[:])
	}
	return k
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
