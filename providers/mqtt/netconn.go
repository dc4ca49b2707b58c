package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/mochi-mqtt/server/v2/packets"
)

// linkConn is the network connection of a link as paho sees it: reads are buffered (paho reads a header byte by byte), writes have a deadline, and a
// message that is too large arrives cut, so that what a broker sends can not take our memory. It can be told from others by its mark. What is written
// goes through a gate.
type linkConn struct {
	net.Conn
	*gate
	r        *bufio.Reader
	limit    int // of a packet
	mark     string
	out      []byte // to be read next
	passable int    // bytes after out that may be read through
}

// keptBytes is what is left of the payload of a message that is too large.
const keptBytes = 4 << 10

// dial returns what opens the connection for paho. It ends with ctx.
func (l *link) dial(ctx context.Context) paho.OpenConnectionFunc {
	return func(u *url.URL, _ paho.ClientOptions) (net.Conn, error) {
		dialing, cancel := context.WithTimeout(ctx, linkTimeout)
		defer cancel()
		open := l.openTCP
		if strings.HasPrefix(u.Scheme, "ws") {
			open = l.openWebsocket
		}
		nc, err := open(dialing, u)
		if err != nil {
			return nil, err
		}
		l.abort = context.AfterFunc(ctx, func() { _ = nc.Close() })
		l.conn = newLinkConn(nc, l.c.o.MaxMessage+maxPacketExtra, l.truncation)
		l.conn.gate = newGate(nc, l)
		return l.conn, nil
	}
}

func (l *link) openTCP(ctx context.Context, u *url.URL) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil || !secure(u) {
		return nc, err
	}
	tc := tls.Client(nc, l.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	return tc, nil
}

// openWebsocket leaves the handshake alone if ctx ends: it can not be told to stop, but has a timeout.
func (l *link) openWebsocket(ctx context.Context, u *url.URL) (net.Conn, error) {
	type result struct {
		nc  net.Conn
		err error
	}
	opened := make(chan result)
	go func() { // ends within linkTimeout
		nc, err := paho.NewWebsocket(u.String(), l.tls, linkTimeout, nil, nil)
		select {
		case opened <- result{nc, err}:
		case <-ctx.Done():
			if err == nil {
				_ = nc.Close()
			}
		}
	}()
	select {
	case r := <-opened:
		return r.nc, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func newLinkConn(nc net.Conn, limit int, mark string) *linkConn {
	return &linkConn{Conn: nc, r: bufio.NewReaderSize(nc, 16<<10), limit: limit, mark: mark}
}

// Write takes one packet, as paho writes them.
func (c *linkConn) Write(p []byte) (int, error) { return c.gate.Write(p) }

// Close may be called again.
func (c *linkConn) Close() error { return c.gate.Close() }

func (c *linkConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.out) == 0 && c.passable == 0 {
		if err := c.nextPacket(); err != nil {
			return 0, err
		}
	}
	if len(c.out) > 0 {
		n := copy(p, c.out)
		c.out = c.out[n:]
		return n, nil
	}
	n, err := c.r.Read(p[:min(len(p), c.passable)])
	c.passable -= n
	return n, err
}

// nextPacket reads the header of a packet and decides how it goes on.
func (c *linkConn) nextPacket() error {
	first, err := c.r.ReadByte()
	if err != nil {
		return err
	}
	length, _, err := readLength(c.r)
	if err != nil {
		return err
	}
	if length <= c.limit {
		c.out = appendHeader(nil, first, length)
		c.passable = length
		return nil
	}
	if first>>4 != packets.Publish {
		return packets.ErrPacketTooLarge
	}
	return c.cut(first, length)
}

// cut lets a PUBLISH through with the mark and the beginning of its payload.
func (c *linkConn) cut(first byte, length int) error {
	head := make([]byte, 2, 1024)
	if _, err := io.ReadFull(c.r, head); err != nil {
		return err
	}
	rest := int(binary.BigEndian.Uint16(head))
	if first>>1&3 > 0 {
		rest += 2 // packet identifier
	}
	rest += keptBytes
	if 2+rest > length {
		return packets.ErrMalformedPacket
	}
	body := make([]byte, rest)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, c.r, int64(length-2-rest)); err != nil {
		return err
	}
	payload := len(body) - keptBytes
	c.out = appendHeader(nil, first, 2+rest+len(c.mark))
	c.out = append(append(append(append(c.out, head...), body[:payload]...), c.mark...), body[payload:]...)
	return nil
}

func appendHeader(out []byte, first byte, length int) []byte {
	out = append(out, first)
	for length > 127 {
		out = append(out, byte(length)|128)
		length >>= 7
	}
	return append(out, byte(length))
}

// untruncate returns the payload as the broker sent it, or what is left of it.
func (l *link) untruncate(payload []byte) (kept []byte, whole bool) {
	if after, cut := strings.CutPrefix(string(payload[:min(len(payload), len(l.truncation))]), l.truncation); cut && after == "" {
		return payload[len(l.truncation):], false
	}
	return payload, true
}
