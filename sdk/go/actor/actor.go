// Package actor is what an actor for edged, written in Go, is made with.
//
// An actor is a package main that says what it handles, and is built by
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o hello.wasm .
//
// For example:
//
//	package main
//
//	import "github.com/edged-io/edged/sdk/go/actor"
//
//	func init() { actor.OnMessage(handle) }
//
//	func main() {}
//
//	func handle(e actor.Event) error {
//		actor.Log.Info("got " + e.ID)
//		return actor.Publish("greetings", actor.Event{ID: e.Source + "/" + e.ID, Source: "hello", Type: "greeting", Data: e.Data})
//	}
//
// A handler runs inside a turn of the box: the message it handles, the state it
// changes and the messages it publishes are committed together when it returns
// nil, and not at all when it returns an error; then it is called again with
// the same message. What one call leaves in variables may or may not be there
// in the next one; what is to last belongs into [KV].
//
// One call runs at a time, so that handlers need no locks. Goroutines stand
// still between calls.
//
// The package imports neither fmt nor encoding/json, which would more than
// double the size of a small actor. In a program that is not built for wasip1,
// such as a test, SetHost takes the place of the box and Invoke calls a handler.
package actor

import (
	"errors"
	"strings"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// handlers by operation. They are registered by the init functions of an actor
// and read by the calls after them.
var handlers = map[string]func(payload []byte) ([]byte, error){
	"Actor.HealthRequest": func([]byte) ([]byte, error) { return healthy(nil), nil },
}

// Handle registers what is done for an operation, such as "Orders.Place". The
// payload may be kept. An error becomes the reason that the caller gets.
func Handle(operation string, h func(payload []byte) ([]byte, error)) { handlers[operation] = h }

// OnMessage registers the handler of messages from streams and topics. A nil
// error acknowledges the message; any other has it delivered again later, with
// growing pauses, unless it comes from [Retry] or [Reject].
func OnMessage(h func(Event) error) { OnMessageAs("PubSub.OnMessage", h) }

// OnMessageAs is OnMessage for the operation that on_message names in the
// manifest.
func OnMessageAs(operation string, h func(Event) error) {
	Handle(operation, func(payload []byte) ([]byte, error) {
		e, err := decodeEvent(payload)
		if err != nil {
			return nil, err
		}
		return disposition(h(e))
	})
}

// OnHealth registers what is done when the box asks whether the actor is well.
// Without it an actor that answers is.
func OnHealth(h func() error) {
	Handle("Actor.HealthRequest", func([]byte) ([]byte, error) { return healthy(h()), nil })
}

func healthy(err error) []byte {
	if err == nil {
		return msgpack.AppendBool(msgpack.AppendString(msgpack.AppendMapHeader(nil, 1), "healthy"), true)
	}
	b := msgpack.AppendMapHeader(nil, 2)
	b = msgpack.AppendBool(msgpack.AppendString(b, "healthy"), false)
	return msgpack.AppendString(msgpack.AppendString(b, "message"), err.Error())
}

// Retry, returned by a message handler, has the message delivered again after
// that long. Zero leaves the pause to the box.
func Retry(after time.Duration) error { return &retryError{after} }

// Reject, returned by a message handler, says that the message can never be
// handled. It goes to the dead letters with the reason.
func Reject(reason string) error { return &rejectError{reason} }

type retryError struct{ after time.Duration }

func (e *retryError) Error() string { return "retry after " + e.after.String() }

type rejectError struct{ reason string }

func (e *rejectError) Error() string { return "rejected: " + e.reason }

// disposition turns what a message handler returned into an answer. To retry or
// to reject is an answer, not a failure of the operation; the box undoes what
// the handler had done all the same.
func disposition(err error) ([]byte, error) {
	var retry *retryError
	var reject *rejectError
	switch {
	case err == nil:
		return nil, nil
	case errors.As(err, &reject):
		b := msgpack.AppendMapHeader(nil, 2)
		b = msgpack.AppendString(msgpack.AppendString(b, "action"), "reject")
		return msgpack.AppendString(msgpack.AppendString(b, "reason"), reject.reason), nil
	case errors.As(err, &retry) && retry.after <= 0:
		b := msgpack.AppendMapHeader(nil, 1)
		return msgpack.AppendString(msgpack.AppendString(b, "action"), "retry"), nil
	case errors.As(err, &retry):
		b := msgpack.AppendMapHeader(nil, 2)
		b = msgpack.AppendString(msgpack.AppendString(b, "action"), "retry")
		// Rounded up, so that a short pause does not become none.
		ms := (retry.after + time.Millisecond - 1) / time.Millisecond
		return msgpack.AppendInt(msgpack.AppendString(b, "afterMs"), int64(ms)), nil
	}
	return nil, err
}

// dispatch serves one call.
func dispatch(operation string, payload []byte) ([]byte, error) {
	h, ok := handlers[operation]
	if !ok {
		return nil, errors.New("method not handled: " + operation)
	}
	return h(payload)
}

// Call performs an operation of whatever target names: a contract, by the
// actor's default link to it, another actor's key, or its call alias. An error
// of the other side is a [*HostError].
func Call(target, operation string, payload []byte) ([]byte, error) {
	return CallLink("default", target, operation, payload)
}

// CallLink is Call by the link of that name.
func CallLink(link, contract, operation string, payload []byte) ([]byte, error) {
	response, failure, ok := hostCall(link, contract, operation, payload)
	if !ok {
		return nil, &HostError{Operation: operation, Text: failure}
	}
	return response, nil
}

// Log writes to the log of the box.
var Log Logger

// A Logger writes lines to the log of the box. A line that the box refuses goes
// to stderr, which the box logs too.
type Logger struct{}

// Debug, Info, Warn and Error write a line of that level; parts are joined by
// spaces.
func (Logger) Debug(parts ...string) { writeLog("debug", parts) }
func (Logger) Info(parts ...string)  { writeLog("info", parts) }
func (Logger) Warn(parts ...string)  { writeLog("warn", parts) }
func (Logger) Error(parts ...string) { writeLog("error", parts) }

func writeLog(level string, parts []string) {
	text := strings.Join(parts, " ")
	b := msgpack.AppendMapHeader(nil, 2)
	b = msgpack.AppendString(msgpack.AppendString(b, "level"), level)
	b = msgpack.AppendString(msgpack.AppendString(b, "text"), text)
	if _, err := Call("wasmcloud:builtin:logging", "Logging.WriteLog", b); err != nil {
		println(level+":", text)
	}
}
