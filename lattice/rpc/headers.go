package rpc

import (
	"context"
	"maps"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/store"
)

// Headers of an invocation. W3C trace contexts are there and in the envelope, since
// some peers look at one of them only.
const (
	// HeaderIdempotency has a text that is the same for the same call, whenever what
	// made it runs again, and for no other: a receiver that has done what such a call
	// asks for can answer without doing it again.
	HeaderIdempotency = "Idempotency-Key"
	// headerCause names a turn that waits for the answer, so that a call that comes
	// back does not wait for what that turn holds. There is one for each.
	headerCause = "Edged-Cause"
)

// maxCauses bounds how many turns, each with a name of maxCause bytes, a call says
// are waiting for it.
const (
	maxCauses = lattice.MaxDepth
	maxCause  = 64
)

var traceHeaders = []string{lattice.TraceParent, lattice.TraceState}

// received returns the context in which an invocation from elsewhere is handled.
func received(ctx context.Context, m *nats.Msg, inv *wire.Invocation) context.Context {
	causes := m.Header[headerCause]
	for _, cause := range causes[:min(len(causes), maxCauses)] {
		if cause != "" && len(cause) <= maxCause {
			ctx = store.WithCause(ctx, cause)
		}
	}
	if parent := inv.Trace[lattice.TraceParent]; parent != "" {
		return lattice.WithTrace(ctx, parent, inv.Trace[lattice.TraceState])
	}
	return lattice.WithTrace(ctx, m.Header.Get(lattice.TraceParent), m.Header.Get(lattice.TraceState))
}

// headers puts the trace context of ctx, and what is known of its turn, into a
// message and its envelope.
func headers(ctx context.Context, m *nats.Msg, inv *wire.Invocation, idempotency string) {
	m.Header = nats.Header{}
	inv.Trace = maps.Clone(lattice.Trace(ctx))
	for _, name := range traceHeaders {
		if value := inv.Trace[name]; value != "" {
			m.Header[name] = []string{value} // Set would change the case of the name
		}
	}
	if t := store.TurnFrom(ctx); t != nil {
		causes := append([]string{t.ID()}, t.Causes()...)
		m.Header[headerCause] = causes[:min(len(causes), maxCauses)]
	}
	if idempotency != "" {
		m.Header[HeaderIdempotency] = []string{idempotency}
	}
}

func (l *Lattice) now() time.Time {
	if l.o.Now == nil {
		return time.Time{}
	}
	return l.o.Now()
}
