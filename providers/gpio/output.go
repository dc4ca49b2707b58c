package gpio

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// retryDrive is after how long a line that could not be driven is tried again,
// for as long as it is held: a relay must not stay closed because a bus was
// busy once.
const retryDrive = time.Second

// driveLoop drives the outputs until ctx or the provider ends.
func (p *Provider) driveLoop(ctx context.Context) {
	for {
		timer := sleepUntil(p.catchUp(time.Now()))
		select {
		case <-p.steps.wake:
			p.driveQueued()
		case <-timer.C:
		case <-p.gone:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// driveQueued drives all that is queued now.
func (p *Provider) driveQueued() {
	steps := p.steps.take()
	for _, s := range steps {
		p.mu.Lock()
		h := p.lines[s.address]
		p.mu.Unlock()
		// The line may have been given back since, or have another owner.
		// The level is in the store, for when its link comes again.
		if h != nil && h.actor == s.actor && h.direction == out {
			p.report(h, p.driveStep(h, s))
		}
	}
	p.steps.finish(len(steps))
}

func (p *Provider) driveStep(h *held, s step) error {
	if s.restore {
		level, ok, err := p.desired(s.address, s.actor)
		if err != nil || !ok {
			return err
		}
		s.level = level
	}
	return h.set(s.level)
}

// catchUp ends the pulses that are over and returns when there is something to
// do next.
func (p *Provider) catchUp(now time.Time) (next time.Time) {
	for _, h := range p.outputs() {
		due, drove, err := h.catchUp(now)
		if drove {
			p.report(h, err)
		}
		if !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	return next
}

// outputs are the outputs that are held now.
func (p *Provider) outputs() []*held {
	p.mu.Lock()
	defer p.mu.Unlock()
	var hs []*held
	for _, h := range p.lines {
		if h.direction == out {
			hs = append(hs, h)
		}
	}
	return hs
}

// report logs that a line began to fail or to work again, and keeps it for
// Lines.
func (p *Provider) report(h *held, err error) {
	h.failure.Lock()
	was := h.failure.err
	h.failure.err = err
	h.failure.Unlock()
	switch {
	case err != nil && was == nil:
		p.log.Error("line fails", "line", h.String(), "actor", h.actor, "err", err)
	case err == nil && was != nil:
		p.log.Info("line works again", "line", h.String(), "actor", h.actor)
	}
}

// desired is the level that actor has last set on a line. What another owner
// had set does not count.
func (p *Provider) desired(a address, actor string) (level, ok bool, err error) {
	err = p.store.List(space, a.String(), func(key string, value []byte) error {
		if key != a.String() { // line 30 begins as line 3 does
			return nil
		}
		l, owner, _ := strings.Cut(string(value), " ")
		if l != word(true) && l != word(false) {
			return fmt.Errorf("level %.20q is neither high nor low", l)
		}
		if owner == actor {
			level, ok = l == word(true), true
		}
		return nil
	})
	if err != nil {
		return false, false, fmt.Errorf("read the desired level of %s: %w", a, err)
	}
	return level, ok, nil
}

// desiredValue is how the store keeps a desired level.
func desiredValue(level bool, actor string) []byte { return []byte(word(level) + " " + actor) }

// set makes level the desired one and puts it on the line, unless a pulse is
// under way, which ends at the desired level.
func (h *held) set(level bool) error {
	h.drive.Lock()
	defer h.drive.Unlock()
	h.desired = level
	if h.released || h.pulsing {
		return nil
	}
	return h.driveDesired(time.Now())
}

// driveDesired puts the desired level on the line, later if it fails now. The
// caller holds h.drive.
func (h *held) driveDesired(now time.Time) error {
	h.pulsing, h.due = false, time.Time{}
	err := h.dev.drive(h.desired)
	if err != nil {
		h.due = now.Add(retryDrive)
	}
	return err
}

// pulse puts level on the line until end. It takes the place of a pulse that
// is under way.
func (h *held) pulse(level bool, end time.Time) error {
	h.drive.Lock()
	defer h.drive.Unlock()
	if h.released {
		return errReleased
	}
	if err := h.dev.drive(level); err != nil {
		return err
	}
	h.pulsing, h.due = true, end
	return nil
}

// catchUp drives the desired level if that is due, and returns when it is due
// next; the zero time is never.
func (h *held) catchUp(now time.Time) (next time.Time, drove bool, err error) {
	h.drive.Lock()
	defer h.drive.Unlock()
	if h.released || h.due.IsZero() || h.due.After(now) {
		return h.due, false, nil
	}
	err = h.driveDesired(now)
	return h.due, true, err
}

// park puts the safe level on an output, which is not driven after that.
func (h *held) park(safe bool) error {
	h.drive.Lock()
	defer h.drive.Unlock()
	h.released, h.due = true, time.Time{}
	return h.dev.drive(safe)
}
