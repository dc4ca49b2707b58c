package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/metadata"
)

// What the box has put, and what other hosts of the lattice have, is made one by share, which runs whenever one of the two may have changed. Each link
// that was put here remembers in which form the lattice has it: what differs from that form here is a change to tell, and what differs there is one to
// follow. The links of apps are told, too, where they are of use elsewhere.

// sharedLink is a link in the form that the lattice has: keys, and values without configurations. Contract and name are those of the link that has it.
type sharedLink struct {
	Actor    string            `json:"actor"`
	Provider string            `json:"provider"`
	Values   map[string]string `json:"values,omitempty"`
}

func (s *sharedLink) link(contract, name string) lattice.Link {
	return lattice.Link{Actor: s.Actor, Contract: contract, Name: name, Provider: s.Provider, Values: s.Values}
}

func (s *sharedLink) equal(o *sharedLink) bool {
	return s.Actor == o.Actor && s.Provider == o.Provider && maps.Equal(s.Values, o.Values)
}

func sharedForm(l lattice.Link) *sharedLink { return &sharedLink{l.Actor, l.Provider, l.Values} }

func linkKeyOf(l lattice.Link) string { return heldLinkKey(l.Actor, l.Contract, l.Name) }

// resolved is the form in which the lattice is to have a link; false while nobody knows the keys behind its ids, and for an actor without a key.
func (h *held) resolved(l heldLink) (*sharedLink, bool) {
	s := &sharedLink{Actor: h.key(l.Actor), Provider: h.key(l.Provider), Values: h.values(l)}
	return s, isActorKey(s.Actor) && (config.IsProviderKey(s.Provider) || config.IsBuiltin(s.Provider))
}

func isActorKey(s string) bool {
	k, err := claims.Parse(s)
	return err == nil && k.Kind() == claims.Module
}

// openMetadata makes what the box knows of the lattice, and shares with it.
func (n *Node) openMetadata() (err error) {
	o := metadata.Options{
		Conn: n.link, Lattice: n.o.Device.Lattice.Name, Store: n.db, Link: n.broker.LinkState, Changed: n.shareSoon,
		Now: n.o.Now, Logger: n.part("metadata"), Registerer: n.registry,
	}
	if n.o.Device.Hub != nil {
		o.JetStreamDomain = n.o.Device.Hub.JetStreamDomain
	}
	if n.metadata, err = metadata.New(o); err != nil {
		return err
	}
	o.Registerer = nil // the metrics are of the links and claims
	n.configs, err = metadata.NewConfigs(o)
	return err
}

// shareSoon has share run.
func (n *Node) shareSoon() {
	select {
	case n.commanded.sharing <- struct{}{}:
	default: // it will, for both
	}
}

// runShare lets share run until ctx ends.
func (n *Node) runShare(ctx context.Context) error {
	for {
		n.share(ctx)
		select {
		case <-n.commanded.sharing:
		case <-ctx.Done():
			return nil
		}
	}
}

// share tells the lattice what was changed here, and changes here what was changed there. What can not be told or done is a problem of the box.
func (n *Node) share(ctx context.Context) {
	if name := n.o.Device.Lattice.Name; n.held().Lattice != name {
		err := n.keep(ctx, func(next *held) error {
			next.join(name)
			return nil
		})
		if err != nil {
			n.noteShared(fmt.Errorf("nothing is shared with the lattice: %w", err))
			return
		}
	}
	failed := make(map[string]error) // by link
	n.shareDeleted(ctx, failed)
	n.shareDeclared(ctx, failed)
	n.sharePut(ctx, failed)
	n.followLinks(ctx, failed)
	n.shareClaims(failed)
	n.noteShared(n.shareConfigs(ctx))
	for _, c := range n.metadata.Conflicts() {
		failed[linkKeyOf(c.Link)] = errors.New("somebody else changed it at the same time, and that holds: put or delete it again")
	}
	for _, name := range n.health.names("link") {
		if failed[name] == nil {
			n.health.recover("link", name)
		}
	}
	for name, err := range failed {
		n.health.degrade("link", name, err)
	}
	n.hostChanged()
}

// latticeLinks are those that the lattice has, by key.
func (n *Node) latticeLinks() map[string]lattice.Link {
	all := make(map[string]lattice.Link)
	for _, l := range n.metadata.Links() {
		all[linkKeyOf(l)] = l
	}
	return all
}

// shareDeleted tells of links that were deleted here.
func (n *Node) shareDeleted(ctx context.Context, failed map[string]error) {
	for key, l := range n.held().Deleted {
		_, again := n.held().Links[key]
		if !again {
			if err := n.metadata.DeleteLink(l.control().Link); err != nil {
				failed[key] = err
				continue
			}
		}
		err := n.keep(ctx, func(next *held) error {
			delete(next.Deleted, key)
			return nil
		})
		if err != nil {
			failed[key] = err
		}
	}
}

// shareDeclared tells of the links of apps between signed actors and providers that are not built in.
func (n *Node) shareDeclared(ctx context.Context, failed map[string]error) {
	want := make(map[string]lattice.Link)
	for _, a := range n.health.running() {
		bus, _ := a.links()
		for _, l := range bus {
			if !a.config.Assembled && isForeign(l) && isActorKey(l.Actor) {
				want[linkKeyOf(l)] = l
			}
		}
	}
	there, told := n.latticeLinks(), n.held().Declared
	tell := func(key string, change func() error, edit func(*held)) {
		err := change()
		if err == nil {
			err = n.keep(ctx, func(next *held) error {
				edit(next)
				return nil
			})
		}
		if err != nil {
			failed[key] = err
		}
	}
	for key, l := range told {
		if _, stays := want[key]; !stays {
			tell(key, func() error { return n.metadata.DeleteLink(l.control().Link) }, func(next *held) { delete(next.Declared, key) })
		}
	}
	for key, l := range want {
		before, known := told[key]
		// Another host may have the app with other values: neither tells again what the other one changed.
		if _, ok := there[key]; ok && known && sharedForm(before.control().Link).equal(sharedForm(l)) {
			continue
		}
		tell(key, func() error { return n.metadata.PutLink(l) }, func(next *held) { next.Declared[key] = newHeldLink(control.Link{Link: l}) })
	}
}

// sharePut tells of links that were put here, and have changed since they were told.
func (n *Node) sharePut(ctx context.Context, failed map[string]error) {
	h, there, declared := n.held(), n.latticeLinks(), n.health.running().links()
	for at, l := range h.Links {
		now, ok := h.resolved(l)
		if _, hidden := declared[heldLinkKey(now.Actor, l.Contract, l.Name)]; !ok || hidden {
			continue
		}
		if was := l.Shared; was != nil {
			if has, ok := there[heldLinkKey(was.Actor, l.Contract, l.Name)]; was.equal(now) || !ok || !was.equal(sharedForm(has)) {
				continue // nothing to tell, or something to follow
			}
		}
		err := n.metadata.PutLink(now.link(l.Contract, l.Name))
		if err == nil && l.Shared != nil && l.Shared.Actor != now.Actor {
			err = n.metadata.DeleteLink(l.Shared.link(l.Contract, l.Name))
		}
		if err == nil {
			err = n.keep(ctx, func(next *held) error {
				is, ok := next.Links[at]
				if !ok { // it was deleted while it was told
					gone := newHeldLink(control.Link{Link: now.link(l.Contract, l.Name)})
					next.Deleted[gone.key()] = gone
					return nil
				}
				is.Shared = now
				next.Links[at] = is
				return nil
			})
		}
		if err != nil {
			failed[at] = err
		}
	}
}

// followLinks changes here what others have changed in the lattice.
func (n *Node) followLinks(ctx context.Context, failed map[string]error) {
	h, there, declared := n.held(), n.latticeLinks(), n.health.running().links()
	known := make(map[string]string) // key in the lattice → key in h.Links
	for at, l := range h.Links {
		if l.Shared == nil {
			known[heldLinkKey(h.key(l.Actor), l.Contract, l.Name)] = at
			continue
		}
		key := heldLinkKey(l.Shared.Actor, l.Contract, l.Name)
		known[key] = at
		if _, ok := there[key]; !ok {
			n.followLink(ctx, at, l, nil, failed)
		}
	}
	for _, key := range sortedKeys(there) {
		l := there[key]
		_, deleted := h.Deleted[key]
		_, hidden := declared[key]
		_, ours := h.Declared[key]
		is := h.Links[known[key]]
		if deleted || hidden || ours || known[key] != "" && (is.Shared == nil || is.Shared.equal(sharedForm(l))) {
			continue
		}
		next := newHeldLink(control.Link{Link: l})
		if known[key] != "" {
			next.Actor = is.Actor // by the id it goes by here
		}
		next.Shared = sharedForm(l)
		n.followLink(ctx, known[key], is, &next, failed)
	}
}

// followLink makes next of the link that is at a place, "" for none; nil deletes it. Who has changed it meanwhile has his way.
func (n *Node) followLink(ctx context.Context, at string, is heldLink, next *heldLink, failed map[string]error) {
	app, touched := config.IsBuiltin(is.Provider), n.held().key(is.Actor)
	if next != nil {
		app, touched = app || config.IsBuiltin(next.Provider), n.held().key(next.Actor)
	}
	edit := func(h *held) error {
		if now, ok := h.Links[at]; ok != (at != "") || !reflect.DeepEqual(now, is) {
			return nil
		}
		delete(h.Links, at)
		if next != nil {
			h.Links[next.key()] = *next
		}
		return nil
	}
	change := n.keep
	if app {
		change = func(ctx context.Context, edit func(*held) error) error { return n.put(ctx, touched, nil, edit) }
	}
	err := change(ctx, edit)
	if err != nil && ctx.Err() == nil {
		key := at
		if next != nil {
			key = next.key()
		}
		n.log.Warn("a link of the lattice can not be followed", "actor", touched, "link", is.Name, "err", err)
		failed[key] = fmt.Errorf("it was changed elsewhere in the lattice, and that can not be followed: %w", err)
	}
}

// shareClaims tells whose claims run here, and learns of those that run elsewhere.
func (n *Node) shareClaims(failed map[string]error) {
	there := make(map[string]metadata.Claims)
	for _, c := range n.metadata.Claims() {
		there[c.Subject] = c
	}
	here := make(map[string]bool)
	for _, c := range n.localClaims() {
		if n.bus.Serves(lattice.Entity{Key: c.Subject}) {
			here[c.Subject] = true
		}
		put := metadata.Claims{
			Subject: c.Subject, Issuer: c.Issuer, Name: c.Name, Version: c.Version, Revision: c.Revision, Tags: c.Tags, Caps: c.Caps,
			CallAlias: c.CallAlias, Contract: c.Contract, ConfigSchema: c.ConfigSchema,
		}
		if before, ok := there[c.Subject]; ok && (before.Revision > put.Revision || sameClaims(before, put)) {
			continue
		}
		if err := n.metadata.PutClaims(put); err != nil {
			failed[c.Subject] = err
		}
	}
	elsewhere := make(map[string]bool)
	for key, c := range there {
		if isActorKey(key) && !here[key] {
			elsewhere[key] = true
			n.bus.SetRemoteActor(key, lattice.Grant{Signed: true, Contracts: c.Caps, Alias: c.CallAlias})
		}
	}
	for key := range n.commanded.elsewhere {
		if !elsewhere[key] { // it runs here now, or the lattice has forgotten it
			n.bus.DeleteRemoteActor(key)
		}
	}
	n.commanded.elsewhere = elsewhere
}

func sameClaims(a, b metadata.Claims) bool {
	lists := slices.Equal(a.Tags, b.Tags) && slices.Equal(a.Caps, b.Caps)
	a.Tags, a.Caps, b.Tags, b.Caps = nil, nil, nil, nil
	return lists && reflect.DeepEqual(a, b)
}
