package node

import (
	"fmt"
	"slices"

	"github.com/edged-io/edged/lattice"
)

// checkMandates holds what the manifest would have actors called with against their
// claims: nobody calls a signed actor by a contract that it may not use. What it
// calls itself is checked at each call, by the bus.
func (a *app) checkMandates() error {
	for _, actor := range a.actors {
		for _, contract := range a.config.CalledBy(actor.config.Name) {
			if actor.grant.Signed && !slices.Contains(actor.grant.Contracts, contract) {
				return fmt.Errorf("app %s: actor %s would be called: %w for %s", a.config.Name, actor.config.Name, lattice.ErrNotGranted, contract)
			}
		}
	}
	return nil
}
