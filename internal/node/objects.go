package node

import (
	"context"
	"time"
)

// objectsPause is how long the box waits until it tries again to make the object store.
const objectsPause = time.Minute

// runObjects makes the object store of the lattice when there is a hub and a provider
// that is a program, and again at each connect: the providers may use it and not make it.
func (n *Node) runObjects(ctx context.Context) error {
	failing := false
	for ctx.Err() == nil {
		up, changed := n.broker.LinkState()
		pause := time.NewTimer(objectsPause)
		if up && len(n.processes.Running()) > 0 {
			err := n.lattice.MakeBucket(ctx)
			switch {
			case ctx.Err() != nil:
			case err != nil && !failing:
				n.log.Warn("providers have no place for large payloads; edged hub permissions prints what a box needs", "err", err)
			case err == nil && failing:
				n.log.Info("providers have a place for large payloads again")
			}
			failing = err != nil
		}
		if !failing {
			pause.Stop() // until the link or the providers change
		}
		select {
		case <-changed:
		case <-n.providersChanged:
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
	return nil
}
