package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/runtime"
)

// code is what an actor runs. It is there before anybody can call the actor, but for
// an actor that was there when the box started and whose code was not in the cache:
// that one is compiled while the box serves, see runCompiling.
type code struct {
	runs atomic.Pointer[runtime.Actor] // nil before it is there

	mu     sync.Mutex    // guards closed, and the closing of done
	closed bool          // nobody is to call the actor any more
	done   chan struct{} // closed when runs is there, or closed is true
}

func newCode() *code { return &code{done: make(chan struct{})} }

// put is what the actor runs from now on. It returns false if nobody wants it any
// more.
func (c *code) put(m *runtime.Actor) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.runs.Store(m)
	close(c.done)
	return true
}

// close ends the code, once calls under way have ended. It may be called twice.
func (c *code) close(ctx context.Context) error {
	c.mu.Lock()
	m := c.runs.Load()
	if m == nil && !c.closed {
		close(c.done)
	}
	c.closed = true
	c.mu.Unlock()
	if m == nil {
		return nil
	}
	return m.Close(ctx)
}

// isClosed says whether nobody is to call the actor any more.
func (c *code) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// maxAwait is how long a call usually waits for code that is being compiled: longer
// than most of it takes.
const maxAwait = 10 * time.Second

// await returns the code, or runtime.ErrClosed if there will be none. A call that
// does not wait long enough is errBusy: for a message it is no attempt. It waits for
// half of the time that its caller has, so that one that is an actor gets the error,
// and is not ended for its time; and for most.
func (c *code) await(ctx context.Context, most time.Duration) (*runtime.Actor, error) {
	if m := c.runs.Load(); m != nil {
		return m, nil
	}
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end)/2)
	}
	enough := time.NewTimer(most)
	defer enough.Stop()
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("its code is being compiled: %w: %w", errBusy, context.Cause(ctx))
	case <-enough.C:
		return nil, fmt.Errorf("its code is being compiled: %w", errBusy)
	}
	if m := c.runs.Load(); m != nil {
		return m, nil
	}
	return nil, runtime.ErrClosed
}

// missing notes whether a call, or one that is made in it, met code that is being
// compiled. A nil one notes nothing.
type missing struct{ noted atomic.Bool }

type missingKey struct{}

// withMissing returns the missing of ctx, or a context with one; nil once all code is
// there.
func (n *Node) withMissing(ctx context.Context) (context.Context, *missing) {
	if !n.compiles.Load() {
		return ctx, nil
	}
	if m, ok := ctx.Value(missingKey{}).(*missing); ok {
		return ctx, m
	}
	m := new(missing)
	return context.WithValue(ctx, missingKey{}, m), m
}

func (m *missing) note() {
	if m != nil {
		m.noted.Store(true)
	}
}

// excuse makes err errBusy if code was missing: guests know only the text of what
// another actor answered, and none of them is to blame.
func (m *missing) excuse(err error) error {
	if m == nil || !m.noted.Load() {
		return err
	}
	return fmt.Errorf("%w: %w", err, errBusy)
}

// isCompiling says whether some of the code of an app is not there yet.
func (a *app) isCompiling() bool {
	return slices.ContainsFunc(a.actors, func(b *actor) bool { return b.code.runs.Load() == nil })
}

// hasCode says whether the code of one of its actors is there.
func (a *app) hasCode(name string) bool {
	return slices.ContainsFunc(a.actors, func(b *actor) bool { return b.config.Name == name && b.code.runs.Load() != nil })
}

// rests says whether a subscription keeps its messages until the code of its apps is
// there; those of QoS 0 wait that way, too. A queue whose other receivers have theirs
// is served.
func (s appSet) rests(sub *subscription) bool {
	return sub.Deliver != nil && !slices.ContainsFunc(sub.apps, func(name string) bool { return !s[name].isCompiling() })
}

// wakeCompiled hands out the messages of the apps of an actor that has its code now, and
// lets it have its share of what comes from elsewhere.
func (n *Node) wakeCompiled(ctx context.Context, a *actor) error {
	if err := n.apply.LockContext(ctx); err != nil {
		return err
	}
	defer n.apply.Unlock()
	if slices.Contains(n.apps.actors(), a) {
		n.bus.Replace(lattice.Entity{Key: a.key}, n.serve(a))
	}
	n.setCore(n.apps)
	_, subs, err := n.wanted(n.apps)
	if err != nil {
		return err
	}
	for _, sub := range subs {
		its := slices.ContainsFunc(sub.apps, func(name string) bool {
			return slices.Contains(n.apps[name].actors, a) && !n.apps[name].isCompiling()
		})
		if its {
			err = errors.Join(err, n.broker.Resume(sub.Name, nil))
		}
	}
	return err
}

// How long after a compiler was killed it is tried again, when memory may be free:
// longer each time, since it takes what others could use.
const (
	compileAgainMin = 10 * time.Second
	compileAgainMax = 10 * time.Minute
)

// compiling is what is told of an actor without code, and where.
func (a *actor) compiling() (part, name string) { return "actor", a.app + "/" + a.config.Name }

// tellCompiling tells which actors have no code yet.
func (n *Node) tellCompiling(late []*actor, of int) {
	for i, a := range late {
		if a.code.isClosed() { // its app was changed
			continue
		}
		part, name := a.compiling()
		n.health.degrade(part, name, fmt.Errorf("its code is not in the cache and is compiled now, as number %d of %d; its messages wait", of-len(late)+1+i, of))
	}
}

// runCompiling compiles what was not in the cache at boot, one module after the
// other. Meanwhile the box serves, and streams take what comes for these actors.
func (n *Node) runCompiling(ctx context.Context) error {
	late := n.late // written at boot, before this runs
	n.late = nil   // what is replaced later is not to be kept
	if len(late) > 0 {
		n.log.Info("actors that are not in the cache are compiled while the box serves", "actors", len(late))
	}
	for pause := n.compileAgain; len(late) > 0; pause = min(2*pause, compileAgainMax) {
		late = n.compileAll(ctx, late)
		if len(late) == 0 {
			break
		}
		for _, a := range late {
			n.log.Warn("actor is compiled later", "app", a.app, "actor", a.key, "in", pause.String())
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
	if ctx.Err() == nil {
		n.compiles.Store(false)
	}
	<-ctx.Done()
	return nil
}

// compileAll returns those for which there was not enough memory.
func (n *Node) compileAll(ctx context.Context, late []*actor) (again []*actor) {
	for i, a := range late {
		n.tellCompiling(late[i:], len(late))
		began := time.Now()
		err := n.compileLate(ctx, a)
		if err == nil {
			err = n.wakeCompiled(ctx, a)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case a.code.isClosed(): // its app was changed
		case errors.Is(err, runtime.ErrCompilerKilled):
			part, name := a.compiling()
			n.health.degrade(part, name, fmt.Errorf("%w. It is tried again, and its messages wait", err))
			again = append(again, a)
			continue
		case err != nil:
			n.dropLate(ctx, a, err)
		default:
			n.log.Info("actor compiled", "app", a.app, "actor", a.key, "took", time.Since(began).Round(time.Millisecond).String())
		}
		n.health.recover(a.compiling())
	}
	return again
}

// compileLate gives an actor its code, unless nobody wants it any more.
func (n *Node) compileLate(ctx context.Context, a *actor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-a.code.done: // it was replaced, or has it
			cancel()
		case <-ctx.Done():
		}
	}()
	wasm, digest, err := readModule(a.path)
	if err == nil && digest != a.digest {
		err = fmt.Errorf("module %s was changed since the box started; edged reload runs what is there now", a.path)
	}
	if err == nil {
		err = n.load(ctx, a, wasm)
	}
	select {
	case <-a.code.done:
		return nil
	default:
		return err
	}
}

// dropLate leaves out the app of an actor that has no code after all, as it would
// have been at boot: what it has on disk stays.
func (n *Node) dropLate(ctx context.Context, a *actor, why error) {
	n.apply.Lock()
	defer n.apply.Unlock()
	next := maps.Clone(n.apps)
	maps.DeleteFunc(next, func(_ string, b *app) bool { return slices.Contains(b.actors, a) })
	for name, out := range n.apps {
		if next[name] == nil { // nobody has changed it meanwhile
			err := a.code.close(ctx) // who waits for it waits no longer
			n.leaveOut(out.config, errors.Join(why, err, n.swap(ctx, next, func(appSet, appSet, onDisk) {})))
			return
		}
	}
}
