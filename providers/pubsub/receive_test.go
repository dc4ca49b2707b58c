package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/providers/pubsub"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// request is a payload of pairs of keys and values, numbers or text.
func request(pairs ...any) []byte {
	b := msgpack.AppendMapHeader(nil, len(pairs)/2)
	for _, v := range pairs {
		switch v := v.(type) {
		case string:
			b = msgpack.AppendString(b, v)
		case int:
			b = msgpack.AppendInt(b, int64(v))
		}
	}
	return b
}

// caller calls the provider for an actor.
type caller struct {
	t     *testing.T
	p     *pubsub.Provider
	ctx   context.Context
	actor string
}

func (c caller) call(op string, payload []byte) (*msgpack.Decoder, error) {
	b, err := c.p.Call(c.ctx, lattice.Invocation{Origin: lattice.Entity{Key: c.actor}, Operation: op, Payload: payload})
	return msgpack.NewDecoder(b), err
}

func (c caller) stream(topic string) string {
	c.t.Helper()
	d, err := c.call("PubSub.Stream", request("topic", topic))
	if err != nil || d.Map() != 1 || d.Str() != "id" {
		c.t.Fatalf("stream of %s: %v", topic, err)
	}
	return d.Str()
}

// next returns how many events came.
func (c caller) next(id string, most int) (int, error) {
	d, err := c.call("PubSub.Next", request("id", id, "max", most))
	if err != nil {
		return 0, err
	}
	if d.Map() != 1 || d.Str() != "events" {
		c.t.Fatal("the answer has no events")
	}
	return d.Array(), nil
}

// messages are n of a stream, with that many bytes each.
func messages(n, size int) (all []store.Message) {
	for i := range n {
		all = append(all, store.Message{Stream: "in", Seq: uint64(i + 1), Subject: "a.b", Data: make([]byte, size)})
	}
	return all
}

func newCaller(t *testing.T) (caller, *staged) {
	t.Helper()
	p, db, s := newProvider(t)
	p.SetAccess(map[string]pubsub.Access{
		"one": {Pull: map[string][]string{"a/#": {"in", "in.parent"}, "b": {"other"}}},
		"two": {Pull: map[string][]string{"b": {"other"}}},
	})
	turn := db.Begin()
	t.Cleanup(turn.Discard)
	return caller{t, p, store.WithTurn(t.Context(), turn), "one"}, s
}

func TestProvider_Receive(t *testing.T) {
	c, s := newCaller(t)
	s.waiting = map[string][]store.Message{"in.parent": messages(1, 3)}
	d, err := c.call("PubSub.Receive", request("topic", "a/#", "waitMs", 5000))
	if err != nil || d.Map() != 1 || d.Str() != "event" {
		t.Fatalf("no event: %v", err)
	}
	if s.waited != 5*time.Second {
		t.Errorf("waited %s, want 5s", s.waited)
	}
	d, err = c.call("PubSub.Receive", request("topic", "a/#"))
	if err != nil || d.Map() != 0 || d.Done() != nil {
		t.Errorf("nothing waits: got %v, want an empty map", err)
	}
	s.err = store.ErrNoSubscription
	if _, err = c.call("PubSub.Receive", request("topic", "a/#")); !errors.Is(err, providers.ErrNoTopic) {
		t.Errorf("got %v, want ErrNoTopic", err)
	}
	for _, name := range []string{"a", "a/b", "in"} {
		if _, err = c.call("PubSub.Receive", request("topic", name)); !errors.Is(err, providers.ErrNotPermitted) {
			t.Errorf("%s: got %v, want ErrNotPermitted", name, err)
		}
	}
	c.ctx = t.Context()
	if _, err = c.call("PubSub.Receive", request("topic", "a/#")); !errors.Is(err, providers.ErrUnavailable) {
		t.Errorf("without a turn: got %v, want ErrUnavailable", err)
	}
}

// A wait ends while the actor can still do something.
func TestProvider_Receive_waitsWithinTheTurn(t *testing.T) {
	c, s := newCaller(t)
	ctx, cancel := context.WithTimeout(c.ctx, time.Hour)
	defer cancel()
	c.ctx = ctx
	if _, err := c.call("PubSub.Receive", request("topic", "b", "waitMs", 1<<30)); err != nil {
		t.Fatal(err)
	}
	if s.waited >= time.Hour-50*time.Millisecond || s.waited < 59*time.Minute {
		t.Errorf("waited %s of an hour", s.waited)
	}
}

func TestProvider_Next(t *testing.T) {
	c, s := newCaller(t)
	id := c.stream("a/#")
	s.waiting = map[string][]store.Message{"in": messages(300, 10)}
	for _, test := range []struct{ most, want int }{{0, 1}, {3, 3}, {1000, pubsub.MaxNext}, {1000, 300 - 1 - 3 - pubsub.MaxNext}, {1, 0}} {
		if got, err := c.next(id, test.most); err != nil || got != test.want {
			t.Errorf("at most %d: got %d, %v, want %d", test.most, got, err, test.want)
		}
	}
	// An answer has a bound in bytes too.
	s.waiting["in"] = messages(10, 400<<10)
	if got, err := c.next(id, 10); err != nil || got != 3 {
		t.Errorf("large ones: got %d, %v, want 3", got, err)
	}
	other := c
	other.actor = "two"
	if _, err := other.next(id, 1); !errors.Is(err, providers.ErrNoTopic) {
		t.Errorf("the stream of another actor: got %v", err)
	}
	if _, err := other.call("PubSub.Close", request("id", id)); err != nil {
		t.Error(err)
	}
	if _, err := c.next(id, 1); err != nil {
		t.Errorf("another actor closed it: %v", err)
	}
	for range 2 {
		if _, err := c.call("PubSub.Close", request("id", id)); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.next(id, 1); !errors.Is(err, providers.ErrNoTopic) {
		t.Errorf("a closed stream: got %v", err)
	}
}

func TestProvider_Stream_bounded(t *testing.T) {
	c, _ := newCaller(t)
	var id string
	for range pubsub.MaxStreams {
		id = c.stream("b")
	}
	if _, err := c.call("PubSub.Stream", request("topic", "b")); !errors.Is(err, providers.ErrUnavailable) {
		t.Errorf("one too many: got %v", err)
	}
	if _, err := c.call("PubSub.Close", request("id", id)); err != nil {
		t.Error(err)
	}
	c.stream("b")
	// What the actor may not have any more is closed.
	c.p.SetAccess(map[string]pubsub.Access{"one": {Pull: map[string][]string{"a/#": {"in"}}}})
	c.stream("a/#")
}

func TestProvider_Stream_diesIdle(t *testing.T) {
	c, _ := newCaller(t)
	synctest.Test(t, func(t *testing.T) {
		lasting, idle := c.stream("b"), c.stream("b")
		for range 3 {
			<-time.After(5 * time.Minute) // the clock is the bubble's
			if _, err := c.next(lasting, 1); err != nil {
				t.Errorf("in use: %v", err)
			}
		}
		if _, err := c.next(idle, 1); !errors.Is(err, providers.ErrNoTopic) {
			t.Errorf("idle: got %v", err)
		}
	})
}

func TestProvider_Publish_outlets(t *testing.T) {
	c, s := newCaller(t)
	c.p.SetAccess(map[string]pubsub.Access{"one": {Outlets: []pubsub.Outlet{{Link: "default", Filters: []string{"cloud.>", "cloud"}, Stream: "out"}}}})
	e := event.Event{Source: "s", Type: "t"}
	for i, test := range []struct{ actor, link, topic, stream string }{
		{"one", "default", "cloud/x", "out"}, {"one", "default", "cloud", "out"}, {"one", "default", "here", ""},
		{"two", "default", "cloud/x", ""}, {"one", "second", "cloud/x", ""},
	} {
		s.streams, s.messages = nil, nil
		e.ID = fmt.Sprint(i)
		_, err := c.p.Call(c.ctx, lattice.Invocation{
			Origin: lattice.Entity{Key: test.actor}, Target: lattice.Entity{Key: "pubsub", Link: test.link},
			Operation: "PubSub.Publish", Payload: publish(test.topic, e),
		})
		if err != nil || len(s.messages) != 1 {
			t.Fatalf("%+v: %v", test, err)
		}
		if test.stream == "" && len(s.streams) != 0 || test.stream != "" && (len(s.streams) != 1 || s.streams[0] != test.stream || s.messages[0].ID == "") {
			t.Errorf("%+v: went to %v, identity %q", test, s.streams, s.messages[0].ID)
		}
	}
}

func FuzzCall_receive(f *testing.F) {
	f.Add("PubSub.Receive", request("topic", "a/#", "waitMs", 1))
	f.Add("PubSub.Next", request("id", "x", "max", 7, "waitMs", 0))
	f.Add("PubSub.Stream", request("topic", "b"))
	f.Add("PubSub.Close", request("id", ""))
	db, err := store.Open(store.Options{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	f.Fuzz(func(t *testing.T, op string, payload []byte) {
		p := pubsub.New(db, &staged{}, "press-7")
		p.SetAccess(map[string]pubsub.Access{"one": {Pull: map[string][]string{"a/#": {"in"}, "b": {"other"}}}})
		_, err := p.Call(t.Context(), lattice.Invocation{Origin: lattice.Entity{Key: "one"}, Operation: op, Payload: payload})
		var failure *providers.Failure
		if err != nil && !errors.As(err, &failure) {
			t.Fatalf("an error of no kind: %v", err)
		}
	})
}
