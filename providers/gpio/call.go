package gpio

import (
	"context"
	"fmt"
	"time"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// The operations.
const (
	opSet   = "Gpio.Set"
	opGet   = "Gpio.Get"
	opPulse = "Gpio.Pulse"
)

// MaxPulse is the longest pulse.
const MaxPulse = 10 * time.Second

// request fields that were there, since false and 0 are good values.
const (
	hasChip = 1 << iota
	hasLine
	hasLevel
	hasMs
)

// arguments of an operation.
type arguments struct {
	address
	level bool
	ms    int64
	has   uint8
}

// Call serves Gpio.Set, Gpio.Get and Gpio.Pulse on the lines of inv.Origin,
// whichever link they were declared by. It fails with ErrNotOwned for any
// other line.
func (p *Provider) Call(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	var serve func(context.Context, *held, arguments) ([]byte, error)
	need := uint8(hasChip | hasLine)
	switch inv.Operation {
	case opSet:
		serve, need = p.set, need|hasLevel
	case opGet:
		serve = p.get
	case opPulse:
		serve, need = p.pulse, need|hasLevel|hasMs
	default:
		return nil, fmt.Errorf("%.80q of %s: %w", inv.Operation, Contract, ErrOperation)
	}
	args, err := parseArguments(inv.Payload, need)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", inv.Operation, ErrRequest, err)
	}
	h, err := p.lineOf(inv.Origin.Key, args.address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", inv.Operation, err)
	}
	if h.direction == in && inv.Operation != opGet {
		return nil, fmt.Errorf("%s: line %d of %s is an input: %w", inv.Operation, args.line, args.chip, ErrRequest)
	}
	answer, err := serve(ctx, h, args)
	if err != nil {
		return nil, fmt.Errorf("%s of line %d of %s: %w", inv.Operation, args.line, args.chip, err)
	}
	return answer, nil
}

// lineOf returns a line if actor owns it. Who else might own it is nothing
// that a guest is told.
func (p *Provider) lineOf(actor string, a address) (*held, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	h := p.lines[a]
	if h == nil || h.actor != actor {
		return nil, fmt.Errorf("line %d of %.40q: %w: no gpio link of %s declares it", a.line, a.chip, ErrNotOwned, actor)
	}
	return h, nil
}

// set stages the desired level. It is driven when the turn is on disk.
func (p *Provider) set(ctx context.Context, h *held, args arguments) ([]byte, error) {
	return nil, p.store.Do(ctx, func(_ context.Context, t *store.Turn) error {
		if err := t.Put(space, h.String(), desiredValue(args.level, h.actor)); err != nil {
			return err
		}
		t.AfterCommit(func() {
			p.steps.add(step{address: h.address, actor: h.actor, level: args.level})
		})
		return nil
	})
}

// get reads the level on the line, at once.
func (p *Provider) get(ctx context.Context, h *held, _ arguments) ([]byte, error) {
	if h.direction == out {
		if err := p.steps.wait(ctx, p.gone); err != nil {
			return nil, err
		}
	}
	level, err := h.dev.level()
	if err != nil {
		return nil, err
	}
	return msgpack.AppendBool(nil, level), nil
}

// pulse puts the level on the line, at once, and returns: the turn of the
// caller must not be held for the time of the pulse.
func (p *Provider) pulse(ctx context.Context, h *held, args arguments) ([]byte, error) {
	if t := store.TurnFrom(ctx); t != nil {
		if err := t.Irrevocable(ctx); err != nil {
			return nil, err
		}
	}
	if err := p.steps.wait(ctx, p.gone); err != nil {
		return nil, err
	}
	end := time.Now().Add(time.Duration(args.ms) * time.Millisecond)
	if err := h.pulse(args.level, end); err != nil {
		return nil, err
	}
	p.steps.kick()
	return nil, nil
}

// parseArguments reads the MessagePack map of a request, of which the fields
// in need must be there. Others are skipped.
func parseArguments(payload []byte, need uint8) (arguments, error) {
	var a arguments
	d := providers.Decoder(payload)
	for range d.Map() {
		switch key := string(d.Key()); key {
		case "chip":
			a.chip = d.Str()
			a.has |= hasChip
		case "line":
			a.line = int(d.IntIn(0, 1<<16-1))
			a.has |= hasLine
		case "level":
			if d.Kind() == msgpack.Int { // what C calls a bool
				a.level = d.IntIn(0, 1) == 1
			} else {
				a.level = d.Bool()
			}
			a.has |= hasLevel
		case "ms":
			a.ms = d.IntIn(1, MaxPulse.Milliseconds())
			a.has |= hasMs
		default:
			d.Skip()
		}
		if err := d.Err(); err != nil {
			break
		}
	}
	if err := d.Done(); err != nil {
		return arguments{}, err
	}
	return a, a.check(need)
}

// check says what is missing.
func (a *arguments) check(need uint8) error {
	for i, name := range []string{"chip", "line", "level", "ms"} {
		if bit := uint8(1) << i; need&bit != 0 && a.has&bit == 0 {
			return fmt.Errorf("%s is missing", name)
		}
	}
	return nil
}
