package broker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Server is the box's NATS server with its streams. Its methods may be called
// from any goroutine. What comes in through the methods of Port is what
// neither a client nor another port published: actors, and control.
type Server struct {
	*Port
	o       Options
	log     *slog.Logger
	nats    *embedded
	local   *local
	link    *linkState
	routes  atomic.Pointer[routes]
	taps    taps
	room    room
	metrics *metrics
	up      chan struct{}
	ready   chan struct{}

	configured configured
	work       work
}

// work is what runs beside the NATS server: deliveries and pumps.
type work struct {
	mu         sync.Mutex                                   // guards the fields below
	start      func(fn func(context.Context)) (stop func()) // runs fn until stop or the end of Run; nil while Run does not run
	deliveries map[string]*delivery
	uplinked   map[string]*pumpRun // streams whose messages go to the hub
	pumps      *pumps              // nil until Run has started, or if there is no hub
}

// New checks the options and makes the server; it starts nothing.
func New(o Options) (*Server, error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	e, err := newEmbedded(&o)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	s := &Server{
		o: o, log: o.Logger, nats: e, link: newLinkState(time.Now()),
		room:  room{max: maxOnTheWay},
		up:    make(chan struct{}),
		ready: make(chan struct{}),
	}
	s.Port = &Port{s: s}
	s.local = &local{s: s, listeners: make(map[*listener]struct{})}
	s.routes.Store(newRoutes(nil))
	s.configured.listeners, s.configured.owner = make(map[string]*listener), make(map[string]string)
	s.work.deliveries, s.work.uplinked = make(map[string]*delivery), make(map[string]*pumpRun)
	if s.metrics, err = newMetrics(s, o.Registerer); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	return s, nil
}

// Up is closed when connections inside this process can be made.
func (s *Server) Up() <-chan struct{} { return s.up }

// Ready is closed when clients can connect and what was configured is served.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr returns the address that local clients connect to, with the port that
// was bound, or "" if there is none. It is valid once Ready is closed.
func (s *Server) Addr() string {
	if s.o.Listen == "" || s.nats.ns.Addr() == nil {
		return ""
	}
	return s.nats.ns.Addr().String()
}

// LinkLogin returns the user of the account LINK. It is born with the process.
func (s *Server) LinkLogin() Login { return s.nats.link }

// ConnectApp returns a client connection in the account APP, inside this
// process; ConnectLink one in the account LINK. The caller closes it. They fail
// before Up is closed, and when the server does not run any more.
func (s *Server) ConnectApp(opts ...nats.Option) (*nats.Conn, error) {
	return s.connect(s.nats.app, opts)
}

// ConnectLink is described at ConnectApp. Its inboxes are those of the box, so
// that the hub can keep one box from reading the answers meant for another.
func (s *Server) ConnectLink(opts ...nats.Option) (*nats.Conn, error) {
	own := nats.CustomInboxPrefix(hubInbox(s.o.Device))
	return s.connect(s.nats.link, append([]nats.Option{own}, opts...))
}

func (s *Server) connect(l Login, opts []nats.Option) (*nats.Conn, error) {
	opts = append([]nats.Option{
		nats.InProcessServer(s.nats.ns), byToken(l), nats.Name("edged"), nats.Timeout(startTimeout),
		nats.MaxReconnects(-1), nats.ReconnectWait(reconnectPause),
	}, opts...)
	nc, err := nats.Connect("", opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded server as %s: %w", l.User, err)
	}
	return nc, nil
}

// Run serves until ctx ends, and returns nil then, or the reason why it could
// not go on: it could not listen, or the store failed. It does not wait for the
// hub. On the way down handlers may end within Options.Grace, and what was
// published is still answered.
func (s *Server) Run(ctx context.Context) error {
	if err := s.nats.start(); err != nil {
		s.nats.stop()
		return err
	}
	defer s.nats.stop()
	close(s.up)
	closeHub, err := s.openHub(ctx)
	if err != nil {
		return err
	}
	defer closeHub()
	first, err := s.local.connect()
	if err != nil {
		return fmt.Errorf("connect to the embedded server: %w", err)
	}

	localCtx, endLocal := context.WithCancel(context.WithoutCancel(ctx))
	var locals sync.WaitGroup
	locals.Go(func() { s.local.run(localCtx, first) })
	locals.Go(func() { s.watchLink(localCtx) })
	locals.Go(func() {
		if err := s.nats.callHub(localCtx); err != nil {
			s.log.Error("the hub can not be called", "err", err)
		}
	})
	defer locals.Wait()
	defer endLocal()
	if s.o.After != nil {
		select {
		case <-s.o.After:
		case <-ctx.Done():
			return nil
		}
	}
	s.local.flush()
	if err := s.nats.listen(); err != nil {
		return err
	}
	endWork := s.startWork(ctx)
	close(s.ready)
	s.log.Info("nats serves", "addr", s.Addr())
	select {
	case <-ctx.Done():
	case <-s.o.Store.Failed():
		err = fmt.Errorf("store: %w", s.o.Store.Err())
	}
	endWork()
	s.local.drain()
	return err
}

// openHub makes what talks to the hub, if there is one, with a connection in LINK.
func (s *Server) openHub(ctx context.Context) (close func(), err error) {
	if s.o.Hub.URL == "" {
		return func() {}, nil
	}
	// Inboxes of its own let the hub keep one box from reading the answers
	// meant for another.
	nc, err := s.ConnectLink(nats.CustomInboxPrefix(hubInbox(s.o.Device)))
	if err != nil {
		return nil, err
	}
	p, err := newPumps(ctx, pumpOptions{
		Store: s.o.Store, Conn: func() *nats.Conn { return nc }, Link: s, Place: s.Port,
		Device: s.o.Device, Groups: s.o.Hub.Groups, Domain: s.o.Hub.Domain, MaxRate: s.o.Hub.MaxRate,
		Log: s.log, Failpoint: s.o.Failpoint, Timing: s.o.Hub.timing,
	})
	if err != nil {
		nc.Close()
		return nil, err
	}
	s.work.mu.Lock()
	s.work.pumps = p
	s.work.mu.Unlock()
	return nc.Close, nil
}

// startWork starts what is configured, and lets what will be configured start at
// once. The function that it returns ends all of it, and waits.
func (s *Server) startWork(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	w := &s.work
	w.mu.Lock()
	defer w.mu.Unlock()
	w.start = func(fn func(context.Context)) (stop func()) {
		ctx, stop := context.WithCancel(ctx)
		wg.Go(func() {
			defer stop()
			fn(ctx)
		})
		return stop
	}
	for _, d := range w.deliveries {
		d.startIn(w)
	}
	for stream, p := range w.uplinked {
		p.startIn(w, stream)
	}
	if w.pumps != nil {
		w.start(w.pumps.down)
	}
	return func() {
		w.mu.Lock()
		w.start = nil
		w.mu.Unlock()
		cancel()
		wg.Wait()
	}
}
