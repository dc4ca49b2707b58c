package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/ota"
	"github.com/edged-io/edged/internal/policy"
)

// openUpdates reads which apps were pushed. Without a hub those that were pushed
// before still run.
func (n *Node) openUpdates() error {
	d := n.o.Device
	p, err := n.policy(true)
	if err != nil {
		return err
	}
	o := ota.Options{
		Device: d.Device.ID, StateDir: n.stateDir, Issuers: p.Issuers, AllowUnsigned: d.Trust.AllowUnsigned,
		Admit: n.admitUpdate, Apply: n.applyUpdate, Logger: n.part("updates"), Now: n.o.Now,
	}
	if d.Hub != nil {
		o.Conn, o.Domain = n.link, d.Hub.JetStreamDomain
	}
	n.updates, err = ota.New(o)
	return err
}

// runUpdates keeps the box at its desired state, and asks for it at once when
// the link comes up.
func (n *Node) runUpdates(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- n.updates.Run(ctx) }() // waited for below
	for {
		up, changed := n.broker.LinkState()
		if up {
			n.updates.Poke()
		}
		select {
		case err := <-done:
			return err
		case <-changed:
		}
	}
}

// admitUpdate refuses a release that this box could never run, brings the code that it names by reference, and compiles it: that takes long, and
// what ends the box meanwhile is not the release's fault, as it would be in a trial.
func (n *Node) admitUpdate(ctx context.Context, s ota.Staged) error {
	c, err := config.LoadApp(s.Dir)
	if err != nil {
		return err
	}
	if c.Name != s.App {
		return fmt.Errorf("the manifest says app %s, the desired state %s", c.Name, s.App)
	}
	if err := n.fetchCode(ctx, c); err != nil {
		if !final(err) {
			return fmt.Errorf("%w: %w", ota.ErrLater, err)
		}
		return err
	}
	return n.compile(ctx, c)
}

func (n *Node) applyUpdate(ctx context.Context, s ota.Staged) error {
	if err := n.applyApp(ctx, s.Dir); errors.Is(err, policy.ErrUnanswered) {
		return fmt.Errorf("%w: %w", ota.ErrLater, err)
	} else if err != nil {
		return err
	}
	n.health.recover("app", s.App)
	n.log.Info("app swapped", "app", s.App, "version", s.Version)
	return nil
}
