package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/providers/mqtt"
	"github.com/edged-io/edged/store"
)

// A child with childOutbox publishes an outbox to the broker of childClient with that quality of service. childFail is NAME:N: the child kills itself
// when it comes to that point the Nth time.
const (
	childOutbox = "EDGED_TEST_MQTT_OUTBOX"
	childFail   = "EDGED_TEST_MQTT_FAIL"
)

const outbox = "out"

// openOutbox opens a store with an outbox.
func openOutbox(dir string, o store.Options) (*store.DB, error) {
	o.Dir = dir
	db, err := store.Open(o)
	if err != nil {
		return nil, err
	}
	return db, errors.Join(
		db.EnsureStream(store.StreamConfig{Name: outbox}),
		db.EnsureSubscription(store.SubscriptionConfig{Name: outbox, Stream: outbox}),
	)
}

func outboxChild(dir, url, qos string) error {
	db, err := openOutbox(dir, store.Options{})
	if err != nil {
		return err
	}
	level, _ := strconv.Atoi(qos)
	c, err := mqtt.NewClient(mqtt.ClientOptions{
		URL: url, ClientID: "box", Store: db, Outbox: &mqtt.Outbox{Stream: outbox, Subscription: outbox, QoS: byte(level)},
		Will:      &mqtt.Will{Topic: "wills/rude", Payload: []byte("gone"), QoS: 1, Retain: true},
		Failpoint: killAt(os.Getenv(childFail)),
	})
	if err != nil {
		return err
	}
	fmt.Println("up")
	return c.Run(context.Background())
}

// killAt returns a failpoint that kills the process, of NAME:N.
func killAt(fail string) func(string) {
	name, at, _ := strings.Cut(fail, ":")
	left, _ := strconv.Atoi(at)
	var hits atomic.Int64
	return func(point string) {
		if point == name && hits.Add(1) == int64(left) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}

// fill puts messages from..to-1 into the outbox, in one turn.
func fill(t *testing.T, db *store.DB, from, to int) {
	t.Helper()
	err := db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
		for i := from; i < to; i++ {
			if _, err := turn.Publish(outbox, store.Message{Subject: "plant.a", Data: fmt.Append(nil, i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// listen returns what a subscriber of all topics gets until the payload is last.
func (w *wire) listen(last string) (got []string) {
	w.t.Helper()
	for {
		pk := w.expect(packets.Publish)
		got = append(got, string(pk.Payload))
		if got[len(got)-1] == last {
			return got
		}
	}
}

func (m *mosquitto) subscriber(filter string, qos byte) *wire {
	w, _ := connect(m.t, m.addr, 4, "subscriber-"+filter, true)
	w.subscribe(sub(filter, qos))
	return w
}

// Killed at each point of the way, again and again, the box publishes each message of QoS 2 once and in order.
func TestClient_Outbox_killedAnywhere(t *testing.T) {
	m := startMosquitto(t)
	s := m.subscriber("plant/#", 0)
	dir := t.TempDir()
	to := 0
	more := func(n int) {
		db, err := openOutbox(dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, db, to, to+n)
		to += n
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, point := range []string{
		mqtt.FailpointPublishStored, mqtt.FailpointPublishSent, mqtt.FailpointReceived, mqtt.FailpointReleaseStored, mqtt.FailpointReleaseSent,
		mqtt.FailpointCompleted,
	} {
		for _, hit := range []int{1, 2, 30} {
			more(35)
			p := startChild(t, dir, childClient+"="+m.url(), childOutbox+"=2", fmt.Sprintf("%s=%s:%d", childFail, point, hit))
			p.exited(t)
		}
	}
	more(1)
	startChild(t, dir, childClient+"="+m.url(), childOutbox+"=2")
	got := s.listen(fmt.Sprint(to - 1))
	if len(got) != to {
		t.Errorf("%d messages, want %d", len(got), to)
	}
	for i, payload := range got {
		if payload != fmt.Sprint(i) {
			t.Fatalf("message %d is %s: lost, or came again", i, payload)
		}
	}
}

// exited waits until a child has killed itself.
func (p *process) exited(t *testing.T) {
	t.Helper()
	err := p.cmd.Wait()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %v", err)
	}
}

// sender is a Client with an outbox.
type sender struct {
	db   *store.DB
	c    *mqtt.Client
	stop func()
}

func startSender(t *testing.T, dir string, so store.Options, o mqtt.ClientOptions) *sender {
	t.Helper()
	db, err := openOutbox(dir, so)
	if err != nil {
		t.Fatal(err)
	}
	o.Store = db
	if o.ClientID == "" {
		o.ClientID = "box"
	}
	s := &sender{db: db}
	s.c, s.stop = runClient(t, o, db)
	return s
}

func TestClient_Outbox_qos(t *testing.T) {
	m := startMosquitto(t)
	for qos := range byte(3) {
		w := m.subscriber(fmt.Sprintf("plant%d/#", qos), 2)
		dir := t.TempDir()
		s := startSender(t, dir, store.Options{}, mqtt.ClientOptions{
			URL: m.url(), Outbox: &mqtt.Outbox{Stream: outbox, Subscription: outbox, QoS: qos, Retain: qos == 1},
		})
		put := func(subject, data string, header event.Header) {
			err := s.db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
				_, err := turn.Publish(outbox, store.Message{Subject: subject, Data: []byte(data), Header: header})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		topic := fmt.Sprintf("plant%d", qos)
		header, data, err := event.Event{ID: "1", Source: "box", Type: "t", Data: []byte(`{"v":1}`), DataContentType: "application/json",
			Extensions: map[string]string{"partitionkey": "k"}}.Binary()
		if err != nil {
			t.Fatal(err)
		}
		put(topic+".a", "plain", nil)
		put("never+ever", "not a topic", nil)
		put(topic+".b", string(data), header)
		for i, want := range []string{"plain", `"partitionkey":"k"`} {
			pk := w.expect(packets.Publish)
			if pk.TopicName != topic+"/"+"ab"[i:i+1] || pk.FixedHeader.Qos != qos || !strings.Contains(string(pk.Payload), want) {
				t.Errorf("got %s %d %s", pk.TopicName, pk.FixedHeader.Qos, pk.Payload)
			}
			if e, ok := event.Parse(nil, "", pk.Payload); i == 1 && (!ok || e.ID != "1" || e.Extensions["partitionkey"] != "k" || string(e.Data) != `{"v":1}`) {
				t.Errorf("got %+v", e)
			}
		}
		eventually(t, "the outbox is empty", func() bool {
			info, err := s.db.Stream(outbox)
			return err == nil && info.Msgs == 0
		})
		eventually(t, "all is counted", func() bool {
			st := s.c.Stats()
			return st.Published == 2 && st.DeadLetters == 1 && s.db.DeadLetterCount() == 1
		})
		s.stop()
	}
	if pk := m.subscriber("plant1/a", 0).expect(packets.Publish); !pk.FixedHeader.Retain || string(pk.Payload) != "plain" {
		t.Errorf("retained: got %+v", pk)
	}
}

// Messages wait for a broker that is away, longer than what may be in flight, and go out in order when it comes.
func TestClient_Outbox_brokerAway(t *testing.T) {
	m := startMosquitto(t)
	s := startSender(t, t.TempDir(), store.Options{}, mqtt.ClientOptions{URL: m.url(), Outbox: &mqtt.Outbox{Stream: outbox, Subscription: outbox, QoS: 2}})
	fill(t, s.db, 0, 50)
	w := m.subscriber("plant/#", 0)
	w.listen("49")
	m.stop()
	fill(t, s.db, 50, 200)
	m.start()
	w = m.subscriber("plant/#", 0)
	fill(t, s.db, 200, 201)
	got := w.listen("200")
	for i := 1; i < len(got); i++ { // it subscribed when some were through, perhaps
		if a, _ := strconv.Atoi(got[i-1]); got[i] != fmt.Sprint(a+1) {
			t.Fatalf("%s after %s", got[i], got[i-1])
		}
	}
}

// A packet does not leave when what it says is not on disk: neither a PUBLISH nor a PUBREL.
func TestClient_Outbox_diskFails(t *testing.T) {
	m := startMosquitto(t)
	for qos, point := range map[byte]string{1: "", 2: mqtt.FailpointPublishSent} {
		var failing atomic.Bool
		so := store.Options{Failpoint: func(string) error {
			if failing.Load() {
				return errors.New("disk on fire")
			}
			return nil
		}}
		s := startSender(t, t.TempDir(), so, mqtt.ClientOptions{
			URL: m.url(), ClientID: fmt.Sprint("box", qos), Outbox: &mqtt.Outbox{Stream: outbox, Subscription: outbox, QoS: qos},
			Failpoint: func(at string) {
				if at == point {
					failing.Store(true)
				}
			},
		})
		eventually(t, "connected", func() bool { return s.c.Stats().Connected })
		m.stop()
		eventually(t, "the loss is noticed", func() bool { return !s.c.Stats().Connected })
		fill(t, s.db, 0, 1)
		failing.Store(point == "")
		m.start()
		w := m.subscriber("plant/#", 0)
		eventually(t, "the store has failed", func() bool { return s.db.Err() != nil })
		eventually(t, "the connection is closed", func() bool { return !s.c.Stats().Connected })
		w.quiet()
		s.stop()
	}
}

// A session that ends with the connection publishes what was in flight anew.
func TestClient_Outbox_clean(t *testing.T) {
	m := startMosquitto(t)
	w := m.subscriber("plant/#", 0)
	dir := t.TempDir()
	db, err := openOutbox(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db, 0, 60)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	p := startChild(t, dir, childClient+"="+m.url(), childOutbox+"=1", childFail+"="+mqtt.FailpointCompleted+":5")
	p.exited(t)
	s := startSender(t, dir, store.Options{}, mqtt.ClientOptions{URL: m.url(), Clean: true, Outbox: &mqtt.Outbox{Stream: outbox, Subscription: outbox, QoS: 1}})
	seen := make(map[string]bool)
	for _, payload := range w.listen("59") {
		seen[payload] = true
	}
	if len(seen) != 60 {
		t.Errorf("%d of 60 messages", len(seen))
	}
	eventually(t, "the outbox is empty", func() bool {
		info, err := s.db.Stream(outbox)
		return err == nil && info.Msgs == 0
	})
}

// What was in flight from a stream that was deleted, and made again, takes no message of the new one with it.
func TestClient_Outbox_madeAgain(t *testing.T) {
	m := startMosquitto(t)
	for _, point := range []string{mqtt.FailpointPublishSent, mqtt.FailpointReleaseSent} {
		w := m.subscriber("plant/#", 0)
		dir := t.TempDir()
		db, err := openOutbox(dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, db, 1000, 1040)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		startChild(t, dir, childClient+"="+m.url(), childOutbox+"=2", childFail+"="+point+":30").exited(t)
		if db, err = openOutbox(dir, store.Options{}); err == nil {
			err = errors.Join(db.DeleteStream(outbox), db.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		s := startSender(t, dir, store.Options{}, mqtt.ClientOptions{URL: m.url(), Outbox: &mqtt.Outbox{Stream: outbox, Subscription: outbox, QoS: 2}})
		fill(t, s.db, 0, 60)
		got := make(map[string]int)
		for _, payload := range w.listen("59") {
			got[payload]++
		}
		for i := range 60 {
			if got[fmt.Sprint(i)] != 1 {
				t.Errorf("%s: message %d came %d times", point, i, got[fmt.Sprint(i)])
			}
		}
		s.stop()
	}
}

// A broker that closes the connection in place of refusing a message holds up the outbox; health names the message. When it takes it all goes on.
func TestClient_Outbox_brokerHangsUp(t *testing.T) {
	m := newMosquitto(t)
	m.configure("allow_anonymous true", "max_packet_size 1000")
	m.start()
	db, err := openOutbox(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db, 0, 5)
	err = db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
		_, err := turn.Publish(outbox, store.Message{Subject: "plant.a", Data: make([]byte, 2000)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, db, 6, 9)
	var problem atomic.Value
	_, stop := runClient(t, mqtt.ClientOptions{
		URL: m.url(), ClientID: "box", Store: db, Outbox: &mqtt.Outbox{Stream: outbox, Subscription: outbox, QoS: 2},
		Health: func(err error) { problem.Store(fmt.Sprint(err)) },
	}, db)
	defer stop()
	eventually(t, "the message is named", func() bool {
		text, _ := problem.Load().(string)
		return strings.Contains(text, "whenever message 6 of stream out is sent")
	})
	m.stop()
	m.configure("allow_anonymous true")
	m.start()
	eventually(t, "the outbox is empty", func() bool {
		info, err := db.Stream(outbox)
		return err == nil && info.Msgs == 0
	})
	eventually(t, "all is well", func() bool { return problem.Load() == "<nil>" })
}
