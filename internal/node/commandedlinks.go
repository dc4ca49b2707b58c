package node

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/lattice"
)

// PutLink implements control.Host. A link to a built-in provider has the values that a manifest may give it, and is checked now, also when its actor is
// not here yet.
func (h controlHost) PutLink(ctx context.Context, put control.Link) error {
	l := newHeldLink(put)
	now := h.held()
	key := now.key(l.Actor)
	if config.IsBuiltin(l.Provider) {
		for _, a := range h.health.actors() {
			if a.key == key && !a.commanded {
				return fmt.Errorf("actor %s belongs to the app %s, whose manifest links it with what is built in; change the app instead", key, a.app)
			}
		}
		_, err := config.Assemble(config.Assembly{
			Name: config.AssembledPrefix + "link", Actor: "actor",
			Links: []config.Link{{Contract: l.Contract, Provider: l.Provider, Name: l.Name, Values: now.values(l)}},
		})
		if err != nil {
			return err
		}
	}
	return h.changeLink(ctx, key, l.Contract, l.Name, &l)
}

// DeleteLink implements control.Host.
func (h controlHost) DeleteLink(ctx context.Context, l lattice.Link) error {
	return h.changeLink(ctx, h.held().key(l.Actor), l.Contract, l.Name, nil)
}

// changeLink puts a link in place of the one of the actor with that key, or of none; nil deletes it. Only what concerns a built-in provider changes an app.
func (n *Node) changeLink(ctx context.Context, key, contract, name string, put *heldLink) error {
	app := put != nil && config.IsBuiltin(put.Provider)
	for _, l := range n.held().same(key, contract, name) {
		app = app || config.IsBuiltin(l.Provider)
	}
	edit := func(next *held) error {
		if put != nil {
			if err := n.onlyLink(next, *put); err != nil {
				return err
			}
		}
		var shared *sharedLink
		for _, l := range next.same(key, contract, name) {
			delete(next.Links, l.key())
			if shared == nil {
				shared = l.Shared
			}
		}
		switch {
		case put != nil:
			l := *put
			l.Shared = shared
			next.Links[l.key()] = l
		case shared != nil:
			gone := newHeldLink(control.Link{Link: shared.link(contract, name)})
			next.Deleted[gone.key()] = gone
		}
		return nil
	}
	change := n.keep
	if app {
		change = func(ctx context.Context, edit func(*held) error) error { return n.put(ctx, key, nil, edit) }
	}
	if err := change(ctx, edit); err != nil {
		return err
	}
	// If it was changed here and elsewhere, somebody has decided now, also where nothing is to change.
	defer n.shareSoon()
	return n.metadata.Settle(lattice.Link{Actor: key, Contract: contract, Name: name})
}

// onlyLink refuses a link where the actor has another one with the same provider, under
// the same name and for another contract: the provider would be told of both, and keeps one.
func (n *Node) onlyLink(h *held, put heldLink) error {
	actor, provider := h.key(put.Actor), h.key(put.Provider)
	if !config.IsProviderKey(provider) {
		return nil
	}
	refuse := func(contract string) error {
		return fmt.Errorf("actor %s has a link %q with provider %s already, for %s, and a provider takes one under a name: delete that one first", actor, put.Name, put.Provider, contract)
	}
	for _, l := range h.Links {
		if l.Name == put.Name && l.Contract != put.Contract && h.key(l.Actor) == actor && h.key(l.Provider) == provider {
			return refuse(l.Contract)
		}
	}
	for _, l := range n.health.running().links() {
		if l.Name == put.Name && l.Contract != put.Contract && l.Actor == actor && l.Provider == provider {
			return refuse(l.Contract)
		}
	}
	return nil
}

// same returns the links of the actor with that key for a contract under a name: one at most, unless an actor was named by id before its key was known.
func (h *held) same(key, contract, name string) (all []heldLink) {
	for _, l := range h.Links {
		if l.Contract == contract && l.Name == name && h.key(l.Actor) == key {
			all = append(all, l)
		}
	}
	return all
}

// SetConfig implements control.Host.
func (h controlHost) SetConfig(ctx context.Context, name string, values map[string][]byte) error {
	return h.put(ctx, "", nil, func(next *held) error {
		if values == nil {
			delete(next.Config, name)
		} else {
			next.Config[name] = values
		}
		return nil
	})
}

// SetLabels implements control.Host. What is not changed goes on to follow the device file.
func (h controlHost) SetLabels(ctx context.Context, labels map[string]string) error {
	device := h.o.Device.Device.Labels
	return h.keep(ctx, func(next *held) error {
		next.Labels = make(map[string]heldLabel)
		for key, value := range labels {
			if old, ok := device[key]; !ok || old != value {
				next.Labels[key] = heldLabel{Value: value}
			}
		}
		for key := range device {
			if _, ok := labels[key]; !ok {
				next.Labels[key] = heldLabel{Deleted: true}
			}
		}
		return nil
	})
}

// labels are those of the device file, and of the control interface over them.
func (h *held) labels(device map[string]string) map[string]string {
	all := cloned(device)
	for key, l := range h.Labels {
		if l.Deleted {
			delete(all, key)
		} else {
			all[key] = l.Value
		}
	}
	return all
}

// relink makes known to the bus, and to providers, the links that control tools have put between actors and providers that are not built in. A link of an
// app goes before one of the same actor, contract and name.
func (n *Node) relink() {
	c := &n.commanded
	c.relinking.Lock()
	defer c.relinking.Unlock()
	h, apps := n.held(), n.health.running().links()
	want := make(map[string]lattice.Link)
	for _, put := range h.Links {
		l := lattice.Link{Actor: h.key(put.Actor), Contract: put.Contract, Name: put.Name, Provider: h.key(put.Provider), Values: h.values(put)}
		key := heldLinkKey(l.Actor, l.Contract, l.Name)
		if _, declared := apps[key]; config.IsProviderKey(l.Provider) && !declared {
			want[key] = l
		}
	}
	for key, l := range c.linked {
		app, declared := apps[key]
		if _, stays := want[key]; !stays && !declared {
			n.bus.DeleteLink(l)
		}
		if next := want[key]; next.Provider != l.Provider && app.Provider != l.Provider {
			n.tellOf(l, n.processes.DeleteLink)
		}
	}
	for key, l := range want {
		n.bus.PutLink(l) // also one it had: the link of an app may have been in its place
		if before, had := c.linked[key]; !had || !reflect.DeepEqual(before, l) {
			n.tellOf(l, n.processes.PutLink)
		}
	}
	c.linked = want
}

// tellOf tells a provider of a link. The link holds whether it hears of it or not.
func (n *Node) tellOf(l lattice.Link, tell func(lattice.Link) error) {
	if err := tell(l); err != nil {
		n.log.Warn("provider is not told of a link", "provider", l.Provider, "actor", l.Actor, "link", l.Name, "err", err)
	}
}

// links are those that the apps declare, by actor, contract and name.
func (s appSet) links() map[string]lattice.Link {
	all := make(map[string]lattice.Link)
	for _, a := range s {
		bus, _ := a.links()
		for _, l := range bus {
			all[heldLinkKey(l.Actor, l.Contract, l.Name)] = l
		}
	}
	return all
}

// SetRegistries implements control.Host.
func (h controlHost) SetRegistries(ctx context.Context, logins map[string]control.Registry) error {
	put := held{Logins: make(map[string]heldLogin, len(logins))}
	for host, l := range logins {
		put.Logins[strings.ToLower(host)] = heldLogin(l)
	}
	err := h.keep(ctx, func(next *held) error {
		for host, l := range put.Logins {
			if next.Logins[host] = l; l == (heldLogin{}) {
				delete(next.Logins, host)
			}
		}
		if len(next.Logins) > control.MaxPairs {
			return fmt.Errorf("there would be logins for %d registries; %d are allowed", len(next.Logins), control.MaxPairs)
		}
		return nil
	})
	if err == nil {
		h.references.SetLogins(put.logins())
	}
	return err
}

// logins are those of registries, as the fetcher takes them.
func (h *held) logins() map[string]oci.Login {
	all := make(map[string]oci.Login, len(h.Logins))
	for host, l := range h.Logins {
		all[host] = oci.Login{User: l.Username, Password: l.Password, Token: l.Token}
	}
	return all
}
