// Package httpclient is the capability provider by which actors ask servers on the
// network, contract "wasmcloud:httpclient".
//
// It fails closed. A link lists the URLs that its actor may ask for, and nothing is
// allowed without a list; the box has a bound of its own for all actors, which keeps
// them from its networks, from itself and from the metadata service of a cloud. Both
// are held again at each redirect, and the bound at each connection, against the
// address that is dialled: what a name was looked up as before is of no account.
//
// A request acts at once. Before one that is more than a question (GET, HEAD,
// OPTIONS) the turn becomes irrevocable, so that only a failure of its own can have it
// run again; and it carries an Idempotency-Key that is the same then, for servers that
// recognise repeats.
//
// What an actor gets to know of a failure is what it needs to act, and nothing of the
// network that the box is in.
package httpclient

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/internal/outbound"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

// Contract is the capability contract id.
const Contract = "wasmcloud:httpclient"

// Request is the operation.
const Request = "HttpClient.Request"

// space holds the box's part of idempotency keys in the store, under its only key.
const (
	space = "httpclient"
	boxID = "box"
)

var _ providers.Provider = (*Provider)(nil)

// Store is what the provider needs of store.DB.
type Store interface {
	Do(ctx context.Context, fn func(ctx context.Context, t *store.Turn) error) error
}

// Options are what a Provider is made from. Store must be there.
type Options struct {
	Store Store
	// Bound is what actors may reach at all.
	Bound outbound.Bound
	// Proxy is the HTTP proxy that all requests go through, nil for none. It is not
	// held against Bound. A proxy looks names up itself, so the addresses behind them
	// are for it to bound.
	Proxy *url.URL
	// CA has certificates of authorities beside those of the system, in PEM; nil for
	// none.
	CA []byte
	// Handled names the message that is handled under a context, the same in each
	// attempt; "" for none, and nil for never.
	Handled func(context.Context) string
	// ActorName is what an actor is called in the log; nil for its key.
	ActorName  func(key string) string
	Resolver   *net.Resolver // nil for that of the system
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Provider is the HTTP client. Its methods may be called from any goroutine.
type Provider struct {
	o        Options
	log      *slog.Logger
	requests *prometheus.CounterVec
	memory   budget

	mu    sync.Mutex // guards what follows
	box   string     // unique to the store; "" until the first link
	links map[linkID]*link
}

type linkID struct{ actor, name string }

// New returns a provider with no links.
func New(o Options) (*Provider, error) {
	if o.Store == nil {
		return nil, errors.New("httpclient: Store must be there")
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.Resolver = cmp.Or(o.Resolver, net.DefaultResolver)
	if o.ActorName == nil {
		o.ActorName = func(key string) string { return key }
	}
	if o.Handled == nil {
		o.Handled = func(context.Context) string { return "" }
	}
	if len(o.CA) > 0 {
		if _, err := authorities(o.CA); err != nil {
			return nil, fmt.Errorf("httpclient: %w", err)
		}
	}
	p := &Provider{
		o: o, log: o.Logger, links: make(map[linkID]*link), memory: newBudget(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edged_httpclient_requests_total", Help: "HTTP requests of actors, by how they ended.",
		}, []string{"result"}),
	}
	for _, result := range results {
		p.requests.WithLabelValues(result)
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(p.requests); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Contract is "wasmcloud:httpclient".
func (p *Provider) Contract() string { return Contract }

// PutLink takes what an actor may ask for; see ValueAllow and its like for what
// l.Values holds. One that is there already keeps its connections, unless it has
// authorities of its own, whose file may be another now.
func (p *Provider) PutLink(ctx context.Context, l lattice.Link) error {
	if had, _ := p.find(linkID{l.Actor, l.Name}); had != nil && had.ca == "" && maps.Equal(had.values, l.Values) {
		return nil
	}
	s, err := readValues(l.Values)
	if err == nil {
		err = p.identify(ctx)
	}
	if err != nil {
		return fmt.Errorf("httpclient link %s of %s: %w", l.Name, l.Actor, err)
	}
	made, err := p.newLink(s)
	if err != nil {
		return fmt.Errorf("httpclient link %s of %s: %w", l.Name, l.Actor, err)
	}
	made.values = maps.Clone(l.Values)
	p.swap(linkID{l.Actor, l.Name}, made)
	return nil
}

// DeleteLink ends what PutLink began. Requests under way end by themselves.
func (p *Provider) DeleteLink(_ context.Context, l lattice.Link) error {
	p.swap(linkID{l.Actor, l.Name}, nil)
	return nil
}

// swap makes l the link of that id, nil for none.
func (p *Provider) swap(id linkID, l *link) {
	p.mu.Lock()
	old := p.links[id]
	if l == nil {
		delete(p.links, id)
	} else {
		p.links[id] = l
	}
	p.mu.Unlock()
	if old != nil {
		old.transport.CloseIdleConnections()
	}
}

// identify reads what makes the keys of this box its own, or makes it up: a store
// that begins anew numbers its messages from 1 again.
func (p *Provider) identify(ctx context.Context) error {
	p.mu.Lock()
	known := p.box != ""
	p.mu.Unlock()
	if known {
		return nil
	}
	var id []byte
	err := p.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) (err error) {
		if id, known, err = t.Get(space, boxID); known || err != nil {
			return err
		}
		id = []byte(rand.Text())
		return t.Put(space, boxID, id)
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.box = string(id)
	p.mu.Unlock()
	return nil
}

// find returns a link, and the box's part of its keys.
func (p *Provider) find(id linkID) (*link, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links[id], p.box
}

// Call serves HttpClient.Request.
func (p *Provider) Call(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	if inv.Operation != Request {
		return nil, fail(providers.ErrFormat, fmt.Errorf("no operation %.80q of %s", inv.Operation, Contract))
	}
	l, box := p.find(linkID{inv.Origin.Key, inv.Target.Link})
	if l == nil {
		return nil, fail(providers.ErrNotPermitted, errors.New("no link"))
	}
	r, err := decodeRequest(inv.Payload)
	if err != nil {
		return nil, p.count(fail(providers.ErrFormat, err))
	}
	if err := p.permit(l, r.method, r.url); err != nil {
		if l.refused.CompareAndSwap(false, true) {
			p.log.Warn("actor asks for what it may not", "actor", p.o.ActorName(inv.Origin.Key), "link", inv.Target.Link, "host", r.url.Host, "err", err)
		}
		return nil, p.count(err)
	}
	l.refused.Store(false)
	ctx, cancel := context.WithTimeout(ctx, within(ctx, l.timeout))
	defer cancel()
	select {
	case l.room <- struct{}{}:
		defer func() { <-l.room }()
	case <-ctx.Done():
		return nil, p.count(fail(nil, fmt.Errorf("%d requests are under way already: %w", cap(l.room), ctx.Err())))
	}
	release, err := p.memory.take(ctx, l.maxResponse+int64(len(r.body)))
	if err != nil {
		return nil, p.count(fail(nil, fmt.Errorf("too much of all actors is under way: %w", err)))
	}
	defer release()
	if err := p.prepare(ctx, r, inv.Origin.Key, box); err != nil {
		return nil, p.count(err)
	}
	r.setTrace(lattice.Trace(ctx))
	answer, err := l.send(ctx, r)
	if err != nil {
		p.log.Debug("request failed", "actor", p.o.ActorName(inv.Origin.Key), "host", r.url.Host, "err", err)
		return nil, p.count(explain(err))
	}
	p.requests.WithLabelValues("ok").Inc()
	return answer, nil
}

// permit holds a request against the link and the bound of the box.
func (p *Provider) permit(l *link, method string, u *url.URL) error {
	at := fmt.Sprintf("%s %s://%s", method, u.Scheme, u.Host)
	if !l.allows(method, u) {
		return fail(providers.ErrNotPermitted, fmt.Errorf("%s: the manifest does not allow this URL", at))
	}
	host, port := hostPort(u)
	if err := p.o.Bound.Host(host, port); err != nil {
		return fail(providers.ErrNotPermitted, fmt.Errorf("%s: %w", at, err))
	}
	return nil
}

// prepare makes the turn irrevocable for what is more than a question, and gives it
// the key by which a server recognises it when it comes again.
func (p *Provider) prepare(ctx context.Context, r *request, actor, box string) error {
	if safe(r.method) {
		return nil
	}
	t := store.TurnFrom(ctx)
	if t == nil {
		r.setKey(rand.Text())
		return nil
	}
	if err := t.Irrevocable(ctx); err != nil {
		return fail(nil, err)
	}
	r.setKey(r.key(box, cmp.Or(p.o.Handled(ctx), t.ID()), actor, t.NextCall()))
	return nil
}

// safe says whether a method only asks (RFC 9110, 9.2.1).
func safe(method string) bool { return method == "GET" || method == "HEAD" || method == "OPTIONS" }

// margin is what is left of an actor's time to hear of a failure, at most.
const margin = 500 * time.Millisecond

// within returns how long a request may take: not so long that the time of ctx is
// over with it.
func within(ctx context.Context, wait time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		wait = min(wait, left-min(left/10, margin))
	}
	return wait
}

// dial connects to a server, if the bound lets it, at the address that is dialled. A
// proxy is dialled whatever the bound says.
func (p *Provider) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime, Resolver: p.o.Resolver}
	if p.o.Proxy == nil {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		d.Control = func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return p.o.Bound.Addr(host, at)
		}
	}
	return d.DialContext(ctx, network, address)
}
