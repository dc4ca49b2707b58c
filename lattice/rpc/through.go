package rpc

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
)

// Through is what Bus.SetThrough takes for tests to have every local call go
// through its encoding, its token, and back: what works with it works from
// elsewhere, too. Errors stay what they are, since a turn branches on them.
func Through(host claims.Key, cluster claims.Signer) func(context.Context, lattice.Invocation, lattice.Handler) ([]byte, error) {
	return func(ctx context.Context, call lattice.Invocation, h lattice.Handler) ([]byte, error) {
		inv := wire.Invocation{
			Origin: wire.Entity{Key: call.Origin.Key, Link: call.Origin.Link},
			Target: wire.Entity{Key: call.Target.Key, Link: call.Target.Link, Contract: call.Contract}, Operation: call.Operation,
			Payload: call.Payload, Length: uint64(len(call.Payload)), ID: newID(), Host: host.String(), Trace: lattice.Trace(ctx),
		}
		fromHost := call.Origin == (lattice.Entity{})
		if fromHost {
			inv.Origin.Key = system
		}
		if err := wire.Sign(&inv, call.Payload, cluster); err != nil {
			return nil, err
		}
		got, err := wire.DecodeInvocation(inv.Append(nil))
		if err != nil {
			return nil, err
		}
		if _, err := wire.Check(&got, got.Payload, time.Time{}); err != nil {
			return nil, err
		}
		back := lattice.Invocation{
			Origin: lattice.Entity{Key: got.Origin.Key, Link: got.Origin.Link}, Target: lattice.Entity{Key: got.Target.Key, Link: got.Target.Link},
			Contract: got.Target.Contract, Operation: got.Operation, Payload: got.Payload,
		}
		if fromHost {
			back.Origin = lattice.Entity{}
		}
		reply, failure := h(ctx, back)
		r := wire.Response{ID: got.ID, Payload: reply, Length: uint64(len(reply))}
		if failure != nil {
			r = wire.Response{ID: got.ID, Failed: true, Error: failure.Error()}
		}
		answer, err := wire.DecodeResponse(r.Append(nil))
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
		case failure != nil:
			return nil, failure
		case answer.ID != inv.ID || !bytes.Equal(answer.Payload, reply):
			return nil, fmt.Errorf("%w: it changed on the way", ErrAnswer)
		}
		return answer.Payload, nil
	}
}
