package mqtt_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/providers/mqtt"
	"github.com/edged-io/edged/store"
)

// deadline is how long a test waits for what must happen.
const deadline = 60 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(deadline)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// fakeBroker keeps messages in real streams and shows the rest to its taps.
type fakeBroker struct {
	streams map[string]string // filter → stream

	mu   sync.Mutex
	gate chan struct{} // not nil: confirmations wait for it
	core []store.Message
	taps map[int]tapOf
	next int
}

type tapOf struct {
	filter string
	fn     func(store.Message)
}

func (b *fakeBroker) Covers(subject string) (string, bool) {
	for filter, stream := range b.streams {
		if topic.Match(filter, subject) {
			return stream, true
		}
	}
	return "", false
}

func (b *fakeBroker) Stage(t *store.Turn, m store.Message) error {
	b.mu.Lock()
	gate := b.gate
	b.mu.Unlock()
	if gate != nil {
		t.AfterCommit(func() { <-gate })
	}
	stream, ok := b.Covers(m.Subject)
	if !ok {
		t.AfterCommit(func() { _ = b.Core(m) })
		return nil
	}
	m.ID = event.Identity(event.Header(m.Header), m.Data)
	_, err := t.Publish(stream, m)
	return err
}

func (b *fakeBroker) Core(m store.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.core = append(b.core, m)
	return nil
}

func (b *fakeBroker) cores() []store.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.core)
}

func (b *fakeBroker) Tap(filter string, fn func(store.Message)) (func(), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taps == nil {
		b.taps = make(map[int]tapOf)
	}
	b.next++
	id := b.next
	b.taps[id] = tapOf{filter, fn}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.taps, id)
	}, nil
}

func (b *fakeBroker) tapCount() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.taps)
}

// publish is what another part of the box publishes.
func (b *fakeBroker) publish(m store.Message) {
	b.mu.Lock()
	var fns []func(store.Message)
	for _, tap := range b.taps {
		if topic.Match(tap.filter, m.Subject) {
			fns = append(fns, tap.fn)
		}
	}
	b.mu.Unlock()
	for _, fn := range fns {
		fn(m)
	}
}

// hold lets confirmations wait until release is called.
func (b *fakeBroker) hold() (release func()) {
	gate := make(chan struct{})
	b.mu.Lock()
	b.gate = gate
	b.mu.Unlock()
	return sync.OnceFunc(func() {
		b.mu.Lock()
		b.gate = nil
		b.mu.Unlock()
		close(gate)
	})
}

// box is a listener with its store; it can be started again.
type box struct {
	t      testing.TB
	dir    string
	db     *store.DB
	broker *fakeBroker
	l      *mqtt.Listener
	stop   func()
	set    func(*mqtt.ListenerOptions)
	config store.StreamConfig
}

func newBox(t testing.TB, set func(*mqtt.ListenerOptions)) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir(), set: set, config: store.StreamConfig{Name: "telemetry"}}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *box) start() {
	b.t.Helper()
	db, err := store.Open(store.Options{Dir: b.dir})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := db.EnsureStream(b.config); err != nil {
		b.t.Fatal(err)
	}
	b.db = db
	b.broker = &fakeBroker{streams: map[string]string{"sensors.>": "telemetry"}}
	o := mqtt.ListenerOptions{Listen: "127.0.0.1:0", Store: db, Broker: b.broker}
	if b.set != nil {
		b.set(&o)
	}
	l, err := mqtt.NewListener(o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.l = l
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("run: %v", err)
		}
		if err := db.Close(); err != nil {
			b.t.Errorf("close: %v", err)
		}
	})
}

func (b *box) restart() {
	b.t.Helper()
	b.stop()
	b.start()
}

// stored returns the data of all messages in the stream.
func (b *box) stored() []string {
	b.t.Helper()
	return storedIn(b.t, b.db, "telemetry")
}

func storedIn(t testing.TB, db *store.DB, stream string) []string {
	t.Helper()
	var out []string
	err := db.Read(stream, 1, 1<<20, 1<<30, func(m store.Message) error {
		out = append(out, string(m.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// wire is a client that speaks packets.
type wire struct {
	t       testing.TB
	nc      net.Conn
	r       *bufio.Reader
	version byte
}

func dial(t testing.TB, addr string, version byte) *wire {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return &wire{t: t, nc: nc, r: bufio.NewReader(nc), version: version}
}

func (w *wire) send(pk packets.Packet) {
	w.t.Helper()
	if _, err := w.nc.Write(w.encode(pk)); err != nil {
		w.t.Fatalf("send: %v", err)
	}
}

func (w *wire) encode(pk packets.Packet) []byte {
	w.t.Helper()
	pk.ProtocolVersion = w.version
	pk.Mods.AllowResponseInfo = true
	var b bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connect:
		err = pk.ConnectEncode(&b)
	case packets.Publish:
		err = pk.PublishEncode(&b)
	case packets.Puback:
		err = pk.PubackEncode(&b)
	case packets.Pubrec:
		err = pk.PubrecEncode(&b)
	case packets.Pubrel:
		pk.FixedHeader.Qos = 1
		err = pk.PubrelEncode(&b)
	case packets.Pubcomp:
		err = pk.PubcompEncode(&b)
	case packets.Subscribe:
		pk.FixedHeader.Qos = 1
		err = pk.SubscribeEncode(&b)
	case packets.Unsubscribe:
		pk.FixedHeader.Qos = 1
		err = pk.UnsubscribeEncode(&b)
	case packets.Pingreq:
		err = pk.PingreqEncode(&b)
	case packets.Disconnect:
		err = pk.DisconnectEncode(&b)
	default:
		err = fmt.Errorf("type %d", pk.FixedHeader.Type)
	}
	if err != nil {
		w.t.Fatalf("encode: %v", err)
	}
	return b.Bytes()
}

// receive returns the next packet, or the error that ended the connection.
func (w *wire) receive(within time.Duration) (packets.Packet, error) {
	w.t.Helper()
	_ = w.nc.SetReadDeadline(time.Now().Add(within))
	var pk packets.Packet
	first, err := w.r.ReadByte()
	if err != nil {
		return pk, err
	}
	if err := pk.FixedHeader.Decode(first); err != nil {
		return pk, err
	}
	n, _, err := packets.DecodeLength(w.r)
	if err != nil {
		return pk, err
	}
	pk.FixedHeader.Remaining = n
	pk.ProtocolVersion = w.version
	body := make([]byte, n)
	if _, err := io.ReadFull(w.r, body); err != nil {
		return pk, err
	}
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		err = pk.PubackDecode(body)
	case packets.Suback:
		err = pk.SubackDecode(body)
	case packets.Unsuback:
		err = pk.UnsubackDecode(body)
	case packets.Disconnect:
		err = pk.DisconnectDecode(body)
	}
	return pk, err
}

func (w *wire) expect(kind byte) packets.Packet {
	w.t.Helper()
	pk, err := w.receive(deadline)
	if err != nil {
		w.t.Fatalf("waiting for %s: %v", packets.PacketNames[kind], err)
	}
	if pk.FixedHeader.Type != kind {
		w.t.Fatalf("got %s %d (code %#x, topic %q, %.40q), want %s", packets.PacketNames[pk.FixedHeader.Type], pk.PacketID, pk.ReasonCode,
			pk.TopicName, pk.Payload, packets.PacketNames[kind])
	}
	return pk
}

// quiet checks that nothing comes but answers to pings. The answers to two of them may overtake a message, not that to the third.
func (w *wire) quiet() {
	w.t.Helper()
	for range 3 {
		w.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
		w.expect(packets.Pingresp)
	}
}

// closed checks that the connection ends without another packet.
func (w *wire) closed() {
	w.t.Helper()
	pk, err := w.receive(deadline)
	if err == nil {
		w.t.Fatalf("got %s, want the connection closed", packets.PacketNames[pk.FixedHeader.Type])
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Fatal("the connection is still open")
	}
}

// connect opens a session; clean is clean session or clean start.
func (b *box) connect(version byte, id string, clean bool, with ...func(*packets.Packet)) (w *wire, present bool) {
	b.t.Helper()
	return connect(b.t, b.l.Addr().String(), version, id, clean, with...)
}

func connect(t testing.TB, addr string, version byte, id string, clean bool, with ...func(*packets.Packet)) (*wire, bool) {
	t.Helper()
	w := dial(t, addr, version)
	w.send(connectPacket(version, id, clean, with...))
	ack := w.expect(packets.Connack)
	if ack.ReasonCode != 0 {
		t.Fatalf("connack with code %#x", ack.ReasonCode)
	}
	return w, ack.SessionPresent
}

func connectPacket(version byte, id string, clean bool, with ...func(*packets.Packet)) packets.Packet {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: version}
	pk.Connect.ProtocolName = []byte("MQTT")
	if version == 3 {
		pk.Connect.ProtocolName = []byte("MQIsdp")
	}
	pk.Connect.ClientIdentifier, pk.Connect.Clean, pk.Connect.Keepalive = id, clean, 60
	for _, fn := range with {
		fn(&pk)
	}
	return pk
}

func expiry(seconds uint32) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = seconds, true
	}
}

func pub(topic, payload string, qos byte, id uint16) packets.Packet {
	return packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, TopicName: topic, Payload: []byte(payload), PacketID: id,
	}
}

func dup(pk packets.Packet) packets.Packet { pk.FixedHeader.Dup = true; return pk }

func retain(pk packets.Packet) packets.Packet { pk.FixedHeader.Retain = true; return pk }

func ack(kind byte, id uint16) packets.Packet {
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, PacketID: id}
}

func (w *wire) subscribe(subs ...packets.Subscription) {
	w.t.Helper()
	w.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 65000, Filters: subs})
	got := w.expect(packets.Suback)
	for i, code := range got.ReasonCodes {
		if code > 2 {
			w.t.Fatalf("subscription to %s refused with %#x", subs[i].Filter, code)
		}
	}
}

func (w *wire) bye() {
	w.t.Helper()
	w.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
	w.closed()
}

func equal(t testing.TB, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}
