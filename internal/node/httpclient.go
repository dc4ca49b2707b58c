package node

import (
	"fmt"
	"os"

	"github.com/edged-io/edged/providers/httpclient"
)

// openHTTPClient makes the provider by which actors ask servers on the network.
func (n *Node) openHTTPClient() (*httpclient.Provider, error) {
	c := n.o.Device.HTTPClient
	o := httpclient.Options{Store: n.db, Handled: handled, ActorName: n.actorTitle, Logger: n.part("http client"), Registerer: n.registry}
	var err error
	if o.Bound, err = c.Bound(); err != nil {
		return nil, fmt.Errorf("http_client: %w", err)
	}
	if o.Proxy, err = c.ProxyURL(); err != nil {
		return nil, fmt.Errorf("http_client: proxy: %w", err)
	}
	if c.CA != "" {
		if o.CA, err = os.ReadFile(c.CA); err != nil {
			return nil, fmt.Errorf("http_client: %w", err)
		}
	}
	return httpclient.New(o)
}
