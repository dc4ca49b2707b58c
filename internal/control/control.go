// Package control serves the control interface of a classic wasmCloud host, in both its versions, and tells the lattice in events what became
// of it. docs/control.md describes subjects and payloads.
//
// Version 0 (`wasmbus.ctl.{lattice}.…`) speaks of actors, M and V keys and contract ids, version 1 (`wasmbus.ctl.v1.{lattice}.…`) of components,
// free ids and WIT interfaces. Both are views of one [State], which a [Host] has: what was put by one is seen by the other, and stops what the
// other started. WIT names and contract ids are told apart by one table, see [ContractOf].
//
// A command for an actor or a provider is checked against the state and accepted, which means that it will be tried; what was accepted for one actor happens in
// order. Events are the differences between two states, not reports of commands, so they tell the same as the inventory, whoever made the change:
// a command, an app, a provider that fell over. Only what failed, and so changed nothing, is told by the command itself.
//
// Everything that comes from the lattice is bounded and checked here; a host sees well-formed commands only. Requests are answered one after the
// other. Who waits in vain behind more than [MaxRequests] of them gets no answer.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/nameform"
)

// Bounds of a service.
const (
	MaxRequests = 512 // that wait to be answered; more are dropped
	MaxCommands = 256 // accepted and not done; more are refused
	MaxLanes    = 8   // commands at work at once

	// DefaultHeartbeat is how often a host says that it is there.
	DefaultHeartbeat = 30 * time.Second

	defaultPrefix = "wasmbus.ctl"
	eventsPrefix  = "wasmbus.evt." // the lattice follows

	requestTimeout = 5 * time.Second // of a change that is answered when it is made
	stopTimeout    = 10 * time.Second
)

// Options are what a service is made of.
type Options struct {
	Conn      *nats.Conn // in the account of the lattice
	Lattice   string     // letters, digits, _ and -; not "v1", whose subjects would be those of version 1
	Host      Host
	Prefix    string        // of the subjects; "wasmbus.ctl" if empty
	Heartbeat time.Duration // DefaultHeartbeat if 0
	Log       *slog.Logger  // slog.Default if nil
}

// Service serves the control interface for one host. Its methods may be called from any goroutine.
type Service struct {
	conn    *nats.Conn
	host    Host
	lattice string
	v0, v1  string // prefixes of subjects, with the dot at their end
	log     *slog.Logger
	lanes   lanes
	events  *reporter
	ready   chan struct{}
	leave   *time.Duration // how long the host has to stop, once that was asked for; belongs to the goroutine that answers
}

// New checks the options. It subscribes to nothing; Run does.
func New(o Options) (*Service, error) {
	if o.Conn == nil || o.Host == nil {
		return nil, errors.New("control: a connection and a host are needed")
	}
	s, err := newService(o)
	if err != nil {
		return nil, err
	}
	s.conn = o.Conn
	s.events.publish = o.Conn.Publish
	return s, nil
}

// newService is New without a connection.
func newService(o Options) (*Service, error) {
	if !nameform.Form(MaxName).MatchString(o.Lattice) {
		return nil, fmt.Errorf("control: lattice %.80q: a name has letters, digits, _ and -", o.Lattice)
	}
	if o.Lattice == "v1" {
		return nil, errors.New("control: a lattice cannot be called v1, which is a version of the control interface; choose another name")
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	for token := range strings.SplitSeq(o.Prefix, ".") {
		if token == "" || !plain(token) {
			return nil, fmt.Errorf("control: prefix %.80q: it is a subject without wildcards", o.Prefix)
		}
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = DefaultHeartbeat
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Service{
		host:    o.Host,
		lattice: o.Lattice,
		v0:      o.Prefix + "." + o.Lattice + ".",
		v1:      o.Prefix + ".v1." + o.Lattice + ".",
		log:     o.Log,
		ready:   make(chan struct{}),
		events:  newReporter(o.Host, o.Lattice, o.Heartbeat, o.Log),
	}, nil
}

// Changed says that the host's state has changed, so that events tell it at once and not with the next heartbeat. It never blocks.
func (s *Service) Changed() { s.events.wake() }

// Ready is closed when Run serves.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx ends, and says so in the lattice. It returns when no command is at work any more: one that is at work has the context
// cancelled.
func (s *Service) Run(ctx context.Context) error {
	requests := make(chan *nats.Msg, MaxRequests)
	var subs []*nats.Subscription
	unsubscribe := func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe() // fails on a closed connection only
		}
	}
	for _, l := range s.listens(s.host.State().ID) {
		sub, err := s.conn.ChanQueueSubscribe(l.subject, l.queue, requests)
		if err != nil {
			unsubscribe()
			return fmt.Errorf("control: subscribe to %s: %w", l.subject, err)
		}
		subs = append(subs, sub)
	}
	defer unsubscribe()
	_ = s.conn.FlushTimeout(time.Second) // without a server it subscribes when there is one again
	close(s.ready)
	var wg sync.WaitGroup
	wg.Go(func() { s.events.run(ctx) })
	for {
		select {
		case m := <-requests:
			s.serve(ctx, m)
			continue
		case <-ctx.Done():
		}
		break
	}
	unsubscribe() // no new work first
	s.lanes.wait()
	wg.Wait()
	s.events.stopped()
	if err := s.conn.FlushTimeout(time.Second); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		s.log.Warn("the lattice was not told that this host stops", "err", err)
	}
	return nil
}

// serve answers one request.
func (s *Service) serve(ctx context.Context, m *nats.Msg) {
	if s.unasked(m) {
		s.log.Debug("a control command that is no request was not heeded", "subject", m.Subject)
		return
	}
	reply, ok := s.answer(ctx, m.Subject, m.Data)
	if ok && m.Reply != "" && !s.overheard(m) {
		err := m.Respond(reply)
		if errors.Is(err, nats.ErrMaxPayload) {
			err = m.Respond(s.refusal(m.Subject, fmt.Errorf("the answer has %d bytes, more than a message may have", len(reply))))
		}
		if err != nil {
			s.log.Warn("a control request could not be answered", "subject", m.Subject, "err", err)
		}
	}
	if s.leave != nil {
		_ = s.conn.FlushTimeout(time.Second) // the answer first, then the end; who asked may be gone
		s.host.Stop(*s.leave)
		s.leave = nil
	}
}

// unasked says that a message is no request: it has no subject for an answer, or that of JetStream for acknowledgements. A stream delivers to, and the
// server answers at, whatever subject they are told, so that who may use either, and nothing else, could give commands. What tells of registries is
// published by some tools.
func (s *Service) unasked(m *nats.Msg) bool {
	if m.Subject == s.v0+"registries.put" || m.Subject == s.v1+"registry.put" {
		return false
	}
	return m.Reply == "" || strings.HasPrefix(m.Reply, "$JS.")
}

// overheard says that a request came to all hosts, and that the one which has it from its queue group answers.
func (s *Service) overheard(m *nats.Msg) bool {
	return m.Sub.Queue == "" && (strings.HasPrefix(m.Subject, s.v0+"config.") || strings.HasPrefix(m.Subject, s.v1+"config."))
}

// answer is the reply to a request, and false where none is due. A command that was accepted runs with ctx.
func (s *Service) answer(ctx context.Context, subject string, body []byte) ([]byte, bool) {
	var reply any
	due := true
	err := fmt.Errorf("a request has %d bytes at most", MaxRequestBytes)
	if len(body) <= MaxRequestBytes {
		if rest, ok := strings.CutPrefix(subject, s.v1); ok {
			reply, due, err = s.answer1(ctx, strings.Split(rest, "."), body)
		} else {
			reply, due, err = s.answer0(ctx, strings.Split(strings.TrimPrefix(subject, s.v0), "."), body)
		}
	}
	if err != nil {
		s.log.Debug("refused a control request", "subject", subject, "err", err)
		return s.refusal(subject, err), true
	}
	if raw, ok := reply.(noBody); ok || !due {
		return raw, due
	}
	return mustJSON(reply), true
}

// refusal is the answer to a request that is not accepted, in its version.
func (s *Service) refusal(subject string, err error) []byte {
	text := strings.ToValidUTF8(clip(err.Error(), maxErrorBytes), "")
	if strings.HasPrefix(subject, s.v1) {
		return mustJSON(reply1{Message: text})
	}
	return mustJSON(ack0{Error: text})
}

// A noBody is the answer of no bytes.
type noBody []byte

var errUnsupported = errors.New("unsupported subject")

// A listen is one subscription of a host.
type listen struct{ subject, queue string }

// listens are the subscriptions of a host. Those with a queue group are answered by one host of the lattice. What configures is heard by all hosts
// besides, since any of them may be asked next, or be who runs the actor.
func (s *Service) listens(host string) []listen {
	var all []listen
	plain := func(prefix string, rest ...string) {
		for _, r := range rest {
			all = append(all, listen{subject: prefix + r})
		}
	}
	shared := func(prefix, rest, group string) { all = append(all, listen{prefix + rest, prefix + group}) }
	plain(s.v0, "registries.put", "ping.hosts", "auction.>", "cmd."+host+".*", "get."+host+".inv", "labels."+host+".*")
	shared(s.v0, "linkdefs.*", "linkdefs")
	shared(s.v0, "get.*", "get")
	shared(s.v0, "config.>", "config")
	plain(s.v0, "config.>")
	shared(s.v0, "get.config.>", "get.config")
	plain(s.v1, "registry.put", "host.ping", "component.auction", "provider.auction")
	plain(s.v1, "component.*."+host, "provider.*."+host, "label.*."+host, "host.*."+host)
	shared(s.v1, "link.*", "link")
	shared(s.v1, "claims.get", "claims")
	shared(s.v1, "config.>", "config")
	plain(s.v1, "config.put.*", "config.del.*")
	return all
}
