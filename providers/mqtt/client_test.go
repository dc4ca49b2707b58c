package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pahopackets "github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/providers/mqtt"
	"github.com/edged-io/edged/store"
)

// mosquitto is a real broker. Its messages survive a restart.
type mosquitto struct {
	t         *testing.T
	dir, addr string
	websocket string // address
	cmd       *exec.Cmd
}

func find(t *testing.T, program string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/usr/local/sbin/"} {
		if path, err := exec.LookPath(dir + program); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed: apt-get install mosquitto mosquitto-clients", program)
	return ""
}

func startMosquitto(t *testing.T) *mosquitto {
	t.Helper()
	m := newMosquitto(t)
	_, port, _ := net.SplitHostPort(m.websocket)
	m.configure("allow_anonymous true", "listener "+port+" 127.0.0.1", "protocol websockets")
	m.start()
	return m
}

func newMosquitto(t *testing.T) *mosquitto {
	t.Helper()
	m := &mosquitto{t: t, dir: t.TempDir(), addr: freePort(t), websocket: freePort(t)}
	t.Cleanup(m.stop)
	return m
}

// configure writes the file of a broker that keeps its messages, with one listener; the first lines are about that.
func (m *mosquitto) configure(lines ...string) {
	m.t.Helper()
	_, port, _ := net.SplitHostPort(m.addr)
	config := fmt.Sprintf("user root\npersistence true\npersistence_location %s/\nautosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\n"+
		"log_dest none\nlistener %s 127.0.0.1\n", m.dir, port)
	if err := os.WriteFile(filepath.Join(m.dir, "mosquitto.conf"), []byte(config+strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mosquitto) url() string { return "tcp://" + m.addr }

func (m *mosquitto) start() {
	m.t.Helper()
	args := []string{"-c", filepath.Join(m.dir, "mosquitto.conf")}
	m.cmd = exec.Command(find(m.t, "mosquitto"), args...)
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, "mosquitto listens", func() bool {
		nc, err := net.Dial("tcp", m.addr)
		if err == nil {
			_ = nc.Close()
		}
		return err == nil
	})
}

func (m *mosquitto) stop() {
	if m.cmd != nil && m.cmd.ProcessState == nil {
		_ = m.cmd.Process.Signal(os.Interrupt)
		_ = m.cmd.Wait()
	}
}

// publisher is a client of mosquitto that speaks packets.
func (m *mosquitto) publisher(id string) *wire {
	w, _ := connect(m.t, m.addr, 4, id, true)
	return w
}

func (w *wire) publish(topic, payload string, id uint16) {
	w.t.Helper()
	w.send(pub(topic, payload, 1, id))
	w.expect(packets.Puback)
}

// reader is a Client with its store; it can be started again.
type reader struct {
	t      *testing.T
	db     *store.DB
	broker *fakeBroker
	c      *mqtt.Client
	stop   func()
}

func startReader(t *testing.T, dir string, config store.StreamConfig, o mqtt.ClientOptions) *reader {
	t.Helper()
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	config.Name = "telemetry"
	if err := db.EnsureStream(config); err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, db: db, broker: &fakeBroker{streams: map[string]string{"sensors.>": "telemetry"}}}
	o.Store = db
	if o.ClientID == "" {
		o.ClientID = "box"
	}
	if o.Filters == nil {
		o.Filters = []mqtt.Filter{{Topic: "sensors/#", QoS: 1}, {Topic: "odd/+", QoS: 0}}
	}
	o.Stage = func(turn *store.Turn, m store.Message) error {
		if _, ok := r.broker.Covers(m.Subject); !ok {
			return store.ErrNoStream
		}
		return r.broker.Stage(turn, m)
	}
	r.c, r.stop = runClient(t, o, db)
	return r
}

// runClient lets a client run until stop, or the end of the test, which close its store too.
func runClient(t *testing.T, o mqtt.ClientOptions, db *store.DB) (c *mqtt.Client, stop func()) {
	t.Helper()
	o.MinBackoff, o.MaxBackoff = 5*time.Millisecond, 100*time.Millisecond
	c, err := mqtt.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := db.Close(); err != nil && !errors.Is(err, store.ErrFailed) {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

func (r *reader) connected() {
	r.t.Helper()
	eventually(r.t, "connected", func() bool { return r.c.Stats().Connected })
}

func (r *reader) expectStored(want []string) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d messages stored", len(want)), func() bool { return len(storedIn(r.t, r.db, "telemetry")) >= len(want) })
	equal(r.t, storedIn(r.t, r.db, "telemetry"), want)
}

func TestClient_Receive_inOrderAndOverRestarts(t *testing.T) {
	m := startMosquitto(t)
	dir := t.TempDir()
	r := startReader(t, dir, store.StreamConfig{}, mqtt.ClientOptions{URL: m.url()})
	r.connected()
	w := m.publisher("sensor")
	var want []string
	send := func(n int) {
		for range n {
			want = append(want, fmt.Sprint(len(want)))
			w.publish("sensors/a", want[len(want)-1], uint16(len(want)))
		}
	}
	send(200)
	r.expectStored(want)
	r.stop()
	send(50) // the broker keeps them for the session
	r = startReader(t, dir, store.StreamConfig{}, mqtt.ClientOptions{URL: m.url()})
	r.expectStored(want)
	m.stop()
	eventually(t, "the loss is noticed", func() bool { return !r.c.Stats().Connected })
	m.start()
	w = m.publisher("sensor")
	send(50)
	r.expectStored(want)
	r.connected()
}

func TestClient_Receive_ackAfterCommit(t *testing.T) {
	m := startMosquitto(t)
	dir := t.TempDir()
	r := startReader(t, dir, store.StreamConfig{}, mqtt.ClientOptions{URL: m.url()})
	r.connected()
	release := r.broker.hold()
	defer release()
	w := m.publisher("sensor")
	for i := range 60 {
		w.publish("sensors/a", fmt.Sprint(i), uint16(i+1))
	}
	// mosquitto lets 20 messages be unacknowledged.
	eventually(t, "20 stored", func() bool { return len(storedIn(t, r.db, "telemetry")) == 20 })
	w.quiet()
	if got := r.c.Stats().Received; got != 20 {
		t.Errorf("%d received: something was acknowledged before its confirmation", got)
	}
	release()
	eventually(t, "all stored", func() bool { return len(storedIn(t, r.db, "telemetry")) == 60 })
}

func TestClient_Crash_betweenSyncAndAck(t *testing.T) {
	m := startMosquitto(t)
	dir := t.TempDir()
	env := childClient + "=" + m.url()
	p := startChild(t, dir, env, childHold+"=1")
	w := m.publisher("sensor")
	var want []string
	eventually(t, "the child is subscribed", func() bool { // its record says so
		data, err := os.ReadFile(filepath.Join(dir, "store.db"))
		return err == nil && strings.Contains(string(data), "1sensors/#")
	})
	for i := range 15 {
		want = append(want, fmt.Sprint(i))
		w.publish("sensors/a", want[i], uint16(i+1))
	}
	settled(t, dir)
	p.kill()
	equal(t, read(t, dir), want)
	r := startReader(t, dir, store.StreamConfig{}, mqtt.ClientOptions{URL: m.url(), Filters: []mqtt.Filter{{Topic: "sensors/#", QoS: 1}}})
	eventually(t, "repeats recognised", func() bool { return r.c.Stats().Repeats == 15 })
	w.publish("sensors/a", "new", 1)
	r.expectStored(append(want, "new"))
}

func TestClient_Receive_fullIsTriedLater(t *testing.T) {
	m := startMosquitto(t)
	dir := t.TempDir()
	r := startReader(t, dir, store.StreamConfig{MaxMsgs: 5}, mqtt.ClientOptions{URL: m.url()})
	r.connected()
	w := m.publisher("sensor")
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprint(i))
		w.publish("sensors/a", want[i], uint16(i+1))
	}
	eventually(t, "several attempts", func() bool { return r.c.Stats().Connects > 3 })
	r.expectStored(want[:5])
	r.stop()
	r = startReader(t, dir, store.StreamConfig{}, mqtt.ClientOptions{URL: m.url()})
	r.expectStored(want)
}

func TestClient_Receive_neverIsADeadLetter(t *testing.T) {
	m := startMosquitto(t)
	var mu sync.Mutex
	var letters []string
	var fail = true
	r := startReader(t, t.TempDir(), store.StreamConfig{}, mqtt.ClientOptions{
		URL: m.url(), MaxMessage: 100_000, Filters: []mqtt.Filter{{Topic: "#", QoS: 1}},
		DeadLetter: func(_ context.Context, msg store.Message, reason string, cause error) error {
			mu.Lock()
			defer mu.Unlock()
			if fail {
				fail = false
				return errors.New("not now")
			}
			letters = append(letters, fmt.Sprintf("%s %s %d", reason, msg.Subject, len(msg.Data)))
			return nil
		},
	})
	r.connected()
	w := m.publisher("sensor")
	w.publish("sensors/big", strings.Repeat("x", 300_000), 1)
	w.publish("sensors/big", strings.Repeat("y", 110_000), 2)
	w.publish("of/no/stream", "z", 3)
	w.publish("sensors/a", "good", 4)
	r.expectStored([]string{"good"})
	mu.Lock()
	defer mu.Unlock()
	equal(t, letters, []string{"too-large sensors.big 4096", "too-large sensors.big 110000", "rejected of.no.stream 1"})
}

func TestClient_Publish(t *testing.T) {
	m := startMosquitto(t)
	s, _ := connect(t, m.addr, 4, "sub", true)
	s.subscribe(sub("#", 1))
	r := startReader(t, t.TempDir(), store.StreamConfig{}, mqtt.ClientOptions{URL: m.url()})
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for i := range 3 {
		if err := r.c.Publish(ctx, "out/a", byte(min(i, 1)), fmt.Append(nil, i), i == 2); err != nil {
			t.Fatal(err)
		}
		if pk := s.expect(packets.Publish); string(pk.Payload) != fmt.Sprint(i) || int(pk.FixedHeader.Qos) != min(i, 1) {
			t.Errorf("got %+v", pk)
		}
	}
	if err := r.c.Publish(ctx, "a/#", 1, nil, false); !errors.Is(err, mqtt.ErrRefused) {
		t.Errorf("got %v, want %v", err, mqtt.ErrRefused)
	}
	m.stop()
	eventually(t, "the loss is noticed", func() bool { return !r.c.Stats().Connected })
	brief, cancelBrief := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancelBrief()
	if err := r.c.Publish(brief, "out/a", 1, nil, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
	m.start()
	if err := r.c.Publish(ctx, "out/a", 1, []byte("again"), false); err != nil {
		t.Error(err)
	}
}

func TestClient_Websocket(t *testing.T) {
	m := startMosquitto(t)
	r := startReader(t, t.TempDir(), store.StreamConfig{}, mqtt.ClientOptions{URL: "ws://" + m.websocket})
	r.connected()
	m.publisher("sensor").publish("sensors/a", "x", 1)
	r.expectStored([]string{"x"})
}

func TestClient_Options_refused(t *testing.T) {
	for _, o := range []mqtt.ClientOptions{
		{URL: "tcp://localhost:1883"},
		{URL: "http://localhost:1883", ClientID: "c"},
		{URL: "tcp://:1883", ClientID: "c"},
		{URL: "::", ClientID: "c"},
		{URL: "tcp://localhost:1", ClientID: "c", Filters: []mqtt.Filter{{Topic: "a"}}},
		{URL: "tcp://localhost:1", ClientID: "c", Store: new(store.DB), Stage: func(*store.Turn, store.Message) error { return nil }, Filters: []mqtt.Filter{{Topic: "a/#/b"}}},
	} {
		if _, err := mqtt.NewClient(o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}

func TestClient_Filters_changed(t *testing.T) {
	m := startMosquitto(t)
	dir := t.TempDir()
	r := startReader(t, dir, store.StreamConfig{}, mqtt.ClientOptions{URL: m.url(), Filters: []mqtt.Filter{{Topic: "sensors/a", QoS: 1}}})
	r.connected()
	r.stop()
	r = startReader(t, dir, store.StreamConfig{}, mqtt.ClientOptions{URL: m.url(), Filters: []mqtt.Filter{{Topic: "sensors/b", QoS: 1}}})
	r.connected()
	w := m.publisher("sensor")
	w.publish("sensors/a", "a", 1)
	w.publish("sensors/b", "b", 2)
	r.expectStored([]string{"b"})
}

// TestListener_Mosquitto_clients lets the tools that people have at hand talk to the listener.
func TestListener_Mosquitto_clients(t *testing.T) {
	pubTool, subTool := find(t, "mosquitto_pub"), find(t, "mosquitto_sub")
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		t.Run(version, func(t *testing.T) {
			b := newBox(t, nil)
			_, port, _ := net.SplitHostPort(b.l.Addr().String())
			sub := exec.Command(subTool, "-p", port, "-V", version, "-q", "2", "-t", "sensors/#", "-C", "3", "-W", "20")
			out, done := make(chan []byte, 1), make(chan error, 1)
			go func() { o, err := sub.Output(); out <- o; done <- err }()
			eventually(t, "subscribed", func() bool { return b.broker.tapCount() > 0 })
			for qos := range 3 {
				o, err := exec.Command(pubTool, "-p", port, "-V", version, "-q", fmt.Sprint(qos), "-t", "sensors/a", "-m", fmt.Sprint(qos), "-i", "tool").CombinedOutput()
				if err != nil {
					t.Fatalf("mosquitto_pub: %v: %s", err, o)
				}
			}
			if err := <-done; err != nil {
				t.Fatalf("mosquitto_sub: %v", err)
			}
			equal(t, strings.Fields(string(<-out)), []string{"0", "1", "2"})
			got := b.stored()
			slices.Sort(got)
			equal(t, got, []string{"0", "1", "2"})
		})
	}
}

// A box that is killed between PUBLISH and PUBCOMP, anywhere, stores each message of QoS 2 once and in order.
func TestClient_Receive_qos2KilledAnywhere(t *testing.T) {
	m := startMosquitto(t)
	dir := t.TempDir()
	w := m.publisher("sensor")
	var want []string
	send := func(n int) {
		for range n {
			want = append(want, fmt.Sprint(len(want)%7)) // messages that look alike
			w.send(pub("sensors/a", want[len(want)-1], 2, uint16(len(want))))
			w.expect(packets.Pubrec)
			w.send(ack(packets.Pubrel, uint16(len(want))))
			w.expect(packets.Pubcomp)
		}
	}
	for round, point := range []string{"", mqtt.FailpointTakenStored, mqtt.FailpointTakenSent, mqtt.FailpointTakenStored, mqtt.FailpointTakenSent} {
		if round == 0 {
			r := startReader(t, dir, store.StreamConfig{}, mqtt.ClientOptions{URL: m.url(), Filters: []mqtt.Filter{{Topic: "sensors/#", QoS: 2}}})
			r.connected()
			r.stop()
			continue
		}
		send(30)
		startChild(t, dir, childClient+"="+m.url(), childFail+"="+fmt.Sprintf("%s:%d", point, round*round)).exited(t)
	}
	r := startReader(t, dir, store.StreamConfig{}, mqtt.ClientOptions{URL: m.url(), Filters: []mqtt.Filter{{Topic: "sensors/#", QoS: 2}}})
	send(20)
	r.expectStored(want)
	r.stop()
	equal(t, read(t, dir), want)
}

// Two boxes of a group share what comes.
func TestClient_Shared(t *testing.T) {
	m := startMosquitto(t)
	w := m.publisher("sensor")
	var boxes []*reader
	for i := range 2 {
		r := startReader(t, t.TempDir(), store.StreamConfig{}, mqtt.ClientOptions{
			URL: m.url(), ClientID: fmt.Sprint("box", i), Filters: []mqtt.Filter{{Topic: "sensors/+", QoS: 1, Group: "plant"}},
		})
		r.connected()
		boxes = append(boxes, r)
	}
	const n = 40
	for i := range n {
		w.publish("sensors/a", fmt.Sprint(i), uint16(i+1))
	}
	var all []string
	eventually(t, "the boxes have all together", func() bool {
		all = nil
		for _, r := range boxes {
			all = append(all, storedIn(t, r.db, "telemetry")...)
		}
		return len(all) >= n
	})
	seen := make(map[string]bool)
	for _, s := range all {
		seen[s] = true
	}
	if a := len(storedIn(t, boxes[0].db, "telemetry")); len(seen) != n || len(all) != n || a == 0 || a == n {
		t.Errorf("%d messages, %d of them different, %d at the first box", len(all), len(seen), a)
	}
}

// An old broker has no shared subscriptions, and one with rules refuses some.
func TestClient_Subscribe_refused(t *testing.T) {
	for _, refuse := range []string{"$share/", ""} {
		var h told
		l := fakeBrokerMQTT(t, func(filter string) bool { return strings.HasPrefix(filter, refuse) })
		r := startReader(t, t.TempDir(), store.StreamConfig{}, mqtt.ClientOptions{
			URL: "tcp://" + l, Health: h.health, Filters: []mqtt.Filter{{Topic: "sensors/+", QoS: 1, Group: "plant"}},
		})
		want := "the broker has no shared subscriptions, every client of the group gets all of sensors/+"
		if refuse == "" {
			want = "the broker refuses the subscription to sensors/+"
		}
		eventually(t, "the fault is told", func() bool { return strings.HasPrefix(h.last(), want) })
		r.connected()
		r.stop()
	}
}

// fakeBrokerMQTT answers CONNECT and SUBSCRIBE, and refuses filters.
func fakeBrokerMQTT(t *testing.T, refuses func(filter string) bool) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // ends with l
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the client
				defer nc.Close()
				for {
					cp, err := pahopackets.ReadPacket(nc)
					if err != nil {
						return
					}
					switch p := cp.(type) {
					case *pahopackets.ConnectPacket:
						_, _ = nc.Write([]byte{0x20, 2, 0, 0})
					case *pahopackets.SubscribePacket:
						out := []byte{0x90, byte(2 + len(p.Topics)), byte(p.MessageID >> 8), byte(p.MessageID)}
						for i, f := range p.Topics {
							if code := p.Qoss[i]; refuses(f) {
								out = append(out, 0x80)
							} else {
								out = append(out, code)
							}
						}
						_, _ = nc.Write(out)
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// Whoever leaves is not kept messages for.
func TestLeave(t *testing.T) {
	m := startMosquitto(t)
	dir := t.TempDir()
	o := mqtt.ClientOptions{URL: m.url(), Filters: []mqtt.Filter{{Topic: "sensors/#", QoS: 1}}}
	r := startReader(t, dir, store.StreamConfig{}, o)
	r.connected()
	w := m.publisher("sensor")
	w.publish("sensors/a", "before", 1)
	r.expectStored([]string{"before"})
	r.stop()
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	o.ClientID, o.Store = "box", db
	if err := mqtt.Leave(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	w.publish("sensors/a", "meanwhile", 2)
	o.ClientID = ""
	r = startReader(t, dir, store.StreamConfig{}, o)
	r.connected()
	w.publish("sensors/a", "after", 3)
	r.expectStored([]string{"before", "after"})
	r.stop()
	m.stop()
	if err := mqtt.Leave(t.Context(), mqtt.ClientOptions{URL: m.url(), ClientID: "box"}); err == nil {
		t.Error("left a broker that is not there")
	}
}
