package store

import (
	"context"
	"slices"
)

type turnKey struct{}

type causeKey struct{}

// WithTurn returns a context that carries t.
func WithTurn(ctx context.Context, t *Turn) context.Context {
	return context.WithValue(ctx, turnKey{}, t)
}

// TurnFrom returns the turn that ctx carries, or nil.
func TurnFrom(ctx context.Context) *Turn {
	t, _ := ctx.Value(turnKey{}).(*Turn)
	return t
}

// WithCause returns a context whose turns are known to be awaited by the turn
// with that id: a call that came back from another process or box. They fail
// with ErrDeadlock, instead of waiting, for keys that turn holds. It carries no
// turn.
func WithCause(ctx context.Context, id string) context.Context {
	ids := append(slices.Clone(causes(ctx)), id)
	return WithTurn(context.WithValue(ctx, causeKey{}, ids), nil)
}

func causes(ctx context.Context) []string {
	ids, _ := ctx.Value(causeKey{}).([]string)
	return ids
}
