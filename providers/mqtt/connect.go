package mqtt

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/store"
)

// open reads CONNECT, takes the session and answers with CONNACK. After an error the connection ends.
func (c *conn) open(ctx context.Context) error {
	if err := c.nc.SetReadDeadline(time.Now().Add(connectTimeout)); err != nil {
		return err
	}
	pk, err := readPacket(c.r, 0, c.l.maxPacket())
	if err != nil {
		return err
	}
	if pk.FixedHeader.Type != packets.Connect {
		return packets.ErrProtocolViolationRequireFirstConnect
	}
	c.version = pk.ProtocolVersion
	if code := c.checkConnect(&pk); code.Code != packets.CodeSuccess.Code {
		return c.refuse(code)
	}
	if c.l.clients.Add(1) > int64(c.l.o.MaxClients) {
		c.l.clients.Add(-1)
		return c.refuse(packets.ErrServerBusy)
	}
	defer func() {
		if c.session == nil {
			c.l.clients.Add(-1)
		}
	}()
	id, assigned := strings.Clone(pk.Connect.ClientIdentifier), ""
	if id == "" {
		id = randomClientID()
		assigned = id
	}
	present, err := c.attach(ctx, id, &pk)
	if err != nil {
		c.l.log.Warn("client refused", "client", id, "err", err)
		return c.refuse(packets.ErrServerUnavailable)
	}
	return c.welcome(&pk, present, assigned)
}

// checkConnect says what is wrong with a CONNECT.
func (c *conn) checkConnect(pk *packets.Packet) packets.Code {
	p := &pk.Connect
	switch name := string(p.ProtocolName); {
	case name != "MQTT" && name != "MQIsdp":
		c.version = 4
		return packets.ErrProtocolViolationProtocolName
	case name == "MQTT" && c.version != 4 && c.version != 5, name == "MQIsdp" && c.version != 3:
		c.version = 4
		return packets.ErrUnsupportedProtocolVersion
	case pk.ReservedBit != 0:
		return packets.ErrProtocolViolationReservedBit
	case p.WillQos > 2, !p.WillFlag && (p.WillQos > 0 || p.WillRetain), p.PasswordFlag && !p.UsernameFlag && c.version < 5:
		return packets.ErrProtocolViolation
	case len(p.ClientIdentifier) > MaxClientID, p.ClientIdentifier == "" && !p.Clean && c.version < 5:
		return packets.ErrClientIdentifierNotValid
	case pk.Properties.AuthenticationMethod != "":
		return packets.ErrBadAuthenticationMethod
	}
	if p.WillFlag {
		if _, err := publishSubject(p.WillTopic); err != nil {
			return packets.ErrTopicNameInvalid
		}
	}
	return packets.CodeSuccess
}

// refuse answers CONNECT with a refusal.
func (c *conn) refuse(code packets.Code) error {
	pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ReasonCode: code.Code}
	if c.version < 5 {
		pk.ReasonCode = packets.Err3ServerUnavailable.Code
		if v3, ok := packets.V5CodesToV3[code]; ok {
			pk.ReasonCode = v3.Code
		}
	} else {
		pk.Properties.ReasonString = code.Reason
	}
	_ = c.answer(pk)
	return fmt.Errorf("connection refused: %s", code.Reason) // no packets.Code: DISCONNECT must not follow
}

// attach makes c the connection of its client's session, new or resumed. A connection that has it already is ended first. present says whether
// there was a session to resume.
func (c *conn) attach(ctx context.Context, id string, pk *packets.Packet) (present bool, err error) {
	s, err := c.take(ctx, id)
	if err != nil {
		return false, err
	}
	s.online.Store(true)
	defer func() {
		if err != nil {
			c.l.free(s)
		}
	}()
	present = s.kept && !pk.Connect.Clean
	if pk.Connect.Clean && s.kept {
		if err := c.l.end(ctx, s); err != nil {
			return false, err
		}
	}
	s.stopWill()
	s.expiry = c.l.o.SessionExpiry
	s.kept = !pk.Connect.Clean
	if c.version == 5 {
		s.expiry = c.l.limitExpiry(pk.Properties.SessionExpiryInterval)
		s.kept = s.expiry > 0
	}
	if s.kept && !s.recorded {
		if err := c.l.makeRoomForSession(ctx); err != nil {
			return false, err
		}
	}
	if s.kept && (!s.recorded || s.saved != s.expiry) {
		if err := c.l.save(ctx, s); err != nil {
			return false, err
		}
	}
	c.session = s
	c.unacked = len(s.received)
	c.takeWill(pk)
	return present, nil
}

// take waits until the session of id belongs to c.
func (c *conn) take(ctx context.Context, id string) (*session, error) {
	l := c.l
	for {
		l.mu.Lock()
		s := l.sessions[id]
		if s == nil {
			s = l.newSession(id)
			l.sessions[id] = s
		}
		old := s.conn
		if old == nil {
			s.conn = c
			l.mu.Unlock()
			return s, nil
		}
		l.mu.Unlock()
		old.goodbye(packets.ErrSessionTakenOver) // MQTT 3.1.4-2
		select {
		case <-old.finished:
		case <-c.ended:
			return nil, errClosed
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// free gives a session up that was not attached.
func (l *Listener) free(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.conn = nil
	s.online.Store(false)
	s.awaySince = time.Now()
	if !s.recorded {
		delete(l.sessions, s.id)
	}
}

func (c *conn) takeWill(pk *packets.Packet) {
	if !pk.Connect.WillFlag {
		return
	}
	w := &packets.Packet{
		FixedHeader: packets.FixedHeader{Qos: pk.Connect.WillQos, Retain: pk.Connect.WillRetain},
		Payload:     pk.Connect.WillPayload, Properties: pk.Connect.WillProperties,
	}
	c.will = fromPublish(w, pk.Connect.WillTopic, c.session.id, time.Now())
	c.willDelay = time.Duration(pk.Connect.WillProperties.WillDelayInterval) * time.Second
}

// welcome answers CONNECT and lets the messages of the session flow.
func (c *conn) welcome(pk *packets.Packet, present bool, assigned string) error {
	c.keepalive = time.Duration(pk.Connect.Keepalive) * time.Second
	c.terse = pk.Properties.RequestProblemInfoFlag && pk.Properties.RequestProblemInfo == 0
	ack := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, SessionPresent: present && c.version > 3}
	quota := maxInFlight
	if c.version == 5 {
		p := &ack.Properties
		p.ReceiveMaximum = c.l.o.ReceiveMaximum
		p.MaximumPacketSize = uint32(c.l.maxPacket())
		p.TopicAliasMaximum = maxAliases
		p.AssignedClientID = assigned
		if asked := pk.Properties.SessionExpiryInterval; asked > 0 && time.Duration(asked)*time.Second != c.session.expiry {
			p.SessionExpiryInterval, p.SessionExpiryIntervalFlag = uint32(c.session.expiry/time.Second), true
		}
		if rm := int(pk.Properties.ReceiveMaximum); rm > 0 {
			quota = min(quota, rm)
		}
		c.maxPacket = int(pk.Properties.MaximumPacketSize)
	}
	if err := c.answer(ack); err != nil {
		return err
	}
	s := c.session
	s.mu.Lock()
	s.out.connected(quota)
	s.wake = c.wake
	s.mu.Unlock()
	c.mu.Lock()
	c.attached = s
	c.mu.Unlock()
	c.wake()
	c.log.started(s, c.version, present)
	return nil
}

// detach ends what the connection had of the session: its will is published, and the session waits for the client, or ends.
func (c *conn) detach(ctx context.Context) {
	s, l := c.session, c.l
	defer l.clients.Add(-1)
	s.mu.Lock()
	s.wake = nil
	dropped := s.out.dropUnkept()
	for id, sent := range s.received {
		if !sent {
			delete(s.received, id) // it never got as far as the disk
		}
	}
	s.mu.Unlock()
	l.stats.dropped.Add(uint64(dropped))
	if c.will != nil && !c.clean {
		delay := min(c.willDelay, s.expiry)
		if delay > 0 && s.kept {
			will := c.will
			s.will = time.AfterFunc(delay, func() { l.willDue(will) })
		} else {
			l.publishWill(ctx, c.will)
		}
	}
	var err error
	switch {
	case !s.kept:
		err = l.end(ctx, s)
	case s.saved != s.expiry:
		err = l.save(ctx, s)
	}
	if err != nil {
		l.log.Warn("session could not be brought to disk", "client", s.id, "err", err)
	}
	l.free(s)
}

// willDue hands a delayed will to Run.
func (l *Listener) willDue(m *message) {
	select {
	case l.wills <- m:
	case <-l.stopping:
	}
}

// publishWill publishes for a client that has gone, and waits for the disk. A will that is refused is counted; there is nobody to tell.
func (l *Listener) publishWill(ctx context.Context, m *message) {
	msg, err := m.toNATS(l.o.MaxMessage)
	if err == nil {
		_, covered := l.o.Broker.Covers(msg.Subject)
		if !covered && !m.retain {
			err = l.o.Broker.Core(msg)
		} else {
			err = l.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error {
				if err := l.o.Broker.Stage(t, msg); err != nil || !m.retain {
					return err
				}
				change, err := l.retained.stage(t, m)
				t.AfterCommit(func() { l.retained.apply(change) })
				return err
			})
		}
	}
	if err != nil {
		l.stats.refused.Add(1)
		l.log.Warn("will refused", "client", m.origin, "topic", m.topic, "err", err)
		return
	}
	l.fanOut(m)
}

func validFilter(filter string) bool {
	if filter == "" || len(filter) > MaxTopic || !utf8.ValidString(filter) || strings.ContainsRune(filter, 0) {
		return false
	}
	group, rest := splitShare(filter)
	if strings.HasPrefix(filter, sharePrefix) && (group == "" || strings.ContainsAny(group, "+#")) || rest == "" {
		return false // MQTT 5, 4.8.2
	}
	for more := true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if strings.ContainsAny(level, "+#") && (len(level) > 1 || level == "#" && more) {
			return false // MQTT 3.1.1, 4.7.1
		}
	}
	return true
}
