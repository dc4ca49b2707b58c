package node

import (
	"fmt"
	"slices"
	"strings"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/providers/pubsub"
	"github.com/edged-io/edged/store"
)

// subscription is a subscription and the apps it is of: one, or those of the
// receivers of a queue.
type subscription struct {
	broker.Subscription
	apps  []string
	inbox string // of a source of edged:pubsub: which kind of inbox it has; "" for others
}

// changes says whether one of its apps is another one in next than in old.
func (s subscription) changes(old, next appSet) bool {
	return slices.ContainsFunc(s.apps, func(app string) bool { return old[app] != next[app] })
}

// maxDeliver is how often a message of a pubsub capability is tried; it is the
// default of a declared subscription too.
const maxDeliver = 10

// wanted returns the streams and subscriptions of a set of apps. An uplinked
// stream that no app declares any more goes on to the hub until it is empty.
func (n *Node) wanted(s appSet) (streams []broker.Stream, subs []subscription, err error) {
	w, err := n.want(s)
	if err != nil {
		return nil, nil, err
	}
	return w.streams, w.subs, nil
}

// want is wanted, with what comes along.
func (n *Node) want(s appSet) (w wants, err error) {
	var streams []broker.Stream
	var subs []subscription
	var pulls []pull
	var configs []*config.App
	for _, a := range s.sorted() {
		configs = append(configs, a.config)
		for _, c := range a.config.Streams {
			streams = append(streams, streamOf(c))
		}
		for _, c := range a.config.Subscriptions {
			subs = append(subs, subscription{apps: []string{a.config.Name}, Subscription: n.declared(a, c)})
			if c.Pull && c.Actor != "" {
				pulls = append(pulls, pull{a.key(c.Actor), c.Name, c.Name})
			}
		}
	}
	w = wants{streams: streams, subs: subs, queues: make(map[string]*queue), pulls: pulls}
	for _, a := range s.sorted() {
		for _, src := range a.sources() {
			for _, f := range config.Feeds(configs, src.Source) {
				if f.Stream == src.Name {
					if w.streams, err = inbox(w.streams, &f, src); err != nil {
						return w, fmt.Errorf("app %s: %w", a.config.Name, err)
					}
				}
				n.feed(&w, a, src, f)
			}
		}
	}
	w.streams = append(w.streams, outboxes(s)...)
	// Messaging has no inboxes: it gets what any stream keeps, and the rest from
	// core NATS.
	for _, a := range s.sorted() {
		for _, src := range a.messaging() {
			for _, st := range w.streams {
				if slices.ContainsFunc(st.Subjects, func(t string) bool { return topic.Overlap(t, src.Filters[0]) }) {
					n.feed(&w, a, src, config.Feed{Subscription: src.Name + "." + st.Name, Stream: st.Name, Filter: src.Filters[0]})
				}
			}
		}
	}
	n.emptyMoved(&w, s)
	for i := range w.subs {
		w.subs[i].Paused = s.rests(&w.subs[i])
	}
	w.streams = append(w.streams, n.retired(w.streams)...)
	return w, nil
}

// wants collects what a set of apps wants.
type wants struct {
	streams []broker.Stream
	subs    []subscription
	queues  map[string]*queue // by name of the subscription
	pulls   []pull
}

// pull is a subscription that an actor may receive from, and the name by which it
// asks.
type pull struct{ actor, topic, subscription string }

func (w *wants) subscription(name string) *subscription {
	i := slices.IndexFunc(w.subs, func(s subscription) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &w.subs[i]
}

// declared is a subscription of a manifest.
func (n *Node) declared(a *app, c config.Subscription) broker.Subscription {
	s := broker.Subscription{
		Name: c.Name, Stream: c.Stream, Filter: c.Filter, MaxInFlight: c.MaxInFlight, AckWait: c.AckWait,
		Backoff: c.Backoff, MaxDeliver: c.MaxDeliver, OrderedBy: c.OrderedBy, AtMostOnce: c.QoS == 0,
		Start: startOf(c.Start), Ephemeral: c.Ephemeral, PushTo: c.Push, Pull: c.Pull,
	}
	if c.Push == "" && !c.Pull {
		s.Deliver = n.deliver(a.key(c.Actor), c.Operation)
	}
	return s
}

func startOf(c config.Start) store.Start {
	switch c.At {
	case "last":
		return store.Start{At: store.StartLast}
	case "new":
		return store.Start{At: store.StartNew}
	case "seq":
		return store.Start{At: store.StartSeq, Seq: c.Seq}
	case "time":
		return store.Start{At: store.StartTime, Time: c.Time}
	}
	return store.Start{}
}

// maxPulled is how many messages of a pull capability turns may have at a time.
const maxPulled = 1024

// feed adds a subscription of a source, or to that of its queue a receiver.
func (n *Node) feed(w *wants, a *app, src source, f config.Feed) {
	s := w.subscription(f.Subscription)
	if s == nil {
		w.subs = append(w.subs, subscription{Subscription: broker.Subscription{
			Name: f.Subscription, Stream: f.Stream, Filter: f.Filter, MaxDeliver: maxDeliver, AtMostOnce: src.QoS == 0, Pull: src.Pull,
		}})
		s = &w.subs[len(w.subs)-1]
		s.inbox = src.kind.inbox()
		if src.Pull { // one turn may take as many
			s.MaxInFlight = maxPulled
		}
	}
	s.apps = append(s.apps, a.config.Name)
	if src.Pull {
		w.pulls = append(w.pulls, pull{a.key(src.Actor), src.Topic, f.Subscription})
		return
	}
	deliver := n.deliver(a.key(src.Actor), src.Operation)
	if src.kind == fromMessaging {
		deliver = n.deliverMessage(a.key(src.Actor))
	}
	q := w.queues[f.Subscription]
	switch {
	case q != nil:
		q.add(a, deliver)
		return
	case src.Queue:
		q = &queue{}
		q.add(a, deliver)
		w.queues[f.Subscription], deliver = q, q.deliver
	}
	s.Deliver = deliver
}

// moved is a subscription on disk that a source may have had when its messages
// were kept in another stream than now.
type moved struct {
	config.Feed
	app *app
	src source
}

// moved returns all subscriptions on disk whose names are those of the sources
// of a set of apps, those of now among them.
func (n *Node) moved(s appSet) (all []moved) {
	have := n.db.Subscriptions()
	for _, a := range s.sorted() {
		for _, src := range slices.Concat(a.sources(), a.messaging()) {
			for name, stream := range have {
				rest, ok := strings.CutPrefix(name, src.Name)
				if !ok || rest != "" && rest[0] != '.' {
					continue
				}
				filter := src.Filters[0]
				if strings.HasSuffix(rest, ".parent") {
					filter = src.Filters[len(src.Filters)-1]
				}
				all = append(all, moved{config.Feed{Subscription: name, Stream: stream, Filter: filter}, a, src})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b moved) int { return strings.Compare(a.Subscription, b.Subscription) })
	return all
}

// emptyMoved lets the sources have what waits for them in the streams that kept
// their messages before: an inbox, when a stream was declared since, or the
// inbox of an app that is gone. What comes in now does not go there.
func (n *Node) emptyMoved(w *wants, s appSet) {
	now := make(map[string]bool)
	for _, sub := range w.subs {
		now[sub.Name] = true
	}
	for _, m := range n.moved(s) {
		if now[m.Subscription] || !n.waits(m.Feed) {
			continue
		}
		if !slices.ContainsFunc(w.streams, func(st broker.Stream) bool { return st.Name == m.Stream }) {
			info, err := n.db.Stream(m.Stream)
			if err != nil {
				continue // deleted meanwhile
			}
			w.streams = append(w.streams, atRest(info, n.hasUplink(m.Stream)))
		}
		n.feed(w, m.app, m.src, m.Feed)
	}
}

// waits says whether there may be messages that a subscription has not had.
func (n *Node) waits(f config.Feed) bool {
	info, err := n.db.Stream(f.Stream)
	if err != nil || info.Msgs == 0 {
		return false
	}
	p, err := n.db.Position(f.Subscription)
	return err == nil && p.Floor < info.Last
}

// atRest is a stream that takes nothing in.
func atRest(info store.StreamInfo, uplink bool) broker.Stream {
	return broker.Stream{
		Name: info.Name, Uplink: uplink, MaxBytes: info.MaxBytes, MaxMsgs: info.MaxMsgs, MaxAge: info.MaxAge, OnFull: info.OnFull,
		Durability: info.Durability, BatchFor: info.BatchFor, Priority: info.Priority, Dedupe: info.Dedupe,
	}
}

// inbox gives a source a stream of its own for what no declared stream keeps.
// What a broker elsewhere sends is put there by name. What is published on the box
// gets there by its subject, so sources of the same subject share an inbox.
func inbox(streams []broker.Stream, f *config.Feed, src source) ([]broker.Stream, error) {
	own := slices.IndexFunc(streams, func(s broker.Stream) bool { return s.Name == src.Name })
	if src.kind == fromElsewhere {
		if own < 0 {
			streams = append(streams, broker.Stream{Name: src.Name})
		}
		return streams, nil
	}
	if own >= 0 && slices.Contains(streams[own].Subjects, f.Filter) {
		return streams, nil // for a receiver of the same queue
	}
	for _, s := range streams {
		for _, subject := range s.Subjects {
			if topic.Covers(subject, f.Filter) {
				f.Stream = s.Name
				f.Subscription += "." + s.Name
				return streams, nil
			}
			if topic.Overlap(subject, f.Filter) {
				return nil, fmt.Errorf("%s: topic %s is in part one of stream %s (%s): declare a stream that covers all of it", src.Name, f.Filter, s.Name, subject)
			}
		}
	}
	if own < 0 {
		return append(streams, broker.Stream{Name: src.Name, Subjects: []string{f.Filter}}), nil
	}
	streams[own].Subjects = append(slices.Clip(streams[own].Subjects), f.Filter)
	return streams, nil
}

// retired returns the uplinked streams that hold messages and that no app
// declares any more. They take nothing in.
func (n *Node) retired(declared []broker.Stream) (streams []broker.Stream) {
	for _, info := range n.db.Streams() {
		if info.Msgs > 0 && n.hasUplink(info.Name) && !slices.ContainsFunc(declared, func(st broker.Stream) bool { return st.Name == info.Name }) {
			streams = append(streams, atRest(info, true))
		}
	}
	return streams
}

func streamOf(c config.Stream) broker.Stream {
	s := broker.Stream{
		Name: c.Name, Subjects: c.Subjects, MaxBytes: c.MaxBytes, MaxMsgs: c.MaxMsgs, MaxAge: c.MaxAge, Uplink: c.Uplink,
		Priority: c.Priority, Dedupe: c.Dedupe,
	}
	if c.Dedupe == 0 {
		s.Dedupe = -1
	}
	if c.DropOldest {
		s.OnFull = store.DropOldest
	}
	switch {
	case c.Memory:
		s.Durability = store.Memory
	case c.BatchFor > 0:
		s.Durability, s.BatchFor = store.Batch, c.BatchFor
	}
	return s
}

// source is a place from which messages come to an actor.
type source struct {
	config.Source
	kind sourceKind
}

type sourceKind int

const (
	fromBox       sourceKind = iota // what is published on the box
	fromElsewhere                   // a broker elsewhere
	fromMessaging                   // the same as fromBox, by another contract
)

// inbox tells inboxes apart whose messages may not change places: the subjects of
// brokers elsewhere are theirs.
func (k sourceKind) inbox() string {
	switch k {
	case fromBox:
		return "box"
	case fromElsewhere:
		return "elsewhere"
	}
	return ""
}

// sources are those of edged:pubsub.
func (a *app) sources() []source {
	var all []source
	for _, s := range a.config.MQTT {
		if len(s.Filters) > 0 {
			all = append(all, source{s.Source, fromElsewhere})
		}
	}
	for _, s := range a.config.NATS {
		if len(s.Filters) > 0 {
			all = append(all, source{s.Source, fromElsewhere})
		}
	}
	for _, s := range a.config.Local {
		all = append(all, source{s.Source, fromBox})
	}
	return all
}

// messaging are the sources of wasmcloud:messaging.
func (a *app) messaging() []source {
	var all []source
	for _, s := range a.config.Messaging {
		all = append(all, source{s.Source, fromMessaging})
	}
	return all
}

// access is what the actors may do by edged:pubsub, by their keys.
func (s appSet) access(pulls []pull) map[string]pubsub.Access {
	all := make(map[string]pubsub.Access)
	for _, p := range pulls {
		may := all[p.actor]
		if may.Pull == nil {
			may.Pull = make(map[string][]string)
		}
		if !slices.Contains(may.Pull[p.topic], p.subscription) {
			may.Pull[p.topic] = append(may.Pull[p.topic], p.subscription)
		}
		all[p.actor] = may
	}
	for _, a := range s {
		for _, o := range a.config.Outlets {
			key := a.key(o.Actor)
			may := all[key]
			may.Outlets = append(may.Outlets, pubsub.Outlet{Link: o.Link, Filters: o.Filters, Stream: o.Stream})
			all[key] = may
		}
	}
	return all
}
