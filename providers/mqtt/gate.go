package mqtt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Types of packets that wait at the gate.
const (
	publish = packets.Publish
	pubrel  = packets.Pubrel
	pubcomp = packets.Pubcomp
)

// gate is the way out of a connection. A packet that says something of a message of QoS 1 or 2 leaves when the store has what must be on disk by then, so
// that after a crash the box never knows less than the broker. These keep their order among each other; other packets pass them. paho waits for neither:
// what is on its way to the disk does not hold up what comes next.
type gate struct {
	nc   net.Conn
	l    *link
	out  chan gated
	done chan struct{} // closed when the connection is
	once sync.Once     // closes it
	gone chan struct{} // closed when let has returned

	mu sync.Mutex // a packet is written at a time
}

// gated is a packet on its way out.
type gated struct {
	packet []byte
	fate   <-chan error // nil if it need not wait
}

func newGate(nc net.Conn, l *link) *gate {
	g := &gate{nc: nc, l: l, out: make(chan gated, l.c.o.Window), done: make(chan struct{}), gone: make(chan struct{})}
	go g.let() // link.serve waits for it, by wait
	return g
}

// Write sends a packet, or lets it wait.
func (g *gate) Write(p []byte) (int, error) {
	kind, id, ok := aboutMessage(p)
	if !ok {
		return len(p), g.write(p)
	}
	if kind == pubrel {
		g.l.c.o.Failpoint(FailpointReceived)
	}
	select {
	case g.out <- gated{slices.Clone(p), g.l.promise(kind, id)}:
		return len(p), nil
	case <-g.done:
		return 0, net.ErrClosed
	}
}

// let sends what waits, in order. After the first packet that may not leave, none does.
func (g *gate) let() {
	defer close(g.gone)
	for {
		select {
		case <-g.done:
			return
		case p := <-g.out:
			if err := g.pass(p); err != nil {
				g.l.fail(err)
				_ = g.Close()
				return
			}
		}
	}
}

func (g *gate) pass(p gated) error {
	if p.fate != nil {
		select {
		case err := <-p.fate:
			if err != nil {
				return fmt.Errorf("keep what is in flight to the MQTT broker: %w", err)
			}
		case <-g.done:
			return net.ErrClosed
		}
	}
	kind := p.packet[0] >> 4
	g.l.c.o.Failpoint(failpoints[kind].stored)
	if err := g.write(p.packet); err != nil {
		return err
	}
	g.l.c.o.Failpoint(failpoints[kind].sent)
	return nil
}

func (g *gate) write(p []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.nc.SetWriteDeadline(time.Now().Add(linkTimeout)); err != nil {
		return err
	}
	_, err := g.nc.Write(p)
	return err
}

// Close closes the connection. What still waits is not sent.
func (g *gate) Close() error {
	err := net.ErrClosed
	g.once.Do(func() {
		close(g.done)
		err = g.nc.Close()
	})
	return err
}

// wait returns when nothing is sent any more, after Close.
func (g *gate) wait() { <-g.gone }

// aboutMessage says whether a packet is a PUBLISH of QoS 1 or 2, a PUBREL or a PUBCOMP, and about which message.
func aboutMessage(p []byte) (kind byte, id uint16, ok bool) {
	if len(p) < 4 {
		return 0, 0, false
	}
	kind = p[0] >> 4
	switch {
	case kind == pubrel || kind == pubcomp:
		return kind, binary.BigEndian.Uint16(p[2:]), true
	case kind != publish || p[0]>>1&3 == 0:
		return 0, 0, false
	}
	_, n, err := readLength(bytes.NewReader(p[1:]))
	if err != nil || len(p) < 1+n+2 {
		return 0, 0, false
	}
	p = p[1+n:]
	at := 2 + int(binary.BigEndian.Uint16(p))
	if len(p) < at+2 {
		return 0, 0, false
	}
	return kind, binary.BigEndian.Uint16(p[at:]), true
}
