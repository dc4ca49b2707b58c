package mqtt

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Bounds of a connection.
const (
	connectTimeout  = 10 * time.Second // for the CONNECT to come
	writeTimeout    = 20 * time.Second // for a client to take what it is sent
	skipTimeout     = 5 * time.Second  // for the rest of a packet that is too large
	goodbyeTimeout  = time.Second      // for the last packet of a connection that ends
	maxAliases      = 16               // topics that a client may give a number
	writeChunk      = 32 << 10         // bytes per write
	idleBytes       = 4 << 10          // buffers that a quiet connection may keep
	maxControlBytes = 64 << 10         // answers waiting to be written, before the reader waits
)

// conn is one client connection. Its reader is the goroutine that runs serve; its writer is the other one.
type conn struct {
	l   *Listener
	nc  net.Conn
	r   *bufio.Reader
	log connLog

	// The reader's own.
	session   *session
	version   byte
	keepalive time.Duration
	clean     bool // it said goodbye: no will
	will      *message
	willDelay time.Duration
	aliases   map[uint16]string
	trail     trail // of what it publishes
	maxPacket int   // of the client; 0 for any
	terse     bool  // it wants no reasons in words (MQTT 5, 3.1.2.11.7)

	window   *window
	wakeCh   chan struct{}
	ended    chan struct{} // closed when nothing more is to be read
	endOnce  sync.Once
	finished chan struct{} // closed when the session is free again

	mu       sync.Mutex // guards what follows
	control  []byte     // encoded answers, before deliveries
	room     *sync.Cond // control was taken
	closing  bool       // write control, then close
	readDone bool
	unacked  int      // QoS 1 and 2 of the client that are not completed
	attached *session // whose messages go out: set when CONNACK is queued

	mute bool // the writer's own: no more acknowledgements
}

func newConn(l *Listener, nc net.Conn) *conn {
	c := &conn{
		l: l, nc: nc, r: bufio.NewReaderSize(nc, 4096), version: 4,
		wakeCh: make(chan struct{}, 1), ended: make(chan struct{}), finished: make(chan struct{}),
	}
	c.log = connLog{l.log, nc.RemoteAddr().String()}
	c.room = sync.NewCond(&c.mu)
	c.window = newWindow(int(l.o.ReceiveMaximum), l.o.WindowBytes, c.wake)
	return c
}

// wake lets the writer look for work. It does not block.
func (c *conn) wake() {
	select {
	case c.wakeCh <- struct{}{}:
	default:
	}
}

// serve is the life of a connection. When it returns the session is free and all that the client published has come to an end.
func (c *conn) serve(ctx context.Context) {
	defer close(c.finished)
	var writer sync.WaitGroup
	writer.Go(c.writeLoop)
	err := c.open(ctx)
	if err == nil {
		err = c.readLoop(ctx)
	}
	c.goodbye(err)
	c.mu.Lock()
	c.readDone = true
	c.mu.Unlock()
	c.wake()
	writer.Wait()
	if c.session != nil {
		c.detach(ctx)
	}
	c.log.ended(ctx, c.session, err)
}

// errClosed is the end that the client asked for.
var errClosed = errors.New("closed by the client")

func (c *conn) readLoop(ctx context.Context) error {
	for {
		var deadline time.Time
		if c.keepalive > 0 {
			deadline = time.Now().Add(c.keepalive * 3 / 2) // MQTT 3.1.2-24
		}
		if err := c.nc.SetReadDeadline(deadline); err != nil {
			return err
		}
		pk, err := readPacket(c.r, c.version, c.l.maxPacket())
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return packets.ErrKeepAliveTimeout
		case err == packets.ErrPacketTooLarge:
			c.l.stats.refused.Add(1)
			c.skip(pk.FixedHeader.Remaining)
			return err
		case err != nil:
			return err
		}
		if err := c.handle(ctx, &pk); err != nil {
			return err
		}
	}
}

// skip reads over a packet that is too large: closing a connection with unread bytes would take the DISCONNECT that explains it along.
func (c *conn) skip(length int) {
	const most = 32 << 20
	_ = c.nc.SetReadDeadline(time.Now().Add(skipTimeout))
	_, _ = io.CopyN(io.Discard, c.r, int64(min(length, most)))
}

// handle does what one packet asks for. An error ends the connection; a packets.Code tells a client of version 5 why.
func (c *conn) handle(ctx context.Context, pk *packets.Packet) error {
	switch pk.FixedHeader.Type {
	case packets.Publish:
		return c.published(ctx, pk)
	case packets.Pubrel:
		return c.release(pk)
	case packets.Puback:
		c.deliveryEnded(pk.PacketID)
	case packets.Pubrec:
		return c.deliveryReceived(pk)
	case packets.Pubcomp:
		c.deliveryEnded(pk.PacketID)
	case packets.Subscribe:
		return c.subscribe(ctx, pk)
	case packets.Unsubscribe:
		return c.unsubscribe(ctx, pk)
	case packets.Pingreq:
		return c.answer(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingresp}})
	case packets.Disconnect:
		return c.disconnected(pk)
	case packets.Connect:
		return packets.ErrProtocolViolationSecondConnect
	default:
		return packets.ErrProtocolViolation
	}
	return nil
}

func (c *conn) disconnected(pk *packets.Packet) error {
	if pk.Properties.SessionExpiryIntervalFlag {
		if !c.session.kept && pk.Properties.SessionExpiryInterval > 0 {
			return packets.ErrProtocolViolationZeroNonZeroExpiry // MQTT 5, 3.14.2.2.2
		}
		c.session.expiry = c.l.limitExpiry(pk.Properties.SessionExpiryInterval)
		c.session.kept = c.session.expiry > 0
	}
	c.clean = pk.ReasonCode != packets.CodeDisconnectWillMessage.Code
	return errClosed
}

// answer queues a packet for the writer. It waits while the client does not take what is queued already.
func (c *conn) answer(pk *packets.Packet) error {
	pk.ProtocolVersion = c.version
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.control) > maxControlBytes && !c.closing {
		c.room.Wait()
	}
	return c.answerLocked(pk)
}

func (c *conn) answerLocked(pk *packets.Packet) error {
	if c.closing {
		return errClosed
	}
	c.shorten(pk)
	out, err := encode(c.control, pk)
	if err != nil {
		return err
	}
	c.control = out
	c.wake()
	return nil
}

// shorten leaves out what the client does not want to be told.
func (c *conn) shorten(pk *packets.Packet) {
	if c.terse && pk.FixedHeader.Type != packets.Connack && pk.FixedHeader.Type != packets.Disconnect {
		pk.Properties.ReasonString = ""
	}
}

// goodbye ends the connection, with a DISCONNECT that says why if the client can read it. It may be called by anybody, more than once.
func (c *conn) goodbye(why error) {
	c.mu.Lock()
	if !c.closing {
		if code, ok := errors.AsType[packets.Code](why); ok && c.version == 5 && code.Code >= packets.ErrUnspecifiedError.Code {
			pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ProtocolVersion: 5, ReasonCode: code.Code}
			pk.Properties.ReasonString = code.Reason
			_ = c.answerLocked(pk)
		}
		c.closing = true
		_ = c.nc.SetWriteDeadline(time.Now().Add(goodbyeTimeout))
	}
	c.room.Broadcast()
	c.mu.Unlock()
	c.endOnce.Do(func() { close(c.ended) })
	c.wake()
}

// writeLoop writes until the reader has ended and nothing that the client has published is without an end any more. When the connection is closed it
// goes on without writing: what is on its way to the disk will reach the subscribers.
func (c *conn) writeLoop() {
	var buf, deliveries []byte
	open := true
	for {
		// Deliveries are taken first and written last, so that none overtakes the SUBACK that it follows from.
		if deliveries = deliveries[:0]; open {
			deliveries = c.takeDeliveries(deliveries)
		}
		var closing, readDone bool
		buf, closing, readDone = c.takeControl(c.finishPublished(buf[:0]))
		if !closing {
			buf = append(buf, deliveries...)
		}
		if open && len(buf) > 0 {
			open = c.write(buf)
		}
		if open && closing {
			open = false
			_ = c.nc.Close()
		}
		if readDone && c.window.empty() {
			_ = c.nc.Close()
			return
		}
		if len(buf) > 0 {
			continue // there may be more
		}
		if cap(buf)+cap(deliveries) > idleBytes {
			buf, deliveries = nil, nil
		}
		<-c.wakeCh
	}
}

// write says whether the connection is still good.
func (c *conn) write(buf []byte) bool {
	c.mu.Lock()
	if !c.closing { // else goodbye has set one that is sooner
		_ = c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	c.mu.Unlock()
	if _, err := c.nc.Write(buf); err != nil {
		c.goodbye(err)
		_ = c.nc.Close()
		return false
	}
	return true
}

func (c *conn) takeControl(buf []byte) (out []byte, closing, readDone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	buf = append(buf, c.control...)
	c.control = c.control[:0]
	c.room.Broadcast()
	return buf, c.closing, c.readDone
}

// takeDeliveries appends messages to the client, up to a chunk.
func (c *conn) takeDeliveries(buf []byte) []byte {
	c.mu.Lock()
	s := c.attached
	c.mu.Unlock()
	if s == nil {
		return buf
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake == nil {
		return buf
	}
	for len(buf) < writeChunk {
		pk := s.out.next(c.version, now)
		if pk == nil {
			break
		}
		before := len(buf)
		out, err := encode(buf, pk)
		if err == nil && (c.maxPacket == 0 || len(out)-before <= c.maxPacket) {
			buf = out
			continue
		}
		s.out.acked(pk.PacketID) // MQTT 5, 3.1.2-25: as if it had been delivered
		c.l.stats.dropped.Add(1)
	}
	return buf
}
