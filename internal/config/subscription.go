package config

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/topic"
)

func (b *builder) subscriptions() {
	for i, s := range b.m.Subscriptions {
		path := item("subscription", i)
		b.named("subscription", child(path, "name"), s.Name)
		n := slices.IndexFunc(b.m.Streams, func(t streamTable) bool { return t.Name == s.Stream })
		switch {
		case n < 0:
			b.fault(child(path, "stream"), "the app has no stream %q", clip(s.Stream))
		case !topic.ValidFilter(s.Filter):
			b.fault(child(path, "filter"), "not a subject filter: %q", clip(s.Filter))
		case !slices.ContainsFunc(b.m.Streams[n].Subjects, func(t string) bool { return topic.ValidFilter(t) && topic.Overlap(t, s.Filter) }):
			b.fault(child(path, "filter"), "matches nothing that stream %q holds", s.Stream)
		}
		if len(s.Backoff) == 0 {
			b.fault(child(path, "backoff"), "must not be empty")
		}
		c := Subscription{
			Name: s.Name, Stream: s.Stream, Filter: s.Filter, Push: s.Push, Pull: s.Delivery == "pull", QoS: s.QoS, Ephemeral: !s.Durable,
			MaxInFlight: s.MaxInFlight, OrderedBy: s.OrderedBy, MaxDeliver: s.MaxDeliver, AckWait: s.AckWait, Backoff: s.Backoff,
			Start: b.start(child(path, "start"), s.Start),
		}
		b.receiver(path, s, &c)
		b.onlyRetried(path, s.QoS, "max_deliver", "backoff")
		b.app.Subscriptions = append(b.app.Subscriptions, c)
	}
}

// given says whether a key is in the file.
func (b *builder) given(path, key string) bool {
	_, ok := b.document.lines[child(path, key)]
	return ok
}

// receiver checks who gets the messages of a subscription: an actor, a subject, or who asks.
func (b *builder) receiver(path string, s subscriptionTable, c *Subscription) {
	switch {
	case s.Push != "":
		for _, key := range []string{"actor", "on_message"} {
			if b.given(path, key) {
				b.fault(child(path, key), "is for a subscription that calls an actor, and this one has push")
			}
		}
		if c.Pull {
			b.fault(child(path, "delivery"), "want pull, or push to a subject, not both")
		}
		b.checkPush(child(path, "push"), s.Push)
	case c.Pull:
		if b.given(path, "on_message") {
			b.fault(child(path, "on_message"), `is for delivery = "push"`)
		}
		if s.Actor != "" {
			c.Actor = b.actor(child(path, "actor"), s.Actor)
			b.unique("pull of actor "+c.Actor, child(path, "name"), s.Name)
		}
	default:
		c.Actor = b.actor(child(path, "actor"), s.Actor)
		c.Operation = operation(s.OnMessage)
		b.checkOperation(child(path, "on_message"), s.OnMessage)
	}
}

// checkPush checks a subject that messages are pushed to: it must be in no stream, or they would be stored again and again.
func (b *builder) checkPush(path, subject string) {
	if !b.checkSubject(path, subject, topic.ValidSubject) {
		return
	}
	for _, s := range b.m.Streams {
		for _, f := range s.Subjects {
			if topic.ValidFilter(f) && topic.Match(f, subject) {
				b.fault(path, "%q belongs to stream %q: what is pushed there would be stored again", clip(subject), s.Name)
				return
			}
		}
	}
}

// onlyRetried faults keys that say how a message is tried again, where it never is.
func (b *builder) onlyRetried(path string, qos int, keys ...string) {
	for _, key := range keys {
		if qos == 0 && b.given(path, key) {
			b.fault(child(path, key), "is for qos 1 and 2: with qos 0 a message is not tried again")
		}
	}
}

// start reads where a subscription begins.
func (b *builder) start(path, s string) Start {
	switch s {
	case "first", "last", "new":
		return Start{At: s}
	case "": // it has a fault already
		return Start{At: "first"}
	}
	if digits, ok := strings.CutPrefix(s, "seq:"); ok {
		if seq, err := strconv.ParseUint(digits, 10, 63); err == nil && seq > 0 {
			return Start{At: "seq", Seq: seq}
		}
	} else if at, err := time.Parse(time.RFC3339, s); err == nil {
		return Start{At: "time", Time: at}
	}
	b.fault(path, "is %q, want first, last, new, seq: with a sequence from 1, or a time such as 2026-01-31T08:00:00Z", clip(s))
	return Start{At: "first"}
}
