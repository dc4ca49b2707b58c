package mqtt

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/store"
)

// published takes a PUBLISH of the client. What can not be taken is settled with a reason; an error ends the connection.
func (c *conn) published(ctx context.Context, pk *packets.Packet) error {
	name, err := c.topicOf(pk)
	if err != nil {
		return err
	}
	c.l.stats.received.Add(1)
	qos := pk.FixedHeader.Qos
	if qos > 0 {
		if taken, err := c.begin(pk); taken || err != nil {
			return err
		}
	}
	m := fromPublish(pk, name, c.session.id, time.Now())
	p := &publication{m: m, id: pk.PacketID, qos: qos, size: m.size()}
	msg, refusal := m.toNATS(c.l.o.MaxMessage)
	if refusal == packets.ErrProtocolViolationSurplusWildcard {
		return refusal
	}
	if !c.window.admit(p, c.ended) {
		return errClosed
	}
	if refusal != nil {
		c.settle(p, refusal)
		return nil
	}
	_, covered := c.l.o.Broker.Covers(msg.Subject)
	if !covered && !m.retain {
		c.settle(p, c.l.o.Broker.Core(msg))
		return nil
	}
	c.store(ctx, p, msg, pk.FixedHeader.Dup)
	return nil
}

// topicOf checks what a PUBLISH may say and resolves its topic alias (MQTT 5, 3.3.2.3.4).
func (c *conn) topicOf(pk *packets.Packet) (string, error) {
	switch {
	case pk.FixedHeader.Qos > 0 && pk.PacketID == 0:
		return "", packets.ErrProtocolViolationNoPacketID
	case len(pk.Properties.SubscriptionIdentifier) > 0:
		return "", packets.ErrProtocolViolationSurplusSubID
	}
	if pk.Properties.TopicAliasFlag {
		alias := pk.Properties.TopicAlias
		if alias == 0 || alias > maxAliases {
			return "", packets.ErrTopicAliasInvalid
		}
		if pk.TopicName == "" {
			pk.TopicName = c.aliases[alias]
		} else {
			if c.aliases == nil {
				c.aliases = make(map[uint16]string)
			}
			c.aliases[alias] = strings.Clone(pk.TopicName)
		}
	}
	if pk.TopicName == "" {
		return "", packets.ErrProtocolViolationNoTopic
	}
	return pk.TopicName, nil
}

// begin counts a PUBLISH of QoS 1 or 2 against the receive maximum. taken is true for a QoS 2 message whose PUBREL has not come yet: it is here
// already (MQTT 3.1.1, 4.3.3), and only its PUBREC may have to be sent again.
func (c *conn) begin(pk *packets.Packet) (taken bool, err error) {
	s := c.session
	if pk.FixedHeader.Qos == 2 {
		s.mu.Lock()
		sent, known := s.received[pk.PacketID]
		if !known {
			s.received[pk.PacketID] = false
		}
		s.mu.Unlock()
		if known {
			c.l.stats.repeats.Add(1)
			if sent {
				err = c.answer(acknowledgement(packets.Pubrec, c.version, pk.PacketID, packets.CodeSuccess))
			}
			return true, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == 5 && c.unacked >= int(c.l.o.ReceiveMaximum) {
		return false, packets.ErrReceiveMaximum // MQTT 5, 3.3.4-7
	}
	c.unacked++
	return false, nil
}

// store puts a publication on disk: in its stream, as retained message, and as what would be repeated, all in one turn.
func (c *conn) store(ctx context.Context, p *publication, msg store.Message, dup bool) {
	s, m := c.session, p.m
	tracked := p.qos > 0 && s.recorded
	repeat := false
	var change retainedChange
	// A client of MQTT 3 is not told of a refusal but by the end of the
	// connection, and sends everything since again.
	ordered := p.qos > 0 && c.version < 5
	stage := func(t *store.Turn) (err error) {
		if ordered {
			if err := c.trail.follow(t); err != nil {
				return err
			}
		}
		if tracked {
			if repeat, err = s.repeats.note(t, p.id, dup, m.topic, m.payload); repeat || err != nil {
				return err
			}
			if !m.retain {
				t.Loose() // the note goes with the message
			}
		}
		if err := c.l.o.Broker.Stage(t, msg); err != nil {
			return err
		}
		if m.retain {
			change, err = c.l.retained.stage(t, m)
		}
		return err
	}
	submit(ctx, c.l.o.Store, stage, func(err error) {
		switch {
		case err == nil && repeat:
			p.m = nil
			c.l.stats.repeats.Add(1)
		case err == nil:
			c.l.retained.apply(change)
		}
		c.settle(p, err)
	})
	c.trail.step()
}

// settle tells the window what became of p. It does not block.
func (c *conn) settle(p *publication, err error) {
	reason, fatal := c.l.reason(err)
	if reason.Code >= packets.ErrUnspecifiedError.Code {
		c.l.stats.refused.Add(1)
		c.l.refusing.begin(c.l.log, "messages of clients are refused", "reason", reason.Reason, "client", c.session.id)
	}
	c.window.settle(p, reason, fatal)
}

// reason says what a client is told about err. fatal is true when no later message can fare better.
func (l *Listener) reason(err error) (code packets.Code, fatal bool) {
	if err == nil {
		return packets.CodeSuccess, false
	}
	if code, ok := errors.AsType[packets.Code](err); ok {
		return code, false
	}
	switch {
	case errors.Is(err, store.ErrFull):
		return codeFull, false
	case errors.Is(err, store.ErrTooLarge):
		return codeTooLarge, false
	case errors.Is(err, store.ErrFailed), errors.Is(err, store.ErrClosed):
		return packets.ErrServerShuttingDown, true
	}
	l.log.Debug("message refused", "err", err)
	return packets.ErrImplementationSpecificError, false
}

// finishPublished takes from the window what has come to an end: it brings it to the subscribers and appends the acknowledgements to buf.
func (c *conn) finishPublished(buf []byte) []byte {
	for len(buf) < writeChunk {
		p := c.window.head()
		if p == nil {
			break
		}
		refused := p.reason.Code >= packets.ErrUnspecifiedError.Code
		if !refused && p.m != nil {
			c.l.fanOut(p.m)
		}
		if p.qos > 0 {
			c.completed(p, refused)
			buf = c.acknowledge(buf, p, refused)
		}
		c.window.pop()
	}
	return buf
}

// completed keeps the books of what the client may have in flight.
func (c *conn) completed(p *publication, refused bool) {
	if p.qos == 2 {
		c.session.mu.Lock()
		if refused {
			delete(c.session.received, p.id)
		} else {
			c.session.received[p.id] = true
		}
		c.session.mu.Unlock()
		if !refused {
			return // until PUBREL
		}
	}
	c.mu.Lock()
	c.unacked--
	c.mu.Unlock()
}

// acknowledge appends PUBACK or PUBREC. A client that can not be told of a refusal loses its connection instead, and nothing after
// it is acknowledged.
func (c *conn) acknowledge(buf []byte, p *publication, refused bool) []byte {
	if c.mute {
		return buf
	}
	if refused && (c.version < 5 || p.fatal) {
		c.mute = true
		c.goodbye(p.reason)
		return buf
	}
	kind := packets.Puback
	if p.qos == 2 {
		kind = packets.Pubrec
	}
	pk := acknowledgement(kind, c.version, p.id, p.reason)
	c.shorten(pk)
	out, err := encode(buf, pk)
	if err != nil { // it has an identifier and no properties that could fail
		c.mute = true
		c.goodbye(err)
	}
	return out
}

// release answers PUBREL, the end of a QoS 2 message.
func (c *conn) release(pk *packets.Packet) error {
	s := c.session
	s.mu.Lock()
	sent, known := s.received[pk.PacketID]
	if sent {
		delete(s.received, pk.PacketID)
	}
	s.mu.Unlock()
	if known && !sent {
		return packets.ErrProtocolViolation // PUBREL before PUBREC
	}
	reason := packets.CodeSuccess
	if known {
		c.mu.Lock()
		c.unacked--
		c.mu.Unlock()
	} else {
		// The box was started again in between: not an error of the client (MQTT 5, 3.7.2.1). Version 3 has no way to say it.
		reason = packets.ErrPacketIdentifierNotFound
	}
	return c.answer(acknowledgement(packets.Pubcomp, c.version, pk.PacketID, reason))
}

// deliveryEnded takes PUBACK and PUBCOMP for what the client was sent.
func (c *conn) deliveryEnded(id uint16) {
	c.session.mu.Lock()
	c.session.out.acked(id)
	c.session.mu.Unlock()
	c.wake()
}

// deliveryReceived takes PUBREC for what the client was sent.
func (c *conn) deliveryReceived(pk *packets.Packet) error {
	if pk.ReasonCode >= packets.ErrUnspecifiedError.Code {
		c.deliveryEnded(pk.PacketID)
		return nil
	}
	c.session.mu.Lock()
	known := c.session.out.gotReceived(pk.PacketID)
	c.session.mu.Unlock()
	reason := packets.CodeSuccess
	if !known {
		reason = packets.ErrPacketIdentifierNotFound
	}
	return c.answer(acknowledgement(packets.Pubrel, c.version, pk.PacketID, reason))
}
