package box

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"time"
)

// mqttClient speaks just enough of MQTT to send what a library would refuse to.
type mqttClient struct {
	b       *box
	conn    net.Conn
	in      *bufio.Reader
	version byte // 4 for 3.1.1, or 5
}

// Types of packets, in the upper half of the first byte.
const (
	mqttConnack    = 2
	mqttPuback     = 4
	mqttDisconnect = 14
)

func (b *box) mqtt(version byte) *mqttClient {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.addr("mqtt"))
	b.must(err)
	b.t.Cleanup(func() { conn.Close() })
	b.must(conn.SetDeadline(time.Now().Add(patience)))
	c := &mqttClient{b, conn, bufio.NewReader(conn), version}
	body := slices.Concat(text("MQTT"), []byte{version, 2, 0, 60}, c.properties(), text("sensor")) // a clean start
	c.send(0x10, body)
	kind, body := c.read()
	if kind != mqttConnack || body[1] != 0 {
		b.t.Fatalf("connect: packet %d % x", kind, body)
	}
	return c
}

// text is a string as MQTT writes it.
func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

// properties are none, which only version 5 says.
func (c *mqttClient) properties() []byte {
	if c.version == 5 {
		return []byte{0}
	}
	return nil
}

func (c *mqttClient) send(first byte, body []byte) {
	c.b.t.Helper()
	packet := append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
	_, _ = c.conn.Write(packet) // a broker may hang up before it has all; what it says then is read
}

// publish sends a message with quality of service 1 and packet id 1, and returns
// the reason code of its PUBACK, or of the DISCONNECT that came instead. hungUp
// says that there was no answer.
func (c *mqttClient) publish(topic string, payload []byte) (kind, reason byte, hungUp bool) {
	c.b.t.Helper()
	c.send(0x32, slices.Concat(text(topic), []byte{0, 1}, c.properties(), payload))
	kind, body := c.read()
	switch {
	case kind == 0:
		return 0, 0, true
	case kind == mqttPuback && len(body) > 2:
		return kind, body[2], false
	case kind == mqttDisconnect && len(body) > 0:
		return kind, body[0], false
	}
	return kind, 0, false
}

// read returns the next packet, of kind 0 when the broker hung up.
func (c *mqttClient) read() (kind byte, body []byte) {
	c.b.t.Helper()
	first, err := c.in.ReadByte()
	if err != nil {
		return 0, nil
	}
	n, err := binary.ReadUvarint(c.in)
	if err != nil {
		return 0, nil
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return 0, nil
	}
	return first >> 4, body
}
