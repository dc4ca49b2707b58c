// Package gpio is the capability provider for GPIO lines, contract
// "edged:gpio": relays, valves, lamps, buttons, door contacts.
//
// A link declares one line of one chip, its direction and its owner, which is
// the actor of the link. A line has one owner; a second one is refused and told
// who the first is. Actors reach their own lines and no others.
//
// An input with a topic becomes messages: each edge, debounced, is an event.
// The level of an output is state and not an action: Gpio.Set stages a desired
// level in the turn, which is on the line once the turn is on disk, and again
// when the box has booted. When the provider stops, outputs go to their safe
// level, and the desired one stays in the store. Gpio.Get and Gpio.Pulse act at
// once.
//
// Two kinds of chips look alike to all of this: those of the kernel, through
// periph's driver for the GPIO character device, and the simulated chip sim0.
//
// What levels mean, which lines there are and what hangs on them is left to
// the person who writes the links.
package gpio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

// Contract is the capability contract id.
const Contract = "edged:gpio"

// EventType is the type of the event of an edge.
const EventType = "edged.gpio.edge"

// space holds the desired levels in the store, by "chip/line".
const space = "gpio"

// Errors that callers branch on.
var (
	ErrOwned     = errors.New("the line has an owner already")
	ErrNotOwned  = errors.New("not a line of this actor")
	ErrNoChip    = errors.New("no such chip")
	ErrClosed    = errors.New("the gpio provider has stopped")
	ErrOperation = errors.New("no such operation")
	ErrRequest   = errors.New("bad request")
)

// errReleased is the use of a line after it was given back.
var errReleased = errors.New("the line was released")

var _ providers.Provider = (*Provider)(nil)

// Store is what the provider needs of store.DB.
type Store interface {
	Do(ctx context.Context, fn func(ctx context.Context, t *store.Turn) error) error
	List(space, prefix string, fn func(key string, value []byte) error) error
}

// Options are what a Provider is made from. All but Logger must be there.
type Options struct {
	// Device is the id of the box, which begins the source of each event.
	Device string
	// Store keeps the desired levels.
	Store Store
	// Publish sends the event of an edge to a NATS subject. It must not wait
	// for the disk; done is called once, from any goroutine, when the event is
	// stored or refused.
	Publish func(subject string, e event.Event, done func(error))
	Logger  *slog.Logger
}

// Provider is the GPIO provider. Its methods may be called from any goroutine.
type Provider struct {
	device  string
	store   Store
	publish func(subject string, e event.Event, done func(error))
	log     *slog.Logger
	sim     *Sim
	kernel  kernelChips
	steps   *queue

	run    string        // makes the ids of events differ between runs
	events atomic.Uint64 // events made in this run

	changing chan struct{} // holds a token while links change, one at a time
	gone     chan struct{} // closed by Close

	mu     sync.Mutex // guards what follows; not held while a line is used
	closed bool
	links  map[linkID]*held
	lines  map[address]*held
	watch  func(*held) // starts the watcher of an input; nil while Run is not running
}

// linkID tells the links of this contract apart.
type linkID struct{ actor, name string }

// New returns a provider with no links. It opens no line and starts nothing.
func New(o Options) (*Provider, error) {
	if o.Device == "" || o.Store == nil || o.Publish == nil {
		return nil, errors.New("gpio: Device, Store and Publish must be there")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Provider{
		device:   o.Device,
		store:    o.Store,
		publish:  o.Publish,
		log:      o.Logger,
		sim:      newSim(),
		kernel:   kernelChips{dev: "/dev"},
		steps:    newQueue(),
		run:      rand.Text()[:16],
		changing: make(chan struct{}, 1),
		gone:     make(chan struct{}),
		links:    make(map[linkID]*held),
		lines:    make(map[address]*held),
	}, nil
}

// Contract is "edged:gpio".
func (p *Provider) Contract() string { return Contract }

// Sim is the simulated chip.
func (p *Provider) Sim() *Sim { return p.sim }

// SetSim sets the level of a line of a simulated chip from outside, as a
// contact would.
func (p *Provider) SetSim(chip string, line int, level bool) error {
	if chip != SimName {
		return fmt.Errorf("set line %d of %.40q: only the lines of %s can be set from outside: %w", line, chip, SimName, ErrNoChip)
	}
	return p.sim.Set(line, level)
}

// Run watches the inputs and drives the outputs until ctx ends. Then, or when
// Close is called, it puts the outputs on their safe levels, gives all lines
// back and returns nil. Links may be put before and during Run. There is one
// Run in the life of a provider; after Close, Run returns at once.
func (p *Provider) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	p.mu.Lock()
	if p.closed || p.watch != nil {
		running := p.watch != nil
		p.mu.Unlock()
		if running {
			return errors.New("gpio: Run is running already")
		}
		return nil
	}
	p.watch = func(h *held) {
		wctx, stop := context.WithCancel(ctx)
		h.stop, h.done = stop, make(chan struct{})
		wg.Go(func() {
			defer close(h.done)
			p.watchLine(wctx, h)
		})
	}
	for _, h := range p.lines {
		if h.watched() {
			p.watch(h)
		}
	}
	p.mu.Unlock()

	p.driveLoop(ctx)

	p.mu.Lock()
	p.watch = nil // no watcher begins after this
	p.mu.Unlock()
	cancel()
	wg.Wait()
	p.Close()
	return nil
}

// Close puts the outputs on their safe levels and gives all lines back. What
// the actors want of the lines stays in the store. Run does it when it ends;
// calling it is for a provider whose Run is never called, or to end Run. It may
// be called twice.
func (p *Provider) Close() {
	p.mu.Lock()
	running := p.watch != nil
	if !p.closed {
		p.closed = true
		close(p.gone)
	}
	p.mu.Unlock()
	if running {
		return // Run ends, and comes here again
	}
	p.changing <- struct{}{}
	defer func() { <-p.changing }()
	p.mu.Lock()
	lines := p.lines
	p.links, p.lines = nil, nil
	p.mu.Unlock()
	for _, h := range lines {
		p.release(h)
	}
}

// findChip returns the chip with that name. The error says which there are.
func (p *Provider) findChip(name string) (chip, error) {
	if name == SimName {
		return p.sim, nil
	}
	c, err := p.kernel.find(name)
	if errors.Is(err, ErrNoChip) {
		return nil, fmt.Errorf("%w: %w", err, errors.New(p.chipsThere()))
	}
	return c, err
}

// chipsThere is a sentence about the chips of this box.
func (p *Provider) chipsThere() string {
	names := append(p.kernel.names(), SimName)
	s := "there is " + strings.Join(names, ", ")
	if len(names) == 1 {
		s += " only (the kernel shows no /dev/gpiochip*; a unit with PrivateDevices=yes hides them)"
	}
	return s
}

// sleepUntil returns a timer that fires at t, or one that never does for the
// zero time.
func sleepUntil(t time.Time) *time.Timer {
	if t.IsZero() {
		timer := time.NewTimer(time.Hour)
		timer.Stop()
		return timer
	}
	return time.NewTimer(time.Until(t))
}
