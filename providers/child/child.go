// Package child runs capability providers that are programs of their own, as classic
// wasmCloud hosts do: it starts them, tells them who they are on their stdin, follows
// their health, restarts them, tells them of links, and ends them. It keeps an eye on
// providers that somebody else has started, too ([Manager.Attach]).
//
// A provider is told apart by its key and link name. What it may do is bounded: it
// logs in to NATS as a user of its own, which reaches its own subjects and the actors,
// and it signs invocations with a key of its own, which counts for it alone. Its
// environment holds nothing of the box's, its process group ends with it, and what it
// writes goes to the log, so much of it.
//
// Calls come to a provider over NATS, like those of any host. While the box has it
// but it does not run, calls of this box fail at once; else they would go to the same
// provider on another box, which has other hardware.
package child

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/internal/cgroup"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
)

// Errors that callers branch on.
var (
	ErrRunning  = errors.New("a provider with this key and link name runs already")
	ErrUnknown  = errors.New("no provider with this key and link name")
	ErrNotHere  = errors.New("the provider is somebody else's to stop: detach it")
	ErrProgram  = errors.New("not a program that can be started")
	ErrListener = errors.New("providers connect to the NATS listener, and there is none: set nats.listen in the device file")
)

// Users makes the users of NATS that providers log in as.
type Users interface {
	// PutUser makes a user that may publish and subscribe to those subjects, and
	// answer what it is asked. One of that name is replaced.
	PutUser(name, password string, publish, subscribe []string) error
	// RemoveUser forgets a user and cuts its connections.
	RemoveUser(name string)
}

// Trust believes what a provider signs; *rpc.Lattice does.
type Trust interface {
	TrustProvider(issuer claims.Key, provider string) error
	DistrustProvider(issuer claims.Key)
}

// Options are what a Manager is made from. All but those that say otherwise must be
// there.
type Options struct {
	Conn    *nats.Conn // in the account of the lattice; it stays the caller's
	Lattice string
	Host    claims.Key  // of the box, "N…"
	Cluster claims.Seed // of the box; goes to no provider whose Spec does not say so
	Issuers []claims.Key
	Bus     *lattice.Bus
	Call    lattice.Handler // calls a provider over NATS: rpc.Lattice.Call
	Users   Users
	Trust   Trust
	// URL is where providers on this box reach the NATS server, nats://HOST:PORT, ""
	// where it does not listen.
	URL func() string
	// Admit checks what was signed under the policy of the box; digest names it, so
	// that its dates count only the first time.
	Admit func(ctx context.Context, digest string, check func(claims.Policy) error) error
	// Permit has the last word on a provider that is about to start; issuer is the
	// account that signed its archive, "" for a program. Nil permits all.
	Permit func(ctx context.Context, s Spec, issuer string) error
	// Dir has unpacked programs, the folders that providers work in, and what is known
	// of attached ones. It is made if need be.
	Dir string
	// Private are files and folders that processes must not reach, whoever they run as,
	// but for what they need of Dir. It is the kernel's to keep (Landlock, since Linux
	// 5.13); where it does not, the log says so.
	Private []string
	// Inbox begins the inboxes of providers on this box; what tells them apart follows.
	Inbox string
	// Objects lets providers use the object store of the lattice, for large payloads:
	// who may read there may have what is read sent to any subject.
	Objects bool
	// Hubless says that there is no JetStream. Then providers may ask for the bucket to be
	// made: nobody answers, which kits learn at once, where a refusal means a timeout.
	Hubless bool
	// JetStreamDomain is where large payloads are kept; "" for the account's own.
	JetStreamDomain string
	Timeout         time.Duration // of a provider's calls; 0 for 2 s
	Logger          *slog.Logger  // nil for none
	// Changed, if not nil, is told of each change of a provider, in order for each of
	// them. It must not call the Manager, but for Running.
	Changed    func(Status)
	Registerer prometheus.Registerer // nil for none
}

// A Manager has the providers of a box that are not built in. Its methods may be
// called from any goroutine.
type Manager struct {
	o        Options
	log      *slog.Logger
	t        timing
	tree     func() (*cgroup.Tree, error)
	groups   string // what the names of its cgroups begin with, and those of no other box
	restarts prometheus.Counter

	mu        sync.Mutex       // guards what follows
	ctx       context.Context  // of Run; nil while it does not run
	busy      sync.WaitGroup   // providers under way; begun with mu held
	providers map[id]*instance // by key and link name
	links     map[id]linksOf   // by provider
	programs  map[string]int   // users of each unpacked program, by path
}

// id tells providers apart.
type id struct{ key, link string }

func (i id) String() string { return i.key + "/" + i.link }

// timing is when things are done.
type timing struct {
	poll   time.Duration // between questions about health until the first answer
	first  time.Duration // after which a provider that does not answer is unhealthy
	every  time.Duration // between questions to one that is well
	unwell time.Duration // and to one that is not
	remote time.Duration // and to one that is well and runs elsewhere
	away   time.Duration // and to one that runs elsewhere and is not
	ask    time.Duration // how long one that is told to end may take
	term   time.Duration // and then, told by a signal
	least  time.Duration // the first pause before a restart; it doubles
	most   time.Duration // the longest
	steady time.Duration // after which the pauses begin anew
	tries  int           // starts in a row that failed, until it is given up
}

var defaults = timing{
	poll: 250 * time.Millisecond, first: 5 * time.Second, every: 30 * time.Second, unwell: 5 * time.Second, remote: 10 * time.Second, away: 2 * time.Second,
	ask: time.Second, term: 500 * time.Millisecond,
	least: time.Second, most: time.Minute, steady: time.Minute, tries: 12,
}

const defaultTimeout = 2 * time.Second

// New checks the options and reads which providers are attached. It starts nothing.
func New(o Options) (*Manager, error) {
	switch {
	case o.Conn == nil || o.Bus == nil || o.Call == nil || o.Users == nil || o.Trust == nil || o.URL == nil || o.Admit == nil:
		return nil, errors.New("providers: Conn, Bus, Call, Users, Trust, URL and Admit must be there")
	case !wire.IsToken(o.Lattice):
		return nil, fmt.Errorf("providers: lattice %q: a name has letters, digits, _ and - only", o.Lattice)
	case o.Host.Kind() != claims.Server || o.Cluster.Kind() != claims.Cluster:
		return nil, fmt.Errorf("providers: want the keys of a host and a cluster: %w", claims.ErrKey)
	case !topic.ValidSubject(o.Inbox):
		return nil, fmt.Errorf("providers: inboxes begin with %.80q: not a subject", o.Inbox)
	case !filepath.IsAbs(o.Dir):
		return nil, fmt.Errorf("providers: folder %q is not an absolute path", o.Dir)
	}
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	m := &Manager{
		o: o, log: o.Logger, t: defaults, tree: sync.OnceValues(cgroup.OpenTree),
		providers: make(map[id]*instance), links: make(map[id]linksOf), programs: make(map[string]int),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edged_provider_restarts_total", Help: "Provider processes that were started again after they ended by themselves.",
		}),
	}
	sum := sha256.Sum256([]byte(o.Dir))
	m.groups = "edged-" + hex.EncodeToString(sum[:4]) + "-"
	for _, sub := range []string{programsDir, workDir, attachedDir} {
		if err := os.MkdirAll(filepath.Join(o.Dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("providers: %w", err)
		}
	}
	if err := m.readAttached(); err != nil {
		return nil, fmt.Errorf("providers: %w", err)
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(m.restarts); err != nil {
			return nil, fmt.Errorf("providers: %w", err)
		}
	}
	return m, nil
}

// Run runs the providers, those that were there before and those that come, until
// ctx ends. Then it ends the processes, within two seconds each and all at once, and
// returns nil.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	m.ctx = ctx
	for _, in := range m.providers {
		m.launch(in)
	}
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	m.ctx = nil
	m.mu.Unlock()
	m.busy.Wait()
	return nil
}

// launch lets a provider run. Call it with m.mu held and m.ctx there.
func (m *Manager) launch(in *instance) {
	if in.gone || in.done != nil {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	in.cancel, in.done = cancel, make(chan struct{})
	done := in.done
	m.busy.Go(func() {
		defer close(done)
		defer cancel()
		if in.status.Remote {
			in.follow(ctx)
		} else {
			in.run(ctx)
		}
	})
}

// Check completes a Spec: from the claims of its archive, which is verified as Start
// does, where it has one. Options.Permit is asked, too.
func (m *Manager) Check(ctx context.Context, s Spec) (Spec, error) {
	title := s.title()
	err := error(nil)
	if s.Archive != "" {
		var program string
		if program, err = m.unpack(ctx, &s); err == nil {
			m.releaseProgram(program)
		}
	}
	if err == nil {
		err = s.check()
	}
	if err == nil && m.o.Permit != nil {
		err = m.o.Permit(ctx, s, s.issuer)
	}
	if err != nil {
		return s, fmt.Errorf("provider %s: %w", title, err)
	}
	return s, nil
}

// Start starts a provider. It returns when its process has been started, or could
// not be; while Run does not run, when all that can be checked before was. Errors:
// ErrRunning, ErrProgram, ErrListener, and those of claims.ExtractArchive.
//
// A process that ends by itself is started again, after a pause that grows; one that
// fails twelve times in a row is given up, and stays in Running as failed until it is
// started again, stopped, or one of its links changes.
func (m *Manager) Start(ctx context.Context, s Spec) error {
	in, err := m.prepare(ctx, s)
	if err != nil {
		return fmt.Errorf("provider %s: %w", s.title(), err)
	}
	m.mu.Lock()
	failed := m.providers[in.id]
	m.mu.Unlock()
	if failed != nil && failed.state() == Failed {
		m.drop(failed)
	}
	if err := m.add(in); err != nil {
		m.releaseProgram(in.program)
		return fmt.Errorf("provider %s: %w", s.title(), err)
	}
	m.mu.Lock()
	done := in.done
	m.mu.Unlock()
	if done == nil { // Run launches it
		return nil
	}
	select {
	case err = <-in.first:
	case <-done:
	}
	if err != nil {
		m.drop(in)
		return fmt.Errorf("provider %s: %w", s.title(), err)
	}
	return nil
}

// prepare checks what is to run and readies its program.
func (m *Manager) prepare(ctx context.Context, s Spec) (*instance, error) {
	if m.o.URL() == "" {
		return nil, ErrListener
	}
	program, err := s.Program, error(nil)
	switch {
	case s.Archive != "":
		program, err = m.unpack(ctx, &s)
	case s.Copy:
		if err = s.check(); err == nil { // the key is part of a file name
			program, err = m.copied(&s)
		}
	default:
		err = checkProgram(program)
	}
	if err != nil {
		return nil, err
	}
	in, err := m.newInstance(s, program)
	if err == nil && m.o.Permit != nil {
		err = m.o.Permit(ctx, in.spec, in.spec.issuer)
	}
	if err != nil {
		m.releaseProgram(program)
	}
	return in, err
}

// add makes a provider known, and lets it run.
func (m *Manager) add(in *instance) error {
	m.mu.Lock()
	if m.providers[in.id] != nil {
		m.mu.Unlock()
		return ErrRunning
	}
	m.providers[in.id] = in
	m.mu.Unlock()
	if err := in.enter(); err != nil {
		m.mu.Lock()
		delete(m.providers, in.id)
		m.mu.Unlock()
		return err
	}
	in.update(func(*Status) {})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx != nil && m.ctx.Err() == nil {
		m.launch(in)
	}
	return nil
}

// Stop ends a provider: it is asked to, then told by signals. Its links stay, for
// when it is started again. Errors: ErrUnknown, ErrNotHere.
func (m *Manager) Stop(ctx context.Context, key, link string) error {
	link = cmp.Or(link, defaultLink)
	m.mu.Lock()
	in := m.providers[id{key, link}]
	m.mu.Unlock()
	switch {
	case in == nil:
		return fmt.Errorf("stop provider %s, link name %s: %w", key, link, ErrUnknown)
	case in.status.Remote:
		return fmt.Errorf("stop provider %s, link name %s: %w", key, link, ErrNotHere)
	}
	m.drop(in)
	return ctx.Err()
}

// drop ends a provider and forgets it. It returns when that is done, also when
// somebody else does it.
func (m *Manager) drop(in *instance) {
	in.dropping.Do(func() {
		m.mu.Lock()
		cancel, done := in.cancel, in.done
		in.gone = true
		m.mu.Unlock()
		if cancel != nil {
			cancel()
			<-done // bounded, see instance.end
		}
		in.leave()
		m.mu.Lock()
		delete(m.providers, in.id)
		m.mu.Unlock()
		in.update(func(s *Status) { s.State, s.Health, s.PID = Stopped, HealthUnknown, 0 })
		m.releaseProgram(in.program)
	})
}

// Running returns all providers, by key and link name, those that wait for a restart
// or were given up, too.
func (m *Manager) Running() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Status, 0, len(m.providers))
	for _, in := range m.providers {
		all = append(all, in.status)
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.LinkName, b.LinkName)) })
	return all
}
