package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/providers/httpserver"
	"github.com/edged-io/edged/runtime"
)

const (
	// failuresAgain is how often it is told that an actor goes on failing in a way
	// that was told before.
	failuresAgain = time.Minute
	// failuresForgotten is how long an actor has to do without a kind of failure for
	// the next one to be told whole again.
	failuresForgotten = 10 * time.Minute
	// failingCalls is how many calls in a row have to fail for an actor to be a
	// problem of the box.
	failingCalls = 3
	maxFailures  = 256 // kinds that are kept apart
)

// failures are what went wrong in actors, and what became of the messages. The
// first of a kind is told in the log with the guest's stack; those after it are
// counted, and the count is told from time to time.
type failures struct {
	log *slog.Logger

	mu     sync.Mutex // guards all below
	kinds  map[failureKind]*failureCount
	closed bool
}

// failureKind tells failures apart: who failed, where, and in which way; of one
// that is no actor's, the way alone.
type failureKind struct{ actor, version, operation, way string }

type failureCount struct {
	last    time.Time // the last one
	untold  int
	what    string // of the last one, as the rest
	text    string
	outcome string
	message string
	timer   *time.Timer // armed while some are untold
}

// FailureStatus is the last call of an actor that failed.
type FailureStatus struct {
	Time      time.Time `json:"time"`
	Version   string    `json:"version"` // of the app
	Operation string    `json:"operation"`
	Error     string    `json:"error"`
	Message   string    `json:"message"` // what was handled: stream/sequence, or method and path of a request; "" for another call
	Outcome   string    `json:"outcome"` // what became of it
	InARow    uint64    `json:"in_a_row"`
}

// blamed is an error of an actor: who it was, and, in Trace, the guest's stack.
type blamed struct {
	cause     error
	actor     *actor
	operation string
	verdict   string // "retry" or "reject": the actor has not failed but said so
	quiet     bool   // it is not the actor's fault
	tell      bool   // it is the first of its kind: all of it goes to the log
}

func (b *blamed) kind() failureKind {
	return failureKind{b.actor.title(), b.actor.version, b.operation, b.verdict + way(b)}
}

// Error begins with the actor as its operator knows it, and its version.
func (b *blamed) Error() string {
	who := b.actor.who()
	if text, ok := strings.CutPrefix(b.cause.Error(), "actor "+b.actor.key+": "); ok {
		return who + text // the runtime knows its key alone
	}
	return who + b.operation + ": " + b.cause.Error()
}

func (b *blamed) Unwrap() error { return b.cause }

// Actor implements broker.Blame.
func (b *blamed) Actor() (name, version string) { return b.actor.title(), b.actor.version }

// Trace implements broker.Tracer: what there is beyond the text.
func (b *blamed) Trace() string {
	var t broker.Tracer
	if errors.As(b.cause, &t) {
		return t.Trace()
	}
	return ""
}

// LogTrace is the trace if the log does not have it yet.
func (b *blamed) LogTrace() string {
	if b.tell {
		return b.Trace()
	}
	return ""
}

// title is the actor's name for people.
func (a *actor) title() string { return a.app + "/" + a.config.Name }

// isBlamed says whether err is that of an actor, and its fault.
func isBlamed(err error) bool {
	var b *blamed
	return errors.As(err, &b) && !b.quiet
}

// who begins the errors of the actor.
func (a *actor) who() string { return "actor " + a.title() + " " + a.version + ": " }

// blame makes err one of an actor's, and notes it. A caller that went away, or a
// box that has no memory or not all code yet, is not the actor's fault.
func (n *Node) blame(a *actor, operation string, err error) error {
	b := &blamed{cause: err, actor: a, operation: operation}
	if errors.Is(err, context.Canceled) || errors.Is(err, runtime.ErrClosed) || errors.Is(err, errBusy) {
		b.quiet = true
		return b
	}
	b.tell = n.failures.first(b.kind())
	row := uint64(1)
	if last := a.failing.Load(); last != nil {
		row += last.InARow
	}
	s := &FailureStatus{Time: n.o.Now().UTC(), Version: a.version, Operation: operation, Error: b.Error(), InARow: row}
	a.failing.Store(s)
	a.failed.Store(s)
	return b
}

// succeeded ends a row of failures.
func (a *actor) succeeded() {
	if a.failing.Load() != nil {
		a.failing.Store(nil)
	}
}

var numbers = regexp.MustCompile(`[0-9]+`)

// way is what failures of one kind have in common: their text, but for the
// numbers in it, and for what an actor only passes on that another one has said.
func way(err error) string {
	text := err.Error()
	if own, _, nested := strings.Cut(text, ": actor "); nested {
		text = own
	}
	return numbers.ReplaceAllString(text[:min(len(text), 200)], "#")
}

// first says whether a failure is to be told whole. It is counted.
func (f *failures) first(k failureKind) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	c := f.kinds[k]
	if c != nil && now.Sub(c.last) < failuresForgotten {
		c.last = now
		return false
	}
	if c == nil {
		if len(f.kinds) >= maxFailures {
			f.forget(now)
		}
		c = &failureCount{}
		if f.kinds == nil {
			f.kinds = make(map[failureKind]*failureCount)
		}
		f.kinds[k] = c
	}
	c.last = now
	return true
}

// forget makes room: the kind that was met least lately goes, of those of which
// everything is told.
func (f *failures) forget(now time.Time) {
	var oldest failureKind
	at := now.Add(time.Hour)
	for k, c := range f.kinds {
		if c.timer == nil && c.last.Before(at) {
			oldest, at = k, c.last
		}
	}
	delete(f.kinds, oldest)
}

// went tells what became of what an actor failed at: message, with attributes for
// the log, and outcome. So are errors that are no actor's.
// told says whether it is in the log by itself.
func (f *failures) went(message, outcome string, err error, attrs ...any) (told bool) {
	if message != "" {
		attrs = append(attrs, "message", message)
	}
	attrs = append(attrs, "outcome", outcome)
	var b *blamed
	if !errors.As(err, &b) {
		what := "message not handled"
		if message == "" {
			what = "call not handled"
		}
		k := failureKind{way: what + ": " + way(err)}
		if !f.first(k) { // an actor that is busy is so for many
			f.count(k, what, message, outcome, err.Error())
			return false
		}
		f.log.Warn(what, append(attrs, "err", err)...)
		return true
	}
	if b.verdict == "retry" || b.quiet {
		f.log.Debug("actor has not handled a message", append(attrs, "actor", b.actor.title())...)
		return false
	}
	if last := b.actor.failed.Load(); last != nil && b.verdict == "" {
		told := *last
		told.Message, told.Outcome = message, outcome
		b.actor.failed.CompareAndSwap(last, &told)
		b.actor.failing.CompareAndSwap(last, &told)
	}
	what, again := "actor failed", "actor keeps failing"
	if b.verdict != "" {
		what, again = "actor rejected a message", "actor keeps rejecting messages"
	}
	if b.tell {
		who := []any{"actor", b.actor.title(), "version", b.actor.version, "operation", b.operation}
		f.log.Warn(what, append(append(who, attrs...), "err", err)...)
		return true
	}
	f.count(b.kind(), again, message, outcome, b.Error())
	return false
}

// count counts a failure that is not told by itself; what tells of those that
// were counted.
func (f *failures) count(k failureKind, what, message, outcome, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.kinds[k]
	if c == nil || f.closed {
		return
	}
	c.untold++
	c.what, c.message, c.outcome, c.text = what, message, outcome, text
	if c.timer == nil {
		c.timer = time.AfterFunc(failuresAgain, func() { f.again(k) }) // close stops it
	}
}

// again tells what was counted.
func (f *failures) again(k failureKind) {
	f.mu.Lock()
	c := f.kinds[k]
	if c == nil || c.untold == 0 {
		f.mu.Unlock()
		return
	}
	told := *c
	c.untold, c.timer = 0, nil
	f.mu.Unlock()
	var attrs []any
	if k.actor != "" {
		attrs = append(attrs, "actor", k.actor, "version", k.version, "operation", k.operation)
	}
	attrs = append(attrs, "more", told.untold)
	if told.message != "" {
		attrs = append(attrs, "last_message", told.message)
	}
	f.log.Warn(told.what, append(attrs, "last_outcome", told.outcome, "err", told.text)...)
}

// close tells what is left, and tells nothing after that.
func (f *failures) close() {
	f.mu.Lock()
	f.closed = true
	var left []failureKind
	for k, c := range f.kinds {
		if c.timer != nil && c.timer.Stop() {
			left = append(left, k)
		}
	}
	f.mu.Unlock()
	for _, k := range left {
		f.again(k)
	}
}

// delivery tells of an attempt at a message that failed.
func (f *failures) delivery(d broker.Failure) {
	message := place{d.Stream, d.Seq}.String()
	outcome := ""
	switch {
	case d.Lost:
		outcome = "lost, since its QoS is 0"
	case d.Letter != 0:
		outcome = fmt.Sprintf("dead letter %d (%s)", d.Letter, d.Reason)
	default:
		outcome = "tried again in " + d.After.Round(time.Millisecond).String()
	}
	attrs := []any{"subject", d.Subject}
	if d.ID != "" {
		attrs = append(attrs, "id", d.ID)
	}
	f.went(message, outcome, d.Err, append(attrs, "attempt", d.Attempt)...)
}

// request tells of an HTTP request that an actor failed at.
func (f *failures) request(r httpserver.Failure) (taken, told bool) {
	if !isBlamed(r.Err) {
		return false, false
	}
	request := r.Method + " " + r.Path
	return true, f.went(request, fmt.Sprintf("answered %d", r.Status), r.Err, "id", r.ID)
}

// nested tells of a failure that another actor was told of.
func (f *failures) nested(ctx context.Context, caller string, err error) {
	f.went(handled(ctx), "told to actor "+caller+", which called it", err)
}

// outcome is what a line about the failure says of what became of it.
func (s *FailureStatus) outcome() string {
	what := "at " + s.Time.Format(time.RFC3339)
	if s.Message != "" {
		what += " with message " + s.Message
	}
	if s.Outcome != "" {
		what += " (" + s.Outcome + ")"
	}
	return what
}
