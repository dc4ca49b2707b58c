package mqtt

import (
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// message is one publication on its way to subscribers. It is not changed once it is shared.
type message struct {
	topic   string
	payload []byte
	qos     byte
	retain  bool
	props   packets.Properties // those that travel with a message
	origin  string             // client id of the publisher; "" if it came over NATS
	expires time.Time          // zero for never
	ttl     time.Duration      // how long it was to be of use when it came; 0 for ever. Not on disk.
}

// size is what the message costs in a queue.
func (m *message) size() int { return len(m.topic) + len(m.payload) + 256 }

// fromPublish takes a message out of a PUBLISH. The strings are copied: those of the decoder share the bytes of the packet.
func fromPublish(pk *packets.Packet, topic, origin string, now time.Time) *message {
	m := &message{
		topic: strings.Clone(topic), payload: pk.Payload, qos: pk.FixedHeader.Qos, retain: pk.FixedHeader.Retain, origin: origin,
		props: travelling(&pk.Properties),
	}
	if s := pk.Properties.MessageExpiryInterval; s > 0 {
		m.ttl = time.Duration(s) * time.Second
		m.expires = now.Add(m.ttl)
	}
	return m
}

// travelling returns the properties that go on to subscribers (MQTT 5, 3.3.2.3), but for the expiry.
func travelling(p *packets.Properties) packets.Properties {
	return packets.Properties{
		PayloadFormat: p.PayloadFormat, PayloadFormatFlag: p.PayloadFormatFlag, ContentType: p.ContentType,
		ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, User: p.User,
	}
}

// publish returns the PUBLISH of the message for a subscriber that speaks version.
func (m *message) publish(version byte, now time.Time) *packets.Packet {
	pk := &packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Publish},
		ProtocolVersion: version, TopicName: m.topic, Payload: m.payload, Properties: m.props,
	}
	if !m.expires.IsZero() {
		pk.Properties.MessageExpiryInterval = uint32(max(1, m.expires.Sub(now)/time.Second)) // MQTT 5, 3.3.2.3.3
	}
	return pk
}

func (m *message) expired(now time.Time) bool { return !m.expires.IsZero() && now.After(m.expires) }

// toNATS returns the message as the broker takes it. The error is a packets.Code.
func (m *message) toNATS(maxMessage int) (store.Message, error) {
	subject, err := publishSubject(m.topic)
	if err != nil {
		return store.Message{}, err
	}
	props := m.props
	props.MessageExpiryInterval = uint32(m.ttl / time.Second)
	header := headerOf(&props)
	if len(header)+len(m.payload) > maxMessage {
		return store.Message{}, codeTooLarge
	}
	return store.Message{Subject: subject, Header: header, Data: m.payload, TTL: m.ttl}, nil
}

var (
	codeTooLarge = packets.Code{Code: packets.ErrQuotaExceeded.Code, Reason: "message too large"}
	codeFull     = packets.Code{Code: packets.ErrQuotaExceeded.Code, Reason: "no room for the message"}
	codeReserved = packets.Code{Code: packets.ErrTopicNameInvalid.Code, Reason: "topics that begin with $ are the broker's"}
)

// publishSubject returns the subject of a topic that a client may publish to. The error is a packets.Code.
func publishSubject(name string) (string, error) {
	switch {
	case strings.ContainsAny(name, "+#"):
		return "", packets.ErrProtocolViolationSurplusWildcard // MQTT 3.3.2-2
	case strings.HasPrefix(name, "$"):
		return "", codeReserved // MQTT 4.7.2; and $SYS and $JS mean something to NATS
	case len(name) > MaxTopic:
		return "", packets.ErrTopicNameInvalid
	}
	subject, err := topic.Subject(name)
	if err != nil {
		return "", packets.ErrTopicNameInvalid
	}
	return subject, nil
}

// fromNATS returns a message of the box as subscribers get it; ok is false if its subject has no topic. Its quality of service is that
// of the subscription.
func fromNATS(m store.Message, now time.Time) (*message, bool) {
	name, err := topic.Topic(m.Subject)
	if err != nil || len(name) > MaxTopic {
		return nil, false
	}
	out := &message{topic: name, payload: m.Data, qos: 2, props: propertiesOf(event.Header(m.Header))}
	if ttl := ttlOf(event.Header(m.Header)); ttl > 0 {
		out.expires = now.Add(ttl)
	}
	return out, true
}
