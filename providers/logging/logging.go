// Package logging is the built-in provider of wasmcloud:builtin:logging: what
// an actor logs goes to the log of the box, under its name.
package logging

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Contract is the capability contract served here. Every actor may use it
// without a link.
const Contract = "wasmcloud:builtin:logging"

// MaxTextBytes is where the text of a line is cut.
const MaxTextBytes = 8 << 10

// Provider serves wasmcloud:builtin:logging.
type Provider struct{ log *slog.Logger }

var _ providers.Provider = (*Provider)(nil)

// New returns a provider that writes to log.
func New(log *slog.Logger) *Provider { return &Provider{log} }

// Contract is wasmcloud:builtin:logging.
func (p *Provider) Contract() string { return Contract }

// PutLink has nothing to do: there are no values.
func (p *Provider) PutLink(context.Context, lattice.Link) error { return nil }

// DeleteLink has nothing to do.
func (p *Provider) DeleteLink(context.Context, lattice.Link) error { return nil }

// Call serves Logging.WriteLog. It is done at once: a turn that fails has
// logged what it logged.
func (p *Provider) Call(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	if inv.Operation != "Logging.WriteLog" {
		return nil, fmt.Errorf("%s: no such operation of %s", inv.Operation, Contract)
	}
	var level, text string
	d := msgpack.NewDecoder(inv.Payload)
	for range d.Map() {
		switch string(d.Key()) {
		case "level":
			level = d.Str()
		case "text":
			text = d.Str()
		default:
			d.Skip()
		}
	}
	if err := d.Done(); err != nil {
		return nil, fmt.Errorf("%s: %w", inv.Operation, err)
	}
	if len(text) > MaxTextBytes {
		text = text[:MaxTextBytes] + "…"
	}
	p.log.Log(ctx, levelOf(level), "actor says", "actor", inv.Origin.Key, "text", text)
	return nil, nil
}

// levelOf takes the names of classic wasmCloud; an unknown one is debug, as its
// hosts have it.
func levelOf(name string) slog.Level {
	switch name {
	case "critical", "error":
		return slog.LevelError
	case "warn":
		return slog.LevelWarn
	case "info":
		return slog.LevelInfo
	}
	return slog.LevelDebug
}
