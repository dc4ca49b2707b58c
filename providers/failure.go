package providers

import (
	"context"
	"errors"

	"github.com/edged-io/edged/store"
)

// Kinds of failures, one for each that a caller can act on. The text of a
// [Failure] has that of its kind in the second place, so that an actor can tell
// them apart too.
var (
	// ErrTooLarge: the payload can never be taken. Send less.
	ErrTooLarge = errors.New("payload too large")
	// ErrNoTopic: there is nothing of that name, or nobody behind it.
	ErrNoTopic = errors.New("no such topic")
	// ErrNotPermitted: the manifest or the claims do not allow it.
	ErrNotPermitted = errors.New("not permitted")
	// ErrUnavailable: not now. Trying later can help.
	ErrUnavailable = errors.New("unavailable")
	// ErrTimedOut: no answer came in time.
	ErrTimedOut = errors.New("timed out")
	// ErrFormat: what was sent is not what the operation takes.
	ErrFormat = errors.New("wrong format")
)

// A Failure is an operation that was not done. Its text is
// "service: kind: cause"; errors.Is finds the kind and the cause.
type Failure struct {
	Service string // such as "pubsub"
	Kind    error  // one of those above
	Cause   error
}

func (f *Failure) Error() string {
	return f.Service + ": " + f.Kind.Error() + ": " + f.Cause.Error()
}

// Unwrap returns the kind and the cause.
func (f *Failure) Unwrap() []error { return []error{f.Kind, f.Cause} }

// Fail returns a Failure of a service. A kind of nil is found in the cause: a
// failure that is one already is returned as it is, the errors of the store and
// of contexts have kinds of their own, and any other is ErrUnavailable.
func Fail(service string, kind, cause error) error {
	var f *Failure
	switch {
	case kind != nil:
	case errors.As(cause, &f):
		return cause
	case errors.Is(cause, store.ErrTooLarge):
		kind = ErrTooLarge
	case errors.Is(cause, store.ErrNoStream), errors.Is(cause, store.ErrNoSubscription):
		kind = ErrNoTopic
	case errors.Is(cause, context.DeadlineExceeded):
		kind = ErrTimedOut
	default:
		kind = ErrUnavailable
	}
	return &Failure{service, kind, cause}
}
