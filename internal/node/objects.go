package node

import (
	"context"
	"time"
)

// objectsPause is how long the box waits until it tries again to make the object store.
const objectsPause = time.Minute

// runObjects makes the object store of the lattice at each connect with the hub, for the
// providers, which may use it and not make it.
func (n *Node) runObjects(ctx context.Context) error {
	failing := false
	for ctx.Err() == nil {
		up, changed := n.broker.LinkState()
		pause := time.NewTimer(objectsPause)
		if up {
			err := n.lattice.MakeBucket(ctx)
			if err != nil && ctx.Err() == nil && !failing {
				n.log.Warn("providers have no place for large payloads; edged hub permissions prints what a box needs", "err", err)
			}
			failing = err != nil
		}
		if !failing {
			pause.Stop() // until the link goes or comes
		}
		select {
		case <-changed:
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
	return nil
}
