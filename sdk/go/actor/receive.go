package actor

import (
	"errors"
	"iter"
	"time"

	"github.com/edged-io/edged/sdk/go/msgpack"
)

// Receive takes the next event of a topic or queue that the manifest gives the
// actor with delivery = "pull", named as it is there. If there is none it waits
// that long, but never until the time limit of the actor; ok is false if none
// came. The event belongs to the turn: when the handler returns nil it is
// acknowledged, and otherwise it comes again.
func Receive(topic string, wait time.Duration) (e Event, ok bool, err error) {
	b := msgpack.AppendMapHeader(nil, 2)
	b = msgpack.AppendString(msgpack.AppendString(b, "topic"), topic)
	b = msgpack.AppendInt(msgpack.AppendString(b, "waitMs"), milliseconds(wait))
	response, err := Call("edged:pubsub", "PubSub.Receive", b)
	if err != nil {
		return Event{}, false, err
	}
	d := msgpack.NewDecoder(response)
	for range d.Map() {
		if string(d.Key()) != "event" || d.Kind() == msgpack.Nil {
			d.Skip()
			continue
		}
		e, ok = readEvent(d), true
	}
	if err := d.Done(); err != nil {
		return Event{}, false, errors.New("PubSub.Receive: " + err.Error())
	}
	return e, ok, nil
}

// Stream opens a stream of the events that Receive would take, to take many at
// a time. It may be kept for later calls, but the box closes one that was not
// used for ten minutes, and all of them when it starts anew; Next then fails with
// ErrNoTopic.
func Stream(topic string) (*EventStream, error) {
	b := msgpack.AppendMapHeader(nil, 1)
	b = msgpack.AppendString(msgpack.AppendString(b, "topic"), topic)
	response, err := Call("edged:pubsub", "PubSub.Stream", b)
	if err != nil {
		return nil, err
	}
	s := &EventStream{}
	d := msgpack.NewDecoder(response)
	for range d.Map() {
		if string(d.Key()) == "id" {
			s.id = d.Str()
		} else {
			d.Skip()
		}
	}
	if err := d.Done(); err != nil {
		return nil, errors.New("PubSub.Stream: " + err.Error())
	}
	return s, nil
}

// An EventStream is a way to take events, from Stream.
type EventStream struct{ id string }

// Next takes at most that many events, at most 256 and about 1 MiB. It waits
// only if there is none, and returns none if none came.
func (s *EventStream) Next(most int, wait time.Duration) ([]Event, error) {
	b := msgpack.AppendMapHeader(nil, 3)
	b = msgpack.AppendString(msgpack.AppendString(b, "id"), s.id)
	b = msgpack.AppendInt(msgpack.AppendString(b, "max"), int64(max(most, 1)))
	b = msgpack.AppendInt(msgpack.AppendString(b, "waitMs"), milliseconds(wait))
	response, err := Call("edged:pubsub", "PubSub.Next", b)
	if err != nil {
		return nil, err
	}
	var events []Event
	d := msgpack.NewDecoder(response)
	for range d.Map() {
		if string(d.Key()) != "events" {
			d.Skip()
			continue
		}
		for range d.Array() {
			events = append(events, readEvent(d))
		}
	}
	if err := d.Done(); err != nil {
		return nil, errors.New("PubSub.Next: " + err.Error())
	}
	return events, nil
}

// All yields event after event, until none came within that time or there is an
// error, which is the last it yields. What was yielded belongs to the turn, the
// last one too if the loop ends there; All takes one at a time.
func (s *EventStream) All(wait time.Duration) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			events, err := s.Next(1, wait)
			if err != nil {
				yield(Event{}, err)
				return
			}
			if len(events) == 0 || !yield(events[0], nil) {
				return
			}
		}
	}
}

// Close closes the stream.
func (s *EventStream) Close() error {
	b := msgpack.AppendMapHeader(nil, 1)
	b = msgpack.AppendString(msgpack.AppendString(b, "id"), s.id)
	_, err := Call("edged:pubsub", "PubSub.Close", b)
	return err
}

// milliseconds rounds up, so that a short wait does not become none.
func milliseconds(d time.Duration) int64 {
	return int64(max(d+time.Millisecond-1, 0) / time.Millisecond)
}
