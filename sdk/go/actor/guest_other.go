//go:build !wasip1

package actor

import "github.com/edged-io/edged/sdk/go/msgpack"

// A Host does what an actor asks for, in a program that is no actor.
type Host func(link, target, operation string, payload []byte) ([]byte, error)

var fakeHost Host

// SetHost has h serve the calls of this program's handlers, which are not
// running in a box: for tests of actors. It returns the one before. There is no
// SetHost in an actor itself.
func SetHost(h Host) (before Host) {
	before, fakeHost = fakeHost, h
	return before
}

// Invoke calls the handler of an operation as the box would do: for tests of
// actors.
func Invoke(operation string, payload []byte) ([]byte, error) { return dispatch(operation, payload) }

// Deliver calls a message handler, by default that of OnMessage, with an event,
// as the box would do: for tests of actors. What Retry and Reject have made
// comes back as the answer.
func Deliver(operation string, e Event) ([]byte, error) {
	if operation == "" {
		operation = "PubSub.OnMessage"
	}
	return Invoke(operation, appendEvent(nil, e))
}

func hostCall(link, target, operation string, payload []byte) (response []byte, failure string, ok bool) {
	if fakeHost == nil {
		return nil, "no box: this program was not built for wasip1", false
	}
	response, err := fakeHost(link, target, operation, payload)
	if err != nil {
		return nil, err.Error(), false
	}
	return response, "", true
}

// Serve calls the handler of OnHTTP with a request, as the box would do: for
// tests of actors.
func Serve(r Request) (Response, error) {
	answer, err := Invoke(handleRequest, appendRequest(nil, r))
	if err != nil {
		return Response{}, err
	}
	return decodeResponse(answer)
}

func appendRequest(b []byte, r Request) []byte {
	b = msgpack.AppendMapHeader(b, 5)
	b = msgpack.AppendString(msgpack.AppendString(b, "method"), r.Method)
	b = msgpack.AppendString(msgpack.AppendString(b, "path"), r.Path)
	b = msgpack.AppendString(msgpack.AppendString(b, "queryString"), r.Query)
	b = appendHeader(msgpack.AppendString(b, "header"), r.Header)
	return msgpack.AppendBin(msgpack.AppendString(b, "body"), r.Body)
}
