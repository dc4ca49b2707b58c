package lattice

import (
	"context"
	"strings"
)

// Names of the W3C trace context, as headers and in envelopes.
const (
	TraceParent = "traceparent"
	TraceState  = "tracestate"
)

// maxTraceState is how long a tracestate may be that is handed on (W3C Trace Context,
// 3.3.1.5).
const maxTraceState = 512

type traceKey struct{}

// WithTrace returns a context with a W3C trace context, which calls to elsewhere hand
// on unchanged: the box takes no part in the trace. What is not of that form is left
// out, and state with it; ctx is returned as it is then.
func WithTrace(ctx context.Context, parent, state string) context.Context {
	if !isTraceParent(parent) {
		return ctx
	}
	trace := map[string]string{TraceParent: parent}
	if state != "" && len(state) <= maxTraceState && !strings.ContainsFunc(state, func(c rune) bool { return c < ' ' || c > '~' }) {
		trace[TraceState] = state
	}
	return context.WithValue(ctx, traceKey{}, trace)
}

// Trace returns the trace context that ctx carries, by TraceParent and TraceState, or
// nil. It is not to be changed.
func Trace(ctx context.Context) map[string]string {
	trace, _ := ctx.Value(traceKey{}).(map[string]string)
	return trace
}

// isTraceParent checks the form of version 00, which later versions begin with (W3C
// Trace Context, 3.2.2): version, trace id, parent id, flags.
func isTraceParent(s string) bool {
	const zeros = "00000000000000000000000000000000"
	if len(s) < 55 || len(s) > 55 && (s[:2] == "00" || s[55] != '-') || len(s) > maxTraceState {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch dash := i == 2 || i == 35 || i == 52; {
		case i >= 55:
			if c <= ' ' || c > '~' {
				return false
			}
		case dash != (c == '-'):
			return false
		case !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f'):
			return false
		}
	}
	return s[:2] != "ff" && s[3:35] != zeros && s[36:52] != zeros[:16]
}
