package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/internal/httpsettings"
)

// Limits of every listener.
const (
	maxRequestHeader = 64 << 10
	idleTimeout      = 60 * time.Second
	maxStreams       = 64 // of a connection of HTTP/2
	lastWords        = 200 * time.Millisecond
)

// listener is an address, and who serves what comes in there.
type listener struct {
	p      *Provider
	listen string

	table atomic.Pointer[table]

	mu     sync.Mutex // guards what follows
	how    how
	nl     net.Listener
	err    error  // why nl is nil
	front  *front // takes connections; nil while nl is
	serves bool   // it accepts, or will as soon as there is nl
	ended  bool
}

// how are the settings of a listener that all its places share.
type how struct {
	tls            httpsettings.TLS
	maxConnections int
	headerTimeout  time.Duration
}

func howOf(s *httpsettings.Settings) how { return how{s.TLS, s.MaxConnections, s.HeaderTimeout} }

// table says who gets which request.
type table struct{ mux *http.ServeMux }

func newListener(p *Provider, s *httpsettings.Settings) *listener {
	l := &listener{p: p, listen: s.Listen, how: howOf(s)}
	l.table.Store(&table{http.NewServeMux()})
	return l
}

// state returns the address, or why there is none.
func (l *listener) state() (addr, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nl != nil {
		return l.nl.Addr().String(), ""
	}
	if l.err != nil {
		return "", l.err.Error()
	}
	return "", ""
}

// bind takes the address; serve begins to accept. It does nothing where that is
// done.
func (l *listener) bind(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nl != nil || l.ended {
		return nil
	}
	f, err := l.newFront()
	if err == nil {
		var config net.ListenConfig
		l.nl, err = config.Listen(ctx, network(l.listen), l.listen)
	}
	if err != nil {
		l.err = fmt.Errorf("listen on %s: %w", l.listen, err)
		return l.err
	}
	l.err = nil
	l.start(f)
	if l.serves {
		l.begin()
	}
	return nil
}

// network is what to listen in. In "tcp" as such, 0.0.0.0 would be every address of
// IPv6 too, which a permit for it does not cover.
func network(listen string) string {
	if at, err := httpsettings.ParseAddress(listen); err == nil && at.Addr().Is4() {
		return "tcp4"
	}
	return "tcp"
}

// begin accepts. l.mu is held.
func (l *listener) begin() {
	nl := l.nl
	l.p.fronts.Go(func() { l.accept(nl) })
}

// start lets f take what is accepted from now on. l.mu is held.
func (l *listener) start(f *front) {
	l.front = f
	l.p.fronts.Go(f.run)
}

// unbind gives the address up; it may be taken again.
func (l *listener) unbind() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nl == nil {
		return
	}
	_ = l.nl.Close()
	l.nl = nil
	l.err = errors.New("given up for another listener")
	l.front.retire()
	l.front = nil
}

// retire ends the listener: nobody is accepted any more, and requests that are
// there come to their ends.
func (l *listener) retire() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.unbind()
}

// serve gives the listener its places, one at least. With other settings of its own, it goes
// on with another server at the same address.
func (l *listener) serve(places []*place) {
	t := &table{http.NewServeMux()}
	for _, pl := range places {
		for _, pattern := range pl.Patterns() {
			t.mux.Handle(pattern, pl) // they have been checked together
		}
	}
	l.table.Store(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.serves {
		l.serves = true
		if l.nl != nil {
			l.begin()
		}
	}
	before := l.how
	if l.how = howOf(&places[0].Settings); l.how == before || l.front == nil {
		return
	}
	f, err := l.newFront()
	if err != nil {
		l.p.log.Error("the listener goes on with its certificate of before", "listen", l.listen, "err", err)
		return
	}
	old := l.front
	l.start(f)
	old.retire()
}

// accept hands connections to the front of the time.
func (l *listener) accept(nl net.Listener) {
	for wait := time.Duration(0); ; {
		c, err := nl.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			wait = min(max(2*wait, 5*time.Millisecond), time.Second) // out of file descriptors, most likely
			l.p.log.Warn("connection not accepted", "listen", l.listen, "err", err)
			time.Sleep(wait)
			continue
		}
		wait = 0
		for c != nil {
			l.mu.Lock()
			f := l.front
			l.mu.Unlock()
			if f == nil || f.take(c) {
				if f == nil {
					_ = c.Close()
				}
				c = nil
			}
		}
	}
}

// front is an HTTP server that is fed with connections. It is a net.Listener for
// that.
type front struct {
	l     *listener
	tls   *tls.Config // nil for none
	room  chan struct{}
	conns chan net.Conn
	ends  chan struct{}
	once  sync.Once
	http  *http.Server
	owed  atomic.Int64 // connections from which a request may come that nobody handles yet
}

// newFront makes a front as l.how says. l.mu is held.
func (l *listener) newFront() (*front, error) {
	f := &front{l: l, room: make(chan struct{}, l.how.maxConnections), conns: make(chan net.Conn), ends: make(chan struct{})}
	if l.how.tls != (httpsettings.TLS{}) {
		cert, err := newCertificate(l.how.tls, l.p.log)
		if err != nil {
			return nil, err
		}
		f.tls = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: cert.get}
	}
	l.p.mu.Lock()
	base := l.p.base
	l.p.mu.Unlock()
	f.http = &http.Server{
		Handler: f, ReadHeaderTimeout: l.how.headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxRequestHeader,
		ErrorLog: slog.NewLogLogger(l.p.log.Handler(), slog.LevelDebug), DisableGeneralOptionsHandler: true,
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: idleTimeout, WriteByteTimeout: httpsettings.Default().WriteTimeout},
		BaseContext: func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, connOf(c))
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			switch s {
			case http.StateActive: // its request is being read
				connOf(c).owe(true)
			case http.StateIdle:
				connOf(c).owe(false)
			}
		},
	}
	return f, nil
}

// run serves until retire, and until its requests have ended then, or the box
// ends.
func (f *front) run() {
	served := make(chan struct{})
	go func() { // waited for below
		defer close(served)
		_ = f.http.Serve(f) // ends with retire
	}()
	<-f.ends
	// Whoever has been accepted is known to the server only now: Shutdown would not wait
	// for one that was on its way, and Close would hang up on it.
	<-served
	base := f.http.BaseContext(f)
	f.lastRequests(base)
	patient, cancel := context.WithCancel(context.WithoutCancel(base))
	defer cancel()
	// Calls that end with base still have to be answered.
	defer context.AfterFunc(base, func() { time.AfterFunc(lastWords, cancel) })()
	_ = f.http.Shutdown(patient)
	_ = f.http.Close()
}

// lastRequests waits until every request that is on its way is with its handler:
// Shutdown hangs up on one that it has not handed on, even on the first of a
// connection. What is idle is closed, and who has said nothing for five seconds.
func (f *front) lastRequests(base context.Context) {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		f.http.SetKeepAlivesEnabled(false)
		if f.owed.Load() == 0 {
			return
		}
		select {
		case <-time.After(pause):
		case <-base.Done():
			return
		}
	}
}

// retire has run end. Connections are taken no more.
func (f *front) retire() { f.once.Do(func() { close(f.ends) }) }

// take hands a connection over, as soon as there is room for one more.
func (f *front) take(c net.Conn) bool {
	select {
	case f.room <- struct{}{}:
	case <-f.ends:
		return false
	}
	counted := &conn{Conn: c, front: f}
	counted.owe(true)
	f.l.p.metrics.connections.Inc()
	var given net.Conn = counted
	if f.tls != nil {
		given = tls.Server(counted, f.tls)
	}
	select {
	case f.conns <- given:
		return true
	case <-f.ends:
		counted.leave()
		return false
	}
}

// crowded says that connections get scarce, so that idle ones had better end.
func (f *front) crowded() bool { return len(f.room) > cap(f.room)*3/4 }

// Accept, Close and Addr make a net.Listener of it.
func (f *front) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.ends:
		return nil, net.ErrClosed
	}
}

func (f *front) Close() error { f.retire(); return nil }

func (f *front) Addr() net.Addr { return &net.TCPAddr{} }

// conn gives its room back when it is closed.
type conn struct {
	net.Conn
	front *front
	once  sync.Once
	owed  atomic.Bool // counted in the front's
}

// connKey is that of its conn in the context of a request.
type connKey struct{}

// connOf is what take made of a connection.
func connOf(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return c.(*conn)
}

// owe notes whether a request may come that nobody handles yet.
func (c *conn) owe(v bool) {
	if c.owed.Swap(v) == v {
		return
	}
	if v {
		c.front.owed.Add(1)
	} else {
		c.front.owed.Add(-1)
	}
}

func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

func (c *conn) leave() {
	c.once.Do(func() {
		c.owe(false)
		<-c.front.room
		c.front.l.p.metrics.connections.Dec()
	})
}
