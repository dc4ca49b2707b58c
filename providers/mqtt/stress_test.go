package mqtt_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/providers/mqtt"
)

// TestListener_Stress_flappingPublishers: clients with sessions lose their connections at any time, take over their own sessions, and send again what was
// not acknowledged. Each message is stored once and in order, while subscribers come and go.
func TestListener_Stress_flappingPublishers(t *testing.T) {
	b := newBox(t, nil)
	const publishers, each = 6, 400
	var publishing, subscribing sync.WaitGroup
	done := make(chan struct{})
	for i := range 3 {
		subscribing.Go(func() {
			for {
				w, _ := b.connect(4, fmt.Sprint("sub ", i), i == 0)
				w.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1, Filters: packets.Subscriptions{sub("sensors/#", byte(i))}})
				for range 40 {
					pk, err := w.receive(deadline)
					if err != nil {
						t.Error(err)
						return
					}
					if pk.FixedHeader.Type == packets.Publish && pk.FixedHeader.Qos > 0 {
						w.send(ack(packets.Puback+pk.FixedHeader.Qos-1, pk.PacketID))
					}
					select {
					case <-done:
						return
					default:
					}
				}
				_ = w.nc.Close()
			}
		})
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range publishers {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		publishing.Go(func() { flap(b, fmt.Sprint(i), each, random) })
	}
	publishing.Wait()
	close(done)
	// What wakes the subscribers for the last time.
	waker, _ := b.connect(4, "waker", true)
	stopped := make(chan struct{})
	go func() { subscribing.Wait(); close(stopped) }()
	eventually(t, "subscribers stop", func() bool {
		waker.send(pub("sensors/wake", "wake", 0, 0))
		select {
		case <-stopped:
			return true
		default:
			return false
		}
	})
	next := map[string]int{}
	for _, m := range b.stored() {
		if m == "wake" {
			continue
		}
		id, n, _ := strings.Cut(m, ":")
		if n != fmt.Sprint(next[id]) {
			t.Fatalf("publisher %s: got %s, want %d", id, n, next[id])
		}
		next[id]++
	}
	if len(next) != publishers {
		t.Errorf("messages of %d publishers, want %d", len(next), publishers)
	}
	for id, n := range next {
		if n != each {
			t.Errorf("publisher %s: %d messages, want %d", id, n, each)
		}
	}
}

// flap publishes with QoS 1 and a window of 20, and breaks its connection now and then, sometimes without telling.
func flap(b *box, id string, each int, random *rand.Rand) {
	acked, sent := 0, 0
	packet := func(w *wire, n int, again bool) []byte {
		pk := pub("sensors/"+id, fmt.Sprintf("%s:%d", id, n), 1, uint16(n%50+1))
		pk.FixedHeader.Dup = again
		return w.encode(pk)
	}
	for acked < each {
		w, _ := b.connect(4, "pub "+id, false)
		var again []byte
		for n := acked; n < sent; n++ {
			again = append(again, packet(w, n, true)...)
		}
		_, _ = w.nc.Write(again)
		for life := random.IntN(60); life > 0 && acked < each; life-- {
			for sent < each && sent-acked < 20 {
				_, _ = w.nc.Write(packet(w, sent, false))
				sent++
			}
			if pk := w.expect(packets.Puback); int(pk.PacketID) != acked%50+1 {
				b.t.Errorf("publisher %s: got an ack of %d, want %d", id, pk.PacketID, acked%50+1)
				return
			}
			acked++
		}
		if random.IntN(2) == 0 {
			_ = w.nc.Close() // else the next connection takes the session over
		}
	}
}

// TestListener_Run_endsWithStuckClients: a client that does not read keeps nobody from stopping.
func TestListener_Run_endsWithStuckClients(t *testing.T) {
	b := newBox(t, nil)
	w, _ := b.connect(4, "stuck", false)
	w.subscribe(sub("sensors/#", 0))
	p, _ := b.connect(4, "pub", true)
	body := strings.Repeat("x", 256<<10)
	eventually(t, "the subscriber is stuck", func() bool {
		p.send(pub("sensors/a", body, 1, 1))
		p.expect(packets.Puback)
		return b.l.Stats().Dropped > 3
	})
	ended := make(chan struct{})
	go func() { b.stop(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(deadline / 2):
		t.Fatal("still running")
	}
}

func TestListener_Publish_storeEnded(t *testing.T) {
	b := newBox(t, nil)
	w, _ := b.connect(4, "v3", true)
	v5, _ := b.connect(5, "v5", true)
	if err := b.db.Close(); err != nil {
		t.Fatal(err)
	}
	w.send(pub("sensors/a", "x", 1, 1))
	w.closed()
	v5.send(pub("sensors/a", "x", 1, 1))
	if pk := v5.expect(packets.Disconnect); pk.ReasonCode != packets.ErrServerShuttingDown.Code {
		t.Errorf("got code %#x", pk.ReasonCode)
	}
	v5.closed()
}

// TestClient_Run_endsWhileTheBrokerIsSilent: nor does a broker that accepts and says nothing.
func TestClient_Run_endsWhileTheBrokerIsSilent(t *testing.T) {
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	for _, scheme := range []string{"tcp", "ws"} {
		accepted := make(chan net.Conn, 1)
		go func() {
			nc, err := nl.Accept()
			if err == nil {
				accepted <- nc
			}
		}()
		c, err := mqtt.NewClient(mqtt.ClientOptions{URL: scheme + "://" + nl.Addr().String(), ClientID: "c"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		nc := <-accepted
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(deadline / 2):
			t.Fatal("still running")
		}
		_ = nc.Close()
	}
}
