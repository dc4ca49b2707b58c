// Package wire is the lattice as bytes: the envelopes in which classic wasmCloud
// hosts and providers send each other invocations over NATS, the subjects they
// send them on, and the token that says who the sender is.
//
// An [Invocation], a [Response] and a [Link] are MessagePack maps with string keys.
// Readers take the keys in any order, skip unknown ones, take an array in the order
// of declaration for a struct, as Rust writers may send it, and hold every length
// against the bytes that are there. The token of an invocation ([Sign], [Check]) is a
// JWT of the sending cluster's key over both ends, the operation and the payload.
// Nothing here keeps state or does input and output: remembering ids against
// replays, fetching chunked payloads and asking who is trusted are the caller's.
package wire

import (
	"errors"
	"fmt"
)

// Limits of what is read. A peer's envelope comes in one NATS message, so that
// the server's own limit bounds the payload.
const (
	MaxID        = 64      // bytes of an invocation's id; classic ones have 32 to 36
	MaxName      = 512     // of a key, link name or contract id
	MaxOperation = 1 << 10 // of an operation
	MaxToken     = 16 << 10
	MaxError     = 64 << 10 // of an error text; more is cut
	maxTrace     = 16       // entries of the trace context
)

// ChunkBytes is the largest payload that goes inside of an envelope. A larger one
// is put into the object store first, under the name that Invocation.Object or
// Response.Object gives.
const ChunkBytes = 900 << 10

// What a receiver branches on.
var (
	ErrMalformed = errors.New("malformed envelope")
	ErrForged    = errors.New("anti-forgery check failed")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// ActorSubject is where the invocations of an actor are sent. It is the name of
// the queue group too.
func ActorSubject(lattice, key string) string { return "wasmbus.rpc." + lattice + "." + key }

// ProviderSubject is where the invocations of a provider are sent.
func ProviderSubject(lattice, key, link string) string {
	return "wasmbus.rpc." + lattice + "." + key + "." + link
}

// ProviderQueue is the queue group of all providers.
const ProviderQueue = "rpc"

// What follows the subject of a provider, for everything but invocations.
const (
	SuffixPut      = ".linkdefs.put" // a link, to every copy of the provider; no answer
	SuffixDelete   = ".linkdefs.del" // the same, of a link that is gone
	SuffixHealth   = ".health"       // a question, answered with a Health
	SuffixShutdown = ".shutdown"     // a request with the JSON {"host_id":"N…"}
)

// IsToken says whether s can be one token of a subject: the name of a lattice or a
// link, or a key. It has to be asked before a name from outside goes into a
// subject, or the name could choose where the message goes.
func IsToken(s string) bool {
	if s == "" || len(s) > MaxName {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
