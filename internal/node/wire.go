package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/store"
)

func (n *Node) configure(ctx context.Context, streams []broker.Stream, subs []subscription) error {
	all := make([]broker.Subscription, len(subs))
	for i, s := range subs {
		all[i] = s.Subscription
	}
	return n.broker.Configure(ctx, streams, all)
}

// pause keeps messages and HTTP requests from the apps that next changes, or leaves out, and
// waits until their handlers have ended: no turn sees half of a change. goOn ends
// it for what is configured by then, and does not rest for code.
func (n *Node) pause(ctx context.Context, old, next appSet) (goOn func(), err error) {
	_, subs, err := n.wanted(old)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range subs {
		if s.changes(old, next) {
			names = append(names, s.Name)
		}
	}
	resume := func() {
		_, now, _ := n.wanted(n.apps) // commit has said what is wrong
		for _, name := range names {
			if !slices.ContainsFunc(now, func(s subscription) bool { return s.Name == name && s.Paused }) {
				_ = n.broker.Resume(name, nil) // not configured any more
			}
		}
	}
	if err := n.broker.Pause(ctx, names...); err != nil {
		resume()
		return nil, err
	}
	resumeHTTP, err := n.pauseHTTP(ctx, old, next)
	if err != nil {
		resume()
		return nil, err
	}
	return func() { resume(); resumeHTTP() }, nil
}

// commit changes what runs from old to next: who serves which key, links and
// lines, streams and subscriptions, bridges to MQTT brokers. If it fails, the
// caller goes back by committing the other way. What old had on disk and next
// does not declare stays there; see forget.
func (n *Node) commit(ctx context.Context, old, next appSet) error {
	if err := next.checkKeys(); err != nil {
		return err
	}
	for _, a := range next.actors() {
		a.meter.set(a.config.Limits)
		n.bus.SetGrant(a.key, a.grant)
		if a.code.runs.Load() == nil { // wakeCompiled has others hear of it
			n.bus.Prepare(lattice.Entity{Key: a.key}, n.serve(a))
		} else {
			n.bus.Replace(lattice.Entity{Key: a.key}, n.serve(a))
		}
	}
	if err := n.linkAll(ctx, old, next); err != nil {
		return err
	}
	w, err := n.want(next)
	if err != nil {
		return err
	}
	if err := n.openOutboxes(next); err != nil {
		return err
	}
	n.pubsub.SetAccess(next.access(w.pulls))
	from := make(map[string]uint64)
	left, err := n.rescue(ctx, &w, from)
	if err == nil {
		err = n.configure(ctx, w.streams, w.subs)
	}
	if err != nil {
		return errors.Join(err, n.rescued(context.WithoutCancel(ctx), left, true))
	}
	n.o.Failpoint("swap-configured")
	for _, a := range old.actors() {
		if !slices.ContainsFunc(next.actors(), func(b *actor) bool { return a.key == b.key }) {
			n.bus.Remove(lattice.Entity{Key: a.key})
			n.bus.DeleteGrant(a.key)
		}
	}
	n.noteConflicts()
	n.setBridges(context.WithoutCancel(ctx), next)
	n.setCore(next)
	more, err := n.rescue(ctx, &w, from)
	if err = errors.Join(err, n.rescued(ctx, append(left, more...), false), n.reclaim(ctx, &w)); err != nil {
		n.log.Warn("messages of an inbox wait among the dead letters for edged dlq replay", "err", err)
	}
	return nil
}

// noteConflicts tells of call aliases that several actors claim: who calls by
// one of them may get another actor than was meant.
func (n *Node) noteConflicts() {
	was := n.health.names("call alias")
	n.health.recover("call alias", "")
	for _, c := range n.bus.Conflicts() {
		err := fmt.Errorf("calls go to actor %s, which claimed it first, and not to %s: sign each with an alias of its own", c.Holder, strings.Join(c.Others, ", "))
		n.health.degrade("call alias", c.Alias, err)
		if !slices.Contains(was, c.Alias) {
			n.log.Warn("call alias is claimed by several actors", "alias", c.Alias, "actor", c.Holder, "not", strings.Join(c.Others, " "))
		}
	}
}

// checkKeys refuses two actors with one key: calls and links could not tell
// them apart.
func (s appSet) checkKeys() error {
	seen := make(map[string]*actor)
	for _, a := range s.actors() {
		if other := seen[a.key]; other != nil {
			if other.commanded {
				a, other = other, a
			}
			if a.commanded {
				return fmt.Errorf("app %s: actor %s has the key %s, and an actor that was started by command has it too: stop it first", other.app, other.config.Name, a.key)
			}
			return fmt.Errorf("app %s: actor %s has the key %s, which actor %s of app %s has too: sign each with a module key of its own",
				a.app, a.config.Name, a.key, other.config.Name, other.app)
		}
		seen[a.key] = a
	}
	return nil
}

// actors returns all actors, in a fixed order.
func (s appSet) actors() []*actor {
	var all []*actor
	for _, a := range s {
		all = append(all, a.actors...)
	}
	slices.SortFunc(all, func(a, b *actor) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.app, b.app), cmp.Compare(a.config.Name, b.config.Name))
	})
	return all
}

// key returns the key of an actor of the app.
func (a *app) key(name string) string {
	for _, actor := range a.actors {
		if actor.config.Name == name {
			return actor.key
		}
	}
	return ""
}

// limits returns those of an actor of the app.
func (a *app) limits(name string) (l config.ActorLimits) {
	for _, actor := range a.actors {
		if actor.config.Name == name {
			l = actor.config.Limits
		}
	}
	return l
}

// links returns what an app links, providers by the name of the built-in ones.
// The GPIO provider has a link for each line; actors reach all of them under
// the name in the manifest. Those of HTTP are set together, by setHTTP.
func (a *app) links() (bus, own []lattice.Link) {
	for _, l := range a.config.Links {
		b := lattice.Link{Actor: a.key(l.Actor), Contract: l.Contract, Name: l.Name, Provider: a.providerKey(l.Provider), Values: l.Values}
		bus = append(bus, b)
		if isForeign(b) {
			continue
		}
		switch l.Provider {
		case config.ProviderGPIO, config.ProviderHTTPServer:
			continue
		case config.ProviderKeyValue:
			b.Values = maps.Clone(b.Values)
			b.Values["max_bytes"] = strconv.FormatInt(a.limits(l.Actor).State, 10)
		}
		own = append(own, b)
	}
	for _, l := range a.config.GPIO {
		own = append(own, lattice.Link{
			Actor: a.key(l.Actor), Contract: config.ContractGPIO, Provider: config.ProviderGPIO,
			Name: l.Link + "/" + l.Chip + "/" + strconv.Itoa(l.Line), Values: lineValues(l),
		})
	}
	return bus, own
}

func lineValues(l config.GPIOLine) map[string]string {
	v := map[string]string{"chip": l.Chip, "line": strconv.Itoa(l.Line), "direction": "in"}
	if l.Output {
		v["direction"], v["safe"] = "out", "low"
		if l.Safe > 0 {
			v["safe"] = "high"
		}
		return v
	}
	switch {
	case l.Rising && l.Falling:
		v["edge"] = "both"
	case l.Rising:
		v["edge"] = "rising"
	case l.Falling:
		v["edge"] = "falling"
	default:
		v["edge"] = "none"
	}
	if l.Subject != "" {
		v["topic"] = l.Subject
	}
	if l.Pull != "" {
		v["pull"] = l.Pull
	}
	if l.Debounce > 0 {
		v["debounce"] = l.Debounce.String()
	}
	return v
}

func linkID(l lattice.Link) string {
	return l.Provider + " " + l.Actor + " " + l.Contract + " " + l.Name
}

// linkAll tells providers and bus of the links in next, and has the providers that are
// programs of their own run. A line changes hands
// only after its old owner let go of it, so links that are gone go first.
func (n *Node) linkAll(ctx context.Context, old, next appSet) error {
	keep := make(map[string]bool)
	for _, a := range next {
		bus, own := a.links()
		for _, l := range slices.Concat(bus, own) {
			keep[linkID(l)] = true
		}
	}
	for _, a := range old {
		bus, own := a.links()
		for _, l := range own {
			if !keep[linkID(l)] {
				if err := n.builtin[l.Provider].DeleteLink(ctx, l); err != nil {
					return err
				}
			}
		}
		for _, l := range bus {
			if !keep[linkID(l)] {
				n.bus.DeleteLink(l)
			}
		}
	}
	if err := n.stopProviders(ctx, next); err != nil {
		return err
	}
	for _, a := range next.sorted() {
		bus, own := a.links()
		for _, l := range own {
			if err := n.builtin[l.Provider].PutLink(ctx, l); err != nil {
				return fmt.Errorf("app %s: %w", a.config.Name, err)
			}
		}
		for _, l := range bus {
			n.bus.PutLink(l)
		}
	}
	if err := n.linkForeign(foreignLinks(old), foreignLinks(next)); err != nil {
		return err
	}
	if err := n.startProviders(ctx, next); err != nil {
		return err
	}
	return n.setHTTP(ctx, next)
}

// sorted returns the apps in the order of compareApps.
func (s appSet) sorted() []*app {
	all := slices.Collect(maps.Values(s))
	slices.SortFunc(all, func(a, b *app) int { return compareApps(a.config, b.config) })
	return all
}

// isSystem says whether a subscription belongs to a part of the box and not to
// an app.
func isSystem(name string) bool { return strings.HasPrefix(name, "$") }

func (n *Node) hasUplink(stream string) bool {
	for name, s := range n.db.Subscriptions() {
		if s == stream && isSystem(name) {
			return true
		}
	}
	return false
}

// onDisk are the streams and subscriptions that were there at some time.
type onDisk struct {
	streams map[string]bool
	subs    map[string]string
}

func (n *Node) onDisk() onDisk {
	d := onDisk{make(map[string]bool), n.db.Subscriptions()}
	for _, s := range n.db.Streams() {
		d.streams[s.Name] = true
	}
	return d
}

// forget deletes the subscriptions of old that next does not have, since they
// would keep messages for nobody, and the streams that are empty and not
// declared any more; keep stays. A stream of the hub goes on with its numbers if
// it is declared again, so it stays too. What can not be deleted is only in the
// way. At boot nothing is forgotten: an app may only be missing.
func (n *Node) forget(old, next appSet, keep onDisk) {
	streams, subs, err := n.wanted(next)
	oldStreams, oldSubs, oldErr := n.wanted(old)
	if err != nil || oldErr != nil {
		return // commit has said so
	}
	have := n.db.Subscriptions()
	var errs []error
	for _, o := range oldSubs {
		stays := slices.ContainsFunc(subs, func(s subscription) bool { return s.Name == o.Name })
		if stays || have[o.Name] == "" || keep.subs[o.Name] != "" {
			continue
		}
		n.log.Info("subscription dropped", "subscription", o.Name, "stream", o.Stream)
		errs = append(errs, n.db.DeleteSubscription(o.Name))
	}
	for _, m := range n.moved(next) {
		if !slices.ContainsFunc(subs, func(s subscription) bool { return s.Name == m.Subscription }) {
			errs = append(errs, n.db.DeleteSubscription(m.Subscription))
			oldStreams = append(oldStreams, broker.Stream{Name: m.Stream})
		}
	}
	for _, o := range oldStreams {
		stays := slices.ContainsFunc(streams, func(s broker.Stream) bool { return s.Name == o.Name })
		info, err := n.db.Stream(o.Name)
		switch {
		case stays || err != nil || keep.streams[o.Name] || n.hasUplink(o.Name):
		case info.Msgs > 0:
			n.log.Warn("stream is not declared any more, its messages are kept", "stream", o.Name, "messages", info.Msgs)
		default:
			errs = append(errs, n.db.DeleteStream(o.Name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		n.log.Warn("what apps no longer declare is not all deleted", "err", err)
	}
}

// publishEvent takes what GPIO lines report into the streams of the box.
func (n *Node) publishEvent(subject string, e event.Event, done func(error)) {
	header, data, err := e.Binary()
	if err != nil {
		done(err)
		return
	}
	n.broker.Publish(store.Message{Subject: subject, Header: header, Data: data}, func(_ broker.Ack, err error) { done(err) })
}
