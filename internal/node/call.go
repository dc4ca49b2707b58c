package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/store"
)

// Call has an actor handle an operation for somebody outside, in a turn of its
// own that is committed before the reply is returned. The actor is named by its
// key, by "app/name", or by its call alias. The reply is the actor's MessagePack,
// as payload is. An actor that is not here is lattice.ErrNoEntity.
func (n *Node) Call(ctx context.Context, name, operation string, payload []byte) (reply []byte, err error) {
	key := n.actorKey(name)
	if key == "" {
		return nil, fmt.Errorf("call %s of %.80q: no actor has this key, name or call alias (edged actor ls): %w", operation, name, errNoActor)
	}
	err = n.db.Do(ctx, func(ctx context.Context, _ *store.Turn) error {
		reply, err = n.bus.Call(ctx, lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: operation, Payload: payload})
		return err
	})
	if err != nil {
		n.failures.went("", "told to who called", err)
		return nil, err
	}
	return reply, nil
}

// errNoActor: no actor of that name runs here.
var errNoActor = fmt.Errorf("%w", lattice.ErrNoEntity)

// actorKey finds an actor of the apps that run; "" if there is none.
func (n *Node) actorKey(name string) string {
	for _, a := range n.health.actors() {
		if name == a.key || name == a.app+"/"+a.config.Name {
			return a.key
		}
	}
	return n.bus.Aliased(name)
}

// actorTitle is what the actor with that key is called in the log: the key itself if it
// does not run here.
func (n *Node) actorTitle(key string) string {
	for _, a := range n.health.actors() {
		if key == a.key {
			return a.title()
		}
	}
	return key
}

// CallRequest is what the socket takes to call an actor, and CallReply what it
// answers. Payloads are MessagePack, and base64 in JSON.
type (
	CallRequest struct {
		Actor     string `json:"actor"`
		Operation string `json:"operation"`
		Payload   []byte `json:"payload"`
	}
	CallReply struct {
		Payload []byte `json:"payload"`
	}
)

// maxCallBody is how long such a request may be.
const maxCallBody = 32 << 20

// callActor serves a call that comes by the socket. The trace of an actor that
// failed goes to who called.
func (n *Node) callActor(r *http.Request) (any, error) {
	var c CallRequest
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxCallBody)).Decode(&c); err != nil {
		return nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	reply, err := n.Call(r.Context(), c.Actor, c.Operation, c.Payload)
	var t broker.Tracer
	if errors.As(err, &t) {
		if trace := t.Trace(); trace != "" {
			return nil, fmt.Errorf("%w\n%s", err, trace)
		}
	}
	return CallReply{reply}, err
}
