package control

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// An Event is what a host told its lattice.
type Event struct {
	ID     string
	Source string // key of the host
	Name   string // its type, without "com.wasmcloud.lattice."
	Time   time.Time
	Data   json.RawMessage
	Raw    json.RawMessage // all of it, as it was sent
}

// maxFollowed is how many events wait to be read; what comes on top is lost, and said to be.
const maxFollowed = 4096

// Follow gives events to f as they come, each once, until ctx ends or f returns an error, which it then returns. begun is called when no event that
// comes later is missed, unless it is nil.
func (c *Client) Follow(ctx context.Context, begun func(), f func(Event) error) error {
	w, err := c.watch()
	if err != nil {
		return err
	}
	defer w.close()
	if begun != nil {
		begun()
	}
	for {
		select {
		case m := <-w.messages:
			if e, ok := w.event(m); ok {
				if err := f(e); err != nil {
					return err
				}
			}
			if n := w.lost(); n > 0 {
				return fmt.Errorf("events came faster than they were read: %d are lost", n)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// A watcher hears the events of a lattice.
type watcher struct {
	messages chan *nats.Msg
	subs     []*nats.Subscription
	seen     map[string]bool // ids; hosts tell an event on one of two subjects, or on both
	order    []string        // of seen, oldest first
}

func (c *Client) watch() (*watcher, error) {
	w := &watcher{messages: make(chan *nats.Msg, maxFollowed), seen: map[string]bool{}}
	for _, subject := range []string{c.events, c.events + ".*"} {
		sub, err := c.conn.ChanSubscribe(subject, w.messages)
		if err != nil {
			w.close()
			return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		w.subs = append(w.subs, sub)
	}
	if err := c.conn.FlushTimeout(answerTimeout); err != nil {
		w.close()
		return nil, fmt.Errorf("subscribe to %s: %w", c.events, err)
	}
	return w, nil
}

func (w *watcher) close() {
	for _, sub := range w.subs {
		_ = sub.Unsubscribe() // fails on a closed connection only
	}
}

func (w *watcher) lost() (n int) {
	for _, sub := range w.subs {
		dropped, _ := sub.Dropped() // fails on a closed subscription only
		n += dropped
	}
	return n
}

// event reads a message; false for one that is no event, or was there before.
func (w *watcher) event(m *nats.Msg) (Event, bool) {
	e, ok := decodeEvent(m.Data)
	if !ok || w.seen[e.ID] {
		return Event{}, false
	}
	w.seen[e.ID] = true
	if w.order = append(w.order, e.ID); len(w.order) > maxFollowed {
		delete(w.seen, w.order[0])
		w.order = w.order[1:]
	}
	return e, true
}

// decodeEvent reads an event of a host. Anybody may publish on the subject, so what is none is left alone.
func decodeEvent(data []byte) (Event, bool) {
	var e struct {
		ID     string          `json:"id"`
		Source string          `json:"source"`
		Type   string          `json:"type"`
		Time   time.Time       `json:"time"`
		Data   json.RawMessage `json:"data"`
	}
	if json.Unmarshal(data, &e) != nil {
		return Event{}, false
	}
	name, ok := strings.CutPrefix(e.Type, eventTypePrefix)
	return Event{ID: e.ID, Source: e.Source, Name: name, Time: e.Time, Data: e.Data, Raw: data}, ok && e.ID != "" && name != ""
}
