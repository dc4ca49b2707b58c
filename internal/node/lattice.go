package node

import (
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice/rpc"
)

// encode has calls within the box go through their encoding, under keys that
// nobody else knows.
func (n *Node) encode() error {
	host, err := claims.Generate(claims.Server)
	if err != nil {
		return err
	}
	cluster, err := claims.Generate(claims.Cluster)
	if err != nil {
		return err
	}
	signer, err := cluster.Signer()
	if err != nil {
		return err
	}
	n.bus.SetThrough(rpc.Through(host.Key(), signer))
	return nil
}
