package mqtt

import (
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// outbound is what a session's client is to receive. Its user locks.
//
// What is queued has no packet identifier yet. With one it is in flight, in the order in which it was first sent, until the client has acknowledged it;
// after a reconnect it is sent again from the first on (MQTT 3.1.1, 4.4 and 4.6).
type outbound struct {
	maxMessages, maxBytes int

	queue    []*delivery
	bytes    int // of queue
	inFlight []*delivery
	byID     map[uint16]*delivery
	nextID   uint16
	quota    int // how many may be in flight: the receive maximum of the client
	unsent   int // of inFlight: to be sent on this connection
}

// delivery is one message on its way to one client.
type delivery struct {
	m        *message
	match    match
	retain   bool // the flag to send
	id       uint16
	sent     bool // at least once
	pending  bool // to be sent on this connection
	received bool // PUBREC came: what goes out is PUBREL
}

// offer queues a message and says whether there was room for it.
func (o *outbound) offer(d *delivery) bool {
	size := d.m.size()
	if len(o.queue) >= o.maxMessages || len(o.queue) > 0 && o.bytes+size > o.maxBytes {
		return false
	}
	o.queue = append(o.queue, d)
	o.bytes += size
	return true
}

// connected prepares for a new connection: what is in flight goes out again.
func (o *outbound) connected(quota int) {
	o.quota = quota
	o.unsent = len(o.inFlight)
	for _, d := range o.inFlight {
		d.pending = true
	}
}

// next returns the packet that is to be sent now, nil if there is none. Messages that have expired are passed over.
func (o *outbound) next(version byte, now time.Time) *packets.Packet {
	if o.unsent > 0 {
		if len(o.inFlight)-o.unsent >= o.quota {
			return nil
		}
		for _, d := range o.inFlight {
			if d.pending {
				d.pending = false
				o.unsent--
				return d.packet(version, now)
			}
		}
	}
	for len(o.queue) > 0 {
		d := o.queue[0]
		if d.m.expired(now) {
			o.shift()
			continue
		}
		if d.match.qos == 0 {
			o.shift()
			return d.packet(version, now)
		}
		if len(o.inFlight) >= o.quota {
			return nil
		}
		o.shift()
		d.id = o.freeID()
		o.inFlight = append(o.inFlight, d)
		if o.byID == nil {
			o.byID = make(map[uint16]*delivery)
		}
		o.byID[d.id] = d
		return d.packet(version, now)
	}
	return nil
}

func (o *outbound) shift() {
	o.bytes -= o.queue[0].m.size()
	o.queue[0] = nil
	o.queue = o.queue[1:]
}

// freeID returns an identifier that is not in use. There is one, since quota is below 65,535.
func (o *outbound) freeID() uint16 {
	for {
		o.nextID++
		if _, used := o.byID[o.nextID]; !used && o.nextID != 0 {
			return o.nextID
		}
	}
}

func (d *delivery) packet(version byte, now time.Time) *packets.Packet {
	if d.received {
		return acknowledgement(packets.Pubrel, version, d.id, packets.CodeSuccess)
	}
	pk := d.m.publish(version, now)
	pk.PacketID = d.id
	pk.FixedHeader.Qos = d.match.qos
	pk.FixedHeader.Retain = d.retain
	pk.FixedHeader.Dup = d.sent // MQTT 3.3.1-1
	pk.Properties.SubscriptionIdentifier = d.match.ids
	d.sent = d.match.qos > 0
	return pk
}

// acked ends a delivery: by PUBACK, PUBCOMP, or a PUBREC that refuses.
func (o *outbound) acked(id uint16) {
	d := o.byID[id]
	if d == nil {
		return
	}
	delete(o.byID, id)
	if d.pending {
		o.unsent--
	}
	for i := range o.inFlight {
		if o.inFlight[i] == d {
			o.inFlight = append(o.inFlight[:i], o.inFlight[i+1:]...)
			return
		}
	}
}

// gotReceived notes a PUBREC. It says whether the identifier is known.
func (o *outbound) gotReceived(id uint16) bool {
	d := o.byID[id]
	if d == nil {
		return false
	}
	d.received = true
	if d.pending {
		d.pending = false
		o.unsent--
	}
	return true
}

// dropUnkept forgets messages of QoS 0 when the client has gone.
func (o *outbound) dropUnkept() (dropped int) {
	kept := o.queue[:0]
	for _, d := range o.queue {
		if d.match.qos == 0 {
			o.bytes -= d.m.size()
			dropped++
			continue
		}
		kept = append(kept, d)
	}
	clear(o.queue[len(kept):])
	o.queue = kept
	return dropped
}
