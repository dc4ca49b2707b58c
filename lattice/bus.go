package lattice

import (
	"context"
	"errors"
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
	mu       sync.RWMutex // guards what follows; never held during a call
	handlers map[Entity]Handler
	builtin  map[string]Entity // contract id → the provider every actor may reach without a link
	links    map[linkKey]Link
	grants   map[string]Grant // by actor key
	aliases  map[string]string
}

// NewBus returns a Bus that serves nothing yet.
func NewBus() *Bus {
	return &Bus{
		handlers: make(map[Entity]Handler),
		builtin:  make(map[string]Entity),
		links:    make(map[linkKey]Link),
		grants:   make(map[string]Grant),
		aliases:  make(map[string]string),
	}
}

// Handle lets h serve e until remove is called. It fails with ErrTaken if
// somebody serves e already.
func (b *Bus) Handle(e Entity, h Handler) (remove func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.handlers[e]; ok {
		return nil, fmt.Errorf("serve %s: %w", e, ErrTaken)
	}
	b.handlers[e] = h
	var once sync.Once
	return func() {
		once.Do(func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.handlers, e)
		})
	}, nil
}

// Replace lets h serve e from now on, whoever did before. Calls under way end
// where they began.
func (b *Bus) Replace(e Entity, h Handler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handlers[e] = h
}

// Remove stops serving e.
func (b *Bus) Remove(e Entity) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.handlers, e)
}

// Builtin makes contract reachable for every actor without a link, through e.
func (b *Bus) Builtin(contract string, e Entity) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.builtin[contract] = e
}

// SetGrant says what the claims of an actor allow. An actor without a grant
// may call nothing.
func (b *Bus) SetGrant(actor string, g Grant) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropAlias(actor)
	b.grants[actor] = g
	if g.Alias != "" {
		b.aliases[g.Alias] = actor
	}
}

// DeleteGrant forgets the actor.
func (b *Bus) DeleteGrant(actor string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropAlias(actor)
	delete(b.grants, actor)
}

func (b *Bus) dropAlias(actor string) {
	if g, ok := b.grants[actor]; ok && g.Alias != "" && b.aliases[g.Alias] == actor {
		delete(b.aliases, g.Alias)
	}
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

// Call invokes inv.Operation of inv.Target and returns its answer. It fails
// with ErrNoEntity if nobody serves the target; any other error is the
// handler's.
func (b *Bus) Call(ctx context.Context, inv Invocation) ([]byte, error) {
	b.mu.RLock()
	h := b.handlers[inv.Target]
	if h == nil && inv.Target.Link != "" {
		// A provider that serves all its links alike registers without one.
		h = b.handlers[Entity{Key: inv.Target.Key}]
	}
	b.mu.RUnlock()
	if h == nil {
		return nil, fmt.Errorf("call %s of %s: %w", inv.Operation, inv.Target, ErrNoEntity)
	}
	if d := depth(ctx); d >= MaxDepth {
		return nil, fmt.Errorf("call %s of %s: %w: at most %d", inv.Operation, inv.Target, ErrTooDeep, MaxDepth)
	} else {
		ctx = context.WithValue(ctx, depthKey{}, d+1)
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

// HostCall is what a guest's __host_call becomes. It resolves binding and
// namespace for the actor in the order of classic wasmCloud hosts (a built-in
// contract, a link, an actor key, a call alias), checks the actor's claims,
// and calls.
func (b *Bus) HostCall(ctx context.Context, actor, binding, namespace, operation string, payload []byte) ([]byte, error) {
	target, contract, err := b.resolve(actor, binding, namespace)
	if err != nil {
		return nil, fmt.Errorf("Invocation not authorized: %w for %s", err, namespace) //nolint:staticcheck // the text classic hosts give
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
		return Entity{}, "", errors.New("unknown actor")
	}
	granted := !g.Signed || slices.Contains(g.Contracts, namespace)
	if e, ok := b.builtin[namespace]; ok {
		if !granted {
			return Entity{}, "", ErrNotGranted
		}
		return e, namespace, nil
	}
	if l, ok := b.links[linkKey{actor, namespace, binding}]; ok {
		if !granted {
			return Entity{}, "", ErrNotGranted
		}
		return Entity{Key: l.Provider, Link: l.Name}, namespace, nil
	}
	if _, ok := b.grants[namespace]; ok {
		return Entity{Key: namespace}, "", nil
	}
	if key, ok := b.aliases[namespace]; ok {
		return Entity{Key: key}, "", nil
	}
	return Entity{}, "", ErrNoLink
}
