package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/store"
)

var telemetry = broker.Stream{Name: "telemetry", Subjects: []string{"sensors.>"}}

// stored returns all messages of a stream.
func stored(t testing.TB, db *store.DB, stream string) []broker.Message {
	t.Helper()
	var all []broker.Message
	if err := db.Read(stream, 1, 1<<20, 1<<30, func(m broker.Message) error {
		all = append(all, m)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestIngest_legacyClient(t *testing.T) {
	b := startBox(t, broker.Options{Listen: anyPort}, telemetry)
	nc := b.client(t)
	js, err := nc.JetStream(nats.MaxWait(patience))
	if err != nil {
		t.Fatal(err)
	}
	for want := uint64(1); want <= 3; want++ {
		ack, err := js.Publish("sensors.a", []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		if ack.Stream != "telemetry" || ack.Sequence != want || ack.Duplicate {
			t.Errorf("got %+v, want telemetry %d", ack, want)
		}
	}
	var futures []nats.PubAckFuture
	for i := range 500 {
		f, err := js.PublishAsync(fmt.Sprintf("sensors.%d", i), []byte("async"))
		if err != nil {
			t.Fatal(err)
		}
		futures = append(futures, f)
	}
	for i, f := range futures {
		select {
		case ack := <-f.Ok():
			if ack.Sequence != uint64(4+i) {
				t.Fatalf("got %d, want %d", ack.Sequence, 4+i)
			}
		case err := <-f.Err():
			t.Fatal(err)
		}
	}
	if got := len(stored(t, b.db, "telemetry")); got != 503 {
		t.Errorf("got %d messages, want 503", got)
	}
	if _, err := js.Publish("elsewhere", nil); !errors.Is(err, nats.ErrNoStreamResponse) {
		t.Errorf("subject of no stream: got %v, want %v", err, nats.ErrNoStreamResponse)
	}
}

func TestIngest_jetstreamPackage(t *testing.T) {
	b := startBox(t, broker.Options{Listen: anyPort, MaxMessage: 1000}, telemetry,
		broker.Stream{Name: "small", Subjects: []string{"small"}, MaxMsgs: 1})
	js, err := jetstream.New(b.client(t), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	first, err := js.Publish(ctx, "sensors.a", nil, jetstream.WithMsgID("one"), jetstream.WithExpectStream("telemetry"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "sensors.a", nil); err != nil {
		t.Fatal(err)
	}
	again, err := js.Publish(ctx, "sensors.b", nil, jetstream.WithMsgID("one"))
	if err != nil {
		t.Fatal(err)
	}
	if !again.Duplicate || again.Sequence != first.Sequence {
		t.Errorf("repeat: got %+v, want a duplicate of %d", again, first.Sequence)
	}
	if _, err := js.PublishMsgAsync(&nats.Msg{Subject: "sensors.a"}); err != nil {
		t.Fatal(err)
	}
	<-js.PublishAsyncComplete()

	if _, err := js.Publish(ctx, "small", nil); err != nil {
		t.Fatal(err)
	}
	var api *jetstream.APIError
	if _, err := js.Publish(ctx, "small", nil); !errors.As(err, &api) || api.Code != 503 || api.ErrorCode != 10077 {
		t.Errorf("full stream: got %v, want 503 and 10077", err)
	}
	for _, c := range []struct {
		opt  jetstream.PublishOpt
		code jetstream.ErrorCode
	}{
		{jetstream.WithExpectStream("other"), 10060},
		{jetstream.WithExpectLastSequence(3), 10003},
		{jetstream.WithExpectLastSequencePerSubject(3), 10003},
		{jetstream.WithExpectLastMsgID("x"), 10003},
	} {
		if _, err := js.Publish(ctx, "sensors.a", nil, c.opt); !errors.As(err, &api) || api.ErrorCode != c.code {
			t.Errorf("got %v, want code %d", err, c.code)
		}
	}
	for _, name := range []string{"Nats-Rollup", "Nats-Batch-Id", "Nats-Schedule", "Nats-Schedule-Target", "Nats-Incr", "Nats-Expected-New"} {
		if _, err := js.PublishMsg(ctx, &nats.Msg{Subject: "sensors.a", Header: nats.Header{name: {"1"}}}); !errors.As(err, &api) || !strings.Contains(api.Description, name) && api.ErrorCode == 10003 {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	if got := len(stored(t, b.db, "telemetry")); got != 3 {
		t.Errorf("got %d messages, want 3", got)
	}
}

func TestIngest_keepsBytes(t *testing.T) {
	b := startBox(t, broker.Options{Listen: anyPort}, telemetry)
	nc := b.client(t)
	h := nats.Header{"X-lower-Case": {"a", "b"}, "Nats-Trace-Dest": {""}}
	m := &nats.Msg{Subject: "sensors.x", Header: h, Data: []byte("\r\n\x00MSG a 1 2\r\n")}
	if err := nc.PublishMsg(m); err != nil { // no reply subject
		t.Fatal(err)
	}
	if _, err := nc.Request("sensors.y", nil, patience); err != nil {
		t.Fatal(err)
	}
	all := stored(t, b.db, "telemetry")
	if len(all) != 2 {
		t.Fatalf("got %d messages, want 2", len(all))
	}
	if string(all[0].Data) != string(m.Data) {
		t.Errorf("got %q, want %q", all[0].Data, m.Data)
	}
	got, err := nats.DecodeHeadersMsg(all[0].Header)
	if err != nil || len(got["X-lower-Case"]) != 2 {
		t.Errorf("got header %q: %v", all[0].Header, err)
	}
}

func TestIngest_repeatsByEvent(t *testing.T) {
	b := startBox(t, broker.Options{Listen: anyPort}, telemetry)
	nc := b.client(t)
	body := []byte(`{"specversion":"1.0","id":"7","source":"/probe","type":"t","data":1}`)
	for i, want := range []broker.Ack{{Stream: "telemetry", Seq: 1}, {Stream: "telemetry", Seq: 1, Duplicate: true}} {
		m, err := nc.Request("sensors.e", body, patience)
		if err != nil {
			t.Fatal(err)
		}
		var got broker.Ack
		if err := json.Unmarshal(m.Data, &got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%d: got %+v, want %+v", i, got, want)
		}
	}
}

// TestIngest_sharesSyncs: what comes while a group is written shares the next one,
// however many publishers wait for their acks. How many come in time is between their
// machine and the disk; test/e2e counts the syncs of a real box.
func TestIngest_sharesSyncs(t *testing.T) {
	var hold atomic.Bool
	writing, written := make(chan struct{}), make(chan struct{})
	defer close(written)
	db, err := store.Open(store.Options{Dir: t.TempDir(), Failpoint: func(point string) error {
		if point == store.FailpointBeforeSync && hold.CompareAndSwap(true, false) {
			writing <- struct{}{}
			<-written
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, db.Close()) })
	b := startBox(t, broker.Options{Listen: anyPort, Store: db}, telemetry)
	first, others := b.client(t), b.client(t)
	const rounds, publishers = 4, 256
	before := db.Stats().Commits
	for range rounds {
		var wg sync.WaitGroup
		hold.Store(true)
		wg.Go(func() { publish(t, first, 1, 1) })
		<-writing
		wg.Go(func() { publish(t, others, publishers, publishers) })
		eventually(t, "all wait", func() bool { return db.Stats().Queued == publishers })
		written <- struct{}{}
		wg.Wait()
	}
	if n := db.Stats().Commits - before; n != 2*rounds {
		t.Errorf("got %d commits for %d times 1 and %d messages, want %d", n, rounds, publishers, 2*rounds)
	}
}

// publish sends total messages from several publishers that wait for each ack.
func publish(t testing.TB, nc *nats.Conn, publishers, total int) {
	t.Helper()
	js, err := nc.JetStream(nats.MaxWait(patience))
	if err != nil {
		t.Error(err)
		return
	}
	var wg sync.WaitGroup
	body := make([]byte, 128)
	for p := range publishers {
		wg.Go(func() {
			for range total/publishers + min(1, max(0, total%publishers-p)) {
				if _, err := js.Publish(fmt.Sprintf("sensors.%d", p), body); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestServer_Publish_fanOut(t *testing.T) {
	b := startBox(t, broker.Options{Listen: anyPort}, telemetry)
	nc := b.client(t)
	sub, err := nc.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	mqtt := b.NewPort()
	heard, own := make(chan broker.Message, 16), make(chan broker.Message, 16)
	if _, err := b.Tap("sensors.>", func(m broker.Message) { own <- m }); err != nil {
		t.Fatal(err)
	}
	stop, err := mqtt.Tap("sensors.>", func(m broker.Message) { heard <- m })
	if err != nil {
		t.Fatal(err)
	}
	acks := make(chan broker.Ack, 1)
	send := func(p *broker.Port, subject, id string) broker.Ack {
		p.Publish(broker.Message{Subject: subject, ID: id, Data: []byte(subject)}, func(a broker.Ack, err error) {
			if err != nil {
				t.Error(err)
			}
			acks <- a
		})
		return <-acks
	}
	if a := send(mqtt, "sensors.mqtt", "1"); a.Seq != 1 || a.Stream != "telemetry" {
		t.Errorf("got %+v", a)
	}
	if a := send(mqtt, "sensors.mqtt", "1"); !a.Duplicate {
		t.Errorf("got %+v, want a repeat", a)
	}
	if a := send(mqtt, "elsewhere", ""); a != (broker.Ack{}) {
		t.Errorf("got %+v, want nothing", a)
	}
	if err := b.db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
		return errors.Join(b.Stage(turn, broker.Message{Subject: "sensors.actor"}), b.Stage(turn, broker.Message{Subject: "other.actor"}))
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sensors.mqtt", "elsewhere", "sensors.actor", "other.actor"} {
		m, err := sub.NextMsg(patience)
		if err != nil || m.Subject != want {
			t.Fatalf("client got %v %v, want %s", m, err, want)
		}
	}
	if err := nc.Publish("sensors.client", nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sensors.actor", "sensors.client"} {
		if m := <-heard; m.Subject != want {
			t.Errorf("tap of another port got %s, want %s", m.Subject, want)
		}
	}
	for _, want := range []string{"sensors.mqtt", "sensors.client"} {
		if m := <-own; m.Subject != want {
			t.Errorf("tap of the port of actors got %s, want %s", m.Subject, want)
		}
	}
	eventually(t, "3 messages are stored", func() bool { return len(stored(t, b.db, "telemetry")) == 3 })
	stop()
	send(b.Port, "sensors.late", "")
	select {
	case m := <-heard:
		t.Errorf("a stopped tap got %s", m.Subject)
	default:
	}
	b.Publish(broker.Message{Subject: "a b"}, func(_ broker.Ack, err error) {
		if err == nil {
			t.Error("a subject with a space was taken")
		}
	})
	b.Publish(broker.Message{Subject: "sensors.big", Data: make([]byte, 2<<20)}, func(_ broker.Ack, err error) {
		if !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("got %v, want %v", err, store.ErrTooLarge)
		}
	})
}

func TestServer_Configure_streams(t *testing.T) {
	b := startBox(t, broker.Options{Listen: anyPort}, telemetry)
	nc := b.client(t)
	if _, err := nc.Request("sensors.a", nil, patience); err != nil {
		t.Fatal(err)
	}
	b.configure(t, []broker.Stream{{Name: "telemetry", Subjects: []string{"sensors.>", "meters.*"}}, {Name: "other", Subjects: []string{"o"}}})
	for subject, want := range map[string]string{"sensors.a": "telemetry", "meters.b": "telemetry", "o": "other"} {
		m, err := nc.Request(subject, nil, patience)
		if err != nil || !strings.Contains(string(m.Data), want) {
			t.Errorf("%s: got %v %v, want %s", subject, m, err, want)
		}
		if got, ok := b.Covers(subject); !ok || got != want {
			t.Errorf("%s: covered by %q, want %s", subject, got, want)
		}
	}
	b.configure(t, []broker.Stream{{Name: "telemetry", Subjects: []string{"meters.*"}}})
	if _, err := nc.Request("sensors.a", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("got %v, want %v", err, nats.ErrNoResponders)
	}
	err := b.Configure(t.Context(), []broker.Stream{
		{Name: "a b", Subjects: []string{"x"}}, {Name: "one", Subjects: []string{"y.*", ">"}}, {Name: "two", Subjects: []string{"y.z", "y..z"}},
	}, []broker.Subscription{{Name: "s", Stream: "three", OrderedBy: "key"}})
	if err == nil {
		t.Fatal("got nil")
	}
	for _, want := range []string{`"a b"`, `">" takes in`, `overlaps "y.*" of stream one`, `"y..z" is not valid`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not tell %s: %v", want, err)
		}
	}
	if _, ok := b.Covers("meters.x"); !ok {
		t.Error("a faulty configuration changed something")
	}
}
