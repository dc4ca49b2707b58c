package node

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/lattice/rpc"
)

// linkPause is how often the box tries to connect to its own server again.
// It costs little: no network is asked.
const linkPause = 100 * time.Millisecond

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
	if n.link, err = n.connectLink(); err != nil {
		return err
	}
	name := n.o.Device.Lattice.Name
	// Calls have a connection of their own, for the hosts that answer publish to its
	// inboxes.
	if n.calls, err = n.connectLink(nats.CustomInboxPrefix(broker.LatticeInbox(name, n.o.Device.Device.ID))); err != nil {
		return err
	}
	o := rpc.Options{
		Conn: n.calls, Lattice: name, Bus: n.bus, Store: n.db, Handled: n.handledHere, Permit: n.permitCall,
		Host: n.identity.host.Key(), Cluster: n.identity.cluster, Issuers: n.identity.issuers,
		Now: n.o.Now, Logger: n.part("lattice"), Registerer: n.registry,
	}
	if n.o.Device.Hub != nil {
		o.JetStreamDomain = n.o.Device.Hub.JetStreamDomain
	}
	if n.o.Device.Lattice.AllowRepeats {
		o.Replay = -1
	}
	n.lattice, err = rpc.New(o)
	return err
}

// connectLink makes a connection in the account LINK. The server begins to serve later,
// and the box waits for that.
func (n *Node) connectLink(opts ...nats.Option) (*nats.Conn, error) {
	return n.broker.ConnectLink(append(opts, nats.RetryOnFailedConnect(true), nats.ReconnectWait(linkPause), nats.ReconnectJitter(0, 0))...)
}

// linked waits until the box is connected with its own server, in the account of the
// lattice, and says false if ctx ended before.
func (n *Node) linked(ctx context.Context) bool {
	select {
	case <-n.broker.Up():
	case <-ctx.Done():
		return false
	}
	conns := []*nats.Conn{n.link, n.calls}
	for _, nc := range conns {
		if nc.Status() != nats.CONNECTED {
			_ = nc.ForceReconnect() // now, and not after the pause; fails on a closed one
		}
	}
	for _, nc := range conns {
		changed := nc.StatusChanged(nats.CONNECTED)
		for nc.Status() != nats.CONNECTED && ctx.Err() == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
		nc.RemoveStatusListener(changed)
	}
	return ctx.Err() == nil
}
