package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/policy"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/providers/child"
)

// openGuard makes what asks the policy service, if the device file names one or rules.
func (n *Node) openGuard() (err error) {
	p := n.o.Device.Policy
	if !p.On() {
		return nil
	}
	o := policy.Options{Timeout: p.Timeout, Host: n.policyHost, File: filepath.Join(n.stateDir, "policy.json"), Logger: n.part("policy"), Now: n.o.Now}
	if p.Topic != "" {
		o.Ask = n.askPolicy
	}
	if p.Rules != "" {
		if o.Rules, err = config.LoadRules(p.Rules); err != nil {
			return err
		}
	}
	n.guard, err = policy.New(o)
	return err
}

// policyHost is the box, as a policy service is told.
func (n *Node) policyHost() policy.Host {
	h := policy.Host{
		Key: n.identity.host.Key().String(), Issuer: n.identity.cluster.Key().String(), Lattice: n.o.Device.Lattice.Name, Labels: n.held().labels(n.o.Device.Device.Labels),
		Issuers: []string{n.identity.cluster.Key().String()},
	}
	maps.Copy(h.Labels, platform())
	for _, k := range n.identity.issuers {
		h.Issuers = append(h.Issuers, k.String())
	}
	return h
}

// askPolicy sends a request. Before the broker serves there is nobody to ask, and no start waits for that.
func (n *Node) askPolicy(ctx context.Context, request []byte) ([]byte, error) {
	if n.link.Status() != nats.CONNECTED {
		return nil, fmt.Errorf("%w: the box is not in the lattice yet", policy.ErrUnanswered)
	}
	m, err := n.link.RequestWithContext(ctx, n.o.Device.Policy.Topic, request)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", policy.ErrUnanswered, n.o.Device.Policy.Topic, err)
	}
	return m.Data, nil
}

// runGuard takes changes of answers.
func (n *Node) runGuard(ctx context.Context) error {
	if topic := n.o.Device.Policy.ChangesTopic; topic != "" {
		sub, err := n.link.Subscribe(topic, func(m *nats.Msg) {
			reply := n.guard.Change(m.Data)
			if m.Reply == "" {
				return
			}
			if err := m.Respond(reply); err != nil {
				n.log.Warn("answer not sent", "part", "policy", "subject", m.Subject, "err", err)
			}
		})
		if err != nil {
			return err
		}
		defer func() { _ = sub.Unsubscribe() }() // the connection ends too
	}
	<-ctx.Done()
	return nil
}

// permitActor asks whether an actor may start.
func (n *Node) permitActor(ctx context.Context, a *actor) error {
	if n.guard == nil {
		return nil
	}
	return n.guard.Allow(ctx, policy.StartActor, policy.Source{}, policy.Target{Key: a.key, Issuer: issuerOf(a)})
}

// issuerOf is who signed an actor, "" for nobody.
func issuerOf(a *actor) string {
	if a.signed.Issuer == (claims.Key{}) {
		return ""
	}
	return a.signed.Issuer.String()
}

// permitProvider asks whether a provider may start.
func (n *Node) permitProvider(ctx context.Context, s child.Spec, issuer string) error {
	if n.guard == nil {
		return nil
	}
	return n.guard.Allow(ctx, policy.StartProvider, policy.Source{}, policy.Target{Key: s.Key, Issuer: issuer, Contract: s.Contract, LinkName: s.LinkName})
}

// errUnknownCaller says that the lattice does not know who calls.
var errUnknownCaller = errors.New("nothing is known of the caller")

// permitCall asks whether an actor here may handle what came over the lattice.
func (n *Node) permitCall(ctx context.Context, inv *wire.Invocation) error {
	if n.guard == nil {
		return nil
	}
	target := policy.Target{Key: inv.Target.Key}
	for _, a := range n.health.actors() {
		if a.key == inv.Target.Key {
			target.Issuer = issuerOf(a)
		}
	}
	source, ok := n.callerOf(inv)
	if !ok {
		return fmt.Errorf("%w: %w: %.60q", policy.ErrDenied, errUnknownCaller, inv.Origin.Key)
	}
	return n.guard.Allow(ctx, policy.PerformInvocation, source, target)
}

// callerOf is what is known of who calls: an actor or a provider of this box, or one whose claims are known in the lattice.
func (n *Node) callerOf(inv *wire.Invocation) (s policy.Source, ok bool) {
	o := inv.Origin
	s = policy.Source{Key: o.Key, Contract: o.Contract, LinkName: o.Link}
	for _, a := range n.health.actors() {
		if a.key == o.Key {
			s.Capabilities, s.Issuer, s.Issued, s.Expires = a.signed.Caps, issuerOf(a), a.signed.IssuedAt, a.signed.Expires
			return s, true
		}
	}
	for _, p := range n.processes.Running() {
		if p.Key == o.Key {
			s.Issuer = p.Issuer
			return s, true
		}
	}
	for _, c := range n.metadata.Claims() {
		if c.Subject == o.Key {
			s.Capabilities, s.Issuer = c.Caps, c.Issuer
			return s, true
		}
	}
	return s, false
}
