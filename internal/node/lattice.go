package node

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/lattice/rpc"
)

// linkPause is how often the box looks whether its own server can be connected to.
// It costs nothing: no network is asked.
const linkPause = 10 * time.Millisecond

// openLattice connects the Bus with the rest of the lattice: the account LINK of the
// box's own server, and what is behind the link to the hub while that is up.
func (n *Node) openLattice() (err error) {
	if n.o.Encode {
		signer, err := n.identity.cluster.Signer()
		if err != nil {
			return err
		}
		n.bus.SetThrough(rpc.Through(n.identity.host.Key(), signer))
	}
	// The server it connects to begins to serve later, and the box waits for that.
	n.link, err = n.broker.ConnectLink(nats.RetryOnFailedConnect(true), nats.ReconnectWait(linkPause), nats.ReconnectJitter(0, 0))
	if err != nil {
		return err
	}
	o := rpc.Options{
		Conn: n.link, Lattice: n.o.Device.Lattice.Name, Bus: n.bus, Store: n.db, Handled: n.handledHere,
		Host: n.identity.host.Key(), Cluster: n.identity.cluster, Issuers: n.identity.issuers,
		Now: n.o.Now, Logger: n.part("lattice"), Registerer: n.registry,
	}
	if n.o.Device.Hub != nil {
		o.JetStreamDomain = n.o.Device.Hub.JetStreamDomain
	}
	n.lattice, err = rpc.New(o)
	return err
}

// linked waits until the box is connected with its own server, in the account of the
// lattice, and says false if ctx ended before.
func (n *Node) linked(ctx context.Context) bool {
	changed := n.link.StatusChanged(nats.CONNECTED)
	defer n.link.RemoveStatusListener(changed)
	for n.link.Status() != nats.CONNECTED {
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
