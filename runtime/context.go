package runtime

import (
	"context"
	"sync"
	"time"
)

// engineContext is what the engine gets as the context of everything an
// instance runs: one for the life of the instance. It tells the host functions
// which instance is calling. It never ends; a guest is stopped in its tick and
// in host functions.
type engineContext struct {
	in      *instance
	options context.Context // of the engine, while the instance is made; nil afterwards
}

func (c *engineContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *engineContext) Done() <-chan struct{}       { return nil }
func (c *engineContext) Err() error                  { return nil }
func (c *engineContext) Value(key any) any {
	if c.options != nil {
		return c.options.Value(key)
	}
	return nil
}

func instanceOf(ctx context.Context) *instance { return ctx.(*engineContext).in }

// hostContext is the context of what a guest asks of the host in one call: it
// has the caller's values and ends with the caller's context, at the call's
// deadline, and when the call does. It is made for the first host call of a
// call, and a timer only for somebody who waits for the end.
type hostContext struct {
	parent   context.Context // the caller's
	in       *instance       // which holds that call
	deadline time.Time

	mu     sync.Mutex // guards what follows
	timed  context.Context
	cancel context.CancelFunc
	ended  bool // the call has
}

type hostContextKey struct{}

// hostContextOf returns the host call that ctx comes from, of the innermost
// guest; nil for a call from outside.
func hostContextOf(ctx context.Context) *hostContext {
	h, _ := ctx.Value(hostContextKey{}).(*hostContext)
	return h
}

func (h *hostContext) Deadline() (time.Time, bool) {
	if d, ok := h.parent.Deadline(); ok && d.Before(h.deadline) {
		return d, true
	}
	return h.deadline, true
}

func (h *hostContext) Done() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.arm().Done()
}

func (h *hostContext) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timed == nil && !h.ended && h.parent.Err() == nil && time.Until(h.deadline) > 0 {
		return nil
	}
	return h.arm().Err()
}

func (h *hostContext) Value(key any) any {
	if key == (hostContextKey{}) {
		return h
	}
	h.mu.Lock()
	timed := h.timed
	h.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return h.parent.Value(key)
}

// arm makes the context that ends. h.mu is held.
func (h *hostContext) arm() context.Context {
	if h.timed == nil {
		h.timed, h.cancel = context.WithDeadlineCause(h.parent, h.deadline, ErrTimeLimit)
		if h.ended {
			h.cancel()
		}
	}
	return h.timed
}

// end is the end of the call.
func (h *hostContext) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.cancel != nil {
		h.cancel()
	}
}
