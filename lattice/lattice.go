// Package lattice carries invocations between the things that can be called
// on a box: actors and capability providers.
//
// Everything callable is an [Entity]. The [Bus] has two verbs: Handle says who
// serves an entity, Call reaches it. A [Link] decides which provider serves a
// contract for an actor, so a provider can be replaced by another one, in this
// process or elsewhere, without a change in the actor.
//
// What a guest module may reach is decided here and nowhere else: HostCall
// resolves the target as classic wasmCloud hosts do (built-in contract, link,
// actor key, call alias) and checks the actor's capability claims. What is
// not granted is refused.
//
// A local target is called directly, in the goroutine and with the context of
// the caller. The context carries the turn (store.TurnFrom), which is how a
// call between local actors joins the turn of its caller.
package lattice

import (
	"context"
	"errors"
)

// Entity is something callable: an actor by its key, with an empty Link, or a
// provider by its key and the name of the link through which it is reached.
//
// The key of a signed actor is its M… key; that of an unsigned one is
// "app/name". The key of a built-in provider is its name, such as "keyvalue".
type Entity struct {
	Key  string
	Link string
}

// String returns "key" or "key/link".
func (e Entity) String() string {
	if e.Link == "" {
		return e.Key
	}
	return e.Key + "/" + e.Link
}

// Invocation is one call of an operation of an entity.
type Invocation struct {
	Origin    Entity // who calls; the zero Entity is the host itself
	Target    Entity // who is called
	Contract  string // the capability contract id; empty for a call to an actor
	Operation string // "Service.Method"
	Payload   []byte // the MessagePack of the request; not to be kept or changed by the handler
}

// Handler serves the invocations of one entity. It may be called from many
// goroutines at once. The context ends when the caller no longer waits.
type Handler func(ctx context.Context, inv Invocation) ([]byte, error)

// Errors that callers of the Bus branch on.
var (
	ErrNoEntity   = errors.New("nobody serves it")
	ErrNoLink     = errors.New("missing link definition")
	ErrNotGranted = errors.New("missing capability claim")
	ErrTaken      = errors.New("it is served already")
	ErrTooDeep    = errors.New("calls are nested too deeply")
	ErrTimeout    = errors.New("request timeout") // in the words of classic hosts
)

// Link says that Provider serves Contract for Actor, under Name, configured
// by Values. Links are told apart by (Actor, Contract, Name).
type Link struct {
	Actor    string // actor key
	Contract string // capability contract id, such as "wasmcloud:keyvalue"
	Name     string // link name; "default" unless there are several
	Provider string // provider key
	Values   map[string]string
}

type linkKey struct{ actor, contract, name string }

func (l Link) key() linkKey { return linkKey{l.Actor, l.Contract, l.Name} }
