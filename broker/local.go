package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/edged-io/edged/internal/topic"
)

// local is the broker's presence in the account APP: what it listens to there,
// and the connection of the moment. The server cuts a connection whose
// reader is too slow; local comes back with another one.
type local struct {
	s *Server

	mu        sync.Mutex // guards the fields below; never held across I/O
	w         *wire      // nil while there is none
	listeners map[*listener]struct{}
	cuts      uint64
}

// listener is a function that has every message published on a filter by
// somebody else.
type listener struct {
	filter string
	fn     func(*wire, wireMsg)
	sid    uint64 // on the connection of the moment
}

// listen registers fn. It takes effect at once, or when the server runs; after
// flush it has.
func (l *local) listen(filter string, fn func(*wire, wireMsg)) *listener {
	n := &listener{filter: filter, fn: fn}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listeners[n] = struct{}{}
	if l.w != nil {
		l.attach(n, l.w)
	}
	return n
}

// attach subscribes n on w. Call it with l.mu held.
func (l *local) attach(n *listener, w *wire) {
	n.sid = w.subscribe(n.filter, func(m wireMsg) { n.fn(w, m) })
}

func (l *local) forget(n *listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.listeners, n)
	if l.w != nil {
		l.w.unsubscribe(n.sid)
	}
}

// flush returns when the server knows of every listener, or there is no
// connection.
func (l *local) flush() {
	l.mu.Lock()
	w := l.w
	l.mu.Unlock()
	if w != nil {
		// An error means that the connection was lost; its successor registers
		// all listeners anew.
		_ = w.flush()
	}
}

// publish sends a message on core NATS, best effort.
func (l *local) publish(subject string, header, data []byte) {
	l.mu.Lock()
	w := l.w
	l.mu.Unlock()
	if w != nil {
		w.publish(subject, "", header, data)
	}
}

// sendAs sends what a client is to take for JetStream's, in order. It says false
// if there is no way to send it now.
func (l *local) sendAs(subject, reply string, header, data []byte) bool {
	l.mu.Lock()
	up := l.w != nil // then the server runs
	l.mu.Unlock()
	app, err := l.s.nats.ns.LookupAccount(AccountApp)
	if !up || err != nil {
		return false
	}
	// The server appends to data.
	return sendAs(l.s.nats.ns, app, subject, reply, header, slices.Clip(data), false) == nil
}

// heard says whether somebody else is subscribed to a subject.
func (l *local) heard(subject string) bool {
	app, err := l.s.nats.ns.LookupAccount(AccountApp)
	if err != nil {
		return false
	}
	n := app.Interest(subject)
	l.mu.Lock()
	defer l.mu.Unlock()
	for own := range l.listeners {
		if topic.Match(own.filter, subject) {
			n--
		}
	}
	return n > 0
}

// connect opens a connection with all listeners on it.
func (l *local) connect() (*wire, error) {
	conn, err := l.s.nats.ns.InProcessConn()
	if err != nil {
		return nil, err
	}
	w, err := dialWire(conn, "edged", l.s.o.MaxMessage)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.w = w
	for n := range l.listeners {
		l.attach(n, w)
	}
	return w, nil
}

// reconnectPause keeps a server that cuts every connection from being asked in
// a tight loop.
const reconnectPause = 100 * time.Millisecond

// run keeps a connection until ctx ends. first is the one that was opened
// before.
func (l *local) run(ctx context.Context, first *wire) {
	for w := first; ; {
		stop := context.AfterFunc(ctx, w.close)
		err := w.run()
		stop()
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		l.w = nil
		l.cuts++
		l.mu.Unlock()
		l.s.log.Warn("connection to the embedded server was cut", "err", err)
		for w = nil; w == nil; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(reconnectPause):
			}
			if w, err = l.connect(); err != nil {
				l.s.log.Debug("connect to the embedded server", "err", err)
			}
		}
	}
}

func (l *local) cutCount() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cuts
}

// drainTimeout bounds the wait for what was published before the end.
const drainTimeout = time.Second

// drain takes nothing in any more, and waits until what came before is answered.
func (l *local) drain() {
	l.mu.Lock()
	w := l.w
	listeners := l.listeners
	l.listeners = make(map[*listener]struct{})
	l.mu.Unlock()
	if w == nil {
		return
	}
	for n := range listeners {
		w.unsubscribe(n.sid)
	}
	deadline := time.AfterFunc(drainTimeout, w.close)
	defer deadline.Stop()
	if w.flush() != nil { // behind it comes nothing new
		return
	}
	l.s.room.waitEmpty(drainTimeout)
	_ = w.flush() // an error means that time is up
}
