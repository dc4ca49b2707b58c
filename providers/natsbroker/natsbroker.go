// Package natsbroker is the box's client of a NATS server elsewhere: it takes what that has for the box, and publishes there.
//
// The nouns: a [Client] has one connection at a time, its link. What it receives it stages in turns, in the order of the server; what it publishes it
// takes from a stream of the box, the outbox, and acknowledges there when the server has it.
//
// Qualities of service. 0 is core NATS: at most once, and nothing is kept while the link is down. 1 and 2 need JetStream there. A durable consumer
// keeps for the box what a stream there holds, and a message is acknowledged to it after the fsync; what comes again is recognised, by its Nats-Msg-Id or by
// its place in that stream. What is published waits for the acknowledgement of the stream there, and carries a Nats-Msg-Id made of its place in the
// outbox. With 2 an acknowledgement is confirmed by the server, and what may have arrived before is looked up where it is published again.
//
// The package leaves to others which stream of the box keeps what (Options.Stage), and who publishes what.
package natsbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// Options are what a Client needs to know. URL, Name and Store are required; with Filters also Stage.
type Options struct {
	// URL is the server: nats://, tls://, ws:// or wss://.
	URL string
	// Name tells the client from others of that server: it is the name of the connection and of the durable consumer. Letters, digits, - and _.
	Name string
	// Login says who the box is, and whom it trusts.
	Login Login
	// Domain is the JetStream domain, "" for that of the server.
	Domain string
	// QoS is the quality of service of what is received and published: 0, 1 or 2.
	QoS byte

	// Filters are the subject filters of what the box wants, at most two that never match the same subject; none for nothing.
	Filters []string
	// Group is who shares what the filters match; "" for nobody: this client gets all.
	Group string
	// Outbox is a stream whose messages go to the server; nil for none.
	Outbox *Outbox

	Store *store.DB
	// Stage adds a message to a turn: to its stream. An error that is store.ErrTooLarge, store.ErrNoStream or ErrRefused means never; any other that
	// trying again later can help.
	Stage func(t *store.Turn, m store.Message) error
	// DeadLetter keeps a message that can never be stored; it is acknowledged to the server once DeadLetter has returned nil. reason is "too-large" or
	// "rejected". Required with Filters.
	DeadLetter func(ctx context.Context, m store.Message, reason string, cause error) error
	Logger     *slog.Logger
	// Health is told when things change: nil when the client is connected and all is well, else what is wrong, for the one who must act. It is called
	// from one goroutine at a time. Nil tells nobody.
	Health func(error)

	// MaxMessage bounds header and body of a message, in bytes. 0 means 1 MiB.
	MaxMessage int
	// AckWait is after how long the server sends again what was not acknowledged. 0 means 30 s.
	AckWait time.Duration
	// MinBackoff and MaxBackoff bound the wait before a new attempt to connect. 0 means 500 ms and 60 s.
	MinBackoff, MaxBackoff time.Duration
	// Failpoint, in tests, is called at the points named by the constants Failpoint…, and may end the process there.
	Failpoint func(name string)
}

// Outbox is a stream whose messages a client publishes, those of a subject in order, and acknowledges once the server has them.
type Outbox struct {
	// Stream is its name, and Subscription that of the position in it, which must be there.
	Stream, Subscription string
}

// Points at which Options.Failpoint is called.
const (
	FailpointReceived  = "nats-received"  // a message is on disk, and not acknowledged
	FailpointPublished = "nats-published" // the server has a message, and the outbox does not know
)

// ErrRefused marks a message that can never be taken as it is.
var ErrRefused = errors.New("refused for good")

// condition is an error that goes on until somebody acts.
type condition struct{ error }

func (c *condition) Unwrap() error { return c.error }

func act(format string, args ...any) error { return &condition{fmt.Errorf(format, args...)} }

func isCondition(err error) bool {
	_, ok := errors.AsType[*condition](err)
	return ok
}

// Client holds a connection to a NATS server elsewhere. Build it with New; Run keeps it connected. Stats may be called from any goroutine.
type Client struct {
	o    Options
	log  *slog.Logger
	told string // what Health was told last; of Run's goroutine

	connected atomic.Bool
	stats     struct{ connects, received, dropped, deadLetters, published atomic.Uint64 }
}

// Stats counts what a client did since it was made.
type Stats struct {
	Connected   bool
	Connects    uint64
	Received    uint64 // messages from the server
	Dropped     uint64 // of these, of QoS 0 and not stored
	DeadLetters uint64 // of these, and of those to be published, refused for good
	Published   uint64 // messages that the server has; of QoS 0, that were sent
}

// New checks the options. It connects to nobody before Run.
func New(o Options) (*Client, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("NATS server %s: %w", redacted(o.URL), err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Health == nil {
		o.Health = func(error) {}
	}
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	o.MaxMessage = cmp.Or(o.MaxMessage, 1<<20)
	o.AckWait = cmp.Or(o.AckWait, 30*time.Second)
	o.MinBackoff, o.MaxBackoff = cmp.Or(o.MinBackoff, 500*time.Millisecond), cmp.Or(o.MaxBackoff, time.Minute)
	return &Client{o: o, log: o.Logger.With("server", redacted(o.URL))}, nil
}

func (o *Options) check() error {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) || u.Hostname() == "":
		return errors.New("want nats://HOST, tls://, ws:// or wss://")
	case o.Name == "" || !topic.ValidSubject(o.Name) || len(o.Name) > 255:
		return fmt.Errorf("name %.80q: want letters, digits, - and _", o.Name)
	case o.Store == nil || len(o.Filters) > 0 && (o.Stage == nil || o.DeadLetter == nil):
		return errors.New("a store is required, and a way into it to receive")
	case o.QoS > 2 || len(o.Filters) > 2:
		return errors.New("QoS is 0, 1 or 2, of two filters at most")
	}
	for _, f := range o.Filters {
		if !topic.ValidFilter(f) {
			return fmt.Errorf("%.80q is not a subject filter", f)
		}
	}
	return o.Login.check()
}

func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	return Stats{
		Connected: c.connected.Load(), Connects: c.stats.connects.Load(), Received: c.stats.received.Load(), Dropped: c.stats.dropped.Load(),
		DeadLetters: c.stats.deadLetters.Load(), Published: c.stats.published.Load(),
	}
}

// Run keeps the client connected until ctx ends. A server that can not be reached, that refuses the box or lacks what it needs is no error: it is tried
// again, after a wait with jitter that grows up to MaxBackoff. A client runs once.
func (c *Client) Run(ctx context.Context) error {
	for wait := c.o.MinBackoff; ; {
		l := &link{c: c, lost: make(chan error, 1)}
		err := l.serve(ctx, func() {
			c.stats.connects.Add(1)
			c.connected.Store(true)
			c.tell(nil)
		})
		c.connected.Store(false)
		if ctx.Err() != nil {
			return nil
		}
		c.tell(err)
		if l.useful.Load() {
			wait = c.o.MinBackoff
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		}
		wait = min(2*wait, c.o.MaxBackoff)
	}
}

// tell logs how things stand, and tells Health, if that is news. A server that is away after it asked for something to be done may still ask for it.
func (c *Client) tell(err error) {
	kind := "connected"
	switch {
	case isCondition(err):
		kind = err.Error()
	case err != nil:
		kind = "away"
	}
	if kind == c.told || kind == "away" && c.told != "" && c.told != "connected" {
		return
	}
	c.told = kind
	c.o.Health(err)
	switch kind {
	case "connected":
		c.log.Info("NATS server connected", "client", c.o.Name)
	case "away":
		c.log.Warn("NATS server away", "client", c.o.Name, "err", err)
	default:
		c.log.Error("NATS server does not let the box do all it is to", "client", c.o.Name, "err", err)
	}
}

// never says whether an error means that a message can not be stored at any time.
func never(err error) (reason string, ok bool) {
	switch {
	case errors.Is(err, store.ErrTooLarge):
		return "too-large", true
	case errors.Is(err, store.ErrNoStream), errors.Is(err, ErrRefused):
		return "rejected", true
	}
	return "", false
}
