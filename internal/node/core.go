package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/messaging"
	"github.com/edged-io/edged/store"
)

const (
	// maxCore is how many messages of core NATS are with actors at a time. More
	// wait in the client, which drops what exceeds its own bound.
	maxCore = 64
	// coreTime is how long the handling of one may take.
	coreTime = 30 * time.Second
)

// core are the subscriptions on core NATS that apps ask for, which are there
// while core.run runs, and the connection that they and requests go through. It
// is made when it is needed first.
type core struct {
	mu     sync.Mutex      // guards all below
	ctx    context.Context // of the handlers; nil while run does not run
	conn   *nats.Conn
	closed bool
	want   map[coreSub]func(context.Context, *nats.Msg)
	runs   map[coreSub]*nats.Subscription
	busy   sync.WaitGroup // handlers; waited for by runCore
	up     chan struct{}  // closed by runCore, when the subscriptions are there
}

// coreSub is a subscription of an actor.
type coreSub struct{ filter, group, key string }

// coreConn returns the connection.
func (n *Node) coreConn() (*nats.Conn, error) {
	c := &n.core
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connect(n)
}

// connect is coreConn with c.mu held.
func (c *core) connect(n *Node) (*nats.Conn, error) {
	if c.closed {
		return nil, nats.ErrConnectionClosed
	}
	if c.conn != nil {
		return c.conn, nil
	}
	conn, err := n.broker.ConnectApp(nats.Name("messaging"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ClosedHandler(n.lostCore))
	if err != nil {
		return nil, err
	}
	c.conn = conn
	return conn, nil
}

// lostCore makes the subscriptions anew, on another connection. A client that lost
// its server comes back by itself, but what the server finds wrong with the protocol
// ends the connection for good.
func (n *Node) lostCore(conn *nats.Conn) {
	c := &n.core
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.conn != conn {
		return
	}
	n.log.Error("the connection that actors send and ask over was ended, and is made anew", "err", conn.LastError())
	c.conn, c.runs = nil, nil
	n.settleCore()
}

func (c *core) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed = true; c.conn != nil {
		c.conn.Close()
	}
}

// coreFlush is how long the server in this process may take to note a
// subscription.
const coreFlush = 5 * time.Second

// coreGrace is how long handlers may go on when the box ends.
const coreGrace = 2 * time.Second

// runCore lets the subscriptions be until ctx ends, and then waits for their
// handlers.
func (n *Node) runCore(ctx context.Context) error {
	handlers, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	c := &n.core
	c.mu.Lock()
	c.ctx = handlers
	n.settleCore()
	c.mu.Unlock()
	close(c.up)
	<-ctx.Done()
	c.mu.Lock()
	c.want = nil
	n.settleCore()
	c.ctx = nil
	c.mu.Unlock()
	grace := time.AfterFunc(coreGrace, cancel)
	defer grace.Stop()
	c.busy.Wait()
	return nil
}

// setCore makes the subscriptions those of the apps. One that stays is not
// touched, so that it misses nothing. An actor joins a queue group when it has its code:
// others of the group serve meanwhile.
func (n *Node) setCore(s appSet) {
	c := &n.core
	c.mu.Lock()
	defer c.mu.Unlock()
	c.want = make(map[coreSub]func(context.Context, *nats.Msg))
	for _, a := range s {
		for _, src := range a.config.Messaging {
			if src.Group != "" && !a.hasCode(src.Actor) {
				continue
			}
			sub := coreSub{src.Filters[0], src.Group, a.key(src.Actor)}
			c.want[sub] = n.hear(sub)
		}
	}
	n.settleCore()
}

// settleCore ends and makes subscriptions. Call it with core.mu held.
func (n *Node) settleCore() {
	c := &n.core
	if c.ctx == nil {
		return
	}
	if c.runs == nil {
		c.runs = make(map[coreSub]*nats.Subscription)
	}
	var errs []error
	for want, hear := range c.want {
		if c.runs[want] == nil {
			errs = append(errs, c.subscribe(n, want, hear))
		}
	}
	if len(c.runs) > 0 { // from here on they are heard
		errs = append(errs, c.conn.FlushTimeout(coreFlush))
	}
	for had, sub := range c.runs {
		if c.want[had] == nil {
			_ = sub.Unsubscribe() // fails when the connection is gone, and the subscription with it
			delete(c.runs, had)
		}
	}
	if err := errors.Join(errs...); err != nil {
		n.log.Error("actors get no messages of core NATS", "err", err)
		n.health.degrade("messaging", "", err)
		return
	}
	n.health.recover("messaging", "")
}

func (c *core) subscribe(n *Node, want coreSub, hear func(context.Context, *nats.Msg)) error {
	conn, err := c.connect(n)
	if err != nil {
		return err
	}
	sub, err := conn.QueueSubscribe(want.filter, want.group, func(m *nats.Msg) {
		if ctx, ok := c.begin(); ok {
			hear(ctx, m)
		}
	})
	if err != nil {
		return err
	}
	c.runs[want] = sub
	return nil
}

// begin counts a handler, if handlers may begin.
func (c *core) begin() (context.Context, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		return nil, false
	}
	c.busy.Add(1)
	return c.ctx, true
}

// hear returns what a subscription does with a message: hand it to the actor, in
// a turn of its own, once. What a stream keeps comes from there.
func (n *Node) hear(sub coreSub) func(context.Context, *nats.Msg) {
	room := make(chan struct{}, maxCore)
	var failing condition
	return func(ctx context.Context, m *nats.Msg) {
		if _, kept := n.broker.Covers(m.Subject); kept {
			n.core.busy.Done()
			return
		}
		room <- struct{}{} // a handler ends within coreTime
		go func() {        // runCore waits
			defer func() { <-room; n.core.busy.Done() }()
			err := n.handleCore(ctx, sub.key, m)
			if isBlamed(err) {
				n.failures.went("", "lost, since no stream has it", err, "subject", m.Subject)
			}
			switch started, ended := failing.note(err); {
			case started && !isBlamed(err):
				n.log.Warn("actor does not handle messages of core NATS, they are lost", "actor", n.actorTitle(sub.key), "subject", m.Subject, "err", err)
			case ended > 0:
				n.log.Info("actor handles messages of core NATS again", "actor", n.actorTitle(sub.key), "lost", ended)
			}
		}()
	}
}

func (n *Node) handleCore(ctx context.Context, key string, m *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, coreTime)
	defer cancel()
	if cause := m.Header.Get(causeHeader); cause != "" {
		ctx = store.WithCause(ctx, cause)
	}
	err := n.db.Do(ctx, func(ctx context.Context, _ *store.Turn) error {
		return n.handleMessage(ctx, key, messaging.Message{Subject: m.Subject, Reply: m.Reply, Body: m.Data})
	})
	if errors.Is(err, lattice.ErrNoEntity) {
		return nil // the app is gone, and the subscription about to be
	}
	return err
}

// condition is one that persists: it is told when it starts and ends.
type condition struct {
	mu sync.Mutex // guards n
	n  int        // failures in a row
}

// note says whether err begins the condition, or, as a number, after how many
// failures a success ended it.
func (c *condition) note(err error) (started bool, ended int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.n++
		return c.n == 1, 0
	}
	ended, c.n = c.n, 0
	return false, ended
}
