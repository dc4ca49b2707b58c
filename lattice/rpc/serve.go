package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/store"
)

// room is what invocations that are handled may take.
type room struct {
	calls int
	bytes int64
}

func (r *room) take(n int64) bool {
	if r.calls == 0 || n > r.bytes {
		return false
	}
	r.calls--
	r.bytes -= n
	return true
}

func (r *room) give(n int64) {
	r.calls++
	r.bytes += n
}

// reserve takes room for the n bytes of an answer, until release is called.
func (l *Lattice) reserve(n uint64) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > uint64(l.room.bytes) {
		return nil, fmt.Errorf("%w: %d bytes, there is room for %d", ErrTooLarge, n, l.room.bytes)
	}
	l.room.bytes -= int64(n)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.room.bytes += int64(n)
	}, nil
}

// isActor says whether an entity is one that others can call by its key: a signed
// actor.
func isActor(e lattice.Entity) bool {
	return e.Link == "" && len(e.Key) == keyLen && e.Key[0] == 'M' && wire.IsToken(e.Key)
}

// keyLen is the length of every key.
const keyLen = 56

// watch follows what the Bus serves.
func (l *Lattice) watch(e lattice.Entity, served bool) {
	if !isActor(e) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !served {
		l.leave(e.Key)
		return
	}
	subject := wire.ActorSubject(l.o.Lattice, e.Key)
	sub, err := l.o.Conn.QueueSubscribe(subject, subject, func(m *nats.Msg) { l.take(e.Key, m) })
	if err != nil {
		l.log.Error("actor can not be called from elsewhere", "actor", e.Key, "err", err)
		return
	}
	l.subs[e.Key] = sub
}

// leave ends a subscription. What the client has of it already is still handled.
// Call it with l.mu held.
func (l *Lattice) leave(key string) {
	sub := l.subs[key]
	if sub == nil {
		return
	}
	delete(l.subs, key)
	closed := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(closed) })
	if err := sub.Drain(); err != nil {
		return // the connection is gone, and the subscription with it
	}
	ctx := l.ctx
	l.ended.Go(func() {
		select {
		case <-closed:
		case <-ctx.Done():
		}
	})
}

// take handles a message in a goroutine of its own, for which Run waits, or refuses
// it.
func (l *Lattice) take(key string, m *nats.Msg) {
	if !isInbox(m.Reply) {
		l.count("in", "refused")
		l.log.Debug("invocation dropped, its reply subject is none for replies", "actor", key, "reply", m.Reply)
		return
	}
	inv, err := wire.DecodeInvocation(m.Data)
	if err != nil {
		l.count("in", "malformed")
		l.refuse(m, &inv, classic("Failed to deserialize invocation", err))
		return
	}
	size := int64(max(inv.Length, uint64(len(inv.Payload))))
	if size < 0 || size > l.o.MaxBytes {
		l.count("in", "too_large")
		l.refuse(m, &inv, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, inv.Length, l.o.MaxBytes))
		return
	}
	l.mu.Lock()
	ctx := l.ctx
	if ctx == nil || !l.room.take(size) {
		l.mu.Unlock()
		l.count("in", "busy")
		l.refuse(m, &inv, errors.New("the host has too many invocations under way, try again later"))
		return
	}
	l.busy.Add(1)
	l.mu.Unlock()
	go func() {
		defer func() {
			l.mu.Lock()
			l.room.give(size)
			l.mu.Unlock()
			l.busy.Done()
		}()
		ctx, cancel := context.WithTimeout(ctx, serveTime)
		defer cancel()
		l.serve(ctx, key, m, &inv)
	}()
}

// isInbox says whether a reply subject, or "", is not one of those that mean something
// to who listens there. Else whoever may call an actor could have the host publish in its
// stead: links to another provider, entries of a bucket, what goes up to the hub.
func isInbox(reply string) bool {
	first, rest, _ := strings.Cut(reply, ".")
	switch first {
	case "wasmbus":
		return false
	case "edge":
		return strings.HasPrefix(rest, "rpc.") // answers to boxes
	}
	return !strings.HasPrefix(first, "$")
}

// serve answers one invocation.
func (l *Lattice) serve(ctx context.Context, key string, m *nats.Msg, inv *wire.Invocation) {
	if !l.o.Bus.Serves(lattice.Entity{Key: key}) {
		l.count("in", "nobody") // it was, when the message came
		l.refuse(m, inv, classic("Invocation received for actor "+key+" that is not running", lattice.ErrNoEntity))
		return
	}
	err := l.admit(ctx, key, inv)
	if err == nil && l.o.Permit != nil {
		err = l.o.Permit(ctx, inv)
	}
	if err != nil {
		l.count("in", "refused")
		if l.refusing.CompareAndSwap(false, true) {
			l.log.Warn("invocation refused", "actor", key, "origin", inv.Origin.Key, "host", inv.Host, "err", err)
		}
		l.refuse(m, inv, err)
		return
	}
	if l.refusing.CompareAndSwap(true, false) {
		l.log.Info("invocations are accepted again")
	}
	payload, err := l.handle(ctx, m, inv)
	if err != nil {
		l.count("in", "failed")
		l.refuse(m, inv, err)
		return
	}
	l.count("in", "ok")
	l.respond(ctx, m, inv, payload)
}

// admit checks an invocation, and completes its payload.
func (l *Lattice) admit(ctx context.Context, key string, inv *wire.Invocation) error {
	t, err := wire.CheckToken(inv, l.now())
	chunked := inv.Chunked()
	if err == nil {
		err = l.trust(t.Issuer, inv)
	}
	if err == nil && inv.Target.Key != key {
		err = fmt.Errorf("%w: the target is %.60q", wire.ErrForged, inv.Target.Key)
	}
	if err == nil && chunked {
		if inv.Payload, err = l.fetch(ctx, inv.Object(), inv.Length); err != nil {
			return err
		}
	}
	if err == nil {
		err = t.CheckPayload(inv.Payload)
	}
	if err == nil && chunked {
		l.drop(ctx, inv.Object()) // only now: the name could be that of something else
	}
	if err == nil && l.seen != nil && !l.seen.first(t.Issuer, inv.ID) {
		err = fmt.Errorf("%w: the invocation was seen before", wire.ErrForged)
	}
	if err != nil {
		return classic("Anti-forgery check failed", err)
	}
	// What is neither actor nor provider, such as a control tool, has no contract.
	provides := inv.Origin.Contract != "" || strings.HasPrefix(inv.Origin.Key, "V")
	if g, _ := l.o.Bus.Grant(key); g.Signed && !inv.Origin.IsActor() && provides && !slices.Contains(g.Contracts, inv.Origin.Contract) {
		return classic("Invocation source does not have the required capability claim "+cmp.Or(inv.Origin.Contract, "(its contract_id is empty)"), lattice.ErrNotGranted)
	}
	return nil
}

// handle runs an invocation, in a turn of its own.
func (l *Lattice) handle(ctx context.Context, m *nats.Msg, inv *wire.Invocation) (reply []byte, err error) {
	ctx = received(ctx, m, inv)
	call := lattice.Invocation{
		Origin:    lattice.Entity{Key: inv.Origin.Key, Link: inv.Origin.Link},
		Target:    lattice.Entity{Key: inv.Target.Key},
		Operation: inv.Operation,
		Payload:   inv.Payload,
	}
	if l.o.Store == nil {
		return l.o.Bus.CallHere(ctx, call)
	}
	err = l.o.Store.Do(ctx, func(ctx context.Context, _ *store.Turn) error {
		reply, err = l.o.Bus.CallHere(ctx, call)
		return err
	})
	return reply, err
}

// respond sends the answer of a handler.
func (l *Lattice) respond(ctx context.Context, m *nats.Msg, inv *wire.Invocation, payload []byte) {
	if m.Reply == "" {
		return
	}
	r := wire.Response{ID: inv.ID, Payload: payload, Length: uint64(len(payload)), Text: !inv.Origin.IsActor()}
	if l.large(payload) {
		switch err := l.stow(ctx, r.Object(), payload); {
		case err == nil:
			r.Payload = nil
		case !l.fits(len(payload)):
			l.refuse(m, inv, fmt.Errorf("answer of %d bytes: %w", len(payload), err))
			return
		}
	}
	l.send(m, &r)
}

// refuse answers with the reason why there is no other answer.
func (l *Lattice) refuse(m *nats.Msg, inv *wire.Invocation, err error) {
	l.log.Debug("invocation failed", "subject", m.Subject, "origin", inv.Origin.Key, "err", err)
	if m.Reply == "" {
		return
	}
	text := err.Error()
	l.send(m, &wire.Response{ID: inv.ID, Failed: true, Error: text[:min(len(text), maxErrorText)], Text: !inv.Origin.IsActor()})
}

// maxErrorText is how much of an error is told elsewhere.
const maxErrorText = 8 << 10

func (l *Lattice) send(m *nats.Msg, r *wire.Response) {
	if err := m.Respond(r.Append(nil)); err != nil {
		l.log.Warn("answer not sent", "subject", m.Subject, "bytes", r.Length, "err", err)
	}
}
