// Package mqtt speaks MQTT for the box, both ways.
//
// A [Listener] is the broker that the sensors of the box connect to: MQTT 3.1, 3.1.1 and 5, all qualities of service, sessions, retained messages,
// wills, shared subscriptions. A [Client] takes what an external broker has for the box, and publishes there. At their edge topics become
// subjects (internal/topic) and MQTT 5 properties become NATS header lines; beyond it nobody knows MQTT.
//
// What both promise: a message whose topic belongs to a stream is acknowledged (PUBACK, PUBREC) after the fsync of the turn that holds it, and
// what identifies its repeat is written in that same turn. So a message that was acknowledged is on disk, and one that a client with a session
// sends again, because the box or the link died in between, is stored once.
//
// The nouns: a connection reads packets in one goroutine and writes them in another. Its window holds what it has published and what is not yet
// on disk, in order; the store tells the window, and the writer takes from its head: first to the subscribers, then the acknowledgement. A
// session is what outlives a connection: subscriptions and the queue of what its client is to receive. The existence of a session and its
// subscriptions are on disk, its queue is not.
//
// Left to others: what a stream is and which subjects it holds (the broker room, as [Broker]), and who may connect. The packet codec is
// mochi-mqtt's. Its server is not used: it acknowledges before a hook can know that a message is on disk, keeps the packet identifiers of both
// directions in one table, and loses track of the receive maximum of a subscriber.
package mqtt

import (
	"errors"

	"github.com/edged-io/edged/store"
)

// Broker is what the listener needs of the box's broker. Its methods may be called from any goroutine.
type Broker interface {
	// Covers says which stream a subject belongs to.
	Covers(subject string) (stream string, ok bool)

	// Stage adds m to t: to the stream that covers its subject, or, if there is none, to core NATS once t is committed. It keeps the
	// bytes of m. It finds the identity of m, for repeats, itself. An error means that t must be discarded.
	Stage(t *store.Turn, m store.Message) error

	// Core publishes m on core NATS at once. It must not block.
	Core(m store.Message) error

	// Tap calls fn with every message that others publish on the box and that matches the subject filter: those of streams and those of
	// none. What this listener gave to Stage and Core must not come back, since the listener brings it to its subscribers itself. fn
	// does not block; calls for one subject come in order. Tap does not call fn before it returns, and stop may be called from anywhere.
	Tap(filter string, fn func(store.Message)) (stop func(), err error)
}

// Limits that are the same for every listener and client.
const (
	// MaxTopic is the longest topic or topic filter, in bytes: it has to fit a key of the store, and as a subject the control line of NATS.
	MaxTopic = 1000
	// MaxClientID is the longest client id, in bytes.
	MaxClientID = 256
	// maxPacketExtra is what a PUBLISH may have beside its message: topic, properties, headers of the packet.
	maxPacketExtra = 64 << 10
)

// Spaces of the store.
const (
	spaceRepeats  = "mqtt/dup"
	spaceSessions = "mqtt/session"
	spaceRetained = "mqtt/retained"
	spaceFlight   = "mqtt/out"
)

var (
	// ErrRefused marks a message that can never be taken as it is: a topic that may not be published to, or too many bytes.
	ErrRefused = errors.New("refused for good")
	// ErrNotConnected is returned by Client.Publish when the connection broke before the message was acknowledged.
	ErrNotConnected = errors.New("not connected to the MQTT broker")
)
