package lattice

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Grant is what the claims of an actor allow it.
type Grant struct {
	// Contracts the actor may use. Nil in an unsigned actor, which may use
	// whatever it is linked to.
	Contracts []string
	// Signed says that Contracts is enforced.
	Signed bool
	// Alias is the call alias of the actor, or empty.
	Alias string
}

// Bus connects callers with the entities they call. Its methods may be called
// from any goroutine.
type Bus struct {
	telling  sync.Mutex // held while watchers are told, so that they hear of changes in order
	watchers map[*watcher]struct{}
	told     map[Entity]struct{} // what watchers know to be served; telling guards it

	mu        sync.RWMutex // guards what follows; never held during a call
	handlers  map[Entity]Handler
	builtin   map[string]Entity // contract id → the provider every actor may reach without a link
	links     map[linkKey]Link
	grants    map[string]Grant // by actor key
	aliases   aliases
	elsewhere elsewhere
	remote    Handler
	through   func(context.Context, Invocation, Handler) ([]byte, error)
	lattice   string // its name, for errors
}

// NewBus returns a Bus that serves nothing yet.
func NewBus() *Bus {
	return &Bus{
		watchers:  make(map[*watcher]struct{}),
		told:      make(map[Entity]struct{}),
		handlers:  make(map[Entity]Handler),
		builtin:   make(map[string]Entity),
		links:     make(map[linkKey]Link),
		grants:    make(map[string]Grant),
		aliases:   make(aliases),
		elsewhere: elsewhere{make(map[string]Grant), make(aliases)},
		lattice:   "default",
	}
}

// SetLattice gives the lattice its name, which is "default" otherwise. Guests
// see it in errors.
func (b *Bus) SetLattice(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lattice = name
}

// Handle lets h serve e until remove is called. It fails with ErrTaken if
// somebody serves e already.
func (b *Bus) Handle(e Entity, h Handler) (remove func(), err error) {
	b.telling.Lock()
	defer b.telling.Unlock()
	if b.handler(e) != nil {
		return nil, fmt.Errorf("serve %s: %w", e, ErrTaken)
	}
	b.setHandler(e, h)
	b.tell(e, true)
	var once sync.Once
	return func() { once.Do(func() { b.Remove(e) }) }, nil
}

// Replace lets h serve e from now on, whoever did before. Calls under way end
// where they began.
func (b *Bus) Replace(e Entity, h Handler) {
	b.telling.Lock()
	defer b.telling.Unlock()
	b.setHandler(e, h)
	b.tell(e, true)
}

// Prepare is Replace for a handler that makes its callers wait until it can serve: who
// is on this box reaches it, and watchers hear of it with the next Replace, so that
// nobody sends it what others could serve now.
func (b *Bus) Prepare(e Entity, h Handler) {
	b.telling.Lock()
	defer b.telling.Unlock()
	b.setHandler(e, h)
	b.tell(e, false)
}

// Remove stops serving e.
func (b *Bus) Remove(e Entity) {
	b.telling.Lock()
	defer b.telling.Unlock()
	b.setHandler(e, nil)
	b.tell(e, false)
}

// Serves says whether e is served here.
func (b *Bus) Serves(e Entity) bool { return b.handler(e) != nil }

func (b *Bus) handler(e Entity) Handler {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.handlers[e]
}

// setHandler lets h serve e, nil for nobody.
func (b *Bus) setHandler(e Entity, h Handler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h == nil {
		delete(b.handlers, e)
		return
	}
	b.handlers[e] = h
}

// tell tells the watchers whether e is served. Call it with b.telling held.
func (b *Bus) tell(e Entity, served bool) {
	if _, was := b.told[e]; was == served {
		return
	}
	if served {
		b.told[e] = struct{}{}
	} else {
		delete(b.told, e)
	}
	for w := range b.watchers {
		w.tell(e, served)
	}
}

// Builtin makes contract reachable for every actor without a link, through e.
func (b *Bus) Builtin(contract string, e Entity) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.builtin[contract] = e
}

// SetGrant says what the claims of an actor allow. An actor without a grant
// may call nothing. A call alias stays with the actor that claimed it first, for
// as long as that one claims it; see Conflicts.
func (b *Bus) SetGrant(actor string, g Grant) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.aliases.move(actor, b.grants[actor].Alias, g.Alias)
	b.grants[actor] = g
}

// DeleteGrant forgets the actor.
func (b *Bus) DeleteGrant(actor string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.aliases.move(actor, b.grants[actor].Alias, "")
	delete(b.grants, actor)
}

// Grant returns what SetGrant said; ok is false for an actor without a grant.
func (b *Bus) Grant(actor string) (g Grant, ok bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	g, ok = b.grants[actor]
	return g, ok
}

// PutLink makes l known, in place of a link with the same actor, contract and
// name.
func (b *Bus) PutLink(l Link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.links[l.key()] = l
}

// DeleteLink forgets the link with the actor, contract and name of l.
func (b *Bus) DeleteLink(l Link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.links, l.key())
}

// Link returns the link of an actor for a contract under a name; ok is false where
// there is none.
func (b *Bus) Link(actor, contract, name string) (l Link, ok bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	l, ok = b.links[linkKey{actor, contract, name}]
	return l, ok
}

// Links returns all links, ordered by actor, contract and name.
func (b *Bus) Links() []Link {
	b.mu.RLock()
	defer b.mu.RUnlock()
	links := make([]Link, 0, len(b.links))
	for _, l := range b.links {
		links = append(links, l)
	}
	slices.SortFunc(links, func(x, y Link) int {
		return compare(x.Actor, y.Actor, x.Contract, y.Contract, x.Name, y.Name)
	})
	return links
}

// compare orders by the first pair that differs.
func compare(pairs ...string) int {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] < pairs[i+1] {
			return -1
		} else if pairs[i] > pairs[i+1] {
			return 1
		}
	}
	return 0
}

// Call invokes inv.Operation of inv.Target and returns its answer: here, or by
// what SetRemote set where nobody serves the target here. It fails with
// ErrNoEntity if nobody does there either; any other error is the handler's.
func (b *Bus) Call(ctx context.Context, inv Invocation) ([]byte, error) {
	h, through, remote := b.serving(inv.Target)
	if h == nil && remote != nil {
		h, through = remote, nil
	}
	return call(ctx, inv, h, through)
}

// CallHere is Call for what came from elsewhere: it does not leave the box again.
func (b *Bus) CallHere(ctx context.Context, inv Invocation) ([]byte, error) {
	h, _, _ := b.serving(inv.Target)
	return call(ctx, inv, h, nil)
}

func (b *Bus) serving(e Entity) (h Handler, through func(context.Context, Invocation, Handler) ([]byte, error), remote Handler) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if h = b.handlers[e]; h == nil && e.Link != "" {
		// A provider that serves all its links alike registers without one.
		h = b.handlers[Entity{Key: e.Key}]
	}
	return h, b.through, b.remote
}

func call(ctx context.Context, inv Invocation, h Handler, through func(context.Context, Invocation, Handler) ([]byte, error)) ([]byte, error) {
	if h == nil {
		return nil, fmt.Errorf("call %s of %s: %w", inv.Operation, inv.Target, ErrNoEntity)
	}
	d := depth(ctx)
	if d >= MaxDepth {
		return nil, fmt.Errorf("call %s of %s: %w: at most %d", inv.Operation, inv.Target, ErrTooDeep, MaxDepth)
	}
	ctx = context.WithValue(ctx, depthKey{}, d+1)
	if through != nil {
		return through(ctx, inv, h)
	}
	return h(ctx, inv)
}

// MaxDepth bounds how deep local calls nest: each level holds an instance of
// an actor, and two actors that call each other would otherwise never end.
const MaxDepth = 16

type depthKey struct{}

func depth(ctx context.Context) int {
	d, _ := ctx.Value(depthKey{}).(int)
	return d
}

// HostCall is what a guest's __host_call becomes. It resolves namespace, and
// binding where that is a link name, for the actor in the order of classic
// wasmCloud hosts, but for a link that takes the place of a built-in contract, checks
// the actor's claims, and calls:
//
//  1. a link of the actor under the name binding, "" meaning "default",
//  2. a built-in contract, which needs no link,
//  3. the key of an actor, on this box or not,
//  4. the call alias of an actor.
//
// The contracts of 1 and 2 have to be in the claims of a signed actor; a call to
// an actor needs no claim.
//
// Errors: ErrNotGranted and ErrNoLink in the words of classic hosts, which guest
// libraries may look for; ErrNoEntity; what the target answered.
func (b *Bus) HostCall(ctx context.Context, actor, binding, namespace, operation string, payload []byte) ([]byte, error) {
	target, contract, err := b.resolve(actor, binding, namespace)
	if err != nil {
		return nil, fmt.Errorf("Invocation not authorized: %w", err) //nolint:staticcheck // the text classic hosts give
	}
	return b.Call(ctx, Invocation{
		Origin:    Entity{Key: actor},
		Target:    target,
		Contract:  contract,
		Operation: operation,
		Payload:   payload,
	})
}

func (b *Bus) resolve(actor, binding, namespace string) (target Entity, contract string, err error) {
	if binding == "" {
		binding = "default"
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	g, ok := b.grants[actor]
	if !ok {
		return Entity{}, "", fmt.Errorf("unknown actor %s", actor)
	}
	l, ok := b.links[linkKey{actor, namespace, binding}]
	if target = (Entity{Key: l.Provider, Link: l.Name}); !ok {
		target, ok = b.builtin[namespace]
	}
	switch {
	case ok && g.Signed && !slices.Contains(g.Contracts, namespace):
		return Entity{}, "", fmt.Errorf("%w for %s", ErrNotGranted, namespace)
	case ok:
		return target, namespace, nil
	}
	if _, here := b.grants[namespace]; here || isModuleKey(namespace) {
		return Entity{Key: namespace}, "", nil
	}
	if key := b.aliased(namespace); key != "" {
		return Entity{Key: key}, "", nil
	}
	return Entity{}, "", fmt.Errorf("%w for %s on %s", ErrNoLink, namespace, b.lattice)
}

// isModuleKey says whether s has the form of the key of a signed actor.
func isModuleKey(s string) bool { return len(s) == 56 && s[0] == 'M' }
