package mqtt_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/providers/mqtt"
	"github.com/edged-io/edged/store"
)

func TestListener_Publish_ackedAfterCommitInOrder(t *testing.T) {
	for _, version := range []byte{3, 4, 5} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			b := newBox(t, nil)
			w, _ := b.connect(version, "c", true)
			release := b.broker.hold()
			defer release()
			w.send(pub("sensors/a", "one", 1, 1))
			w.send(pub("sensors/a", "two", 2, 2))
			w.send(pub("elsewhere", "three", 1, 3)) // of no stream: its ack waits for those before it
			eventually(t, "stored", func() bool { return len(b.stored()) == 2 })
			eventually(t, "on core NATS", func() bool { return len(b.broker.cores()) == 1 })
			w.quiet() // the next packets were read, and nothing was acknowledged
			release()
			for i, kind := range []byte{packets.Puback, packets.Pubrec, packets.Puback} {
				if pk := w.expect(kind); pk.PacketID != uint16(i+1) || pk.ReasonCode != 0 {
					t.Fatalf("got %+v, want an acknowledgement of %d", pk, i+1)
				}
			}
			equal(t, b.stored(), []string{"one", "two"})
		})
	}
}

func TestListener_Publish_windowSharesSyncs(t *testing.T) {
	b := newBox(t, nil)
	w, _ := b.connect(4, "c", false)
	const messages, inFlight = 2048, 64
	before := b.db.Stats().Commits
	sent, acked := 0, 0
	for acked < messages {
		var burst []byte
		for sent < messages && sent-acked < inFlight {
			sent++
			burst = append(burst, w.encode(pub("sensors/a", fmt.Sprint(sent), 1, uint16(sent)))...)
		}
		if _, err := w.nc.Write(burst); err != nil {
			t.Fatal(err)
		}
		for acked++; ; acked++ {
			if pk := w.expect(packets.Puback); int(pk.PacketID) != acked {
				t.Fatalf("got an ack of %d, want %d", pk.PacketID, acked)
			}
			if w.r.Buffered() == 0 {
				break
			}
		}
	}
	commits := b.db.Stats().Commits - before
	t.Logf("%d messages, %d in flight: %d commits, %.3f per message", messages, inFlight, commits, float64(commits)/messages)
	if commits*2 > messages/8 { // a commit is two syncs
		t.Errorf("%d commits of two syncs for %d messages: more than 1/8 sync per message", commits, messages)
	}
	if got := b.stored(); len(got) != messages || got[messages-1] != fmt.Sprint(messages) {
		t.Errorf("%d messages stored", len(got))
	}
}

func TestListener_Publish_qos2Once(t *testing.T) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			b := newBox(t, nil)
			w, _ := b.connect(version, "c", false, expiry(600))
			w.send(pub("sensors/a", "x", 2, 7))
			w.expect(packets.Pubrec)
			w.send(dup(pub("sensors/a", "x", 2, 7)))
			if pk := w.expect(packets.Pubrec); pk.ReasonCode != 0 {
				t.Errorf("repeat refused with %#x", pk.ReasonCode)
			}
			_ = w.nc.Close()
			w, present := b.connect(version, "c", false, expiry(600))
			if !present {
				t.Error("the session is gone")
			}
			w.send(dup(pub("sensors/a", "x", 2, 7)))
			w.expect(packets.Pubrec)
			w.send(ack(packets.Pubrel, 7))
			if pk := w.expect(packets.Pubcomp); pk.ReasonCode != 0 {
				t.Errorf("pubcomp with %#x", pk.ReasonCode)
			}
			w.send(ack(packets.Pubrel, 7)) // the client did not see PUBCOMP
			w.expect(packets.Pubcomp)
			w.send(pub("sensors/a", "x", 2, 7)) // the identifier is free again: a new message
			w.expect(packets.Pubrec)
			equal(t, b.stored(), []string{"x", "x"})
		})
	}
}

func TestListener_Publish_dupOverRestart(t *testing.T) {
	b := newBox(t, nil)
	w, _ := b.connect(4, "c", false)
	plain, _ := b.connect(4, "without session", true)
	for i := range uint16(10) {
		w.send(pub("sensors/a", fmt.Sprint(i), 1, i+1))
		w.expect(packets.Puback)
	}
	w.send(pub("sensors/a", "qos 2", 2, 20))
	w.expect(packets.Pubrec)
	plain.send(pub("sensors/p", "p", 1, 1))
	plain.expect(packets.Puback)
	b.restart()
	want := b.stored()
	w, present := b.connect(4, "c", false)
	if !present {
		t.Error("the session is gone")
	}
	for i := range uint16(10) {
		w.send(dup(pub("sensors/a", fmt.Sprint(i), 1, i+1)))
		w.expect(packets.Puback)
	}
	w.send(dup(pub("sensors/a", "qos 2", 2, 20)))
	w.expect(packets.Pubrec)
	w.send(ack(packets.Pubrel, 20))
	w.expect(packets.Pubcomp)
	equal(t, b.stored(), want)
	if got := b.l.Stats().Repeats; got != 11 {
		t.Errorf("%d repeats counted, want 11", got)
	}
	w.send(dup(pub("sensors/a", "other", 1, 1))) // never seen before: the first attempt was lost
	w.expect(packets.Puback)
	w.send(pub("sensors/a", "other", 1, 1)) // no DUP: a new message
	w.expect(packets.Puback)
	plain, _ = b.connect(4, "without session", true)
	plain.send(dup(pub("sensors/p", "p", 1, 1)))
	plain.expect(packets.Puback)
	equal(t, b.stored(), append(want, "other", "other", "p"))
}

func TestListener_Publish_dupOfEndedSessionIsNew(t *testing.T) {
	b := newBox(t, nil)
	w, _ := b.connect(4, "c", false)
	w.send(pub("sensors/a", "x", 1, 1))
	w.expect(packets.Puback)
	w.bye()
	w, _ = b.connect(4, "c", true) // ends the session
	w.bye()
	w, present := b.connect(4, "c", false)
	if present {
		t.Error("a clean session was resumed")
	}
	w.send(dup(pub("sensors/a", "x", 1, 1)))
	w.expect(packets.Puback)
	equal(t, b.stored(), []string{"x", "x"})
	keys := 0
	if err := b.db.List("mqtt/dup", "", func(string, []byte) error { keys++; return nil }); err != nil {
		t.Fatal(err)
	}
	if keys != 1 {
		t.Errorf("%d entries for repeats, want 1", keys)
	}
}

func TestListener_Publish_refused(t *testing.T) {
	full := func(b *box, version byte) *wire {
		w, _ := b.connect(version, "filler", true)
		w.send(pub("sensors/a", "1", 1, 1))
		w.expect(packets.Puback)
		w.bye()
		w, _ = b.connect(version, "c", false, expiry(600))
		return w
	}
	for _, test := range []struct {
		name    string
		publish packets.Packet
		code    byte
	}{
		{"full", pub("sensors/a", "2", 1, 5), 0x97},
		{"full, QoS 2", pub("sensors/a", "2", 2, 5), 0x97},
		{"too large", pub("sensors/a", strings.Repeat("x", 1<<16+1), 1, 5), 0x97},
		{"reserved", pub("$SYS/a", "2", 1, 5), 0x90},
		{"long topic", pub(strings.Repeat("a", 1001), "2", 1, 5), 0x90},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, func(o *mqtt.ListenerOptions) { o.MaxMessage = 1 << 16 })
			b.stop()
			b.config.MaxMsgs = 1
			b.start()
			w := full(b, 5)
			w.send(test.publish)
			kind := packets.Puback
			if test.publish.FixedHeader.Qos == 2 {
				kind = packets.Pubrec
			}
			if pk := w.expect(kind); pk.ReasonCode != test.code {
				t.Errorf("version 5: got code %#x, want %#x", pk.ReasonCode, test.code)
			}
			w.send(pub("elsewhere", "still open", 1, 6))
			w.expect(packets.Puback)
			w.bye()

			w, _ = b.connect(4, "v3", false)
			w.send(pub("elsewhere", "before", 1, 4))
			w.send(test.publish)
			w.send(pub("elsewhere", "after", 1, 6))
			if pk := w.expect(packets.Puback); pk.PacketID != 4 {
				t.Errorf("got an ack of %d, want 4", pk.PacketID)
			}
			w.closed()
			equal(t, b.stored(), []string{"1"})
		})
	}
}

func TestListener_Publish_refusedIsTakenLater(t *testing.T) {
	b := newBox(t, nil)
	b.stop()
	b.config.MaxMsgs = 1
	b.start()
	w, _ := b.connect(4, "c", false)
	w.send(pub("sensors/a", "1", 1, 1))
	w.expect(packets.Puback)
	w.send(pub("sensors/a", "2", 1, 2))
	w.closed()
	if err := b.db.EnsureSubscription(store.SubscriptionConfig{Name: "s", Stream: "telemetry"}); err != nil {
		t.Fatal(err)
	}
	turn := b.db.Begin()
	turn.Ack("s", 1)
	if err := turn.Commit(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "room", func() bool { return len(b.stored()) == 0 })
	w, _ = b.connect(4, "c", false)
	w.send(dup(pub("sensors/a", "2", 1, 2)))
	w.expect(packets.Puback)
	equal(t, b.stored(), []string{"2"})
}

func TestListener_Publish_eightMiB(t *testing.T) {
	b := newBox(t, nil)
	huge := pub("sensors/a", strings.Repeat("x", 8<<20), 1, 1)
	w, _ := b.connect(5, "v5", true)
	w.send(huge)
	if pk := w.expect(packets.Disconnect); pk.ReasonCode != packets.ErrPacketTooLarge.Code {
		t.Errorf("got code %#x, want %#x", pk.ReasonCode, packets.ErrPacketTooLarge.Code)
	}
	w.closed()
	w, _ = b.connect(4, "v3", true)
	w.send(huge)
	w.closed()
	equal(t, b.stored(), nil)
}

func TestListener_Publish_violations(t *testing.T) {
	b := newBox(t, func(o *mqtt.ListenerOptions) { o.ReceiveMaximum = 4 })
	alias := pub("", "x", 1, 1)
	alias.Properties.TopicAlias, alias.Properties.TopicAliasFlag = 3, true
	for _, test := range []struct {
		name string
		pk   packets.Packet
		code byte
	}{
		{"plus", pub("sensors/+", "x", 1, 1), 0x82},
		{"hash", pub("#", "x", 0, 0), 0x82},
		{"no topic", pub("", "x", 1, 1), 0x82},
		{"unknown alias", alias, 0x82},
		{"second connect", connectPacket(5, "again", true), 0x82},
		{"pubrel before pubrec", packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel}, PacketID: 9}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, _ := b.connect(5, "c", true)
			w.send(test.pk)
			if test.code == 0 {
				w.expect(packets.Pubcomp)
				return
			}
			if pk := w.expect(packets.Disconnect); pk.ReasonCode != test.code {
				t.Errorf("got code %#x, want %#x", pk.ReasonCode, test.code)
			}
			w.closed()
		})
	}
	t.Run("receive maximum", func(t *testing.T) {
		release := b.broker.hold()
		defer release()
		w, _ := b.connect(5, "c", true)
		for id := range uint16(5) {
			w.send(pub("sensors/a", "x", 1, id+1))
		}
		if pk := w.expect(packets.Disconnect); pk.ReasonCode != packets.ErrReceiveMaximum.Code {
			t.Errorf("got code %#x", pk.ReasonCode)
		}
	})
	t.Run("receive maximum of version 3 waits", func(t *testing.T) {
		release := b.broker.hold()
		w, _ := b.connect(4, "c", true)
		for id := range uint16(20) {
			w.send(pub("sensors/a", "x", 1, id+1))
		}
		release()
		for range 20 {
			w.expect(packets.Puback)
		}
	})
}

func TestListener_Publish_properties(t *testing.T) {
	b := newBox(t, nil)
	w, _ := b.connect(5, "c", true)
	pk := pub("sensors/a b/1.5", "x", 1, 1)
	pk.Properties.ContentType = "text/plain"
	pk.Properties.User = []packets.UserProperty{
		{Key: "specversion", Val: "1.0"}, {Key: "id", Val: "7 %"}, {Key: "source", Val: "/s"}, {Key: "type", Val: "t"},
		{Key: "room", Val: "a\r\nb"}, {Key: "Nats-Rollup", Val: "all"}, {Key: "bad name:", Val: "v"},
	}
	pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = 2, true
	w.send(pk)
	w.expect(packets.Puback)
	pk = pub("", "y", 1, 2)
	pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = 2, true
	w.send(pk)
	w.expect(packets.Puback)
	var got []store.Message
	if err := b.db.Read("telemetry", 1, 10, 1<<20, func(m store.Message) error { got = append(got, m); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[1].Subject != got[0].Subject || got[0].Subject != "sensors.a%20b.1%2E5" {
		t.Fatalf("got %+v", got)
	}
	h := event.Header(got[0].Header)
	if err := h.Check(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"content-type": "text/plain", "ce-id": "7%20%25", "ce-source": "/s", "ce-room": "a%0D%0Ab", "bad_name_": "v", "Nats-Rollup": ""} {
		if v, _ := h.Get(name); v != want {
			t.Errorf("header %s: got %q, want %q", name, v, want)
		}
	}
	if got[1].Header != nil {
		t.Errorf("a message without properties has the header %q", got[1].Header)
	}
}

// An event in binary mode keeps its attributes, extensions included, from MQTT 5 to NATS and back; so does what tells a message from others, and how
// long it is of use. To MQTT 3.1.1 it comes as it is.
func TestListener_Publish_eventBothWays(t *testing.T) {
	b := newBox(t, nil)
	five, _ := b.connect(5, "five", true)
	four, _ := b.connect(4, "four", true)
	five.subscribe(sub("#", 1))
	four.subscribe(sub("#", 0))
	w, _ := b.connect(5, "c", true)
	pk := pub("sensors/a", `{"v":1}`, 1, 1)
	pk.Properties.ContentType = "application/json"
	pk.Properties.MessageExpiryInterval = 60
	pk.Properties.User = []packets.UserProperty{
		{Key: "specversion", Val: "1.0"}, {Key: "id", Val: "1"}, {Key: "source", Val: "/s"}, {Key: "type", Val: "t"},
		{Key: "partitionkey", Val: "k é"}, {Key: "Room", Val: "9"}, {Key: "Edged-Key", Val: "k2"},
	}
	w.send(pk)
	w.expect(packets.Puback)
	got := five.expect(packets.Publish)
	if p := got.Properties; p.ContentType != "application/json" || p.MessageExpiryInterval == 0 || p.MessageExpiryInterval > 60 || !slices.Equal(p.User, pk.Properties.User) {
		t.Errorf("got %+v", p)
	}
	if got := four.expect(packets.Publish); string(got.Payload) != `{"v":1}` {
		t.Errorf("got %q", got.Payload)
	}
	err := b.db.Read("telemetry", 1, 1, 1<<20, func(m store.Message) error {
		e, ok := event.Parse(m.Header, m.Subject, m.Data)
		if ttl, _ := event.Header(m.Header).Get("Nats-TTL"); !ok || e.Extensions["partitionkey"] != "k é" || e.DataContentType != "application/json" || ttl != "60" || m.TTL <= 0 || m.TTL > time.Minute {
			t.Errorf("got %+v, TTL %q, %s", e, ttl, m.TTL)
		}
		b.broker.publish(store.Message{Subject: "plant.a", Header: m.Header, Data: m.Data})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if p := five.expect(packets.Publish).Properties; p.ContentType != "application/json" || p.MessageExpiryInterval == 0 || p.MessageExpiryInterval > 60 || !slices.Equal(p.User, pk.Properties.User) {
		t.Errorf("over NATS: got %+v", p)
	}
}

func TestListener_Publish_clientGone(t *testing.T) {
	b := newBox(t, nil)
	sub, _ := b.connect(4, "sub", true)
	sub.subscribe(packets.Subscription{Filter: "sensors/#", Qos: 1})
	w, _ := b.connect(4, "c", false)
	release := b.broker.hold()
	defer release()
	w.send(pub("sensors/a", "x", 1, 1))
	eventually(t, "stored", func() bool { return len(b.stored()) == 1 })
	_ = w.nc.Close()
	again := dial(t, b.l.Addr().String(), 4)
	again.send(connectPacket(4, "c", false)) // waits for the end of the first
	time.AfterFunc(20*time.Millisecond, release)
	again.expect(packets.Connack)
	if pk := sub.expect(packets.Publish); string(pk.Payload) != "x" {
		t.Errorf("got %q", pk.Payload)
	}
	again.send(dup(pub("sensors/a", "x", 1, 1)))
	again.expect(packets.Puback)
	sub.quiet()
	equal(t, b.stored(), []string{"x"})
}
