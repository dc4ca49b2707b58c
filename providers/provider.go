// Package providers is the contract of capability providers: what serves a
// capability contract (key-value state, GPIO, Pub/Sub, …) to the actors that
// are linked with it.
//
// A provider knows the lattice and the store's turn, never the runtime. Each
// kind that is built in has a folder of its own beside this file.
package providers

import (
	"context"

	"github.com/edged-io/edged/lattice"
)

// Provider serves one capability contract to many actors. All methods may be
// called from any goroutine.
type Provider interface {
	// Contract is the capability contract id, such as "wasmcloud:keyvalue".
	Contract() string

	// PutLink tells that l.Actor may use the provider, with l.Values. It is
	// called before the first Call through the link, and again when its values
	// change. An error refuses the link; what was there before stays.
	PutLink(ctx context.Context, l lattice.Link) error

	// DeleteLink ends what PutLink began. It is not an error if there is no
	// such link.
	DeleteLink(ctx context.Context, l lattice.Link) error

	// Call serves one operation for inv.Origin through the link
	// inv.Target.Link. The context carries the turn it belongs to, if any
	// (store.TurnFrom); what the operation changes is staged there, and what
	// it cannot stage it does after turn.Irrevocable.
	Call(ctx context.Context, inv lattice.Invocation) ([]byte, error)
}
