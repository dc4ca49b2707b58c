package pubsub_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/providers/pubsub"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// staged is a broker: it notes what is staged, and has what waits in
// subscriptions.
type staged struct {
	messages []store.Message
	streams  []string // to which StageTo put them
	waiting  map[string][]store.Message
	waited   time.Duration // in the last Receive
	err      error         // of Receive
}

// Covers: there is a stream for what begins with "kept.".
func (s *staged) Covers(subject string) (string, bool) {
	return "kept", strings.HasPrefix(subject, "kept.")
}

func (s *staged) Stage(_ *store.Turn, m store.Message) error {
	s.messages = append(s.messages, m)
	return nil
}

func (s *staged) StageTo(_ *store.Turn, stream string, m store.Message) error {
	s.messages = append(s.messages, m)
	s.streams = append(s.streams, stream)
	return nil
}

func (s *staged) Receive(_ context.Context, subs []string, most int, wait time.Duration) ([]store.Message, error) {
	s.waited = max(s.waited, wait)
	for _, name := range subs {
		if all := s.waiting[name]; len(all) > 0 {
			n := min(most, len(all))
			s.waiting[name] = all[n:]
			return all[:n], nil
		}
	}
	return nil, s.err
}

func newProvider(t *testing.T) (*pubsub.Provider, *store.DB, *staged) {
	t.Helper()
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &staged{}
	return pubsub.New(db, s, "press-7"), db, s
}

func publish(topic string, e event.Event) []byte {
	b := msgpack.AppendMapHeader(nil, 2)
	b = msgpack.AppendString(msgpack.AppendString(b, "topic"), topic)
	return pubsub.AppendEvent(msgpack.AppendString(b, "event"), e)
}

func TestProvider_Publish(t *testing.T) {
	p, db, s := newProvider(t)
	e := event.Event{
		ID: "1", Source: "thermostat", Type: "alarm", Data: []byte(`{"c":31}`), Subject: "three",
		DataContentType: "application/json", Extensions: map[string]string{"level": "9"},
	}
	err := db.Do(t.Context(), func(ctx context.Context, _ *store.Turn) error {
		_, err := p.Call(ctx, lattice.Invocation{Operation: "PubSub.Publish", Payload: publish("alarms/3", e)})
		return err
	})
	if err != nil || len(s.messages) != 1 {
		t.Fatalf("%d messages, %v", len(s.messages), err)
	}
	m := s.messages[0]
	if m.Subject != "alarms.3" || string(m.Data) != `{"c":31}` {
		t.Fatalf("subject %s, data %s", m.Subject, m.Data)
	}
	got, ok := event.Parse(event.Header(m.Header), m.Subject, m.Data)
	if !ok || got.ID != "1" || got.Subject != "three" || got.Extensions["level"] != "9" {
		t.Fatalf("read back: %+v, %v", got, ok)
	}
}

func TestProvider_Call_refuses(t *testing.T) {
	p, _, s := newProvider(t)
	whole := event.Event{ID: "1", Source: "s", Type: "t"}
	long := event.Event{ID: "1", Source: "s", Type: "t", Extensions: map[string]string{"x": strings.Repeat("y", 80<<10)}}
	many := event.Event{ID: "1", Source: "s", Type: "t", Extensions: map[string]string{}}
	for i := range event.MaxExtensions + 2 {
		many.Extensions["x"+strconv.Itoa(i)] = "1"
	}
	tests := map[string]struct {
		op      string
		payload []byte
		want    string
	}{
		"a wildcard":       {"PubSub.Publish", publish("a/+", whole), "pubsub: wrong format: "},
		"a reserved one":   {"PubSub.Publish", publish("$JS.API.STREAM.DELETE.X", whole), "pubsub: not permitted: "},
		"no topic":         {"PubSub.Publish", publish("", whole), "pubsub: wrong format: "},
		"no id":            {"PubSub.Publish", publish("a", event.Event{Source: "s", Type: "t"}), "pubsub: wrong format: "},
		"half a payload":   {"PubSub.Publish", publish("a", whole)[:9], "pubsub: wrong format: "},
		"long attributes":  {"PubSub.Publish", publish("a", long), "pubsub: payload too large: "},
		"many attributes":  {"PubSub.Publish", publish("a", many), "pubsub: wrong format: "},
		"a strange name":   {"PubSub.Publish", publish("a", event.Event{ID: "1", Source: "s", Type: "t", Extensions: map[string]string{"A-b": "x"}}), "pubsub: wrong format: "},
		"another's topic":  {"PubSub.Receive", request("topic", "a"), "pubsub: not permitted: "},
		"another's stream": {"PubSub.Next", request("id", "a"), "pubsub: no such topic: "},
		"a stream of none": {"PubSub.Stream", request("topic", "a"), "pubsub: not permitted: "},
		"no map":           {"PubSub.Receive", []byte{0x01}, "pubsub: wrong format: "},
		"something else":   {"PubSub.Nothing", nil, "pubsub: wrong format: "},
	}
	for name, test := range tests {
		_, err := p.Call(t.Context(), lattice.Invocation{Operation: test.op, Payload: test.payload})
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q first", name, err, test.want)
		}
	}
	if len(s.messages) > 0 {
		t.Fatalf("%d messages were staged", len(s.messages))
	}
}

func TestProvider_Event(t *testing.T) {
	p, _, _ := newProvider(t)
	plain := p.Event(store.Message{Stream: "in", Seq: 7, Subject: "greenhouse.3.temperature", Data: []byte("21.5")})
	if plain.ID != "in-7" || plain.Source != "/press-7/in" || plain.Type != "edged.message" ||
		string(plain.Data) != "21.5" || plain.Extensions["topic"] != "greenhouse/3/temperature" {
		t.Fatalf("plain message: %+v", plain)
	}
	structured := p.Event(store.Message{Stream: "in", Seq: 8, Subject: "greenhouse.3.temperature",
		Data: []byte(`{"specversion":"1.0","id":"e1","source":"sensor-3","type":"t","data":21.5}`)})
	if structured.ID != "e1" || structured.Source != "sensor-3" || string(structured.Data) != "21.5" {
		t.Fatalf("structured event: %+v", structured)
	}
}

func TestDecodeVerdict(t *testing.T) {
	answer := func(pairs ...string) []byte {
		b := msgpack.AppendMapHeader(nil, len(pairs)/2)
		for _, s := range pairs {
			b = msgpack.AppendString(b, s)
		}
		return b
	}
	retry := msgpack.AppendMapHeader(nil, 2)
	retry = msgpack.AppendString(msgpack.AppendString(retry, "action"), "retry")
	retry = msgpack.AppendInt(msgpack.AppendString(retry, "afterMs"), 1500)
	tests := []struct {
		reply []byte
		want  pubsub.Verdict
		bad   bool
	}{
		{nil, pubsub.Verdict{}, false},
		{[]byte{0xc0}, pubsub.Verdict{}, false},
		{retry, pubsub.Verdict{Action: "retry", After: 1500 * time.Millisecond}, false},
		{answer("action", "reject", "reason", "bad"), pubsub.Verdict{Action: "reject", Reason: "bad"}, false},
		{answer("action", "explode"), pubsub.Verdict{}, true},
		{[]byte{0x81}, pubsub.Verdict{}, true},
	}
	for _, test := range tests {
		got, err := pubsub.DecodeVerdict(test.reply)
		if (err != nil) != test.bad || err == nil && got != test.want {
			t.Errorf("% x: got %+v, %v", test.reply, got, err)
		}
	}
}

func FuzzCall(f *testing.F) {
	f.Add(publish("alarms/3", event.Event{ID: "1", Source: "s", Type: "t", Data: []byte("x")}))
	dir := f.TempDir()
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	f.Fuzz(func(t *testing.T, payload []byte) {
		s := &staged{}
		p := pubsub.New(db, s, "press-7")
		turn := db.Begin()
		defer turn.Discard()
		_, err := p.Call(store.WithTurn(t.Context(), turn), lattice.Invocation{Operation: "PubSub.Publish", Payload: payload})
		if err == nil && len(s.messages) != 1 {
			t.Fatal("neither staged nor refused")
		}
		if errors.Is(err, store.ErrFailed) {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeVerdict(f *testing.F) {
	f.Add([]byte{0x81, 0xa6, 'a', 'c', 't', 'i', 'o', 'n', 0xa6, 'r', 'e', 'j', 'e', 'c', 't'})
	f.Fuzz(func(t *testing.T, reply []byte) {
		if v, err := pubsub.DecodeVerdict(reply); err == nil && v.After < 0 {
			t.Fatalf("a pause of %s", v.After)
		}
	})
}

func TestProvider_Publish_schedule(t *testing.T) {
	p, _, s := newProvider(t)
	call := func(to string, extensions map[string]string) (store.Message, error) {
		s.messages = nil
		e := event.Event{ID: "1", Source: "s", Type: "t", Extensions: extensions}
		_, err := p.Call(t.Context(), lattice.Invocation{Operation: "PubSub.Publish", Payload: publish(to, e)})
		if err != nil {
			return store.Message{}, err
		}
		return s.messages[0], nil
	}
	m, err := call("kept/x", map[string]string{"notbefore": "+90s", "ttl": "3600"})
	if err != nil || m.Delay != 90*time.Second || m.TTL != time.Hour || !m.NotBefore.IsZero() {
		t.Errorf("got %+v, %v", m, err)
	}
	if e := p.Event(m); e.Extensions["ttl"] != "3600" {
		t.Errorf("the event has lost its extensions: %v", e.Extensions)
	}
	m, err = call("kept/x", map[string]string{"notbefore": "2026-01-31T08:00:00+01:00", "ttl": "1h30m"})
	if err != nil || m.Delay != 0 || m.TTL != 90*time.Minute || !m.NotBefore.Equal(time.Date(2026, 1, 31, 7, 0, 0, 0, time.UTC)) {
		t.Errorf("got %+v, %v", m, err)
	}
	if m, err = call("other", map[string]string{"ttl": "1s"}); err != nil || m.TTL != time.Second {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err = call("other", map[string]string{"notbefore": "+1s"}); !errors.Is(err, providers.ErrNoTopic) {
		t.Errorf("nobody can keep it: got %v", err)
	}
	for name, values := range map[string][]string{"notbefore": {"", "+", "tomorrow", "+-1s", "+900000h", "12:00"}, "ttl": {"", "0", "-1s", "for ever", "+1s."}} {
		for _, v := range values {
			if _, err := call("kept/x", map[string]string{name: v}); !errors.Is(err, providers.ErrFormat) {
				t.Errorf("%s %q: got %v, want ErrFormat", name, v, err)
			}
		}
	}
}
