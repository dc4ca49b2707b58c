package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// HostCall does what an actor asks of the outside: the operation of a contract,
// or of another actor, under a link name (binding). It gets the context of the
// call that the actor is serving, which ends at the actor's time limit, and
// owns the payload. Its error becomes the text that the guest sees.
//
// It is called from many goroutines at once, but for one call to an actor by
// one at a time.
type HostCall func(ctx context.Context, actor, binding, namespace, operation string, payload []byte) ([]byte, error)

// Options of a Host.
type Options struct {
	// CacheDir keeps compiled code between starts. It is made, with mode 0700,
	// since what is in it will be executed, and not used where somebody else
	// can write; see Host.CacheFault. "" for none.
	CacheDir string
	// MaxCacheBytes bounds CacheDir; modules that were not loaded for the
	// longest time go first, and those that were not for 90 days in any case.
	// Default 256 MiB.
	MaxCacheBytes int64
	// Compiler is a command that calls Compile, with CacheDir as its last
	// argument. New modules are compiled by it, so that neither the time nor the
	// memory that takes, nor what a hostile one does to a compiler, is this
	// process's. Without it, or without CacheDir, they are compiled here.
	Compiler []string
	// Logger is required. Actors' output goes there with their identity.
	Logger *slog.Logger
	// Call is required.
	Call HostCall
	// Output takes what actors print: a line that one wrote to stdout, stderr or
	// the console, of at most 4 KiB, which is there until it returns. Nil has it
	// logged.
	Output func(ctx context.Context, actor string, level slog.Level, stream string, text []byte)
	// Cores is how many guests run at once that take longer than a moment. More
	// of them take turns. The program should set GOMAXPROCS to one more, so that
	// there is always a processor for what else there is to do. Default
	// GOMAXPROCS.
	Cores int
	// IdleInstance is how long an instance beyond Limits.MinInstances waits
	// for a call before it is closed. Default one minute.
	IdleInstance time.Duration
	// MemoryBytes is for the linear memory of all instances together. When it
	// is used up, idle instances of any actor are given up; what then still
	// does not fit is refused, a new instance with ErrHostMemory and a growth
	// as one beyond the actor's own limit is. Default no bound but the actors'.
	MemoryBytes uint64
}

// A Host loads actors. Its methods may be called concurrently.
type Host struct {
	log      *slog.Logger
	call     HostCall
	output   func(ctx context.Context, actor string, level slog.Level, stream string, text []byte)
	cache    *codeCache
	compiler []string
	idleFor  time.Duration

	compiling chan struct{} // one at a time: compiling takes memory and a core
	memory    budget
	waits     waits
	fair      *fair

	mu      sync.Mutex // guards what follows
	modules map[string]*module
	actors  map[*Actor]struct{}
	closed  bool
}

// New makes a host; it starts nothing.
func New(o Options) (*Host, error) {
	if o.Logger == nil || o.Call == nil {
		return nil, errors.New("runtime: Logger and Call are required")
	}
	if o.Output == nil {
		o.Output = func(ctx context.Context, actor string, level slog.Level, stream string, text []byte) {
			o.Logger.Log(ctx, level, "actor output", "actor", actor, "stream", stream, "text", string(text))
		}
	}
	if o.MaxCacheBytes <= 0 {
		o.MaxCacheBytes = 256 << 20
	}
	if o.Cores <= 0 {
		o.Cores = goruntime.GOMAXPROCS(0)
	}
	if o.IdleInstance <= 0 {
		o.IdleInstance = time.Minute
	}
	h := &Host{
		log: o.Logger, compiler: o.Compiler, call: o.Call, output: o.Output, idleFor: o.IdleInstance,
		cache:     newCodeCache(o.CacheDir, o.MaxCacheBytes, o.Logger),
		compiling: make(chan struct{}, 1), modules: map[string]*module{}, actors: map[*Actor]struct{}{},
		waits: waits{by: map[*instance]*pool{}}, fair: newFair(o.Cores),
	}
	h.memory = budget{limit: int64(min(o.MemoryBytes, math.MaxInt64)), reclaim: h.reclaim}
	return h, nil
}

// CacheFault says why the host does without Options.CacheDir; nil if it does
// not. Actors run all the same, after a compilation at each start.
func (h *Host) CacheFault() error { return h.cache.fault }

// NeedsCompiler says whether Load would have Options.Compiler compile wasm, which
// may take seconds: its code is not in the cache. What is no module needs none.
func (h *Host) NeedsCompiler(wasm []byte) bool {
	return checkHeader(wasm) == nil && h.needsCompiler(digestOf(wasm))
}

func (h *Host) needsCompiler(digest string) bool {
	return len(h.compiler) > 0 && h.cache.dir != "" && !h.cache.has(digest)
}

// Load makes an actor of a verified module: it compiles it, or finds it in the
// cache, and runs its initialisers once, so that a module that cannot start is
// refused here. The same bytes may be loaded many times, under one identity
// too; their code is shared.
//
// An error that is ErrModule is the module's own fault. A *TrapError is a trap
// in its initialisers.
func (h *Host) Load(ctx context.Context, identity string, wasm []byte, limits Limits) (*Actor, error) {
	a, err := h.load(ctx, identity, wasm, limits.withDefaults())
	if err != nil {
		return nil, loadError(identity, err)
	}
	return a, nil
}

func loadError(identity string, err error) error {
	if strings.HasPrefix(err.Error(), "actor "+identity+": ") {
		return fmt.Errorf("load %w", err)
	}
	return fmt.Errorf("load actor %s: %w", identity, err)
}

// Compile has Options.Compiler put code of wasm into the cache, so that Load finds it
// there, unless it is there already. Nothing of the module runs. Where there is no
// compiler or no cache it does nothing, and Load compiles. Its errors are those of Load.
func (h *Host) Compile(ctx context.Context, identity string, wasm []byte) error {
	if !h.NeedsCompiler(wasm) {
		return nil
	}
	select {
	case h.compiling <- struct{}{}:
		defer func() { <-h.compiling }()
	case <-ctx.Done():
		return loadError(identity, context.Cause(ctx))
	}
	if err := h.compileApart(ctx, digestOf(wasm), wasm); err != nil {
		return loadError(identity, err)
	}
	return nil
}

func (h *Host) load(ctx context.Context, identity string, wasm []byte, limits Limits) (*Actor, error) {
	m, err := h.acquire(ctx, wasm)
	if err != nil {
		return nil, err
	}
	if err := checkMemory(m, limits.MemoryBytes); err != nil {
		return nil, errors.Join(err, h.release(ctx, m))
	}
	a := &Actor{
		identity: identity, limits: limits, host: h, module: m,
		output: &guestLog{identity, h.output},
		pool:   newPool(limits.MinInstances, limits.MaxInstances, h.idleFor, &h.waits),
	}
	in, err := a.acquire(ctx, "start")
	if err != nil {
		return nil, errors.Join(err, h.release(ctx, m))
	}
	a.release(in)
	h.mu.Lock()
	closed := h.closed
	if !closed {
		h.actors[a] = struct{}{}
	}
	h.mu.Unlock()
	if closed {
		return nil, errors.Join(ErrClosed, a.Close(ctx))
	}
	return a, nil
}

// acquire returns the code of wasm with one more reference.
func (h *Host) acquire(ctx context.Context, wasm []byte) (*module, error) {
	select {
	case h.compiling <- struct{}{}:
		defer func() { <-h.compiling }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	digest := digestOf(wasm)
	h.mu.Lock()
	m, closed := h.modules[digest], h.closed
	if m != nil {
		m.refs++
	}
	h.mu.Unlock()
	switch {
	case closed:
		return nil, ErrClosed
	case m != nil:
		return m, nil
	}
	m, err := h.compile(ctx, digest, wasm)
	if err != nil {
		return nil, err
	}
	m.refs = 1
	h.mu.Lock()
	h.modules[digest] = m
	h.mu.Unlock()
	return m, nil
}

// release gives a reference back; the last one closes the module.
func (h *Host) release(ctx context.Context, m *module) error {
	h.mu.Lock()
	m.refs--
	last := m.refs == 0
	if last {
		delete(h.modules, m.digest)
	}
	h.mu.Unlock()
	if !last {
		return nil
	}
	return m.close(ctx)
}

func (h *Host) forget(a *Actor) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.actors, a)
}

// reclaim has idle instances give back n bytes, if there are any: those of the
// actors that hold the most first, and for an actor that has another instance not
// the last of any.
func (h *Host) reclaim(n int64, only bool) {
	h.mu.Lock()
	actors := slices.Collect(maps.Keys(h.actors))
	h.mu.Unlock()
	held := make(map[*Actor]int64, len(actors))
	for _, a := range actors {
		held[a] = a.memory.Load()
	}
	slices.SortFunc(actors, func(a, b *Actor) int { return cmp.Compare(held[b], held[a]) })
	keep := 1
	if only {
		keep = 0
	}
	for _, a := range actors {
		if n <= 0 {
			return
		}
		n -= a.pool.reclaim(n, keep)
	}
}

// Close closes all actors, waiting for their calls in progress, and refuses to
// load more. When ctx ends first, Close says so and can be called again.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	var actors []*Actor
	for a := range h.actors {
		actors = append(actors, a)
	}
	h.mu.Unlock()
	var errs []error
	for _, a := range actors {
		errs = append(errs, a.Close(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	h.fair.close()
	return nil
}
