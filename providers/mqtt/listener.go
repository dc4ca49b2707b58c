package mqtt

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/store"
)

// ListenerOptions are what a Listener needs to know. Listen, Store and Broker are required.
type ListenerOptions struct {
	// Listen is the address, host:port. Port 0 takes a free one.
	Listen string
	Store  *store.DB
	Broker Broker
	// Logger takes the story of the listener; nil discards it.
	Logger *slog.Logger

	// MaxMessage bounds header and payload of a message, in bytes. 0 means 1 MiB.
	MaxMessage int
	// MaxClients bounds the connections. 0 means 1024.
	MaxClients int
	// MaxSessions bounds the sessions that are kept; beyond it the one that has been away longest ends. 0 means 4096.
	MaxSessions int
	// SessionExpiry is how long a session is kept without a connection; a client of MQTT 5 may ask for less. Whole seconds; 0 means 7 days.
	SessionExpiry time.Duration
	// ReceiveMaximum is how many messages of QoS 1 and 2 a client may have unacknowledged. A client of MQTT 5 is told; one of MQTT 3 waits. 0
	// means 256.
	ReceiveMaximum uint16
	// WindowBytes bounds what one client may have on its way to the disk; it waits when there is more. 0 means 8 MiB.
	WindowBytes int
	// MaxQueued and MaxQueuedBytes bound what waits for one subscriber; what comes then is dropped and counted. 0 means 1000 and 4 MiB.
	MaxQueued, MaxQueuedBytes int
	// MaxRetained and MaxRetainedBytes bound the retained messages. 0 means 10,000 and 16 MiB.
	MaxRetained, MaxRetainedBytes int
}

func (o *ListenerOptions) setDefaults() error {
	if o.Store == nil || o.Broker == nil {
		return errors.New("MQTT listener: store and broker are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		value    *int
		standard int
	}{
		{&o.MaxMessage, 1 << 20}, {&o.MaxClients, 1024}, {&o.MaxSessions, 4096}, {&o.WindowBytes, 8 << 20},
		{&o.MaxQueued, 1000}, {&o.MaxQueuedBytes, 4 << 20}, {&o.MaxRetained, 10_000}, {&o.MaxRetainedBytes, 16 << 20},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
	if o.ReceiveMaximum == 0 {
		o.ReceiveMaximum = 256
	}
	if o.SessionExpiry <= 0 {
		o.SessionExpiry = 7 * 24 * time.Hour
	}
	o.SessionExpiry = min(max(o.SessionExpiry.Truncate(time.Second), time.Second), math.MaxUint32*time.Second)
	return nil
}

// Limits of every connection and session.
const (
	maxInFlight   = 128 // messages sent to a subscriber and not yet acknowledged
	maxStrangers  = 64  // connections beyond MaxClients: those that have not said who they are, and those that are told to go
	sweepInterval = 30 * time.Second
)

// Listener is the MQTT broker of the box. Build it with NewListener; Run serves. Addr and Stats may be called from any goroutine.
type Listener struct {
	o        ListenerOptions
	log      *slog.Logger
	nl       net.Listener
	tree     tree
	taps     *taps
	retained *retained
	wills    chan *message // delayed ones that are due
	stopping chan struct{} // nobody is accepted any more
	conns    sync.WaitGroup

	clients  atomic.Int64
	refusing condition
	dropping condition
	stats    struct{ received, repeats, refused, dropped, notRetained atomic.Uint64 }

	mu       sync.Mutex // guards what follows, and the sessions without a connection
	sessions map[string]*session
	open     map[*conn]struct{}
}

// ListenerStats counts what the listener did since it was made.
type ListenerStats struct {
	Clients     int    // connected now
	Sessions    int    // known now, connected or not
	Retained    int    // retained messages now
	Received    uint64 // PUBLISH packets taken in
	Repeats     uint64 // of these, recognised as sent again
	Refused     uint64 // messages refused, too large packets included
	Dropped     uint64 // messages not brought to a subscriber: it was too slow, away too long, or could not take them
	NotRetained uint64 // messages to retain for which there was no room
}

// NewListener takes the address and loads sessions and retained messages. It accepts nobody before Run.
func NewListener(o ListenerOptions) (*Listener, error) {
	slimCodec()
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	l := &Listener{
		o: o, log: o.Logger, wills: make(chan *message), stopping: make(chan struct{}),
		sessions: make(map[string]*session), open: make(map[*conn]struct{}),
	}
	l.taps = newTaps(o.Broker, l.fanOut)
	l.retained = newRetained(o.MaxRetained, o.MaxRetainedBytes, func() { l.stats.notRetained.Add(1) })
	bad := func(topic string, err error) {
		l.log.Warn("retained message on disk makes no sense", "topic", topic, "err", err)
	}
	if err := l.retained.load(o.Store, bad); err != nil {
		return nil, err
	}
	nl, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("MQTT listener: %w", err)
	}
	l.nl = nl
	if err := l.loadSessions(); err != nil {
		l.taps.close()
		return nil, errors.Join(err, nl.Close())
	}
	return l, nil
}

// Addr is the address that was taken.
func (l *Listener) Addr() net.Addr { return l.nl.Addr() }

// Stats returns the counters.
func (l *Listener) Stats() ListenerStats {
	l.mu.Lock()
	sessions := len(l.sessions)
	l.mu.Unlock()
	return ListenerStats{
		Clients: int(l.clients.Load()), Sessions: sessions, Retained: l.retained.len(),
		Received: l.stats.received.Load(), Repeats: l.stats.repeats.Load(), Refused: l.stats.refused.Load(),
		Dropped: l.stats.dropped.Load(), NotRetained: l.stats.notRetained.Load(),
	}
}

// Run serves clients until ctx ends. When it returns every message that was on its way to the disk has come to its end, and so have the goroutines.
// A listener runs once.
func (l *Listener) Run(ctx context.Context) error {
	accepted := make(chan error, 1)
	var accepting sync.WaitGroup
	accepting.Go(func() { accepted <- l.accept(context.WithoutCancel(ctx)) })
	err := l.housekeep(ctx, accepted)
	close(l.stopping)
	_ = l.nl.Close()
	accepting.Wait()
	l.shutdown()
	return err
}

func (l *Listener) accept(ctx context.Context) error {
	for wait := time.Duration(0); ; {
		nc, err := l.nl.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			wait = min(max(2*wait, 5*time.Millisecond), time.Second) // out of file descriptors, most likely
			l.log.Warn("connection not accepted", "err", err)
			select {
			case <-time.After(wait):
			case <-l.stopping:
			}
			continue
		}
		wait = 0
		c := newConn(l, nc)
		l.mu.Lock()
		full := len(l.open) >= l.o.MaxClients+maxStrangers
		if !full {
			l.open[c] = struct{}{}
		}
		l.mu.Unlock()
		if full {
			_ = nc.Close()
			continue
		}
		l.conns.Go(func() {
			c.serve(ctx)
			l.mu.Lock()
			delete(l.open, c)
			l.mu.Unlock()
		})
	}
}

func (l *Listener) shutdown() {
	l.mu.Lock()
	for c := range l.open {
		c.goodbye(packets.ErrServerShuttingDown)
	}
	l.mu.Unlock()
	l.conns.Wait()
	l.mu.Lock()
	for _, s := range l.sessions {
		s.stopWill()
	}
	l.mu.Unlock()
	l.taps.close()
}

// maxPacket is the largest packet that a client may send.
func (l *Listener) maxPacket() int { return l.o.MaxMessage + maxPacketExtra }

func (l *Listener) limitExpiry(seconds uint32) time.Duration {
	return min(time.Duration(seconds)*time.Second, l.o.SessionExpiry)
}

func randomClientID() string { return "edged-" + rand.Text() }
