// Package logging is the built-in provider of wasmcloud:builtin:logging: what
// an actor logs goes to the log of the box, under its name.
package logging

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
)

// Contract is the capability contract served here. Every actor may use it
// without a link.
const Contract = "wasmcloud:builtin:logging"

// MaxTextBytes is where the text of a line is cut.
const MaxTextBytes = 8 << 10

// Write takes a line that an actor, by its key, logs in the call of ctx. The text
// is UTF-8; what control characters are in it is for whoever shows it.
type Write func(ctx context.Context, actor string, level slog.Level, text string)

// Provider serves wasmcloud:builtin:logging.
type Provider struct{ write Write }

var _ providers.Provider = (*Provider)(nil)

// New returns a provider that hands what it is given to write, which bounds it.
func New(write Write) *Provider { return &Provider{write} }

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
		return nil, fail(fmt.Errorf("%.80q is no operation of %s", inv.Operation, Contract))
	}
	var level, text string
	d := providers.Decoder(inv.Payload)
	providers.Struct(d, []string{"level", "text"}, func(name string) {
		switch name {
		case "level":
			level = d.Str()
		case "text":
			text = d.Str()
		default:
			d.Skip()
		}
	})
	if err := d.Done(); err != nil {
		return nil, fail(fmt.Errorf("%s: %w", inv.Operation, err))
	}
	p.write(ctx, inv.Origin.Key, levelOf(level), cut(text))
	return nil, nil
}

func fail(cause error) error { return providers.Fail("logging", providers.ErrFormat, cause) }

// cut makes a text UTF-8 and no longer than MaxTextBytes, and says so with three
// dots where something is missing. No character is cut in two.
func cut(text string) string {
	if len(text) <= MaxTextBytes {
		return strings.ToValidUTF8(text, "\uFFFD")
	}
	n := MaxTextBytes
	for n > MaxTextBytes-utf8.UTFMax && !utf8.RuneStart(text[n]) {
		n--
	}
	return strings.ToValidUTF8(text[:n], "\uFFFD") + "…"
}

// levelOf takes the names of classic wasmCloud; an unknown one is debug, as its
// hosts have it.
func levelOf(name string) slog.Level {
	switch strings.ToLower(name) {
	case "critical", "error":
		return slog.LevelError
	case "warn", "warning":
		return slog.LevelWarn
	case "info":
		return slog.LevelInfo
	}
	return slog.LevelDebug
}
