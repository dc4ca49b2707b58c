package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/store"
)

// startHub starts a hub with what a fleet needs.
func startHub(t *testing.T) *broker.HubServer {
	t.Helper()
	hub := broker.NewHubServer(t.TempDir(), slog.New(slog.DiscardHandler))
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Stop)
	if _, err := broker.InitHub(t.Context(), client(t, hub), broker.HubInitOptions{}); err != nil {
		t.Fatal(err)
	}
	return hub
}

// client is a program in the cloud.
func client(t *testing.T, hub *broker.HubServer) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(hub.ClientURL(), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// atHub returns the sequences that the hub has of a stream of the box.
func atHub(t *testing.T, nc *nats.Conn, stream string) (seqs []string) {
	t.Helper()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	up, err := js.Stream(t.Context(), "EDGE_UP")
	if err != nil {
		t.Fatal(err)
	}
	info, err := up.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= info.State.LastSeq; seq++ {
		m, err := up.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(m.Subject, "edge.up.press-7."+stream+".") {
			seqs = append(seqs, m.Header.Get("Edged-Seq"))
		}
	}
	return seqs
}

// An app that goes leaves no subscription behind, but what it owes to the hub
// gets there, after a restart too; and when it comes back, its stream goes on.
func TestNode_Reload_appGoes(t *testing.T) {
	hub := startHub(t)
	hub.Stop()
	r := newRig(t, unsigned+"[hub]\nurl = \"nats-leaf://"+hub.LeafAddr()+"\"\n")
	r.app("a", "1", "a", "")
	r.app("b", "1", "b", "")
	r.start()
	for range 5 {
		r.publish("a.s.temperature", 1)
	}
	r.handled("a", 5)
	subs := len(r.db.Subscriptions())
	if err := os.Rename(r.path("apps", "a"), r.path("a")); err != nil {
		t.Fatal(err)
	}
	r.reload()
	if got := r.running(); got != "b 1" {
		t.Fatalf("runs %s", got)
	}
	if got := len(r.db.Subscriptions()); got != subs-1 {
		t.Errorf("%d subscriptions, %d before: the actor's alone has to go", got, subs)
	}
	if _, ok := r.broker.Covers("a.s.temperature"); ok {
		t.Error("a stream that nobody declares takes messages")
	}
	r.stop()
	r.start()
	if s := r.stream("a"); s.Last != 5 || s.Lag != 5 || s.Dropped != 0 {
		t.Errorf("stream a after a restart: %+v", s)
	}
	if err := hub.Start(); err != nil {
		t.Fatal(err)
	}
	nc := client(t, hub)
	r.eventually("the hub has all of the stream", func() bool { return r.stream("a").Lag == 0 })
	if got := atHub(t, nc, "a"); !slices.Equal(got, []string{"1", "2", "3", "4", "5"}) {
		t.Errorf("the hub has %v", got)
	}
	r.reload() // the stream is empty now
	if err := os.Rename(r.path("a"), r.path("apps", "a")); err != nil {
		t.Fatal(err)
	}
	epoch := r.Status().Epoch
	r.reload()
	if got := r.publish("a.s.temperature", 1); got != 6 {
		t.Errorf("the stream goes on with %d, want 6", got)
	}
	r.eventually("the hub has the sixth", func() bool { return r.stream("a").Lag == 0 })
	if got := atHub(t, nc, "a"); len(got) != 6 || got[5] != "6" || r.Status().Epoch != epoch {
		t.Errorf("the hub has %v, epoch %s, before %s", got, r.Status().Epoch, epoch)
	}
}

// relay forwards connections to addr, until freeze lets it swallow what they
// carry, as a link does that has become a black hole.
func relay(t *testing.T, addr string) (at string, freeze func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	frozen := make(chan struct{})
	forward := func(to, from net.Conn) { // ends with either
		defer to.Close()
		b := make([]byte, 4096)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			select {
			case <-frozen:
			default:
				if _, err := to.Write(b[:n]); err != nil {
					return
				}
			}
		}
	}
	go func() { // ends with l
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", addr)
			if err != nil {
				a.Close()
				continue
			}
			go forward(a, b)
			go forward(b, a)
		}
	}()
	return l.Addr().String(), func() { close(frozen) }
}

// A box whose hub does not answer any more ends as soon as any other.
func TestNode_Run_endsOnDeadLink(t *testing.T) {
	hub := startHub(t)
	leaf, freeze := relay(t, hub.LeafAddr())
	r := newRig(t, unsigned+"[hub]\nurl = \"nats-leaf://"+leaf+"\"\n")
	r.start()
	js, err := jetstream.New(client(t, hub), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	r.eventually("the box watches what it should run", func() bool {
		s, err := js.Stream(t.Context(), "KV_EDGE_DESIRED")
		return err == nil && s.CachedInfo().State.Consumers > 0
	})
	freeze()
	r.updates.Poke() // it gives its watch up, and would wait for the hub to say yes
	r.stop()         // the rig fails the test if a part does not end in time
}

// alarming is an app whose alarms are kept in order.
func alarming(version string) string {
	return greenhouse("a", version, "a", "[[stream]]\nname = \"alarms\"\nsubjects = [\"alarms.>\"]\n"+drives(4))
}

// Versions come and go, one of them broken, while messages flow: each is handled
// once, in the order of its sensor.
func TestNode_Reload_swapUnderLoad(t *testing.T) {
	const sensors, each = 4, 150
	r := newRig(t, unsigned)
	r.write("apps/a/app.toml", alarming("1"))
	r.module("a")
	r.start()
	failed, sent := make(chan error, sensors*each), make(chan struct{}, sensors*each)
	send := func(n int) {
		sensor := fmt.Sprintf("s%d", n%sensors)
		e := event.Event{ID: fmt.Sprint(n / sensors), Source: sensor, Type: "reading", Data: []byte(`{"value":31}`)}
		header, data, err := e.Binary()
		if err != nil {
			t.Error(err)
		}
		m := store.Message{Subject: "a." + sensor + ".temperature", Header: header, Data: data}
		r.broker.Publish(m, func(_ broker.Ack, err error) {
			if err != nil {
				failed <- err
			}
			sent <- struct{}{}
		})
	}
	swap := func(version, module string) error {
		r.write("apps/a/app.toml", alarming(version))
		if r.module("a"); module != "" {
			_ = os.Remove(r.path("apps", "a", "thermostat.wasm"))
			r.write("apps/a/thermostat.wasm", module)
		}
		return r.Reload(t.Context())
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range sensors * each {
			send(n)
			<-sent
		}
	}()
	for i, version := range []string{"2", "3", "4"} {
		r.eventually("messages flow", func() bool { return r.turns("a") >= uint64(i)*100+20 })
		if err := swap(version+"-broken", "no wasm"); err == nil {
			t.Fatal("a broken version was accepted")
		}
		if err := swap(version, ""); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	r.handled("a", sensors*each)
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	r.checkAlarms(sensors, each)
	versions := 0
	for _, turns := range r.Status().Turns {
		if turns.Turns > 0 {
			versions++
		}
	}
	if versions < 3 || r.Status().Dead != 0 {
		t.Errorf("%d versions took part: %+v; %d dead letters", versions, r.Status().Turns, r.Status().Dead)
	}
}

// checkAlarms compares what the actor published, and counted, with what it got.
func (r *rig) checkAlarms(sensors, each int) {
	r.t.Helper()
	next := make(map[string]int)
	err := r.db.Read("alarms", 1, 1<<20, 1<<30, func(m store.Message) error {
		e := r.pubsub.Event(m)
		sensor, n, _ := strings.Cut(e.ID, "/")
		if n != fmt.Sprint(next[sensor]) {
			return fmt.Errorf("alarm %s, want number %d of the sensor", e.ID, next[sensor])
		}
		next[sensor]++
		return nil
	})
	if err != nil {
		r.t.Error(err)
	}
	means := 0
	err = r.db.List("kv/a", "mean:", func(key string, value []byte) error {
		if !strings.Contains(string(value), fmt.Sprintf("%d %d", each, 31*each)) {
			return fmt.Errorf("%s is %q", key, value)
		}
		means++
		return nil
	})
	if err != nil || means != sensors || len(next) != sensors {
		r.t.Errorf("%d means, %d sensors with alarms, want %d: %v", means, len(next), sensors, err)
	}
	for sensor, n := range next {
		if n != each {
			r.t.Errorf("sensor %s: %d alarms, want %d", sensor, n, each)
		}
	}
}

// The keys of status --json are what scripts rely on.
func TestNode_Status_keys(t *testing.T) {
	r := newRig(t, unsigned)
	r.app("a", "1", "a", "")
	r.start()
	b, err := json.Marshal(r.Status())
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Streams []map[string]any
	}
	all := make(map[string]any)
	if err := errors.Join(json.Unmarshal(b, &s), json.Unmarshal(b, &all)); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"device", "epoch", "link", "desired", "reported", "streams", "version", "apps", "turns", "dead_letters", "problems", "reload"} {
		if _, ok := all[key]; !ok {
			t.Errorf("no key %s in %s", key, b)
		}
		delete(all, key)
	}
	for _, key := range []string{"name", "first", "last", "acked", "lag", "bytes", "dropped", "messages", "undeclared", "delayed", "durability", "priority", "at_risk", "backlog_bytes", "rate"} {
		if _, ok := s.Streams[0][key]; !ok {
			t.Errorf("no key %s in streams of %s", key, b)
		}
		delete(s.Streams[0], key)
	}
	if len(all) != 0 || len(s.Streams[0]) != 0 {
		t.Errorf("keys that nobody knows: %v, %v", all, s.Streams[0])
	}
}

// Nobody is called before the box is ready.
func TestNode_Run_callsNobodyBeforeReady(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	called := make(chan struct{})
	go func() { // ends with l
		if c, err := l.Accept(); err == nil {
			c.Close()
			close(called)
		}
	}()
	r := newRig(t, unsigned+"[hub]\nurl = \"nats-leaf://"+l.Addr().String()+"\"\n")
	r.app("a", "1", "a", "")
	r.beforeReady = func() {
		select {
		case <-called:
			t.Error("the hub was called before the box was ready")
		default:
		}
	}
	r.start()
	select {
	case <-called:
	case <-time.After(patience):
		t.Error("the hub was never called")
	}
}
