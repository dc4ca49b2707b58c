package mqtt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/mochi-mqtt/server/v2/packets"
)

// readPacket reads and decodes one packet. limit bounds its size on the wire; a larger one is a packets.ErrPacketTooLarge, found before its body is
// read. What is malformed is a packets.Code; other errors are those of r.
func readPacket(r *bufio.Reader, version byte, limit int) (packets.Packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return packets.Packet{}, err
	}
	var fh packets.FixedHeader
	if err := fh.Decode(first); err != nil {
		return packets.Packet{}, asCode(err)
	}
	length, lengthBytes, err := readLength(r)
	if err != nil {
		return packets.Packet{}, err
	}
	fh.Remaining = length
	if 1+lengthBytes+length > limit {
		return packets.Packet{FixedHeader: fh}, packets.ErrPacketTooLarge
	}
	body, err := readBody(r, length)
	if err != nil {
		return packets.Packet{}, err
	}
	return decode(fh, version, body)
}

// readLength reads a variable byte integer (MQTT 5, 1.5.5) and says how many bytes it had.
func readLength(r io.ByteReader) (n, size int, err error) {
	for size < 4 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, size, err
		}
		n |= int(b&127) << (7 * size)
		size++
		if b < 128 {
			return n, size, nil
		}
	}
	return 0, size, packets.ErrMalformedVariableByteInteger
}

// readBody lets memory grow with what really comes, not with what a header promises.
func readBody(r io.Reader, length int) ([]byte, error) {
	const trusted = 64 << 10
	if length <= trusted {
		body := make([]byte, length)
		_, err := io.ReadFull(r, body)
		return body, err
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(length)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// decode decodes the body of a packet, which the packet keeps. The error is a packets.Code.
func decode(fh packets.FixedHeader, version byte, body []byte) (packets.Packet, error) {
	pk := packets.Packet{FixedHeader: fh, ProtocolVersion: version}
	var err error
	switch fh.Type {
	case packets.Connect:
		err = pk.ConnectDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback:
		err = pk.PubackDecode(body)
	case packets.Pubrec:
		err = pk.PubrecDecode(body)
	case packets.Pubrel:
		err = pk.PubrelDecode(body)
	case packets.Pubcomp:
		err = pk.PubcompDecode(body)
	case packets.Subscribe:
		if err = checkSubscribe(version, body); err == nil {
			err = pk.SubscribeDecode(body)
		}
	case packets.Unsubscribe:
		err = pk.UnsubscribeDecode(body)
	case packets.Pingreq:
	case packets.Disconnect:
		err = pk.DisconnectDecode(body)
	default: // what only a server sends, and AUTH, which was not agreed on
		err = packets.ErrProtocolViolation
	}
	return pk, asCode(err)
}

// checkSubscribe finds the one SUBSCRIBE that mochi's decoder (2.7.9) does not survive: version 5, the last filter without its options.
func checkSubscribe(version byte, body []byte) error {
	if version != 5 {
		return nil
	}
	if len(body) < 2 {
		return packets.ErrMalformedPacketID
	}
	r := bytes.NewReader(body[2:])
	n, _, err := readLength(r)
	if err != nil || n > r.Len() {
		return packets.ErrMalformedProperties
	}
	rest := body[len(body)-r.Len()+n:]
	for len(rest) > 0 {
		if len(rest) < 2 {
			return packets.ErrMalformedTopic
		}
		next := 2 + int(rest[0])<<8 + int(rest[1]) + 1
		if next > len(rest) {
			return packets.ErrMalformedTopic
		}
		rest = rest[next:]
	}
	return nil
}

// asCode returns err as the packets.Code that it is or wraps; malformed if it is none.
func asCode(err error) error {
	if err == nil {
		return nil
	}
	if code, ok := errors.AsType[packets.Code](err); ok {
		return code
	}
	return packets.ErrMalformedPacket
}

// encode appends a packet as it goes over the wire.
func encode(out []byte, pk *packets.Packet) ([]byte, error) {
	buf := bytes.NewBuffer(out)
	pk.Mods.AllowResponseInfo = true
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackEncode(buf)
	case packets.Publish:
		err = pk.PublishEncode(buf)
	case packets.Puback:
		err = pk.PubackEncode(buf)
	case packets.Pubrec:
		err = pk.PubrecEncode(buf)
	case packets.Pubrel:
		pk.FixedHeader.Qos = 1 // MQTT 3.6.1: its flags are 0010
		err = pk.PubrelEncode(buf)
	case packets.Pubcomp:
		err = pk.PubcompEncode(buf)
	case packets.Suback:
		err = pk.SubackEncode(buf)
	case packets.Unsuback:
		err = pk.UnsubackEncode(buf)
	case packets.Pingresp:
		err = pk.PingrespEncode(buf)
	case packets.Disconnect:
		err = pk.DisconnectEncode(buf)
	default:
		err = fmt.Errorf("encode packet of type %d", pk.FixedHeader.Type)
	}
	if err != nil {
		return out, err
	}
	return buf.Bytes(), nil
}

// acknowledgement is a PUBACK, PUBREC, PUBREL or PUBCOMP.
func acknowledgement(kind, version byte, id uint16, reason packets.Code) *packets.Packet {
	pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, ProtocolVersion: version, PacketID: id, ReasonCode: reason.Code}
	if reason.Code >= packets.ErrUnspecifiedError.Code {
		pk.Properties.ReasonString = reason.Reason
	}
	return pk
}
