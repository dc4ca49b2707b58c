package mqtt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/store"
)

// retained is the last retained message of each topic, in memory and on disk. A change is staged in the turn of the message and applied in memory once
// that is on disk, in the order of commits.
type retained struct {
	maxMessages, maxBytes int
	refused               func() // a message was not retained for want of room

	mu      sync.Mutex // guards what follows
	byTopic map[string]*message
	bytes   int
}

// retainedChange is what a committed turn means for the memory: a message to keep, or a topic to forget. The zero value changes nothing.
type retainedChange struct {
	topic string
	m     *message
}

// maxRetained is the largest message that is retained, with its topic and properties.
const maxRetained = 1 << 20

func newRetained(maxMessages, maxBytes int, refused func()) *retained {
	return &retained{maxMessages: maxMessages, maxBytes: maxBytes, refused: refused, byTopic: make(map[string]*message)}
}

// stage adds to t what the retained message m means. An empty payload removes what is there (MQTT 3.3.1-10). So does one for which there is no room,
// since an old value that passes for the last one would be worse than none; the message itself is not affected.
func (r *retained) stage(t *store.Turn, m *message) (retainedChange, error) {
	if len(m.payload) == 0 || !r.fits(m) {
		if len(m.payload) > 0 {
			r.refused()
		}
		return retainedChange{topic: m.topic}, t.Delete(spaceRetained, m.topic)
	}
	value, err := encodeRetained(m)
	if err != nil {
		return retainedChange{}, err
	}
	return retainedChange{m.topic, m}, t.Put(spaceRetained, m.topic, value)
}

// fits says whether there is room. What is on its way to the disk is not counted yet, so the bounds can be exceeded by that.
func (r *retained) fits(m *message) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	messages, bytes := len(r.byTopic)+1, r.bytes+m.size()
	if old := r.byTopic[m.topic]; old != nil {
		messages--
		bytes -= old.size()
	}
	return m.size() <= maxRetained && messages <= r.maxMessages && bytes <= r.maxBytes
}

// apply makes a committed change known.
func (r *retained) apply(c retainedChange) {
	if c.topic == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.byTopic[c.topic]; old != nil {
		r.bytes -= old.size()
		delete(r.byTopic, c.topic)
	}
	if c.m != nil {
		r.byTopic[c.topic] = c.m
		r.bytes += c.m.size()
	}
}

// matching returns the retained messages that a topic filter matches.
func (r *retained) matching(filter string) []*message {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.byTopic[filter]; m != nil && !m.expired(now) {
		return []*message{m}
	}
	var found []*message
	for topic, m := range r.byTopic {
		if !m.expired(now) && matches(filter, topic) {
			found = append(found, m)
		}
	}
	return found
}

func (r *retained) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byTopic)
}

// expired returns the topics whose message has expired.
func (r *retained) expired(now time.Time) (topics []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for topic, m := range r.byTopic {
		if m.expired(now) {
			topics = append(topics, topic)
		}
	}
	return topics
}

// load reads what is on disk. What makes no sense is reported and passed over.
func (r *retained) load(db *store.DB, bad func(topic string, err error)) error {
	err := db.List(spaceRetained, "", func(key string, value []byte) error {
		m, err := decodeRetained(value)
		if err == nil && m.topic != key {
			err = errors.New("another topic")
		}
		if err != nil {
			bad(key, err)
			return nil
		}
		r.apply(retainedChange{m.topic, m})
		return nil
	})
	if err != nil {
		return fmt.Errorf("load retained MQTT messages: %w", err)
	}
	return nil
}

const retainedVersion = 1

// encodeRetained writes version, time of expiry (Unix seconds, 0 for never), quality of service, and the message as a PUBLISH of MQTT 5.
func encodeRetained(m *message) ([]byte, error) {
	out := make([]byte, 10, 64+m.size())
	out[0] = retainedVersion
	if !m.expires.IsZero() {
		binary.BigEndian.PutUint64(out[1:], uint64(m.expires.Unix()))
	}
	out[9] = m.qos
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, ProtocolVersion: 5, TopicName: m.topic, Payload: m.payload, Properties: m.props}
	return encode(out, &pk)
}

func decodeRetained(value []byte) (*message, error) {
	if len(value) < 12 || value[0] != retainedVersion || value[9] > 2 {
		return nil, errors.New("not a retained message")
	}
	r := bytes.NewReader(value[10:])
	var fh packets.FixedHeader
	first, _ := r.ReadByte()
	if err := fh.Decode(first); err != nil || fh.Type != packets.Publish || fh.Qos != 0 {
		return nil, errors.New("not a PUBLISH")
	}
	length, _, err := readLength(r)
	if err != nil || length != r.Len() {
		return nil, errors.New("cut short")
	}
	pk, err := decode(fh, 5, value[len(value)-length:])
	if err != nil {
		return nil, err
	}
	m := fromPublish(&pk, pk.TopicName, "", time.Time{})
	m.qos, m.retain, m.expires = value[9], true, time.Time{}
	if at := binary.BigEndian.Uint64(value[1:]); at > 0 {
		m.expires = time.Unix(int64(at), 0)
	}
	if _, err := publishSubject(m.topic); err != nil || len(m.payload) == 0 {
		return nil, errors.New("nothing that can be retained")
	}
	return m, nil
}
