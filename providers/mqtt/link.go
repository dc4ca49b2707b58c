package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/edged-io/edged/store"
)

// link is one connection of a Client. What comes goes through three goroutines: paho's handler hands over, stageAll submits turns, ackAll acknowledges
// in order what is on disk. Each hand-over has a bound and waits at it, back to the socket. What goes out comes from the outbox through one more
// goroutine and paho, whose store is flight, and leaves through the gate of the connection.
type link struct {
	c         *Client
	paho      paho.Client
	password  string
	tls       *tls.Config
	repeats   *repeats
	flight    *flight
	connected bool          // the broker has let us in
	useful    atomic.Bool   // something was achieved: the next attempt need not wait long
	ended     chan struct{} // closed when no more is to be taken
	lost      chan error    // the first reason to end
	abort     func() bool   // stops ctx from closing the connection, once it is established
	conn      *linkConn     // once it is open; used by others when paho has connected

	truncation string // marks a payload that was cut
	incoming   chan *inbound
	pending    chan *inbound
	trail      trail // of messages that the broker keeps; stageAll's own
}

// Limits of a link.
const (
	linkTimeout   = 20 * time.Second // to connect, to subscribe, to write
	settleTimeout = 2 * time.Second  // for the broker to take the last acknowledgements
	quiesceMillis = 250
)

// errSilent ends a connection whose broker does not answer.
var errSilent = errors.New("no answer in time")

func newLink(c *Client) *link {
	return &link{
		c: c, ended: make(chan struct{}), lost: make(chan error, 1), truncation: randomClientID(),
		incoming: make(chan *inbound, c.o.Window), pending: make(chan *inbound, c.o.Window),
	}
}

// serve connects, calls up, and returns when the connection is lost or ctx has ended, with the reason. up is told what the box lacks although it is
// connected.
func (l *link) serve(ctx context.Context, up func(lacks error)) error {
	present, err := l.connect(ctx)
	if err != nil {
		return err
	}
	l.connected = true
	defer l.conn.wait()
	lasting := context.WithoutCancel(ctx)
	var work sync.WaitGroup
	lacks, err := l.resume(ctx, present, func() {
		work.Go(func() { l.stageAll(lasting) })
		work.Go(func() { l.ackAll(lasting) })
	})
	if err == nil {
		up(lacks)
		if l.c.o.Outbox != nil {
			work.Go(func() { l.drain(ctx) })
		}
		began := time.Now()
		select {
		case err = <-l.lost:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		l.useful.CompareAndSwap(false, time.Since(began) > l.c.o.MaxBackoff)
	}
	close(l.ended)
	l.settle(&work)
	return err
}

// connect opens the connection and the session. paho sends what was in flight again before it returns.
func (l *link) connect(ctx context.Context) (present bool, err error) {
	if l.password, err = l.c.o.Login.password(); err != nil {
		return false, err
	}
	if l.tls, err = l.c.o.Login.tls(l.c.url); err != nil {
		return false, err
	}
	if l.flight, err = openFlight(l); err != nil {
		return false, err
	}
	l.paho = paho.NewClient(l.options(ctx))
	connected := l.paho.Connect().(*paho.ConnectToken)
	<-connected.Done() // it has a timeout, and ends with ctx
	if l.abort != nil {
		l.abort()
	}
	if err := connected.Error(); err != nil {
		if l.conn != nil {
			_ = l.conn.Close()
			l.conn.wait()
		}
		return false, fmt.Errorf("connect: %w", err)
	}
	return connected.SessionPresent(), nil
}

// settle lets what is on its way to the disk be acknowledged, if the broker takes it in time, and disconnects.
func (l *link) settle(work *sync.WaitGroup) {
	quiet := make(chan struct{})
	go func() { work.Wait(); close(quiet) }() // waited for below
	select {
	case <-quiet:
	case <-time.After(settleTimeout):
	}
	l.paho.Disconnect(quiesceMillis)
	_ = l.conn.Close()
	<-quiet
}

func (l *link) options(ctx context.Context) *paho.ClientOptions {
	c := l.c
	o := paho.NewClientOptions().AddBroker(c.url.String()).SetClientID(c.o.ClientID)
	o.SetUsername(c.o.Login.User).SetPassword(l.password)
	o.SetCleanSession(c.o.Clean).SetOrderMatters(true).SetAutoAckDisabled(true)
	o.SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false) // Run does these, with a new paho client each time
	o.SetStore(l.flight)
	o.SetProtocolVersion(4)
	o.SetKeepAlive(c.o.KeepAlive).SetPingTimeout(c.o.KeepAlive).SetConnectTimeout(linkTimeout)
	o.SetWriteTimeout(0) // linkConn has one
	if w := c.o.Will; w != nil {
		o.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retain)
	}
	o.SetCustomOpenConnectionFn(l.dial(ctx))
	o.SetDefaultPublishHandler(l.take)
	o.SetConnectionLostHandler(func(_ paho.Client, err error) { l.fail(fmt.Errorf("connection lost: %w", err)) })
	return o
}

func (l *link) fail(err error) {
	select {
	case l.lost <- err:
	default:
	}
}

func (l *link) wait(ctx context.Context, t paho.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case err := <-l.lost:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(linkTimeout):
		return errSilent
	}
}

// promise is what has to be on disk before a packet leaves: nil where it is already.
func (l *link) promise(kind byte, id uint16) <-chan error {
	switch kind {
	case pubrel:
		return l.flight.release(id)
	case pubcomp:
		if l.c.o.Store == nil {
			return nil
		}
		// From here on the broker can use the identifier for another message, which may be one like the last. It may do so before resume has run;
		// the key of an entry is that of the session, of whichever epoch.
		r := clientRepeats(l.c.o.URL, l.c.o.ClientID, epoch{})
		fate := make(chan error, 1)
		submit(context.Background(), l.c.o.Store, func(t *store.Turn) error { return r.done(t, id) }, func(err error) { fate <- err })
		return fate
	}
	return l.flight.stored(id)
}
