package node

import (
	"fmt"
	"slices"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/lattice"
)

// checkMandate holds what the manifest would have the actor called with against its
// claims: nobody calls a signed actor by a contract that it may not use. What it calls
// itself is checked at each call, by the bus.
func (a *actor) checkMandate(app *config.App) error {
	for _, contract := range app.CalledBy(a.config.Name) {
		if a.grant.Signed && !slices.Contains(a.grant.Contracts, contract) {
			return fmt.Errorf("app %s: actor %s would be called: %w for %s", app.Name, a.config.Name, lattice.ErrNotGranted, contract)
		}
	}
	return nil
}
