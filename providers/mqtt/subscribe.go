package mqtt

import (
	"context"
	"errors"

	"github.com/mochi-mqtt/server/v2/packets"
)

// maxSubscriptions is how many topic filters a client may have.
const maxSubscriptions = 512

// subscribe answers SUBSCRIBE. The subscriptions of a session that is kept are on disk before SUBACK leaves.
func (c *conn) subscribe(ctx context.Context, pk *packets.Packet) error {
	if pk.PacketID == 0 || len(pk.Filters) == 0 {
		return packets.ErrProtocolViolation
	}
	s := c.session
	codes := make([]byte, len(pk.Filters))
	isNew := make([]bool, len(pk.Filters))
	changed := false
	for i, f := range pk.Filters {
		sub := subscriptionOf(f)
		var code packets.Code
		code, isNew[i] = c.addSubscription(sub)
		codes[i] = code.Code
		changed = changed || code.Code <= 2
	}
	if changed && s.kept {
		if err := c.l.save(ctx, s); err != nil {
			return errors.Join(packets.ErrServerShuttingDown, err)
		}
	}
	if c.version < 5 {
		for i := range codes {
			if codes[i] > 2 {
				codes[i] = packets.ErrUnspecifiedError.Code // MQTT 3.1.1, 3.9.3
			}
		}
	}
	ack := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Suback}, PacketID: pk.PacketID, ReasonCodes: codes}
	if err := c.answer(ack); err != nil {
		return err
	}
	for i, f := range pk.Filters {
		if codes[i] <= 2 {
			c.l.sendRetained(s, subscriptionOf(f), isNew[i])
		}
	}
	return nil
}

func (c *conn) addSubscription(sub subscription) (code packets.Code, isNew bool) {
	s := c.session
	group, _ := splitShare(sub.Filter)
	switch {
	case !validFilter(sub.Filter):
		return packets.ErrTopicFilterInvalid, false
	case group != "" && sub.NoLocal, sub.RetainHandling > 2:
		return packets.ErrImplementationSpecificError, false // MQTT 5, 3.8.3-4
	}
	s.mu.Lock()
	_, had := s.subs[sub.Filter]
	full := !had && len(s.subs) >= maxSubscriptions
	if !full {
		s.subs[sub.Filter] = sub
	}
	s.mu.Unlock()
	if full {
		return packets.ErrQuotaExceeded, false
	}
	if err := c.l.subscribe(s, sub); err != nil {
		c.l.log.Warn("subscription refused", "client", s.id, "filter", sub.Filter, "err", err)
		s.mu.Lock()
		delete(s.subs, sub.Filter)
		s.mu.Unlock()
		return packets.ErrImplementationSpecificError, false
	}
	return [...]packets.Code{packets.CodeGrantedQos0, packets.CodeGrantedQos1, packets.CodeGrantedQos2}[sub.QoS], !had
}

// unsubscribe answers UNSUBSCRIBE.
func (c *conn) unsubscribe(ctx context.Context, pk *packets.Packet) error {
	if pk.PacketID == 0 || len(pk.Filters) == 0 {
		return packets.ErrProtocolViolation
	}
	s := c.session
	codes := make([]byte, len(pk.Filters))
	changed := false
	for i, f := range pk.Filters {
		s.mu.Lock()
		_, had := s.subs[f.Filter]
		delete(s.subs, f.Filter)
		s.mu.Unlock()
		if !had {
			codes[i] = packets.CodeNoSubscriptionExisted.Code
			continue
		}
		c.l.unsubscribe(s, f.Filter)
		changed = true
	}
	if changed && s.kept {
		if err := c.l.save(ctx, s); err != nil {
			return errors.Join(packets.ErrServerShuttingDown, err)
		}
	}
	return c.answer(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsuback}, PacketID: pk.PacketID, ReasonCodes: codes})
}

// sendRetained queues the retained messages of a subscription that was just made (MQTT 5, 3.8.3.1).
func (l *Listener) sendRetained(s *session, sub subscription, isNew bool) {
	group, filter := splitShare(sub.Filter)
	if group != "" || sub.RetainHandling == 2 || sub.RetainHandling == 1 && !isNew {
		return
	}
	how := match{}.with(sub)
	for _, m := range l.retained.matching(filter) {
		l.deliver(s, m, how, true)
	}
}
