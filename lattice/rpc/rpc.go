// Package rpc is the lattice over NATS: it serves the actors of a [lattice.Bus] to
// every classic wasmCloud host and provider on the same NATS system, and calls the
// actors and providers that are there.
//
// A [Lattice] subscribes to the subject of each actor that the Bus serves, in the
// queue group of that subject, so that hosts which run the same actor share its
// calls. Nothing runs before the token of an invocation was checked: signed by a
// cluster key that is trusted, for this target, over this payload, and not seen
// before. A call begins a turn, which is on disk before it is answered.
//
// A call to elsewhere is signed by the key of the box's cluster. It is made at once
// and can not be undone: the turn becomes irrevocable first, and the call carries a
// key that is the same if the turn runs again (see [HeaderIdempotency]). Payloads
// that are too large for a message go through an object store of JetStream.
//
// Every request with a reply subject is answered, with a reason when it is refused.
// How many are handled at once, and the memory they take, is bounded.
package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/store"
)

// What holds where Options say nothing.
const (
	defaultTimeout = 2 * time.Second
	defaultReplay  = 5 * time.Minute
	defaultCalls   = 256
	defaultBytes   = 64 << 20
)

const (
	// chunkedExtra is how much longer a call may take when its payload or its
	// answer goes through an object store.
	chunkedExtra = 13 * time.Second
	// serveTime is how long the handling of an invocation may take, whatever its
	// caller waits for.
	serveTime = 30 * time.Second
	// flushTime is how long the server may take to note a subscription.
	flushTime = 5 * time.Second
	// grace is how long handlers may go on when the lattice ends.
	grace = 2 * time.Second
)

// Errors of calls.
var (
	ErrTooLarge    = errors.New("payload is too large")
	ErrNoJetStream = errors.New("the lattice has no JetStream, which carries what is larger than a message")
	ErrAnswer      = errors.New("the answer makes no sense")
)

// Error is the text with which an actor or provider elsewhere answered.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

// classic puts the words in which hosts of old say it, which guests and control
// tools may look for, before a reason that may begin with the same words.
func classic(words string, err error) error {
	reason := err.Error()
	if n := len(words) + len(": "); len(reason) > n && strings.EqualFold(reason[:n], words+": ") {
		reason = reason[n:]
	}
	return &told{words + ": " + reason, err}
}

// told is an error in words for somebody else.
type told struct {
	text string
	err  error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.err }

// Store is what a Lattice needs of store.DB.
type Store interface {
	Do(ctx context.Context, fn func(ctx context.Context, t *store.Turn) error) error
}

// Options are what a Lattice is made from. Conn, Lattice, Host, Cluster and Bus must
// be there.
type Options struct {
	Conn    *nats.Conn  // in the account of the lattice; it stays the caller's
	Lattice string      // the name: letters, digits, "_" and "-"
	Host    claims.Key  // of the box, "N…"
	Cluster claims.Seed // signs calls, "SC…"
	// Issuers are the cluster keys whose invocations are believed, beside that of
	// Cluster.
	Issuers []claims.Key
	Bus     *lattice.Bus
	// Store begins the turn of what comes from elsewhere; without one it runs outside
	// of turns.
	Store Store
	// Handled names the message that is handled under a context, the same in each
	// attempt and in no other store; "" for none, and nil for never.
	Handled func(context.Context) string
	// Permit has the last word on an invocation from elsewhere that was found genuine;
	// nil permits all.
	Permit func(context.Context, *wire.Invocation) error
	// Timeout of a call; 0 for 2 s. A call with a large payload may take 13 s more.
	Timeout time.Duration
	// JetStreamDomain is where large payloads are kept; "" for the account's own.
	JetStreamDomain string
	// Replay is how long an invocation is remembered, so that nobody can send it
	// again; 0 for 5 minutes, negative for not at all: a switch for peers that repeat
	// themselves.
	Replay time.Duration
	// MaxCalls are handled at once, for callers elsewhere; 0 for 256. MaxBytes is for
	// the payloads with them, and for large answers from elsewhere; 0 for 64 MiB. What
	// is more is refused.
	MaxCalls int
	MaxBytes int64
	// Now is the wall clock, for the dates of tokens; nil leaves the dates out.
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Lattice connects a Bus with the rest of a lattice. Its methods may be called from
// any goroutine.
type Lattice struct {
	o        Options
	log      *slog.Logger
	js       jetstream.JetStream
	signer   claims.Signer // of Options.Cluster
	host     string        // Options.Host
	trusted  []claims.Key
	seen     *memory // nil where nothing is remembered
	calls    *prometheus.CounterVec
	refusing atomic.Bool   // the last invocation was refused
	ready    chan struct{} // closed by Run

	mu   sync.Mutex // guards what follows
	room room
	ctx  context.Context // of the handlers; nil while Run does not run
	subs map[string]*nats.Subscription
	keys map[claims.Key]string // providers, by the key that only they sign with
	// sessions with providers that have a seed of this host.
	sessions map[lattice.Entity]*session
	busy     sync.WaitGroup // handlers, begun with mu held
	ended    sync.WaitGroup // subscriptions that drain
}

// New checks the options. It starts nothing.
func New(o Options) (*Lattice, error) {
	switch {
	case o.Conn == nil || o.Bus == nil:
		return nil, errors.New("rpc: Conn and Bus must be there")
	case !wire.IsToken(o.Lattice):
		return nil, fmt.Errorf("rpc: lattice %q: a name has letters, digits, _ and - only", o.Lattice)
	case o.Host.Kind() != claims.Server:
		return nil, fmt.Errorf("rpc: host key is of kind %s, want server: %w", o.Host.Kind(), claims.ErrKey)
	case o.Cluster.Kind() != claims.Cluster:
		return nil, fmt.Errorf("rpc: cluster seed is of kind %s, want cluster: %w", o.Cluster.Kind(), claims.ErrKey)
	}
	for _, k := range o.Issuers {
		if k.Kind() != claims.Cluster {
			return nil, fmt.Errorf("rpc: issuer %s is of kind %s, want cluster: %w", k, k.Kind(), claims.ErrKey)
		}
	}
	js, err := jetstream.New(o.Conn)
	if o.JetStreamDomain != "" {
		js, err = jetstream.NewWithDomain(o.Conn, o.JetStreamDomain)
	}
	if err != nil {
		return nil, fmt.Errorf("rpc: %w", err)
	}
	signer, err := o.Cluster.Signer()
	if err != nil {
		return nil, fmt.Errorf("rpc: %w", err)
	}
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Replay = cmp.Or(o.Replay, defaultReplay)
	o.MaxCalls = cmp.Or(o.MaxCalls, defaultCalls)
	o.MaxBytes = cmp.Or(o.MaxBytes, defaultBytes)
	if o.Handled == nil {
		o.Handled = func(context.Context) string { return "" }
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	l := &Lattice{
		o: o, log: o.Logger, js: js, signer: signer, host: o.Host.String(),
		trusted: append(slices.Clone(o.Issuers), o.Cluster.Key()),
		subs:    make(map[string]*nats.Subscription),
		keys:    make(map[claims.Key]string),

		sessions: make(map[lattice.Entity]*session),
		room:     room{calls: o.MaxCalls, bytes: o.MaxBytes},
		ready:    make(chan struct{}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edged_lattice_calls_total",
			Help: "Invocations over NATS, in and out, by how they ended.",
		}, []string{"direction", "result"}),
	}
	if o.Replay > 0 {
		l.seen = newMemory(o.Replay)
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(l.calls); err != nil {
			return nil, fmt.Errorf("rpc: %w", err)
		}
	}
	return l, nil
}

// Run serves the actors of the Bus, and has the Bus call elsewhere, until ctx ends.
// Then it takes no more, lets what has begun end within 2 s, and returns nil.
func (l *Lattice) Run(ctx context.Context) error {
	handlers, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	l.mu.Lock()
	l.ctx = handlers
	l.mu.Unlock()
	l.o.Bus.SetRemote(l.Call)
	defer l.o.Bus.SetRemote(nil)
	unwatch := l.o.Bus.Watch(l.watch)
	flush, done := context.WithTimeout(ctx, flushTime)
	if err := l.o.Conn.FlushWithContext(flush); err != nil && ctx.Err() == nil {
		l.log.Warn("the server may not know yet which actors can be called", "err", err)
	}
	done()
	close(l.ready)
	<-ctx.Done()
	unwatch()
	l.mu.Lock()
	for key := range l.subs {
		l.leave(key)
	}
	l.mu.Unlock()
	stop := time.AfterFunc(grace, cancel)
	defer stop.Stop()
	l.ended.Wait()
	l.mu.Lock()
	l.ctx = nil // nobody calls any more
	l.mu.Unlock()
	l.busy.Wait()
	return nil
}

// Ready is closed when Run has begun, and the server knows what was served then.
func (l *Lattice) Ready() <-chan struct{} { return l.ready }

// TrustProvider believes what issuer signs where it comes from that provider, through
// a link that the Bus knows of. A provider that is given such a key in place of the
// cluster's can not speak for anybody else. Other hosts do not know the key.
func (l *Lattice) TrustProvider(issuer claims.Key, provider string) error {
	if issuer.Kind() != claims.Cluster {
		return fmt.Errorf("rpc: key of provider %s is of kind %s, want cluster: %w", provider, issuer.Kind(), claims.ErrKey)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[issuer] = provider
	return nil
}

// DistrustProvider ends what TrustProvider began.
func (l *Lattice) DistrustProvider(issuer claims.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keys, issuer)
}

// trust says why the signature of issuer under an invocation does not count, nil if
// it does.
func (l *Lattice) trust(issuer claims.Key, inv *wire.Invocation) error {
	if slices.Contains(l.trusted, issuer) {
		return nil
	}
	l.mu.Lock()
	provider, ok := l.keys[issuer]
	l.mu.Unlock()
	if !ok {
		return fmt.Errorf("%w: issuer %s is not trusted", wire.ErrForged, issuer)
	}
	link, linked := l.o.Bus.Link(inv.Target.Key, inv.Origin.Contract, inv.Origin.Link)
	switch {
	case inv.Origin.Key != provider:
		return fmt.Errorf("%w: issuer %s is trusted as provider %s only", wire.ErrForged, issuer, provider)
	case !linked || link.Provider != provider:
		return fmt.Errorf("%w: provider %s has no link with the actor for %s, %s", wire.ErrForged, provider, inv.Origin.Contract, inv.Origin.Link)
	}
	return nil
}

// count notes how an invocation ended.
func (l *Lattice) count(direction, result string) { l.calls.WithLabelValues(direction, result).Inc() }
