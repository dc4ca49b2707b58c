package node

import (
	"context"
	"fmt"

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
		return nil, fmt.Errorf("call %s of %.80q: no actor has this key, name or call alias: %w", operation, name, lattice.ErrNoEntity)
	}
	err = n.db.Do(ctx, func(ctx context.Context, _ *store.Turn) error {
		reply, err = n.bus.Call(ctx, lattice.Invocation{Target: lattice.Entity{Key: key}, Operation: operation, Payload: payload})
		return err
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// actorKey finds an actor of the apps that run; "" if there is none.
func (n *Node) actorKey(name string) string {
	for _, a := range n.health.actors() {
		if name == a.key || name == a.app+"/"+a.config.Name {
			return a.key
		}
	}
	return n.bus.Aliased(name)
}
