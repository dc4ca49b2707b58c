package mqtt

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	pahopackets "github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/edged-io/edged/store"
)

// Points at which ClientOptions.Failpoint is called. "Stored": a packet may leave, and has not; "sent": it has.
const (
	FailpointPublishStored = "mqtt-publish-stored"
	FailpointPublishSent   = "mqtt-publish-sent"
	FailpointReceived      = "mqtt-pubrec" // PUBREC has come, and nobody noted it
	FailpointReleaseStored = "mqtt-pubrel-stored"
	FailpointReleaseSent   = "mqtt-pubrel-sent"
	FailpointCompleted     = "mqtt-completed" // PUBACK or PUBCOMP has come, and nobody noted it
	FailpointTakenStored   = "mqtt-pubcomp-stored"
	FailpointTakenSent     = "mqtt-pubcomp-sent"
)

var failpoints = map[byte]struct{ stored, sent string }{
	publish: {FailpointPublishStored, FailpointPublishSent},
	pubrel:  {FailpointReleaseStored, FailpointReleaseSent},
	pubcomp: {FailpointTakenStored, FailpointTakenSent},
}

// flight is paho's store: the messages of QoS 1 and 2 that are on their way to the broker. An entry says under which packet identifier which
// message of the outbox goes, and whether it was released. It is on disk before the packet leaves that it speaks of (the gate sees to that), and its end
// is the acknowledgement of the message to the outbox, in one turn. So after a crash paho goes on where it was: with PUBLISH and DUP under
// the old identifier, or with PUBREL, and a message of QoS 2 reaches the broker's subscribers once.
//
// paho keeps a PUBLISH until PUBCOMP, and would send it again after its PUBREL; to the broker that is a new message. Therefore release.
//
// Messages from the broker are not paho's to keep.
type flight struct {
	l      *link
	box    *Outbox // nil if nothing is published
	prefix string  // of keys

	changed chan struct{} // gets a token when an entry has ended, on the wire or on disk

	mu      sync.Mutex // guards what follows
	next    sending    // what is to be published now
	sending map[uint16]*sending
	ending  int // ended on the wire, and not yet on disk
}

// sending is an entry.
type sending struct {
	seq      uint64 // in the outbox
	sum      [8]byte
	qos      byte
	retain   bool
	released bool // PUBREC came: what goes out is PUBREL

	gone   bool         // the outbox has no such message: its stream was deleted, and perhaps made again
	stored <-chan error // told once when it is on disk; nil if it was, or somebody waits
}

const sendingVersion = 1

func (s *sending) encode() []byte {
	flags := s.qos
	if s.retain {
		flags |= 4
	}
	if s.released {
		flags |= 8
	}
	return append(binary.BigEndian.AppendUint64([]byte{sendingVersion, flags}, s.seq), s.sum[:]...)
}

// decodeSending returns nil for what makes no sense.
func decodeSending(b []byte) *sending {
	if len(b) != 18 || b[0] != sendingVersion || b[1] > 15 || b[1]&3 == 0 || b[1]&3 == 3 || b[1]&3 == 1 && b[1]&8 != 0 {
		return nil
	}
	s := &sending{qos: b[1] & 3, retain: b[1]&4 != 0, released: b[1]&8 != 0, seq: binary.BigEndian.Uint64(b[2:])}
	copy(s.sum[:], b[10:])
	return s
}

// sumOf tells a message from another one with its sequence, in a stream that was deleted and made again.
func sumOf(m *store.Message) (sum [8]byte) {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(m.Subject), m.Header, m.Data} {
		_ = binary.Write(h, binary.BigEndian, uint32(len(part)))
		h.Write(part)
	}
	copy(sum[:], h.Sum(nil))
	return sum
}

func flightPrefix(o *ClientOptions) string { return clientKey(o.URL, o.ClientID) + "\x00" }

// openFlight loads what was in flight when the last connection ended.
func openFlight(l *link) (*flight, error) {
	f := &flight{l: l, box: l.c.o.Outbox, prefix: flightPrefix(&l.c.o), changed: make(chan struct{}, 1), sending: make(map[uint16]*sending)}
	if l.c.o.Store == nil {
		return f, nil
	}
	var bad []string
	err := l.c.o.Store.List(spaceFlight, f.prefix, func(key string, value []byte) error {
		id := key[len(f.prefix):]
		s := decodeSending(value)
		if s == nil || len(id) != 2 || f.box == nil {
			bad = append(bad, key)
			return nil
		}
		f.sending[binary.BigEndian.Uint16([]byte(id))] = s
		return nil
	})
	if err == nil {
		err = f.check()
	}
	if err == nil && len(bad) > 0 {
		err = l.c.o.Store.Do(context.Background(), func(_ context.Context, t *store.Turn) error {
			for _, key := range bad {
				if err := t.Delete(spaceFlight, key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("load what was in flight to the MQTT broker: %w", err)
	}
	return f, nil
}

// check finds entries whose message the outbox does not have.
func (f *flight) check() error {
	for id, s := range f.sending {
		m, err := f.message(s)
		if err != nil {
			return err
		}
		if s.gone = m == nil; s.gone {
			f.l.c.log.Warn("message in flight to the MQTT broker is not in its stream any more", "stream", f.box.Stream, "seq", s.seq, "id", id)
		}
	}
	return nil
}

// message returns the message of an entry, nil if the outbox does not have it.
func (f *flight) message(s *sending) (found *store.Message, err error) {
	err = f.l.c.o.Store.Read(f.box.Stream, s.seq, 1, 1, func(m store.Message) error {
		if m.Seq == s.seq && sumOf(&m) == s.sum {
			found = &m
		}
		return nil
	})
	return found, err
}

func (f *flight) key(id uint16) string { return f.prefix + string([]byte{byte(id >> 8), byte(id)}) }

// announce says what the next PUBLISH that paho puts is.
func (f *flight) announce(s sending) {
	f.mu.Lock()
	f.next = s
	f.mu.Unlock()
}

// count returns how many are in flight.
func (f *flight) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sending)
}

// stored returns the fate of the entry of id, nil if it is on disk.
func (f *flight) stored(id uint16) <-chan error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sending[id]
	if s == nil {
		return nil
	}
	fate := s.stored
	s.stored = nil
	return fate
}

// release notes that the broker has the message of id, and returns the fate of that note, nil if it is on disk.
func (f *flight) release(id uint16) <-chan error {
	f.mu.Lock()
	s := f.sending[id]
	if s == nil || s.released {
		f.mu.Unlock()
		return nil
	}
	s.released = true
	value := s.encode()
	f.mu.Unlock()
	return f.put(id, value)
}

func (f *flight) put(id uint16, value []byte) <-chan error {
	fate := make(chan error, 1)
	f.submit(func(t *store.Turn) error { return t.Put(spaceFlight, f.key(id), value) }, func(err error) { fate <- err })
	return fate
}

func (f *flight) submit(stage func(*store.Turn) error, settle func(error)) {
	submit(context.Background(), f.l.c.o.Store, stage, settle)
}

// end acknowledges the message of id to the outbox.
func (f *flight) end(id uint16) {
	f.mu.Lock()
	s := f.sending[id]
	if s == nil {
		f.mu.Unlock()
		return
	}
	delete(f.sending, id)
	f.ending++
	f.mu.Unlock()
	f.submit(func(t *store.Turn) error {
		if !s.gone { // else the sequence is that of another message, or will be
			t.Ack(f.box.Subscription, s.seq)
		}
		return t.Delete(spaceFlight, f.key(id))
	}, func(err error) {
		if err != nil {
			f.l.fail(fmt.Errorf("end what was in flight to the MQTT broker: %w", err))
		}
		f.mu.Lock()
		f.ending--
		f.mu.Unlock()
		f.signal()
	})
	f.signal()
}

func (f *flight) signal() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// wait returns when nothing is in flight any more, on the wire and on disk. A broker that answers to nothing for a while is an error.
func (f *flight) wait(ctx context.Context, lost <-chan error) error {
	for {
		f.mu.Lock()
		empty := len(f.sending)+f.ending == 0
		f.mu.Unlock()
		if empty {
			return nil
		}
		select {
		case <-f.changed:
		case err := <-lost:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(linkTimeout):
			return errSilent
		}
	}
}

// Open is part of paho.Store, and has nothing to do.
func (f *flight) Open() {}

// Close is part of paho.Store, and has nothing to do.
func (f *flight) Close() {}

// Put notes a PUBLISH before it is sent. It does not wait for the disk: the gate does.
func (f *flight) Put(key string, packet pahopackets.ControlPacket) {
	id, ours := outgoingKey(key)
	if _, ok := packet.(*pahopackets.PublishPacket); !ok || !ours || f.box == nil {
		return
	}
	f.mu.Lock()
	s := f.next
	f.sending[id] = &s
	f.mu.Unlock()
	stored := f.put(id, s.encode())
	f.mu.Lock()
	s.stored = stored
	f.mu.Unlock()
}

// Get returns what is to be sent again, nil if the outbox does not have it any more.
func (f *flight) Get(key string) pahopackets.ControlPacket {
	id, ok := outgoingKey(key)
	f.mu.Lock()
	s := f.sending[id]
	f.mu.Unlock()
	switch {
	case s == nil || !ok:
		return nil
	case s.released || s.gone && s.qos == 2:
		// A PUBLISH that can not be sent again may be there. Until it is released its identifier is no good for another one (MQTT 3.1.1, 4.3.3).
		p := pahopackets.NewControlPacket(pahopackets.Pubrel).(*pahopackets.PubrelPacket)
		p.MessageID = id
		return p
	}
	m, err := f.message(s)
	var out *outgoing
	if err == nil && m != nil {
		out, err = outgoingOf(m)
	}
	if err != nil { // of the disk: whatever is in flight, it did when it was put there
		f.l.fail(fmt.Errorf("read what is in flight to the MQTT broker: %w", err))
		return nil
	}
	if out == nil {
		f.end(id)
		return nil
	}
	p := pahopackets.NewControlPacket(pahopackets.Publish).(*pahopackets.PublishPacket)
	p.MessageID, p.TopicName, p.Payload, p.Qos, p.Retain = id, out.topic, out.payload, s.qos, s.retain
	return p
}

// All returns the keys in the order of the outbox.
func (f *flight) All() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := make([]uint16, 0, len(f.sending))
	for id := range f.sending {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b uint16) int {
		if f.sending[a].seq < f.sending[b].seq {
			return -1
		}
		return 1
	})
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = outgoingPrefix + strconv.Itoa(int(id))
	}
	return keys
}

// Del notes that the broker has acknowledged a message for good.
func (f *flight) Del(key string) {
	id, ok := outgoingKey(key)
	if !ok {
		return
	}
	f.mu.Lock()
	known := f.sending[id] != nil
	f.mu.Unlock()
	if known {
		f.l.c.o.Failpoint(FailpointCompleted)
		f.l.c.stats.published.Add(1)
		f.l.useful.Store(true)
		f.end(id)
	}
}

// Reset forgets all, since the session begins anew. The messages stay in the outbox.
func (f *flight) Reset() {
	f.mu.Lock()
	ids := make([]uint16, 0, len(f.sending))
	for id := range f.sending {
		ids = append(ids, id)
	}
	clear(f.sending)
	f.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	f.submit(func(t *store.Turn) error {
		for _, id := range ids {
			if err := t.Delete(spaceFlight, f.key(id)); err != nil {
				return err
			}
		}
		return nil
	}, func(err error) {
		if err != nil {
			f.l.fail(fmt.Errorf("begin a session with the MQTT broker: %w", err))
		}
	})
}

// outgoingPrefix is what paho's keys of outgoing packets begin with; a packet identifier follows.
const outgoingPrefix = "o."

func outgoingKey(key string) (id uint16, ok bool) {
	text, ok := strings.CutPrefix(key, outgoingPrefix)
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), ok && err == nil
}

var _ paho.Store = (*flight)(nil)
