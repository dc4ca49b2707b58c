package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// stopBudget is how long the parts may take to end; systemd waits longer.
const stopBudget = 4 * time.Second

// minStop is how long they have at least, whatever somebody who stops the box says.
const minStop = 500 * time.Millisecond

// Run serves until ctx ends, and returns nil when all is quiet. Any other
// return is a reason why the box could not go on. ready is called once, when
// the box serves, and with it the apps that were there before. Those whose code is
// not in the cache, as after an update of edged, follow when it is compiled; until
// then their streams take messages, and calls wait.
func (n *Node) Run(ctx context.Context, ready func(Addresses)) (err error) {
	defer func() { err = errors.Join(err, n.close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g := &group{ctx: ctx, cancel: cancel, budget: stopBudget}
	defer func() { err = g.wait(err) }()

	n.nameStore(ctx)
	g.start("gpio", n.gpio.Run)
	g.start("keyvalue", n.keyvalue.Run)
	g.start("broker", n.broker.Run)
	linked := make(chan bool, 1)
	go func() { linked <- n.linked(ctx) }() // waited for below, or ends with ctx
	// What runs is configured before anybody can connect, so that no message
	// comes to a subject whose stream is not there yet.
	n.applyAtBoot(ctx)
	close(n.applied)
	select {
	case <-n.broker.Ready():
	case <-ctx.Done():
		return nil
	}
	if n.listener != nil {
		g.start("mqtt", n.listener.Run)
	}
	g.start("messages", n.runCore)
	select {
	case <-n.core.up:
	case <-ctx.Done():
		return nil
	}
	if !<-linked {
		return nil
	}
	g.start("lattice", n.lattice.Run)
	select {
	case <-n.lattice.Ready():
	case <-ctx.Done():
		return nil
	}
	g.start("metadata", n.metadata.Run)
	g.start("configurations", n.configs.Run)
	g.start("shared links", n.runShare)
	if n.o.Device.Lattice.ProviderObjects {
		g.start("object store", n.runObjects)
	}
	n.providersAtBoot(ctx)
	g.start("providers", n.processes.Run)
	g.start("http", n.http.Run)
	select {
	case <-n.http.Ready():
	case <-ctx.Done():
		return nil
	}
	g.start("socket", n.serveSocket)
	if n.admin != nil {
		g.start("admin", n.serveAdmin)
	}
	g.start("remote", n.serveRemote)
	s := n.commanded.service.Load()
	if s != nil {
		g.start("control", s.Run)
	}
	addr := n.tellAddresses()
	if s != nil {
		select {
		case <-s.Ready():
		case <-ctx.Done():
			return nil
		}
	}
	g.start("updates", n.runUpdates)
	n.health.setReady()
	n.log.Info("ready", "version", n.o.Version, "device", n.o.Device.Device.ID, "nats", addr.NATS, "mqtt", addr.MQTT, "admin", addr.Admin, "http", addr.HTTP)
	ready(addr)
	// Nobody outside is called before, so that a start without a network is
	// like any other.
	close(n.serving)
	g.start("addresses", n.runAddresses)
	g.start("blobstore", n.blobs.Run)
	g.start("bridges", n.bridge.run)
	if n.guard != nil {
		g.start("policy", n.runGuard)
	}
	g.start("references", n.runReferences)
	g.start("compiling", n.runCompiling)
	select {
	case <-ctx.Done():
	case within := <-n.stopping:
		n.log.Info("the box stops, as it was told through the control interface", "within", within.String())
		g.budget = min(stopBudget, max(within, minStop))
	case <-n.db.Failed():
		return n.db.Err()
	}
	return nil
}

// group runs the parts. The first to fail ends them all.
type group struct {
	ctx    context.Context // of the parts; ends them
	cancel context.CancelCauseFunc
	budget time.Duration // for all to end
	steps  []step
	mu     sync.Mutex // guards failed
	failed error
}

type step struct {
	name string
	stop context.CancelFunc
	done chan struct{}
}

// start runs a part. Parts are ended one after the other, the last one first,
// so each has a context that does not end with its predecessors'.
func (g *group) start(name string, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(g.ctx))
	s := step{name, stop, make(chan struct{})}
	g.steps = append(g.steps, s)
	go func() { // wait waits
		defer close(s.done)
		err := run(ctx)
		if err == nil && ctx.Err() == nil {
			err = errors.New("ended by itself")
		}
		if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.failed == nil {
			g.failed = fmt.Errorf("%s: %w", name, err)
		}
		g.cancel(g.failed)
	}()
}

// wait ends the parts in reverse order. One that does not end in time does not
// keep the others from ending.
func (g *group) wait(err error) error {
	deadline := time.After(g.budget)
	for i, s := range slices.Backward(g.steps) {
		s.stop()
		select {
		case <-s.done:
		case <-deadline:
			err = errors.Join(err, fmt.Errorf("%s did not end within %s", s.name, g.budget))
			for _, rest := range g.steps[:i] {
				rest.stop()
			}
			return g.result(err)
		}
	}
	return g.result(err)
}

func (g *group) result(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(err, g.failed)
}
