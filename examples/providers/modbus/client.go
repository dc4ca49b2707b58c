package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// table is one of the four that a device has: a function that reads it, and how many
// entries one request may have (MODBUS Application Protocol 1.1b3, 6.1 to 6.4).
type table struct {
	read byte
	most int
	bits bool
}

var tables = map[string]table{
	"coils":    {0x01, 2000, true},
	"discrete": {0x02, 2000, true},
	"holding":  {0x03, 125, false},
	"input":    {0x04, 125, false},
}

// Functions that write one entry (6.5, 6.6), and the bit that marks an exception (7).
const (
	writeCoil    = 0x05
	writeHolding = 0x06
	exception    = 0x80
)

var exceptions = map[byte]string{
	1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "server device failure", 5: "acknowledge",
	6: "server device busy", 8: "memory parity error", 10: "gateway path unavailable", 11: "gateway target device failed to respond",
}

// exceptionError is what a device has answered with. The connection is good.
type exceptionError byte

func (e exceptionError) Error() string {
	if text := exceptions[byte(e)]; text != "" {
		return "modbus: " + text
	}
	return fmt.Sprintf("modbus: exception %d", byte(e))
}

// client speaks to one device over TCP, one request after the other. Its methods may be
// called from any goroutine.
type client struct {
	address string
	unit    byte
	timeout time.Duration

	mu     sync.Mutex // held during a request: there is one at a time
	conn   net.Conn   // nil while there is none
	last   uint16     // transaction
	closed bool
}

// get reads count entries of a table; of bits each is 0 or 1.
func (c *client) get(t table, address, count uint16) ([]uint16, error) {
	if count == 0 || int(count) > t.most || int(address)+int(count) > 1<<16 {
		return nil, fmt.Errorf("modbus: %d entries from %d: at most %d at once, the last is 65535", count, address, t.most)
	}
	reply, err := c.ask(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16([]byte{t.read}, address), count), true)
	if err != nil {
		return nil, err
	}
	values, err := entries(t, reply, int(count))
	return values, err
}

// entries takes what was read out of an answer.
func entries(t table, reply []byte, count int) ([]uint16, error) {
	size := 2 * count
	if t.bits {
		size = (count + 7) / 8
	}
	if len(reply) != 2+size || int(reply[1]) != size&0xff {
		return nil, fmt.Errorf("modbus: an answer of %d bytes, want %d", len(reply), 2+size)
	}
	values := make([]uint16, count)
	for i := range values {
		if t.bits {
			values[i] = uint16(reply[2+i/8] >> (i % 8) & 1)
		} else {
			values[i] = binary.BigEndian.Uint16(reply[2+2*i:])
		}
	}
	return values, nil
}

// put writes one entry.
func (c *client) put(function byte, address, value uint16) error {
	request := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16([]byte{function}, address), value)
	reply, err := c.ask(request, false)
	if err == nil && string(reply) != string(request) {
		err = errors.New("modbus: the device has written something else")
	}
	return err
}

// ask sends a request and returns the answer. Devices hang up on those that are idle, so
// a request that only reads is sent once more, over a new connection, if an old one fails.
func (c *client) ask(pdu []byte, reads bool) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for again := reads && c.conn != nil; ; again = false {
		if c.closed {
			return nil, net.ErrClosed
		}
		if c.conn == nil {
			conn, err := net.DialTimeout("tcp", c.address, c.timeout)
			if err != nil {
				return nil, fmt.Errorf("modbus: %w", err)
			}
			c.conn = conn
		}
		c.last++
		reply, err := exchange(c.conn, c.last, c.unit, pdu, time.Now().Add(c.timeout))
		if err == nil || errors.As(err, new(exceptionError)) {
			return reply, err
		}
		_ = c.conn.Close() // what comes late must not be taken for the next answer
		c.conn = nil
		if !again {
			return nil, fmt.Errorf("modbus: %s: %w", c.address, err)
		}
	}
}

// maxPDU is the longest request or answer (MODBUS Application Protocol 1.1b3, 4.1).
const maxPDU = 253

// exchange is one request with its answer, in the frames of TCP (MODBUS Messaging on
// TCP/IP 1.0b, 3.1.3): transaction, protocol 0, length, unit.
func exchange(conn net.Conn, transaction uint16, unit byte, pdu []byte, deadline time.Time) ([]byte, error) {
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	frame := binary.BigEndian.AppendUint16(nil, transaction)
	frame = binary.BigEndian.AppendUint16(frame, 0)
	frame = binary.BigEndian.AppendUint16(frame, uint16(1+len(pdu)))
	if _, err := conn.Write(append(append(frame, unit), pdu...)); err != nil {
		return nil, err
	}
	return readReply(conn, transaction, unit, pdu[0])
}

func readReply(r io.Reader, transaction uint16, unit, function byte) ([]byte, error) {
	var head [7]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(head[4:])) - 1
	switch {
	case binary.BigEndian.Uint16(head[:]) != transaction || binary.BigEndian.Uint16(head[2:]) != 0 || head[6] != unit:
		return nil, errors.New("an answer to another request")
	case length < 2 || length > maxPDU:
		return nil, fmt.Errorf("an answer of %d bytes", length)
	}
	reply := make([]byte, length)
	if _, err := io.ReadFull(r, reply); err != nil {
		return nil, err
	}
	switch reply[0] {
	case function:
		return reply, nil
	case function | exception:
		return nil, exceptionError(reply[1])
	}
	return nil, fmt.Errorf("an answer to function %d, not %d", reply[0], function)
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
