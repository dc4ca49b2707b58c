// Package httpserver is the built-in provider of wasmcloud:httpserver: HTTP
// requests from outside become calls of HttpServer.HandleRequest of the actors
// that are linked to it.
//
// A place is a link: an address, the hosts and routes on it that belong to one
// actor, and the limits of their requests. Places with the same address share a
// listener. Links are set all together, since two of them can want the same
// requests.
//
// What it promises. Each request is handled in a turn of its own, and its answer
// leaves when that is committed; a turn that fails, or whose answer is none that
// can be sent, changed nothing. A request that has arrived is buffered whole, so
// the actor may be called again where another turn came first. While an app is
// exchanged (Pause), its requests wait; a listener whose address stays is not
// closed.
//
// Who may listen where is decided before: by the device file (internal/config).
package httpserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/internal/httpsettings"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

const (
	// Contract is the capability contract served here.
	Contract = "wasmcloud:httpserver"
	// HandleRequest is the operation of an actor that gets requests.
	HandleRequest = "HttpServer.HandleRequest"
)

// Values of a link that are not those of classic wasmCloud.
const (
	// ValueName names the place: in addresses, logs and errors. Without it, that
	// is the actor and the name of the link.
	ValueName = "edged_name"
	// ValueApp is the app, for metrics.
	ValueApp = "edged_app"
)

// What Options.Call may return, to be answered with another status than 500.
var (
	// ErrTimeLimit: the actor did not answer within its time. 504.
	ErrTimeLimit = errors.New("no answer within the time of the actor")
	// ErrBusy: the actor can not be called now. 503.
	ErrBusy = errors.New("the actor can not be called now")
)

// Options are what New needs to know. Store and Call are required.
type Options struct {
	Store *store.DB
	// Call calls an actor.
	Call func(context.Context, lattice.Invocation) ([]byte, error)
	// Logger takes the log; nil discards it.
	Logger *slog.Logger
	// ActorName is what an actor is called in the log; nil for its key.
	ActorName func(key string) string
	// Failed is told of a request that failed, with the number that its answer may
	// have. It may leave the request to the log here (taken false), and says whether
	// the number is in its own. Nil leaves all.
	Failed func(f Failure) (taken, told bool)
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
	// MaxBuffered bounds the bodies of requests and answers in memory, in bytes,
	// beside the limit of each; 0 means 64 MiB.
	MaxBuffered int64
	// Changed is told when an address that could not be listened on can be, or the
	// other way round; nil for nobody. It must not call the provider's Run or
	// SetLinks.
	Changed func()
}

// Failure is a request that was not handled as it should be.
type Failure struct {
	ID     string // of the request, for its answer and the log
	Method string
	Path   string
	Status int // of the answer
	Err    error
}

// Listener is a place and where it is listened.
type Listener struct {
	Name  string // of the place
	Addr  string // what was bound; "" while it is not
	Error string // why not
}

// Provider serves HTTP. Build it with New; Run serves. Its methods may be called
// from any goroutine.
type Provider struct {
	o       Options
	log     *slog.Logger
	metrics *metrics
	bodies  *budget
	gates   gates
	noise   noise

	ready  chan struct{} // closed by Run, when every listener was tried
	wake   chan struct{} // a listener is to be tried again
	fronts sync.WaitGroup

	setting sync.Mutex      // one change at a time; guards pauses
	pauses  int             // changes of apps under way
	mu      sync.Mutex      // guards what follows; nothing else is locked under it
	base    context.Context // of requests; nil while Run does not run
	links   map[linkKey]lattice.Link
	places  map[string]*place    // by name
	open    map[string]*listener // by key of the places
	retired map[string]*listener // those that are not needed any more, while a change may be undone
}

type linkKey struct{ actor, name string }

// New makes a provider without links.
func New(o Options) *Provider {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ActorName == nil {
		o.ActorName = func(key string) string { return key }
	}
	if o.MaxBuffered <= 0 {
		o.MaxBuffered = 64 << 20
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return &Provider{
		o: o, log: o.Logger, metrics: newMetrics(o.Registerer), bodies: &budget{left: o.MaxBuffered},
		ready: make(chan struct{}), wake: make(chan struct{}, 1),
		links: make(map[linkKey]lattice.Link), places: make(map[string]*place),
		open: make(map[string]*listener), retired: make(map[string]*listener),
	}
}

// Contract is wasmcloud:httpserver.
func (p *Provider) Contract() string { return Contract }

// PutLink adds a link to those that are there. See SetLinks.
func (p *Provider) PutLink(ctx context.Context, l lattice.Link) error {
	return p.change(ctx, func(links map[linkKey]lattice.Link) { links[linkKey{l.Actor, l.Name}] = l })
}

// DeleteLink ends a link.
func (p *Provider) DeleteLink(ctx context.Context, l lattice.Link) error {
	return p.change(ctx, func(links map[linkKey]lattice.Link) { delete(links, linkKey{l.Actor, l.Name}) })
}

// SetLinks makes these the links, all or nothing: on an error what was there
// stays. While Run runs, an address that can not be listened on is an error;
// before it, that is tried by Run.
func (p *Provider) SetLinks(ctx context.Context, links []lattice.Link) error {
	return p.change(ctx, func(all map[linkKey]lattice.Link) {
		clear(all)
		for _, l := range links {
			all[linkKey{l.Actor, l.Name}] = l
		}
	})
}

// Call fails: actors are called, and call nothing.
func (p *Provider) Call(_ context.Context, inv lattice.Invocation) ([]byte, error) {
	return nil, providers.Fail("httpserver", providers.ErrFormat, fmt.Errorf("there is no operation %.200q: the contract calls the actor", inv.Operation))
}

// Pause keeps requests from actors that are about to change, and waits until
// those that are with them have ended. Until resume, links that are set are not
// served, so that nothing is seen of a change that is undone; resume lets the
// waiting requests through, to whoever they are for by then.
func (p *Provider) Pause(ctx context.Context, actors ...string) (resume func(), err error) {
	open, err := p.gates.close(ctx, actors)
	if err != nil {
		return nil, err
	}
	p.setting.Lock()
	p.pauses++
	p.setting.Unlock()
	return func() {
		p.setting.Lock()
		defer p.setting.Unlock()
		if p.pauses--; p.pauses == 0 {
			p.settle()
		}
		open()
	}, nil
}

// Listeners returns the places in the order of their names.
func (p *Provider) Listeners() []Listener {
	p.mu.Lock()
	var all []Listener
	var open []*listener // nil for none
	for _, name := range slices.Sorted(maps.Keys(p.places)) {
		all, open = append(all, Listener{Name: name}), append(open, p.open[p.places[name].Key()])
	}
	p.mu.Unlock() // a listener asks for it under its own
	for i, l := range open {
		if l != nil {
			all[i].Addr, all[i].Error = l.state()
		}
	}
	return all
}

// Ready is closed when Run has tried every address.
func (p *Provider) Ready() <-chan struct{} { return p.ready }

// stopGrace is how long requests may go on when Run ends.
const stopGrace = 1500 * time.Millisecond

const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 15 * time.Second
)

// Run serves until ctx ends, then lets the requests that are there end, for less
// than two seconds. An address that can not be listened on is tried again. A
// provider runs once.
func (p *Provider) Run(ctx context.Context) error {
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	p.setting.Lock()
	p.mu.Lock()
	p.base = base
	p.mu.Unlock()
	missing := p.bindAll(ctx)
	p.setting.Unlock()
	close(p.ready)
	pause := retryFirst
	for ctx.Err() == nil {
		var retry <-chan time.Time
		if missing {
			retry = time.After(pause)
		}
		select {
		case <-ctx.Done():
			continue
		case <-p.wake:
			pause = retryFirst
		case <-retry:
			pause = min(2*pause, retryMost)
		}
		p.setting.Lock()
		missing = p.bindAll(ctx)
		p.setting.Unlock()
	}
	p.shutdown(cancel)
	return nil
}

// bindAll tries every listener that has no address, and says whether some still
// have none. p.setting is held.
func (p *Provider) bindAll(ctx context.Context) (missing bool) {
	changed := false
	for _, l := range p.listeners() {
		if addr, before := l.state(); addr == "" {
			err := l.bind(ctx)
			missing = missing || err != nil
			changed = changed || err == nil || before == ""
			switch {
			case err != nil && before == "":
				p.log.Error("HTTP is not served, listening is tried again", "listen", l.listen, "err", err)
			case err == nil && before != "":
				p.log.Info("HTTP is served after all", "listen", l.listen)
			}
		}
	}
	if changed {
		p.o.Changed()
	}
	return missing
}

func (p *Provider) listeners() []*listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.open))
}

var errStopping = errors.New("the box is stopping")

func (p *Provider) shutdown(cancel context.CancelCauseFunc) {
	p.setting.Lock()
	defer p.setting.Unlock()
	p.mu.Lock()
	all := slices.AppendSeq(slices.Collect(maps.Values(p.open)), maps.Values(p.retired))
	p.mu.Unlock()
	for _, l := range all {
		l.retire()
	}
	grace := time.AfterFunc(stopGrace, func() { cancel(errStopping) })
	defer grace.Stop()
	p.fronts.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.base = nil // links that are set from here on are not served
}

// change makes other links the links.
func (p *Provider) change(ctx context.Context, edit func(map[linkKey]lattice.Link)) error {
	p.setting.Lock()
	defer p.setting.Unlock()
	p.mu.Lock()
	links, serving := maps.Clone(p.links), p.base != nil
	p.mu.Unlock()
	edit(links)
	places, err := p.placesOf(links)
	if err != nil {
		return err
	}
	opened, gone, err := p.prepare(ctx, places, serving)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.links, p.open, p.retired = links, opened, gone
	p.places = make(map[string]*place)
	for _, pl := range places {
		p.places[pl.Name] = pl
	}
	p.mu.Unlock()
	if p.pauses == 0 {
		p.settle()
	}
	return nil
}

// settle serves what was set. p.setting is held.
func (p *Provider) settle() {
	p.mu.Lock()
	opened, retired, places := p.open, p.retired, p.places
	p.retired = make(map[string]*listener)
	p.mu.Unlock()
	tables := make(map[string][]*place)
	for _, pl := range places {
		tables[pl.Key()] = append(tables[pl.Key()], pl)
	}
	for key, l := range opened {
		l.serve(tables[key])
	}
	for _, l := range retired {
		l.retire()
	}
	p.metrics.keep(places)
	p.rebind() // one that was taken back may have lost its address
}

// placesOf reads links, and checks them together.
func (p *Provider) placesOf(links map[linkKey]lattice.Link) ([]*place, error) {
	var places []*place
	var plain []httpsettings.Place
	for _, k := range slices.SortedFunc(maps.Keys(links), func(a, b linkKey) int {
		return slices.Compare([]string{a.actor, a.name}, []string{b.actor, b.name})
	}) {
		pl, err := p.placeOf(links[k])
		if err != nil {
			return nil, fmt.Errorf("link %s of actor %s to httpserver: %w", k.name, k.actor, err)
		}
		places, plain = append(places, pl), append(plain, pl.Place)
	}
	for _, c := range httpsettings.Conflicts(plain) {
		return nil, fmt.Errorf("httpserver: %s: %s", plain[c.Place].Name, c.Reason)
	}
	return places, nil
}

// prepare finds or opens the listeners of places, and returns those that are not
// needed any more.
func (p *Provider) prepare(ctx context.Context, places []*place, serving bool) (opened, gone map[string]*listener, err error) {
	opened = make(map[string]*listener)
	p.mu.Lock()
	gone = maps.Clone(p.open)
	maps.Copy(gone, p.retired)
	p.mu.Unlock()
	var fresh []*listener
	for _, pl := range places {
		key := pl.Key()
		if opened[key] != nil {
			continue
		}
		if l := gone[key]; l != nil {
			opened[key] = l
			delete(gone, key)
			continue
		}
		l := newListener(p, &pl.Settings)
		opened[key] = l
		fresh = append(fresh, l)
	}
	if !serving {
		return opened, gone, nil
	}
	for i, l := range fresh {
		for _, old := range gone { // both can not be bound
			if httpsettings.Overlap(old.listen, l.listen) {
				old.unbind()
			}
		}
		if err := l.bind(ctx); err != nil {
			for _, l := range fresh[:i] {
				l.retire()
			}
			p.rebind()
			return nil, nil, fmt.Errorf("httpserver: %w", err)
		}
	}
	return opened, gone, nil
}

// rebind has Run listen again where it was stopped for nothing.
func (p *Provider) rebind() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
