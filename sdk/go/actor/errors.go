package actor

import (
	"errors"
	"strings"
)

// Kinds of what the box could not do, one for each that an actor can act on:
// errors.Is(err, actor.ErrNoTopic).
var (
	// ErrTooLarge: the payload can never be taken. Send less.
	ErrTooLarge = errors.New("payload too large")
	// ErrNoTopic: there is nothing of that name, or nobody behind it.
	ErrNoTopic = errors.New("no such topic")
	// ErrNotPermitted: the manifest or the claims do not allow it.
	ErrNotPermitted = errors.New("not permitted")
	// ErrUnavailable: not now. Trying later can help: return an error, or Retry.
	ErrUnavailable = errors.New("unavailable")
	// ErrTimedOut: no answer came in time.
	ErrTimedOut = errors.New("timed out")
	// ErrFormat: what was sent is not what the operation takes.
	ErrFormat = errors.New("wrong format")
)

// A HostError is the reason why the box, a provider or another actor did not do
// what it was asked for. errors.Is finds its kind, if it has one.
type HostError struct {
	Operation string
	Text      string // "service: kind: cause", where it has a kind
}

func (e *HostError) Error() string { return e.Operation + ": " + e.Text }

// Is says whether target is the kind of e.
func (e *HostError) Is(target error) bool {
	// What a link or the claims do not give is refused before any service has it.
	if strings.HasPrefix(e.Text, "Invocation not authorized") {
		return target == ErrNotPermitted
	}
	_, rest, ok := strings.Cut(e.Text, ": ")
	if !ok {
		return false
	}
	for _, kind := range [...]error{ErrTooLarge, ErrNoTopic, ErrNotPermitted, ErrUnavailable, ErrTimedOut, ErrFormat} {
		if strings.HasPrefix(rest, kind.Error()+": ") {
			return kind == target
		}
	}
	return false
}
