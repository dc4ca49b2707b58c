package gpio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/lattice"
)

// held is a line that a link has declared and that we hold. What is not
// guarded does not change.
type held struct {
	address
	actor, link string
	direction   string
	dev         line
	conf        config // guarded by Provider.mu

	// Of inputs. stop and done are guarded by Provider.mu, and nil while
	// nobody watches.
	start bool // level when the line was opened
	stop  context.CancelFunc
	done  chan struct{}
	counts

	// Of outputs. The lock is held while the line is driven, so that what we
	// believe of it and what is on it are the same.
	drive    sync.Mutex
	desired  bool
	pulsing  bool      // a pulse is under way
	due      time.Time // when the desired level is to be driven next: a pulse ends, or driving it failed; zero for never
	released bool

	failure struct {
		sync.Mutex
		err error
	}
}

// counts are figures of an input.
type counts struct {
	edges    atomic.Uint64 // sent and stored
	lost     atomic.Uint64 // refused, or more than we let wait
	inFlight atomic.Int64
	losing   atomic.Bool // the last one was lost
}

// watched says that the line has edges to send.
func (h *held) watched() bool { return h.direction == in && h.conf.edge != edgeNone }

// PutLink declares one line. An error refuses the link and names every fault
// of its values; what was there before stays. It fails with ErrOwned if the
// line has another owner, with ErrNoChip if there is no such chip.
//
// An output is on its desired level, or on its initial one, when PutLink
// returns.
func (p *Provider) PutLink(ctx context.Context, l lattice.Link) error {
	if err := p.putLink(ctx, l); err != nil {
		return fmt.Errorf("gpio link %q of %s: %w", l.Name, l.Actor, err)
	}
	return nil
}

func (p *Provider) putLink(ctx context.Context, l lattice.Link) error {
	conf, err := parseValues(l.Values)
	if err != nil {
		return err
	}
	unlock, err := p.lockLinks(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	id := linkID{l.Actor, l.Name}
	old, err := p.claim(id, conf)
	if err != nil {
		return err
	}
	if old != nil && p.keep(old, conf) {
		return nil
	}
	if old == nil || old.address != conf.address {
		h, err := p.open(id, conf)
		if err != nil {
			return err
		}
		p.swap(id, old, h)
		return nil
	}
	// The same line in another way: the kernel gives a line only once, so the
	// old way must end first.
	before := old.conf
	p.swap(id, old, nil)
	h, err := p.open(id, conf)
	if err != nil {
		again, errAgain := p.open(id, before)
		if errAgain != nil {
			return errors.Join(err, fmt.Errorf("take the line back as it was: %w", errAgain))
		}
		h = again
	}
	p.swap(id, nil, h)
	return err
}

// lockLinks lets one change of links happen at a time: each may wait for a
// device.
func (p *Provider) lockLinks(ctx context.Context) (unlock func(), err error) {
	select {
	case p.changing <- struct{}{}:
		return func() { <-p.changing }, nil
	case <-p.gone:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// claim checks that the line is free for the link, and returns what the link
// holds already.
func (p *Provider) claim(id linkID, conf config) (old *held, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	old = p.links[id]
	owner := p.lines[conf.address]
	if owner != nil && owner != old {
		return nil, fmt.Errorf("line %d of %s belongs to %s (link %q): %w", conf.line, conf.chip, owner.actor, owner.link, ErrOwned)
	}
	return old, nil
}

// keep takes over conf without touching the line, if that is possible: an
// update of an app must not move its relays.
func (p *Provider) keep(old *held, conf config) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := old.conf == conf
	if old.address == conf.address && old.direction == out && conf.direction == out {
		old.conf, same = conf, true
	}
	return same
}

// open takes hold of a line. Nobody else knows it yet.
func (p *Provider) open(id linkID, conf config) (*held, error) {
	c, err := p.findChip(conf.chip)
	if err != nil {
		return nil, err
	}
	if conf.line >= c.size() {
		return nil, fmt.Errorf("%s has lines 0 to %d, not %d", conf.chip, c.size()-1, conf.line)
	}
	h := &held{address: conf.address, actor: id.actor, link: id.name, direction: conf.direction, conf: conf}
	level := conf.initial
	if conf.direction == out {
		desired, ok, err := p.desired(conf.address, id.actor)
		if err != nil {
			return nil, err
		}
		if ok {
			level = desired
		}
		h.desired = level
	}
	h.dev, err = c.open(conf.line, conf.request(level))
	if err != nil {
		return nil, fmt.Errorf("open line %d of %s: %w", conf.line, conf.chip, err)
	}
	if conf.direction == in {
		if h.start, err = h.dev.level(); err != nil {
			return nil, errors.Join(fmt.Errorf("read line %d of %s: %w", conf.line, conf.chip, err), h.dev.close())
		}
	}
	return h, nil
}

// swap lets h serve the link instead of old; either may be nil.
func (p *Provider) swap(id linkID, old, h *held) {
	p.mu.Lock()
	if old != nil {
		delete(p.lines, old.address)
		delete(p.links, id)
	}
	if h != nil {
		p.lines[h.address] = h
		p.links[id] = h
		if h.watched() && p.watch != nil {
			p.watch(h)
		}
	}
	p.mu.Unlock()
	if old != nil {
		p.release(old)
	}
	if h != nil && h.direction == out {
		// A turn of the time before this link may have been committed between
		// our look into the store and now.
		p.steps.add(step{address: h.address, actor: h.actor, restore: true})
	}
}

// release stops watching, parks an output, and gives the line back. Nobody
// finds the line any more.
func (p *Provider) release(h *held) {
	p.mu.Lock()
	stop, done, safe := h.stop, h.done, h.conf.safe
	p.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
	var err error
	if h.direction == out {
		err = h.park(safe)
	}
	if err := errors.Join(err, h.dev.close()); err != nil {
		p.log.Error("line is not released well", "line", h.String(), "actor", h.actor, "err", err)
	}
}

// DeleteLink gives the line of the link back, an output on its safe level.
// What the actor wants of the line stays in the store.
func (p *Provider) DeleteLink(ctx context.Context, l lattice.Link) error {
	unlock, err := p.lockLinks(ctx)
	if errors.Is(err, ErrClosed) {
		return nil // no link is left
	} else if err != nil {
		return fmt.Errorf("delete gpio link %q of %s: %w", l.Name, l.Actor, err)
	}
	defer unlock()
	id := linkID{l.Actor, l.Name}
	p.mu.Lock()
	old := p.links[id]
	p.mu.Unlock()
	if old != nil {
		p.swap(id, old, nil)
	}
	return nil
}

// LineInfo is the state of a line that is held.
type LineInfo struct {
	Chip      string `json:"chip"`
	Line      int    `json:"line"`
	Direction string `json:"direction"` // "in" or "out"
	Owner     string `json:"owner"`     // the actor
	Link      string `json:"link"`
	Level     bool   `json:"level"`           // on the line now
	Edge      string `json:"edge,omitempty"`  // of an input: "rising", "falling", "both" or "none"
	Topic     string `json:"topic,omitempty"` // of an input, as it was written
	Edges     uint64 `json:"edges"`           // sent since the line was opened
	Lost      uint64 `json:"lost"`            // edges that were not stored
	Error     string `json:"error,omitempty"` // why the line does not work
}

// Lines lists the lines that are held, by chip and number.
func (p *Provider) Lines() []LineInfo {
	p.mu.Lock()
	hs := make([]*held, 0, len(p.lines))
	for _, h := range p.lines {
		hs = append(hs, h)
	}
	infos := make([]LineInfo, len(hs))
	for i, h := range hs {
		infos[i] = LineInfo{
			Chip: h.chip, Line: h.line, Direction: h.direction, Owner: h.actor, Link: h.link,
			Edge: string(h.conf.edge), Topic: h.conf.topic, Edges: h.edges.Load(), Lost: h.lost.Load(),
		}
	}
	p.mu.Unlock()
	for i, h := range hs {
		level, err := h.dev.level()
		infos[i].Level = level
		h.failure.Lock()
		err = cmp.Or(h.failure.err, err)
		h.failure.Unlock()
		if err != nil {
			infos[i].Error = err.Error()
		}
	}
	slices.SortFunc(infos, func(a, b LineInfo) int {
		return cmp.Or(cmp.Compare(a.Chip, b.Chip), cmp.Compare(a.Line, b.Line))
	})
	return infos
}
