package mqtt

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"pgregory.net/rapid"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/store"
)

// FuzzDecode: no bytes of a client make the decoder panic, and its errors are codes.
func FuzzDecode(f *testing.F) {
	f.Add(byte(0x82), byte(5), []byte("\x00\x01\x00\x00\x01a\x00\x00\x01b")) // the last filter has no options
	f.Add(byte(0x32), byte(5), []byte("\x00\x01a\x00\x01\x03\x23\x00\x01payload"))
	f.Add(byte(0x10), byte(0), []byte("\x00\x04MQTT\x05\x06\x00\x3c\x05\x11\x00\x00\x00\x09\x00\x01c\x05\x18\x00\x00\x00\x01\x00\x01w\x00\x00"))
	f.Add(byte(0xe0), byte(5), []byte("\x00\x05\x11\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, first, version byte, body []byte) {
		var fh packets.FixedHeader
		if fh.Decode(first) != nil {
			return
		}
		fh.Remaining = len(body)
		pk, err := decode(fh, version, body)
		if _, ok := errors.AsType[packets.Code](err); err != nil && !ok {
			t.Fatalf("%v is no code", err)
		}
		if err == nil && fh.Type == packets.Publish {
			m := fromPublish(&pk, pk.TopicName, "c", time.Now())
			if msg, err := m.toNATS(1 << 20); err == nil {
				if err := event.Header(msg.Header).Check(); err != nil && len(msg.Header) <= event.MaxHeaderBytes {
					t.Fatalf("header %q: %v", msg.Header, err)
				}
				if back, ok := fromNATS(msg, time.Now()); !ok || back.topic != m.topic || !bytes.Equal(back.payload, m.payload) {
					t.Fatalf("topic %q came back as %q", m.topic, back.topic)
				}
			}
		}
	})
}

// FuzzListener: whatever a client sends after its CONNECT, the listener goes on.
func FuzzListener(f *testing.F) {
	db, err := store.Open(store.Options{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	l, err := NewListener(ListenerOptions{Listen: "127.0.0.1:0", Store: db, Broker: deafBroker{}, MaxMessage: 1 << 16})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = l.nl.Close(); _ = db.Close() })
	f.Add(byte(4), []byte("\x30\x03\x00\x01a\xc0\x00\xe0\x00"))
	f.Add(byte(5), []byte("\x82\x07\x00\x01\x00\x00\x01#\x01\x32\x08\x00\x01a\x00\x01\x00hi\xe0\x00"))
	f.Add(byte(5), []byte("\x34\x06\x00\x01a\x00\x01\x00\x62\x02\x00\x01\xa2\x06\x00\x02\x00\x00\x01#"))
	f.Fuzz(func(t *testing.T, version byte, data []byte) {
		here, there := net.Pipe()
		c := newConn(l, there)
		done := make(chan struct{})
		go func() { c.serve(t.Context()); close(done) }()
		go func() { _, _ = io.Copy(io.Discard, here) }()
		connect := []byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'c'}
		if version == 5 {
			connect = []byte{0x10, 14, 0, 4, 'M', 'Q', 'T', 'T', 5, 2, 0, 60, 0, 0, 1, 'c'}
		}
		_ = here.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_, _ = here.Write(connect)
		_, _ = here.Write(data)
		_ = here.Close()
		<-done
		if len(l.sessions) != 0 || l.taps.open == nil || len(l.taps.open) != 0 {
			t.Fatalf("left behind: %d sessions, %d taps", len(l.sessions), len(l.taps.open))
		}
	})
}

// deafBroker has no streams and hears nobody.
type deafBroker struct{}

func (deafBroker) Covers(string) (string, bool)                    { return "", false }
func (deafBroker) Stage(*store.Turn, store.Message) error          { return nil }
func (deafBroker) Core(store.Message) error                        { return nil }
func (deafBroker) Tap(string, func(store.Message)) (func(), error) { return func() {}, nil }

// FuzzRetained: what is on disk is decoded or refused, and what is decoded is encoded the same.
func FuzzRetained(f *testing.F) {
	m := &message{topic: "a/b", payload: []byte("x"), qos: 1, expires: time.Unix(1e9, 0), props: packets.Properties{ContentType: "t", User: []packets.UserProperty{{Key: "k", Val: "v"}}}}
	value, err := encodeRetained(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Fuzz(func(t *testing.T, value []byte) {
		m, err := decodeRetained(value)
		if err != nil {
			return
		}
		again, err := encodeRetained(m)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeRetained(again)
		if err != nil || back.topic != m.topic || !bytes.Equal(back.payload, m.payload) || back.qos != m.qos || !back.expires.Equal(m.expires) {
			t.Fatalf("got %+v, %v; want %+v", back, err, m)
		}
	})
}

// FuzzSessionRecord: so are sessions.
func FuzzSessionRecord(f *testing.F) {
	good, _ := json.Marshal(sessionRecord{Version: 1, Epoch: make([]byte, 8), ExpirySeconds: 9, Subs: []subscription{{Filter: "a/#", QoS: 1}}})
	f.Add(good)
	f.Add([]byte(`{"v":1,"epoch":"AAAAAAAAAAA=","filters":["1a"]}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if r, err := decodeSession(value); err == nil && (len(r.Epoch) != 8 || r.ExpirySeconds < 0) {
			t.Fatalf("accepted %+v", r)
		}
		if r := decodeClientRecord(value); r != nil {
			_ = epoch(r.Epoch)
			for _, filter := range r.Filters {
				_ = filter[1:]
			}
		}
	})
}

// FuzzProperties: a header block of anybody becomes properties that a subscriber can decode.
func FuzzProperties(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\ncontent-type: a/b\r\nce-id: 1%20\r\nX: y\r\nNats-Msg-Id: 7\r\n\r\n"))
	f.Fuzz(func(t *testing.T, header []byte) {
		m := &message{topic: "a", payload: []byte("x"), props: propertiesOf(header)}
		out, err := encode(nil, m.publish(5, time.Now()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readPacket(newReader(out), 5, 1<<20); err != nil {
			t.Fatalf("header %q: %v", header, err)
		}
	})
}

// FuzzLinkConn: what a broker sends reaches paho whole, or cut at the limit, however it is read.
func FuzzLinkConn(f *testing.F) {
	f.Add([]byte("\x32\x90\x4e\x00\x01a\x00\x07"+strings.Repeat("x", 10_000-5)), byte(3))
	f.Add([]byte("\xd0\x00\x30\x04\x00\x01ab\x20\xff\xff\xff\x7f"), byte(1))
	f.Fuzz(func(t *testing.T, data []byte, step byte) {
		const limit = 5000
		c := newLinkConn(&readOnly{r: bytes.NewReader(data)}, limit, "mark")
		out := make([]byte, 0, len(data))
		p := make([]byte, int(step)+1)
		for {
			n, err := c.Read(p)
			out = append(out, p[:n]...)
			if err != nil {
				break
			}
		}
		r := newReader(out)
		for {
			first, err := r.ReadByte()
			if err != nil {
				break
			}
			n, _, err := readLength(r)
			if err != nil {
				break
			}
			if n > limit+keptBytes+1<<16 {
				t.Fatalf("a packet of %d bytes of type %d came through", n, first>>4)
			}
			if _, err := r.Discard(n); err != nil {
				break
			}
		}
	})
}

type readOnly struct {
	net.Conn
	r io.Reader
}

func (c *readOnly) Read(p []byte) (int, error) { return c.r.Read(p) }

// TestTree_find: the tree finds what the definition of a match says.
func TestTree_find(t *testing.T) {
	levels := rapid.SampledFrom([]string{"a", "b", "", "$x"})
	wild := rapid.SampledFrom([]string{"a", "b", "", "+", "$x"})
	rapid.Check(t, func(t *rapid.T) {
		var tr tree
		s := &session{id: "s"}
		filters := map[string]bool{}
		for range rapid.IntRange(0, 8).Draw(t, "filters") {
			parts := rapid.SliceOfN(wild, 1, 4).Draw(t, "filter")
			if rapid.Bool().Draw(t, "all") {
				parts = append(parts, "#")
			}
			filter := strings.Join(parts, "/")
			if !validFilter(filter) {
				continue
			}
			if rapid.Bool().Draw(t, "remove") && filters[filter] {
				tr.remove(s, filter)
				delete(filters, filter)
				continue
			}
			if isNew := tr.add(s, subscription{Filter: filter, ID: len(filter) + 1}); isNew == filters[filter] {
				t.Fatalf("%q is new: %v", filter, isNew)
			}
			filters[filter] = true
		}
		topic := strings.Join(rapid.SliceOfN(levels, 1, 5).Draw(t, "topic"), "/")
		if topic == "" {
			return
		}
		want := 0
		for filter := range filters {
			if matches(filter, topic) {
				want++
			}
		}
		if got := len(tr.find(topic, "")[s].ids); got != want {
			t.Fatalf("topic %q, filters %v: %d match, want %d", topic, filters, got, want)
		}
		for filter := range filters {
			tr.remove(s, filter)
		}
		if len(tr.root.children) != 0 {
			t.Fatal("levels are left")
		}
	})
}

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		filter, topic string
		want          bool
	}{
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true}, {"#", "a/b", true}, {"#", "/", true},
		{"sport/+", "sport", false}, {"sport/+", "sport/", true}, {"+/+", "/finance", true}, {"/+", "/finance", true}, {"+", "/finance", false},
		{"#", "$SYS/a", false}, {"+/a", "$SYS/a", false}, {"$SYS/#", "$SYS/a", true}, {"$SYS/+/x", "$SYS/a/x", true},
		{"a/b", "a/b/c", false}, {"a/b/c", "a/b", false}, {"a/+/#", "a/b", true}, {"a/#", "ab", false},
	} {
		if got := matches(test.filter, test.topic); got != test.want {
			t.Errorf("%q matches %q: got %v", test.filter, test.topic, got)
		}
	}
}

func TestOutbound_freeID_wraps(t *testing.T) {
	o := outbound{maxMessages: 10, maxBytes: 1 << 20, quota: 3, nextID: 65534}
	for range 3 {
		o.offer(&delivery{m: &message{topic: "a"}, match: match{qos: 1}})
	}
	var ids []uint16
	for pk := o.next(4, time.Now()); pk != nil; pk = o.next(4, time.Now()) {
		ids = append(ids, pk.PacketID)
	}
	if len(ids) != 3 || ids[0] != 65535 || ids[1] != 1 || ids[2] != 2 {
		t.Errorf("got %v", ids)
	}
}

func newReader(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }

// FuzzSending: what makes no sense on disk is no message in flight, and the rest comes back as it was written.
func FuzzSending(f *testing.F) {
	f.Add((&sending{seq: 7, qos: 2, retain: true, released: true, sum: [8]byte{1}}).encode())
	f.Add((&sending{seq: 1, qos: 1}).encode())
	f.Add([]byte("\x01\x09........XXXXXXXX"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := decodeSending(data)
		if s == nil {
			return
		}
		if s.qos == 0 || s.qos > 2 || s.released && s.qos != 2 {
			t.Fatalf("%+v makes no sense", s)
		}
		if !bytes.Equal(s.encode(), data) {
			t.Fatalf("%x became %x", data, s.encode())
		}
	})
}

// FuzzAboutMessage: the gate sees in a packet what the codec does.
func FuzzAboutMessage(f *testing.F) {
	f.Add([]byte("\x34\x06\x00\x01a\x00\x07x"))
	f.Add([]byte("\x62\x02\x00\x07"))
	f.Add([]byte("\x32\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, id, ok := aboutMessage(data)
		pk, err := readPacket(newReader(data), 4, 1<<20)
		if err != nil {
			return
		}
		about := pk.FixedHeader.Type == packets.Publish && pk.FixedHeader.Qos > 0 || pk.FixedHeader.Type == packets.Pubrel || pk.FixedHeader.Type == packets.Pubcomp
		if ok != about || ok && (kind != pk.FixedHeader.Type || id != pk.PacketID) {
			t.Fatalf("%x is about %v %d %d, the codec says %v %d %d", data, ok, kind, id, about, pk.FixedHeader.Type, pk.PacketID)
		}
	})
}
