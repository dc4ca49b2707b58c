package mqtt_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/providers/mqtt"
	"github.com/edged-io/edged/store"
)

func sub(filter string, qos byte) packets.Subscription {
	return packets.Subscription{Filter: filter, Qos: qos}
}

func TestListener_Subscribe_qualities(t *testing.T) {
	b := newBox(t, nil)
	for _, version := range []byte{4, 5} {
		for granted := range byte(3) {
			for sent := range byte(3) {
				t.Run(fmt.Sprintf("version %d, %d to %d", version, sent, granted), func(t *testing.T) {
					s, _ := b.connect(version, "sub", true)
					s.subscribe(sub("sensors/+", granted))
					w, _ := b.connect(version, "pub", true)
					w.send(pub("sensors/a", "x", sent, min(1, uint16(sent))))
					pk := s.expect(packets.Publish)
					if want := min(sent, granted); pk.FixedHeader.Qos != want || string(pk.Payload) != "x" || pk.TopicName != "sensors/a" {
						t.Errorf("got %+v, want QoS %d", pk, want)
					}
					switch pk.FixedHeader.Qos {
					case 1:
						s.send(ack(packets.Puback, pk.PacketID))
					case 2:
						s.send(ack(packets.Pubrec, pk.PacketID))
						if rel := s.expect(packets.Pubrel); rel.PacketID != pk.PacketID {
							t.Errorf("pubrel of %d", rel.PacketID)
						}
						s.send(ack(packets.Pubcomp, pk.PacketID))
					}
					s.quiet()
				})
			}
		}
	}
}

func TestListener_Subscribe_afterCommitOnly(t *testing.T) {
	b := newBox(t, nil)
	s, _ := b.connect(4, "sub", true)
	s.subscribe(sub("#", 1))
	w, _ := b.connect(4, "pub", true)
	release := b.broker.hold()
	defer release()
	w.send(pub("sensors/a", "x", 1, 1))
	eventually(t, "stored", func() bool { return len(b.stored()) == 1 })
	s.quiet()
	release()
	s.expect(packets.Publish)
}

func TestListener_Subscribe_overlapAndIdentifiers(t *testing.T) {
	b := newBox(t, nil)
	s, _ := b.connect(5, "sub", true)
	for i, f := range []packets.Subscription{sub("a/#", 0), sub("a/+", 1), sub("+/b", 2)} {
		pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1, Filters: packets.Subscriptions{f}}
		pk.Properties.SubscriptionIdentifier = []int{i + 1}
		s.send(pk)
		s.expect(packets.Suback)
	}
	w, _ := b.connect(4, "pub", true)
	w.send(pub("a/b", "x", 2, 1))
	pk := s.expect(packets.Publish)
	slices.Sort(pk.Properties.SubscriptionIdentifier)
	if pk.FixedHeader.Qos != 2 || !slices.Equal(pk.Properties.SubscriptionIdentifier, []int{1, 2, 3}) {
		t.Errorf("got %+v", pk)
	}
	s.quiet()
}

func TestListener_Subscribe_noLocalAndShared(t *testing.T) {
	b := newBox(t, nil)
	w, _ := b.connect(5, "self", true)
	mine := sub("a", 0)
	mine.NoLocal = true
	w.subscribe(mine)
	members := make([]*wire, 3)
	for i := range members {
		members[i], _ = b.connect(5, fmt.Sprint("member ", i), true)
		members[i].subscribe(sub("$share/g/a", 0))
	}
	for i := range 9 {
		w.send(pub("a", fmt.Sprint(i), 1, uint16(i+1)))
		w.expect(packets.Puback)
	}
	w.quiet()
	for _, m := range members {
		for range 3 {
			m.expect(packets.Publish)
		}
		m.quiet()
	}
}

func TestListener_Subscribe_bad(t *testing.T) {
	b := newBox(t, nil)
	for version, want := range map[byte]byte{4: 0x80, 5: 0x8f} {
		w, _ := b.connect(version, "c", true)
		w.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1, Filters: packets.Subscriptions{
			sub("a/#/b", 1), sub("a+", 1), sub("$share/g", 1), sub("$share//a", 1), sub("ok", 1), sub("", 1),
		}})
		got := w.expect(packets.Suback)
		if !slices.Equal(got.ReasonCodes, []byte{want, want, want, want, 1, want}) {
			t.Errorf("version %d: got %#v", version, got.ReasonCodes)
		}
		w.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, PacketID: 2, Filters: packets.Subscriptions{sub("ok", 0), sub("no", 0)}})
		got = w.expect(packets.Unsuback)
		if version == 5 && !slices.Equal(got.ReasonCodes, []byte{0, 0x11}) {
			t.Errorf("got %#v", got.ReasonCodes)
		}
	}
	if n := b.broker.tapCount(); n != 0 {
		t.Errorf("%d taps are left", n)
	}
}

func TestListener_Tap_onceInOrder(t *testing.T) {
	b := newBox(t, nil)
	s, _ := b.connect(5, "sub", true)
	s.subscribe(sub("plant/#", 1), sub("plant/+/temp", 0), sub("plant", 0))
	other, _ := b.connect(4, "other", true)
	other.subscribe(sub("#", 0))
	h, _ := event.Header(nil).Append("room", "9")
	h, _ = h.Append("ce-id", "a%20b")
	for i := range 20 {
		b.broker.publish(store.Message{Subject: "plant.a.temp", Header: h, Data: fmt.Append(nil, i)})
	}
	b.broker.publish(store.Message{Subject: "plant", Data: []byte("root")})
	b.broker.publish(store.Message{Subject: "_INBOX.1.2", Data: []byte("not for them")})
	b.broker.publish(store.Message{Subject: "plant.a/b", Data: []byte("no topic")})
	for _, w := range []*wire{s, other} {
		for i := range 20 {
			pk := w.expect(packets.Publish)
			if string(pk.Payload) != fmt.Sprint(i) || pk.TopicName != "plant/a/temp" {
				t.Fatalf("got %+v, want %d", pk, i)
			}
			if w == s && (pk.FixedHeader.Qos != 1 || len(pk.Properties.User) != 2 || pk.Properties.User[1] != packets.UserProperty{Key: "id", Val: "a b"}) {
				t.Fatalf("got %+v", pk)
			}
		}
		if pk := w.expect(packets.Publish); string(pk.Payload) != "root" {
			t.Fatalf("got %+v", pk)
		}
		w.quiet()
	}
	s.bye()
	other.bye()
	eventually(t, "taps closed", func() bool { return b.broker.tapCount() == 0 })
}

func TestListener_Session_queueInOrderAndAgain(t *testing.T) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			b := newBox(t, nil)
			s, _ := b.connect(version, "sub", false, expiry(600))
			s.subscribe(sub("sensors/#", 1))
			s.bye()
			w, _ := b.connect(4, "pub", true)
			for i := range 300 {
				w.send(pub("sensors/a", fmt.Sprint(i), 1, uint16(i+1)))
			}
			w.send(pub("sensors/a", "not kept", 0, 0))
			for range 300 {
				w.expect(packets.Puback)
			}
			limit := func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 10 }
			s, present := b.connect(version, "sub", false, expiry(600), limit)
			if !present {
				t.Error("the session is gone")
			}
			window := 128
			if version == 5 {
				window = 10
			}
			for i := range window {
				if pk := s.expect(packets.Publish); string(pk.Payload) != fmt.Sprint(i) || pk.FixedHeader.Dup {
					t.Fatalf("got %+v, want %d", pk, i)
				}
			}
			s.quiet() // the window is full
			_ = s.nc.Close()
			s, _ = b.connect(version, "sub", false, expiry(600), limit)
			for i := range 300 {
				pk := s.expect(packets.Publish)
				if string(pk.Payload) != fmt.Sprint(i) || pk.FixedHeader.Dup != (i < window) {
					t.Fatalf("got %+v, want %d", pk, i)
				}
				s.send(ack(packets.Puback, pk.PacketID))
			}
			s.quiet()
		})
	}
}

func TestListener_Session_identifiersOfBothSidesAreApart(t *testing.T) {
	b := newBox(t, nil)
	s, _ := b.connect(4, "c", false)
	s.subscribe(sub("sensors/#", 1))
	s.send(pub("sensors/a", "x", 1, 1)) // what comes back is in flight with identifier 1 too
	for range 2 {
		if _, err := s.receive(deadline); err != nil {
			t.Fatal(err)
		}
	}
	s.send(pub("sensors/a", "y", 2, 1))
	for range 2 {
		if _, err := s.receive(deadline); err != nil {
			t.Fatal(err)
		}
	}
	s.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1, Filters: packets.Subscriptions{sub("other", 0)}})
	if pk := s.expect(packets.Suback); pk.ReasonCodes[0] != 0 {
		t.Errorf("subscription refused with %#x", pk.ReasonCodes[0])
	}
	_ = s.nc.Close()
	s, _ = b.connect(4, "c", false)
	for _, want := range []string{"x", "y"} {
		if pk := s.expect(packets.Publish); string(pk.Payload) != want || !pk.FixedHeader.Dup {
			t.Errorf("got %+v, want %s again", pk, want)
		}
	}
}

func TestListener_Session_survivesRestart(t *testing.T) {
	b := newBox(t, nil)
	v4, _ := b.connect(4, "v4", false)
	v4.subscribe(sub("sensors/#", 1), sub("gone", 0))
	v4.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, PacketID: 2, Filters: packets.Subscriptions{sub("gone", 0)}})
	v4.expect(packets.Unsuback)
	v5, _ := b.connect(5, "v5", true, expiry(100))
	v5.subscribe(packets.Subscription{Filter: "sensors/#", Qos: 2, RetainAsPublished: true})
	b.connect(5, "brief", true)
	b.connect(4, "clean", true)
	b.restart()
	if n := b.l.Stats().Sessions; n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	w, _ := b.connect(4, "pub", true)
	w.send(pub("sensors/a", "x", 2, 1))
	w.expect(packets.Pubrec)
	for id, version := range map[string]byte{"v4": 4, "v5": 5} {
		s, present := b.connect(version, id, false, expiry(100))
		if !present {
			t.Errorf("the session of %s is gone", id)
		}
		if pk := s.expect(packets.Publish); string(pk.Payload) != "x" {
			t.Errorf("got %+v", pk)
		}
	}
	s, present := b.connect(4, "v4", true)
	if present {
		t.Error("a clean session was resumed")
	}
	s.bye()
	b.restart()
	if n := b.l.Stats().Sessions; n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

func TestListener_Session_takeover(t *testing.T) {
	b := newBox(t, nil)
	first, _ := b.connect(5, "c", true, expiry(100), func(pk *packets.Packet) {
		pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, "sensors/will", []byte("gone")
		pk.Connect.WillProperties.WillDelayInterval = 50
	})
	second, present := b.connect(5, "c", false, expiry(100))
	if !present {
		t.Error("the session is gone")
	}
	if pk := first.expect(packets.Disconnect); pk.ReasonCode != packets.ErrSessionTakenOver.Code {
		t.Errorf("got code %#x", pk.ReasonCode)
	}
	first.closed()
	second.quiet()
	if got := b.l.Stats().Clients; got != 1 {
		t.Errorf("%d clients", got)
	}
	equal(t, b.stored(), nil) // the will waits for a client that stays away
}

func TestListener_Session_limits(t *testing.T) {
	b := newBox(t, func(o *mqtt.ListenerOptions) { o.MaxClients, o.MaxSessions = 2, 3 })
	for i := range 4 {
		w, _ := b.connect(4, fmt.Sprint("kept ", i), false)
		w.bye()
		eventually(t, "gone", func() bool { return b.l.Stats().Clients == 0 })
	}
	if n := b.l.Stats().Sessions; n != 3 {
		t.Errorf("%d sessions, want 3", n)
	}
	if _, present := b.connect(4, "kept 0", false); present {
		t.Error("the session that was away longest is still there")
	}
	b.connect(4, "two", true)
	w := dial(t, b.l.Addr().String(), 4)
	w.send(connectPacket(4, "three", true))
	if pk := w.expect(packets.Connack); pk.ReasonCode != 3 {
		t.Errorf("got code %d, want 3", pk.ReasonCode)
	}
	w.closed()
}

func TestListener_Will(t *testing.T) {
	b := newBox(t, nil)
	will := func(delay uint32) func(*packets.Packet) {
		return func(pk *packets.Packet) {
			pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, "sensors/will", []byte("gone")
			pk.Connect.WillQos, pk.Connect.WillRetain = 1, true
			pk.Connect.WillProperties.WillDelayInterval = delay
		}
	}
	s, _ := b.connect(4, "sub", true)
	s.subscribe(sub("sensors/#", 1))
	w, _ := b.connect(4, "c", true, will(0))
	w.bye()
	s.quiet()
	w, _ = b.connect(4, "c", true, will(0))
	_ = w.nc.Close()
	if pk := s.expect(packets.Publish); string(pk.Payload) != "gone" || pk.TopicName != "sensors/will" || pk.FixedHeader.Qos != 1 {
		t.Errorf("got %+v", pk)
	}
	w, _ = b.connect(5, "c", true, expiry(100), will(1))
	_ = w.nc.Close()
	s.expect(packets.Publish)
	equal(t, b.stored(), []string{"gone", "gone"})
	late, _ := b.connect(4, "late", true)
	late.subscribe(sub("sensors/will", 0))
	if pk := late.expect(packets.Publish); !pk.FixedHeader.Retain {
		t.Errorf("got %+v", pk)
	}
}

func TestListener_KeepAlive(t *testing.T) {
	b := newBox(t, nil)
	w, _ := b.connect(5, "c", true, func(pk *packets.Packet) { pk.Connect.Keepalive = 1 })
	began := time.Now()
	if pk := w.expect(packets.Disconnect); pk.ReasonCode != packets.ErrKeepAliveTimeout.Code {
		t.Errorf("got code %#x", pk.ReasonCode)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("ended after %s", took)
	}
	w.closed()
}

func TestListener_Retained(t *testing.T) {
	b := newBox(t, func(o *mqtt.ListenerOptions) { o.MaxRetained = 3 })
	w, _ := b.connect(5, "pub", true)
	keep := retain(pub("sensors/a", "kept", 1, 1))
	keep.Properties.ContentType = "text/plain"
	brief := retain(pub("brief", "x", 1, 5))
	brief.Properties.MessageExpiryInterval = 1
	for _, pk := range []packets.Packet{
		keep, retain(pub("plain/b", "b", 1, 2)), retain(pub("sensors/c", "c", 1, 3)), retain(pub("sensors/c", "", 1, 4)),
		brief, retain(pub("one/too/many", "x", 1, 6)),
	} {
		w.send(pk)
		if pk := w.expect(packets.Puback); pk.ReasonCode != 0 {
			t.Errorf("got code %#x", pk.ReasonCode)
		}
	}
	equal(t, b.stored(), []string{"kept", "c", ""})
	if s := b.l.Stats(); s.NotRetained != 1 || s.Retained != 3 {
		t.Errorf("got %+v", s)
	}
	for range 2 {
		s, _ := b.connect(5, "sub", true)
		s.subscribe(sub("sensors/#", 1), sub("plain/+", 0))
		got := map[string]packets.Packet{}
		for range 2 {
			pk := s.expect(packets.Publish)
			got[pk.TopicName] = pk
		}
		if pk := got["sensors/a"]; string(pk.Payload) != "kept" || !pk.FixedHeader.Retain || pk.FixedHeader.Qos != 1 || pk.Properties.ContentType != "text/plain" {
			t.Errorf("got %+v", pk)
		}
		s.quiet()
		s.bye()
		b.restart()
	}
	eventually(t, "expired", func() bool {
		s, _ := b.connect(4, "late", true)
		s.subscribe(sub("brief", 0))
		s.send(pub("brief", "not retained", 0, 0))
		first := s.expect(packets.Publish)
		if first.FixedHeader.Retain {
			s.expect(packets.Publish)
		}
		s.bye()
		return !first.FixedHeader.Retain
	})
}

func TestListener_Retained_handling(t *testing.T) {
	b := newBox(t, nil)
	w, _ := b.connect(5, "pub", true)
	w.send(retain(pub("a", "1", 1, 1)))
	w.expect(packets.Puback)
	s, _ := b.connect(5, "sub", true)
	never := packets.Subscription{Filter: "a", RetainHandling: 2}
	s.subscribe(never)
	s.quiet()
	newOnly := packets.Subscription{Filter: "a", RetainHandling: 1, RetainAsPublished: true}
	s.subscribe(newOnly) // not new
	s.quiet()
	w.send(retain(pub("a", "2", 1, 1)))
	w.expect(packets.Puback)
	if pk := s.expect(packets.Publish); !pk.FixedHeader.Retain {
		t.Error("the flag is not as published")
	}
}
