package rpc

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/store"
)

// Call invokes an actor or provider that is served elsewhere in the lattice, and
// returns its answer. Under a turn it makes it irrevocable first.
//
// Errors: *Error is the answer of who was called. lattice.ErrNoEntity: nobody
// serves the target, now. lattice.ErrTimeout: nobody has answered in time, and
// whether the call was handled is not known. ErrTooLarge, with ErrNoJetStream where
// that is why; ErrAnswer; and those of store.Turn.Irrevocable.
func (l *Lattice) Call(ctx context.Context, call lattice.Invocation) ([]byte, error) {
	reply, err := l.call(ctx, call)
	if err != nil {
		l.count("out", outcome(err))
		return nil, err
	}
	l.count("out", "ok")
	return reply, nil
}

func outcome(err error) string {
	var answer *Error
	switch {
	case errors.As(err, &answer):
		return "failed"
	case errors.Is(err, lattice.ErrNoEntity):
		return "nobody"
	case errors.Is(err, lattice.ErrTimeout):
		return "timeout"
	case errors.Is(err, ErrTooLarge):
		return "too_large"
	case errors.Is(err, ErrAnswer):
		return "malformed"
	default:
		return "error"
	}
}

func (l *Lattice) call(ctx context.Context, call lattice.Invocation) ([]byte, error) {
	inv, subject, err := l.envelope(call)
	if err != nil {
		return nil, err
	}
	idempotency := ""
	if t := store.TurnFrom(ctx); t != nil {
		if err := t.Irrevocable(ctx); err != nil {
			return nil, err
		}
		idempotency = l.idempotencyKey(ctx, t, &inv)
	}
	m := &nats.Msg{Subject: subject}
	headers(ctx, m, &inv, idempotency)
	large := l.large(call.Payload)
	if s := l.sessionOf(&inv); s != nil && !large {
		reply, again, err := l.callInSession(ctx, s, m, &inv)
		if !again {
			return reply, err
		}
		inv.ID = newID()
	}
	if err := wire.Sign(&inv, call.Payload, l.signer); err != nil {
		return nil, err
	}
	wait := l.o.Timeout
	if large {
		switch err := l.stow(ctx, inv.Object(), call.Payload); {
		case err == nil:
			inv.Payload = nil
			wait += chunkedExtra
		case !l.fits(len(call.Payload)):
			return nil, fmt.Errorf("call %s of %s with %d bytes: %w", call.Operation, call.Target, len(call.Payload), err)
		}
	}
	m.Data = inv.Append(nil)
	reply, err := l.ask(ctx, m, &inv, wait)
	if err != nil && inv.Chunked() {
		l.drop(ctx, inv.Object()) // who takes it deletes it, but nobody may have
	}
	return reply, err
}

// system is what hosts call themselves.
const system = "system"

// envelope returns the invocation of a call, but for its token, and where to send
// it.
func (l *Lattice) envelope(call lattice.Invocation) (inv wire.Invocation, subject string, err error) {
	target := call.Target
	if len(target.Key) != keyLen || !wire.IsToken(target.Key) || target.Link != "" && !wire.IsToken(target.Link) {
		return inv, "", fmt.Errorf("call %s of %s: %w", call.Operation, target, lattice.ErrNoEntity)
	}
	inv = wire.Invocation{
		Origin: wire.Entity{Key: call.Origin.Key, Link: call.Origin.Link},
		Target: wire.Entity{Key: target.Key}, Operation: call.Operation,
		Payload: call.Payload, Length: uint64(len(call.Payload)), ID: newID(), Host: l.host,
	}
	if inv.Origin.Key == "" {
		inv.Origin.Key = system
	}
	if inv.Target.IsActor() {
		return inv, wire.ActorSubject(l.o.Lattice, target.Key), nil
	}
	inv.Target.Link, inv.Target.Contract = target.Link, call.Contract
	if inv.Target.Link == "" {
		inv.Target.Link = "default"
	}
	return inv, wire.ProviderSubject(l.o.Lattice, target.Key, inv.Target.Link), nil
}

// ask sends an invocation, waits for the answer, and reads it.
func (l *Lattice) ask(ctx context.Context, m *nats.Msg, inv *wire.Invocation, wait time.Duration) ([]byte, error) {
	answer, err := l.request(ctx, m, inv, wait)
	if err != nil {
		return nil, err
	}
	return l.read(ctx, answer, inv)
}

func what(inv *wire.Invocation) string {
	return fmt.Sprintf("call %s of %s", inv.Operation, inv.Target.Key)
}

func (l *Lattice) request(ctx context.Context, m *nats.Msg, inv *wire.Invocation, wait time.Duration) (*nats.Msg, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	answer, err := l.o.Conn.RequestMsgWithContext(waiting, m)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("%s: %w", what(inv), lattice.ErrNoEntity)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w: %w", what(inv), lattice.ErrTimeout, context.Cause(ctx))
	case errors.Is(err, context.DeadlineExceeded):
		return nil, classic("Failed to perform RPC call", fmt.Errorf("%w: %s: no answer in %s", lattice.ErrTimeout, what(inv), wait))
	case errors.Is(err, nats.ErrMaxPayload):
		return nil, fmt.Errorf("%s: %w: %w", what(inv), ErrTooLarge, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", what(inv), err)
	}
	return answer, nil
}

// read returns what an answer holds.
func (l *Lattice) read(ctx context.Context, answer *nats.Msg, inv *wire.Invocation) ([]byte, error) {
	r, err := wire.DecodeResponse(answer.Data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", what(inv), ErrAnswer, err)
	case r.Failed:
		return nil, &Error{r.Error}
	case r.ID != inv.ID:
		return nil, fmt.Errorf("%s: %w: it is of another invocation", what(inv), ErrAnswer)
	case r.Chunked():
		release, err := l.reserve(r.Length)
		if err != nil {
			return nil, fmt.Errorf("%s: answer: %w", what(inv), err)
		}
		defer release()
		payload, err := l.fetch(ctx, r.Object(), r.Length)
		if err != nil {
			return nil, fmt.Errorf("%s: answer: %w", what(inv), err)
		}
		l.drop(ctx, r.Object())
		return payload, nil
	}
	return r.Payload, nil
}

// newID makes a random UUID (RFC 9562, version 4).
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, as crypto/rand promises
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// idempotencyKey is the same for the same call at the same place in the handling of
// the same message, and no other.
func (l *Lattice) idempotencyKey(ctx context.Context, t *store.Turn, inv *wire.Invocation) string {
	h := sha256.New()
	place := []string{inv.Host, cmp.Or(l.o.Handled(ctx), t.ID()), strconv.FormatUint(t.NextCall(), 10)}
	for _, part := range append(place, inv.Origin.Key, inv.Target.URL(), inv.Operation) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	h.Write(inv.Payload)
	return hex.EncodeToString(h.Sum(nil)[:16])
}
