package node

import (
	"context"
	"fmt"
)

// gate is a lock that one can stop to wait for. It is used as a mutex.
type gate struct{ held chan struct{} }

func newGate() gate { return gate{make(chan struct{}, 1)} }

func (g gate) Lock()   { g.held <- struct{}{} }
func (g gate) Unlock() { <-g.held }

// LockContext is Lock for as long as ctx lets it.
func (g gate) LockContext(ctx context.Context) error {
	select {
	case g.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("another change of what runs is under way, try again later: %w", context.Cause(ctx))
	}
}
