package broker

import (
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
)

// share lets subjects of APP be seen in LINK, and what is published in LINK be
// seen in APP.
//
// Two stream imports against each other would be a cycle, which the server
// refuses. A stream one way and a service the other way is none: a message
// reaches each subscriber of either account once, and a request made in
// LINK finds its answer in APP. The reply to a request made in APP does not
// come back from LINK.
func share(app, link *server.Account, subjects []string) error {
	for _, s := range subjects {
		if err := app.AddStreamExport(s, []*server.Account{link}); err != nil {
			return fmt.Errorf("share %s: %w", s, err)
		}
		if err := link.AddStreamImport(app, s, ""); err != nil {
			return fmt.Errorf("share %s: %w", s, err)
		}
		if err := app.AddServiceExport(s, []*server.Account{link}); err != nil {
			return fmt.Errorf("share %s: %w", s, err)
		}
		if err := link.AddServiceImport(app, s, s); err != nil {
			return fmt.Errorf("share %s: %w", s, err)
		}
	}
	return nil
}
