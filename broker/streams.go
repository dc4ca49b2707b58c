package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/edged-io/edged/internal/nameform"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// Stream is a set of subjects whose messages are kept. Limits of 0 mean none
// but those of the store.
type Stream struct {
	Name     string   // 1 to 128 of A-Z a-z 0-9 _ -
	Subjects []string // filters; no two of any streams may have a subject in common
	MaxBytes int64
	MaxMsgs  int64
	MaxAge   time.Duration
	OnFull   store.OnFull
	Uplink   bool // its messages go to the hub

	// These are described at store.StreamConfig.
	Durability store.Durability
	BatchFor   time.Duration
	Priority   int
	Dedupe     int
}

const streamName = nameform.Form(128)

func (a Stream) config() store.StreamConfig {
	return store.StreamConfig{
		Name: a.Name, MaxBytes: a.MaxBytes, MaxMsgs: a.MaxMsgs, MaxAge: a.MaxAge, OnFull: a.OnFull,
		Durability: a.Durability, BatchFor: a.BatchFor, Priority: a.Priority, Dedupe: a.Dedupe,
	}
}

// checkStreams returns all faults of a set of streams.
func checkStreams(streams []Stream) error {
	var faults []error
	names := make(map[string]bool)
	var seen []struct{ stream, filter string }
	for _, st := range streams {
		if !streamName.MatchString(st.Name) {
			faults = append(faults, fmt.Errorf("stream %q: name must match %s", st.Name, streamName))
		}
		if names[st.Name] {
			faults = append(faults, fmt.Errorf("stream %s: declared twice", st.Name))
		}
		names[st.Name] = true
		if st.MaxBytes < 0 || st.MaxMsgs < 0 || st.MaxAge < 0 {
			faults = append(faults, fmt.Errorf("stream %s: a limit is negative", st.Name))
		}
		for _, f := range st.Subjects {
			switch {
			case !topic.ValidFilter(f):
				faults = append(faults, fmt.Errorf("stream %s: subject %q is not valid", st.Name, f))
				continue
			case reservedFilter(f):
				faults = append(faults, fmt.Errorf("stream %s: subject %q takes in subjects that belong to NATS ($SYS, $JS, _INBOX)", st.Name, f))
			}
			for _, o := range seen {
				if topic.Overlap(o.filter, f) {
					faults = append(faults, fmt.Errorf("stream %s: subject %q overlaps %q of stream %s", st.Name, f, o.filter, o.stream))
				}
			}
			seen = append(seen, struct{ stream, filter string }{st.Name, f})
		}
	}
	return errors.Join(faults...)
}

// routes say which stream a subject belongs to. They are replaced as a whole.
type routes struct {
	exact     map[string]string // subject without wildcards → stream
	wildcards []route
}

type route struct{ filter, stream string }

func newRoutes(streams []Stream) *routes {
	r := &routes{exact: make(map[string]string)}
	for _, st := range streams {
		for _, f := range st.Subjects {
			if topic.ValidSubject(f) {
				r.exact[f] = st.Name
			} else {
				r.wildcards = append(r.wildcards, route{f, st.Name})
			}
		}
	}
	return r
}

func (r *routes) stream(subject string) (string, bool) {
	if name, ok := r.exact[subject]; ok {
		return name, true
	}
	for _, w := range r.wildcards {
		if topic.Match(w.filter, subject) {
			return w.stream, true
		}
	}
	return "", false
}

// configured is what Configure last made true.
type configured struct {
	mu        sync.Mutex           // held through a whole Configure; taken before any other
	listeners map[string]*listener // by filter
	owner     map[string]string    // filter → stream
	consumers []*listener          // to what NATS clients say to subscriptions
}

// wait returns when no Configure is under way.
func (c *configured) wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
}

// Configure makes these the streams and subscriptions of the box: new ones are
// created, changed ones are changed, and those left out come to rest. It checks
// all before it changes anything, and may be called before Run, during it, and
// again; a subscription that stays is not disturbed, except that it goes on
// with the new Deliver. What a stream or a subscription left out has on disk
// stays there until store.DB.DeleteStream or DeleteSubscription; a subscription
// at rest keeps messages from being removed. An ephemeral one that is left out
// is gone.
//
// A subscription whose Filter changes keeps its position: the new filter counts
// for all behind it, that is behind the oldest message that was not done with;
// what lies before it is not looked at again.
//
// It waits for the handlers of subscriptions that are changed or left out, at
// most until ctx ends.
func (s *Server) Configure(ctx context.Context, streams []Stream, subs []Subscription) error {
	subs = slices.Clone(subs)
	if err := checkStreams(streams); err != nil {
		return err
	}
	if err := checkSubscriptions(streams, subs); err != nil {
		return err
	}
	c := &s.configured
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, st := range streams {
		if err := s.o.Store.EnsureStream(st.config()); err != nil {
			return fmt.Errorf("stream %s: %w", st.Name, err)
		}
	}
	for _, sub := range subs {
		cfg := store.SubscriptionConfig{Name: sub.Name, Stream: sub.Stream, Start: sub.Start, Ephemeral: sub.Ephemeral}
		if err := s.o.Store.EnsureSubscription(cfg); err != nil {
			return fmt.Errorf("subscription %s: %w", sub.Name, err)
		}
	}
	if err := s.restDeliveries(ctx, subs); err != nil {
		return err
	}
	if err := s.setUplinks(streams); err != nil {
		s.wakeDeliveries()
		return err
	}
	s.routes.Store(newRoutes(streams))
	s.listen(streams)
	err := s.setDeliveries(subs)
	s.serveConsumers(subs)
	s.local.flush()
	return err
}

// listen makes the ingest listeners those of streams. A filter that stays with
// its stream is not touched, so that no message slips through.
func (s *Server) listen(streams []Stream) {
	c := &s.configured
	want := make(map[string]string)
	for _, st := range streams {
		for _, f := range st.Subjects {
			want[f] = st.Name
		}
	}
	for f, l := range c.listeners {
		if want[f] != c.owner[f] {
			s.local.forget(l)
			delete(c.listeners, f)
			delete(c.owner, f)
		}
	}
	for f, stream := range want {
		if c.listeners[f] == nil {
			in := &ingest{s: s, stream: stream, full: noRoom{log: s.log, stream: stream}}
			c.listeners[f], c.owner[f] = s.local.listen(f, in.message), stream
		}
	}
}
