package actor_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/edged-io/edged/sdk/go/actor"
	"github.com/edged-io/edged/sdk/go/msgpack"
)

// event is {id: 1, data: x}, in hexadecimal.
const event = "82 a2 6964 a1 31 a4 64617461 c4 01 78"

func TestReceive(t *testing.T) {
	h := &host{response: "81 a5 6576656e74" + event}
	use(t, h)
	e, ok, err := actor.Receive("user/+", 1500*time.Microsecond)
	if err != nil || !ok || e.ID != "1" || string(e.Data) != "x" {
		t.Errorf("got %+v, %v, %v", e, ok, err)
	}
	if want := "default edged:pubsub PubSub.Receive 82a5746f706963a6757365722f2ba6776169744d7302"; h.called != want {
		t.Errorf("called %s, want %s", h.called, want)
	}
	for _, none := range []string{"80", "81 a5 6576656e74 c0", "81 a1 78 01"} {
		h.response = none
		if e, ok, err := actor.Receive("user/+", 0); err != nil || ok {
			t.Errorf("%s: got %+v, %v, %v, want nothing", none, e, ok, err)
		}
	}
	for _, broken := range []string{"81", "81 a5 6576656e74", "01"} {
		h.response = broken
		if _, ok, err := actor.Receive("user/+", 0); err == nil || ok {
			t.Errorf("%s: taken", broken)
		}
	}
}

func TestEventStream(t *testing.T) {
	h := &host{response: "81 a2 6964 a2 7331"}
	use(t, h)
	s, err := actor.Stream("q")
	if err != nil {
		t.Fatal(err)
	}
	h.response = "81 a6 6576656e7473 92" + event + event
	events, err := s.Next(2, 0)
	if err != nil || len(events) != 2 || events[1].ID != "1" {
		t.Errorf("got %v, %v", events, err)
	}
	if want := "default edged:pubsub PubSub.Next 83a26964a27331a36d617802a6776169744d7300"; h.called != want {
		t.Errorf("called %s, want %s", h.called, want)
	}
	h.response = "81 a6 6576656e7473 91" + event
	seen := 0
	for e, err := range s.All(0) {
		if err != nil || e.ID != "1" {
			t.Errorf("got %v, %v", e, err)
		}
		if seen++; seen == 3 {
			h.response = "81 a6 6576656e7473 90"
		}
	}
	if seen != 3 {
		t.Errorf("%d events, want 3", seen)
	}
	h.failure = "pubsub: no such topic: closed"
	for _, err := range s.All(0) {
		if !errors.Is(err, actor.ErrNoTopic) {
			t.Errorf("got %v, want ErrNoTopic", err)
		}
		seen++
	}
	if seen != 4 {
		t.Error("an error is not the last that is yielded")
	}
	h.failure = ""
	if err := s.Close(); err != nil || !strings.Contains(h.called, "PubSub.Close") {
		t.Errorf("%s: %v", h.called, err)
	}
}

func TestPublish_options(t *testing.T) {
	h := &host{}
	use(t, h)
	e := actor.Event{ID: "1", Source: "s", Type: "t", Extensions: map[string]string{"a": "b"}}
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	err := actor.Publish("x", e, actor.Delay(90*time.Second), actor.TTL(time.Hour), actor.Key("k"))
	if err != nil || len(e.Extensions) != 1 {
		t.Fatalf("%v, extensions of the event now %v", err, e.Extensions)
	}
	raw, err := hex.DecodeString(h.called[strings.LastIndex(h.called, " ")+1:])
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"\xa9notbefore\xa6+1m30s", "\xa3ttl\xa61h0m0s", "\xacpartitionkey\xa1k", "\xa1a\xa1b"} {
		if !strings.Contains(string(raw), part) {
			t.Errorf("%q is not in %q", part, raw)
		}
	}
	if err := actor.Publish("x", actor.Event{}, actor.NotBefore(at)); err != nil || !strings.Contains(h.called, hex.EncodeToString([]byte("2030-01-02T03:04:05Z"))) {
		t.Errorf("%s: %v", h.called, err)
	}
}

func TestHostError_kinds(t *testing.T) {
	all := []error{actor.ErrTooLarge, actor.ErrNoTopic, actor.ErrNotPermitted, actor.ErrUnavailable, actor.ErrTimedOut, actor.ErrFormat}
	for text, want := range map[string]error{
		"pubsub: payload too large: x":                                        actor.ErrTooLarge,
		"messaging: timed out: request to a: x":                               actor.ErrTimedOut,
		"Invocation not authorized: missing link definition for edged:pubsub": actor.ErrNotPermitted,
		"pubsub: unavailable: wrong format: x":                                actor.ErrUnavailable,
		"something else: no such topic":                                       nil,
		"no such topic: x":                                                    nil,
		"":                                                                    nil,
	} {
		err := error(&actor.HostError{Operation: "O", Text: text})
		for _, kind := range all {
			if got := errors.Is(err, kind); got != (kind == want) {
				t.Errorf("%q is %v: %v", text, kind, got)
			}
		}
	}
}

// FuzzReceive: whatever a box answers is an event, none, or an error.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x81\xa5event\x81\xa2id\xa11"))
	f.Add([]byte("\x81\xa6events\x91\x80"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		before := actor.SetHost(func(_, _, _ string, _ []byte) ([]byte, error) { return answer, nil })
		t.Cleanup(func() { actor.SetHost(before) })
		if _, ok, err := actor.Receive("x", 0); ok && err != nil {
			t.Fatal("an event and an error")
		}
		s, err := actor.Stream("x")
		if err != nil {
			return
		}
		if events, err := s.Next(1, 0); err == nil && len(events) > 0 && msgpack.IsNothing(answer) {
			t.Fatal("events of nothing")
		}
	})
}
