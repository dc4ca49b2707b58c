package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/messaging"
	"github.com/edged-io/edged/providers/pubsub"
	"github.com/edged-io/edged/runtime"
	"github.com/edged-io/edged/store"
)

// actor is an actor of an app that runs.
type actor struct {
	config    config.Actor
	app       string
	version   string
	digest    string // of the module
	key       string // on the bus
	grant     lattice.Grant
	signed    claims.SignedModule // zero for an unsigned one
	commanded bool                // started by the control interface, and not by an app
	path      string              // of the module
	code      *code
	meter     *meter
	turns     *atomic.Uint64 // committed by this version

	failing atomic.Pointer[FailureStatus] // nil if the last call went well
	failed  atomic.Pointer[FailureStatus] // the last call that did not; nil for none
}

// policy is whose signatures count on this box.
func (n *Node) policy(admitted bool) (claims.Policy, error) {
	p := claims.Policy{}
	for _, s := range n.o.Device.Trust.Issuers {
		key, err := claims.Parse(s)
		if err != nil {
			return p, fmt.Errorf("trusted issuer %s: %w", s, err)
		}
		p.Issuers = append(p.Issuers, key)
	}
	p.AnyIssuer = n.o.Device.Trust.AllowUnsigned && len(p.Issuers) == 0
	if !admitted {
		p.Admission = n.o.Now()
	}
	return p, nil
}

// admitted is the space of what was let in once: a digest, without a value.
const admitted = "admitted"

// admit lets fn check something under the policy of the box. Dates are held
// against the clock only the first time; after that the box remembers, because
// no start may depend on the clock.
func (n *Node) admit(ctx context.Context, digest string, fn func(claims.Policy) error) error {
	return n.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		_, known, err := t.Get(admitted, digest)
		if err != nil {
			return err
		}
		p, err := n.policy(known)
		if err != nil {
			return err
		}
		if err := fn(p); err != nil || known {
			return err
		}
		return t.Put(admitted, digest, nil)
	})
}

// verifyApp checks the signature of an app, which has to be there unless the
// box allows unsigned ones.
func (n *Node) verifyApp(ctx context.Context, a *config.App) error {
	sig, err := claims.ReadSignature(a.Dir)
	if err != nil {
		return fmt.Errorf("app %s: %w", a.Name, err)
	}
	if sig == "" && n.o.Device.Trust.AllowUnsigned {
		return nil
	}
	return n.admit(ctx, "app:"+sha256Digest([]byte(sig)), func(p claims.Policy) error {
		s, err := claims.VerifyAppDir(a.Dir, p)
		switch {
		case errors.Is(err, claims.ErrUnsigned):
			return fmt.Errorf("app %s is not signed: sign it with edged sign, or set trust.allow_unsigned: %w", a.Name, err)
		case err != nil:
			return fmt.Errorf("app %s: %w", a.Name, err)
		case s.Name != a.Name:
			return fmt.Errorf("app %s: signed as %s: %w", a.Name, s.Name, claims.ErrSignature)
		}
		return nil
	})
}

// readActor makes an actor whose identity is verified, and returns its module, which
// is not loaded yet.
func (n *Node) readActor(ctx context.Context, app *config.App, c config.Actor) (a *actor, wasm []byte, err error) {
	path, err := n.code(ctx, app, c.Module, c.Ref)
	if err != nil {
		return nil, nil, err
	}
	wasm, digest, err := readModule(path)
	if err != nil {
		return nil, nil, err
	}
	a = &actor{
		config: c, app: app.Name, version: app.Version, path: path, digest: digest, key: app.Name + "/" + c.Name, commanded: app.Assembled,
		code: newCode(),
	}
	if a.commanded && c.Module != moduleFile(digest) {
		return nil, nil, fmt.Errorf("actor %s: its module in %s is damaged: stop it and start it again", c.Name, app.Dir)
	}
	if err := n.identify(ctx, a, wasm); err != nil {
		return nil, nil, fmt.Errorf("actor %s of app %s: %w", c.Name, app.Name, err)
	}
	if a.commanded && !a.isSigned() && !n.o.Device.Trust.AllowUnsigned {
		return nil, nil, fmt.Errorf("actor %s: set trust.allow_unsigned, or start a signed one: %w", c.Name, claims.ErrUnsigned)
	}
	return a, wasm, a.checkMandate(app)
}

// compile makes the code of the actors of an app that does not run yet, where it is
// not in the cache.
func (n *Node) compile(ctx context.Context, app *config.App) error {
	for _, c := range app.Actors {
		a, wasm, err := n.readActor(ctx, app, c)
		if err != nil {
			return err
		}
		if err := n.runtime.Compile(ctx, a.key, wasm); err != nil {
			return fmt.Errorf("actor %s of app %s: %w", c.Name, app.Name, err)
		}
	}
	return nil
}

// startActor makes an actor, loads its module and asks for its health. Nobody can
// call it yet. At boot code that is not in the cache is left for runCompiling.
func (n *Node) startActor(ctx context.Context, app *config.App, c config.Actor) (*actor, error) {
	a, wasm, err := n.readActor(ctx, app, c)
	if err != nil {
		return nil, err
	}
	if err := n.permitActor(ctx, a); err != nil {
		return nil, fmt.Errorf("actor %s of app %s: %w", c.Name, app.Name, err)
	}
	a.meter = n.meterNamed(a.key, a.title())
	if n.booting && n.runtime.NeedsCompiler(wasm) {
		n.late = append(n.late, a)
		n.compiles.Store(true)
		return a, nil
	}
	return a, n.load(ctx, a, wasm)
}

// load gives an actor its code, which is well.
func (n *Node) load(ctx context.Context, a *actor, wasm []byte) error {
	l := a.config.Limits
	m, err := n.runtime.Load(ctx, a.key, wasm, runtime.Limits{
		MemoryBytes: uint64(l.Memory), Time: l.Time, Steps: uint64(l.Steps),
		MinInstances: l.MinInstances, MaxInstances: l.Instances, CallsPerInstance: l.InstanceCalls,
	})
	if err != nil {
		return fmt.Errorf("actor %s of app %s: %w", a.config.Name, a.app, err)
	}
	if err := m.Healthy(ctx); err != nil {
		return errors.Join(fmt.Errorf("actor %s of app %s: health check: %w", a.config.Name, a.app, err), m.Close(ctx))
	}
	a.turns = n.health.turns(a.app, a.config.Name, a.version)
	a.meter.begin(m)
	if !a.code.put(m) {
		err := m.Close(ctx)
		a.meter.end(m)
		return err
	}
	return nil
}

func readModule(path string) (wasm []byte, digest string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", err
	}
	if info.Size() > claims.MaxModule {
		return nil, "", fmt.Errorf("module %s: %d bytes, at most %d", path, info.Size(), claims.MaxModule)
	}
	if wasm, err = os.ReadFile(path); err != nil {
		return nil, "", err
	}
	return wasm, sha256Digest(wasm), nil
}

// identify gives the actor the identity of its claims. A module without claims
// is known by its place; the signature of its app, or allow_unsigned, lets it
// in. The signature of an app is none over what a tag names.
func (n *Node) identify(ctx context.Context, a *actor, wasm []byte) error {
	if !bytes.HasPrefix(wasm, []byte("\x00asm")) {
		return nil // what it is instead is told better by the runtime
	}
	if _, err := claims.Extract(wasm); errors.Is(err, claims.ErrUnsigned) {
		if ref := a.config.Ref; ref != "" && !oci.Pinned(ref) && !n.o.Device.Trust.AllowUnsigned {
			return fmt.Errorf("%s: sign the module, or name it by its digest, which the signature of the app covers: %w", ref, err)
		}
		return nil
	} else if err != nil {
		return err
	}
	return n.admit(ctx, "module:"+a.digest, func(p claims.Policy) error {
		m, err := claims.VerifyModule(wasm, p)
		if err != nil {
			return err
		}
		a.key, a.signed = m.Key.String(), m
		a.grant = lattice.Grant{Signed: true, Contracts: slices.Clone(m.Caps), Alias: m.CallAlias}
		return nil
	})
}

// isSigned says whether the actor has claims.
func (a *actor) isSigned() bool { return a.signed.Key != (claims.Key{}) }

// serve returns the actor's handler on the bus. Whoever serves a message when an
// app changes, it is this version that gets the credit, or the blame.
func (n *Node) serve(a *actor) lattice.Handler {
	return func(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
		if err := a.meter.admit(ctx); err != nil {
			return nil, fmt.Errorf("actor %s: %s: %w", a.key, inv.Operation, err)
		}
		defer a.meter.done()
		t := store.TurnFrom(ctx)
		if t != nil {
			t.Bound()
		}
		outside := inv.Origin == (lattice.Entity{})
		ctx, missing := n.withMissing(ctx)
		m, err := a.code.await(ctx, n.maxAwait)
		if errors.Is(err, errBusy) {
			missing.note()
			return nil, fmt.Errorf("actor %s: %s: %w", a.key, inv.Operation, err)
		}
		var reply []byte
		if err == nil {
			reply, err = m.Call(ctx, inv.Operation, inv.Payload)
		}
		if errors.Is(err, runtime.ErrClosed) { // nothing was tried, and another version may be there by now
			if next := n.health.actor(a.key); next != nil && next.code != a.code {
				return n.serve(next)(ctx, inv)
			}
		}
		if errors.Is(err, runtime.ErrHostMemory) { // nothing was tried
			err = fmt.Errorf("%w: %w", err, errBusy)
		}
		if err != nil {
			err = n.blame(a, inv.Operation, missing.excuse(err))
			if !outside {
				n.failures.nested(ctx, n.actorTitle(inv.Origin.Key), err)
			}
			return nil, err
		}
		a.succeeded()
		if t != nil && outside {
			t.AfterCommit(func() { a.turns.Add(1) })
		}
		return reply, nil
	}
}

// deliver hands messages to an operation of the actor with that key, in the
// turn of ctx, and does what it answers.
func (n *Node) deliver(key, operation string) func(context.Context, broker.Message, int) error {
	return func(ctx context.Context, m broker.Message, _ int) error {
		ctx, missing := n.withMissing(withHandled(ctx, m))
		reply, err := n.bus.Call(ctx, lattice.Invocation{
			Target: lattice.Entity{Key: key}, Operation: operation,
			Payload: pubsub.AppendEvent(nil, n.pubsub.Event(m)),
		})
		if err != nil {
			return err
		}
		v, err := pubsub.DecodeVerdict(reply)
		if err != nil {
			return n.blameKey(key, operation, err, "")
		}
		if err := act(v); err != nil {
			if v.Action == "retry" {
				err = missing.excuse(err)
			}
			return n.blameKey(key, operation, err, v.Action)
		}
		return nil
	}
}

// deliverMessage hands messages to the actor with that key by the contract
// wasmcloud:messaging, in the turn of ctx. The contract has no answer but an
// error.
func (n *Node) deliverMessage(key string) func(context.Context, broker.Message, int) error {
	return func(ctx context.Context, m broker.Message, _ int) error {
		return n.handleMessage(withHandled(ctx, m), key, messaging.Of(m))
	}
}

func (n *Node) handleMessage(ctx context.Context, key string, m messaging.Message) error {
	_, err := n.bus.Call(ctx, lattice.Invocation{
		Target: lattice.Entity{Key: key}, Operation: messaging.HandleMessage, Payload: messaging.AppendMessage(nil, m),
	})
	return err
}

// blameKey is blame for what the actor with that key answered: nonsense, or, by
// verdict, that a message is not for it, now or ever.
func (n *Node) blameKey(key, operation string, err error, verdict string) error {
	for _, a := range n.health.actors() {
		switch {
		case a.key != key:
		case verdict == "":
			return n.blame(a, operation, err)
		default:
			b := &blamed{cause: err, actor: a, operation: operation, verdict: verdict}
			b.tell = verdict == "reject" && n.failures.first(b.kind())
			return b
		}
	}
	return err
}

// act does what an actor answered.
func act(v pubsub.Verdict) error {
	switch v.Action {
	case "retry":
		if v.After > 0 {
			return broker.RetryAfter(v.After)
		}
		return errors.New("the actor asked for another attempt")
	case "reject":
		return broker.Reject(v.Reason)
	}
	return nil
}
