package node

import (
	"context"
	"fmt"
	"maps"
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
		for _, l := range next.same(key, contract, name) {
			delete(next.Links, l.key())
		}
		if put != nil {
			next.Links[put.key()] = *put
		}
		return nil
	}
	if app {
		return n.put(ctx, key, nil, edit)
	}
	return n.keep(ctx, edit)
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
	c.mu.Lock()
	defer c.mu.Unlock()
	h, apps := n.held(), n.health.running().links()
	want := make(map[string]lattice.Link)
	for _, put := range h.Links {
		l := lattice.Link{Actor: h.key(put.Actor), Contract: put.Contract, Name: put.Name, Provider: h.key(put.Provider), Values: h.values(put)}
		if key := heldLinkKey(l.Actor, l.Contract, l.Name); config.IsProviderKey(l.Provider) && !apps[key] {
			want[key] = l
		}
	}
	for key, l := range c.linked {
		if _, stays := want[key]; !stays && !apps[key] {
			n.bus.DeleteLink(l)
		}
	}
	for _, l := range want {
		n.bus.PutLink(l) // also those it had: the link of an app may have been in their place
	}
	if !maps.EqualFunc(c.linked, want, func(a, b lattice.Link) bool { return reflect.DeepEqual(a, b) }) {
		c.linked = want
	}
}

// links are the keys of those that the apps declare.
func (s appSet) links() map[string]bool {
	all := make(map[string]bool)
	for _, a := range s {
		bus, _ := a.links()
		for _, l := range bus {
			all[heldLinkKey(l.Actor, l.Contract, l.Name)] = true
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

// StartProvider implements control.Host.
func (h controlHost) StartProvider(context.Context, control.ProviderStart) error {
	return fmt.Errorf("no")
}

// StopProvider implements control.Host.
func (h controlHost) StopProvider(context.Context, control.ProviderStop) error {
	return fmt.Errorf("no")
}
