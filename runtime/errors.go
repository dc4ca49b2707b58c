package runtime

import (
	"errors"
	"fmt"
	"strings"
)

// What callers branch on. A call that failed with ErrTimeLimit, ErrMemory or a
// *TrapError has lost its instance, not the actor: the next call gets another.
var (
	// ErrModule: the module itself cannot be run here; trying again is useless.
	ErrModule = errors.New("unusable module")
	// ErrCompilerKilled: Options.Compiler was killed while it compiled the module,
	// which the kernel does when memory is short. Trying again can help when more is
	// free.
	ErrCompilerKilled = errors.New("the compiler was killed, most likely because memory is short")
	// ErrTimeLimit: the actor did not answer within Limits.Time.
	ErrTimeLimit = errors.New("time limit exceeded")
	// ErrMemory: the actor asked for more memory than Limits.MemoryBytes and
	// did not survive the refusal. It comes wrapped in a *TrapError.
	ErrMemory = errors.New("memory limit exceeded")
	// ErrStepLimit: the actor used up Limits.Steps in one call.
	ErrStepLimit = errors.New("step limit exceeded")
	// ErrDeadlock: the call could only have waited for itself: all instances of
	// the actor are held by calls that wait for one another.
	ErrDeadlock = errors.New("all instances are held by calls that wait for one another")
	// ErrHostMemory: Options.MemoryBytes has no room for another instance, and
	// none was idle. Trying again later can help.
	ErrHostMemory = errors.New("the host's memory for actors is used up")
	// ErrUnhealthy: the actor answered a health request with healthy=false or
	// an error.
	ErrUnhealthy = errors.New("actor is not healthy")
	// ErrClosed: the actor or the host has been closed.
	ErrClosed = errors.New("closed")
)

// A GuestError is what a guest gave as the reason why an operation failed.
type GuestError struct {
	Actor     string // identity
	Operation string
	Text      string // the guest's own words; "" when it said nothing
}

func (e *GuestError) Error() string {
	text := e.Text
	if text == "" {
		text = "failed without a reason"
	}
	return fmt.Sprintf("actor %s: %s: %s", e.Actor, e.Operation, text)
}

// notHandled are the words with which guest libraries say that they do not know
// an operation: wasmCloud for Rust and TinyGo, waPC for Rust, TinyGo and
// AssemblyScript, ours.
var notHandled = []string{"not handled", "unknown method", "unknown operation", "no handler", "could not find function", "not implemented", "unsupported operation"}

// NotHandled says whether err is a guest's way to say that it does not know the
// operation.
func NotHandled(err error) bool {
	var guest *GuestError
	if !errors.As(err, &guest) {
		return false
	}
	text := strings.ToLower(guest.Text)
	for _, words := range notHandled {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

// A TrapError is the end of an instance: an unreachable instruction, an access
// out of bounds, an exit in the middle of a call.
type TrapError struct {
	Actor     string // identity
	Operation string
	Reason    string // one line
	Stack     string // the guest's functions, innermost first, one a line; may be empty
	Output    string // the end of what the guest said in this call, to __guest_error, the console and stderr: the message of a panic
	cause     error
}

// Error is one line: the reason, and what the guest said about it.
func (e *TrapError) Error() string {
	text := fmt.Sprintf("actor %s: %s: trap: %s", e.Actor, e.Operation, e.Reason)
	if said := headline(e.Output); said != "" {
		text += ": " + said
	}
	return text
}

// Unwrap gives ErrMemory where a refused growth came before the trap.
func (e *TrapError) Unwrap() error { return e.cause }

// moduleFault is an error of the module itself.
type moduleFault struct{ text string }

func (e *moduleFault) Error() string        { return e.text }
func (e *moduleFault) Is(target error) bool { return target == ErrModule }

func faultf(format string, args ...any) error {
	return &moduleFault{fmt.Sprintf(format, args...)}
}
