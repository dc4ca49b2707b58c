package providertest

import (
	"context"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/provider"
)

// Serve runs a provider that is made for this process as one that runs apart, by its
// host data line, until ctx ends or its host stops it. So one suite is for all kinds.
func Serve(ctx context.Context, p providers.Provider, line string) error {
	data, err := provider.ParseHostData(line)
	if err != nil {
		return err
	}
	return provider.Run(ctx, data, func(*provider.Host) (provider.Provider, error) { return inside{p, data}, nil })
}

// inside is a provider of this process in the words of those that run apart.
type inside struct {
	providers.Provider
	data provider.HostData
}

func linkOf(l provider.Link) lattice.Link {
	return lattice.Link{Actor: l.Actor, Contract: l.Contract, Name: l.Name, Provider: l.Provider, Values: l.Values}
}

func (p inside) PutLink(ctx context.Context, l provider.Link) error {
	return p.Provider.PutLink(ctx, linkOf(l))
}

func (p inside) DeleteLink(ctx context.Context, l provider.Link) error {
	return p.Provider.DeleteLink(ctx, linkOf(l))
}

func (p inside) Call(ctx context.Context, inv provider.Invocation) ([]byte, error) {
	return p.Provider.Call(ctx, lattice.Invocation{
		Origin:   lattice.Entity{Key: inv.Link.Actor},
		Target:   lattice.Entity{Key: p.data.Key, Link: p.data.LinkName},
		Contract: inv.Link.Contract, Operation: inv.Operation, Payload: inv.Payload,
	})
}
