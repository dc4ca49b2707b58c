package control

import (
	"fmt"
	"maps"
	"slices"

	"github.com/edged-io/edged/lattice"
)

// actors are the entries of an actor, by its id or key.
func (st State) actors(id string) []Actor {
	var found []Actor
	for _, a := range st.Actors {
		if a.ID == id || a.Key == id {
			found = append(found, a)
		}
	}
	return found
}

// stoppable is the state with what is to run and can not.
func (st State) stoppable() State {
	st.Actors, st.Providers = slices.Concat(st.Actors, st.LeftOut), slices.Concat(st.Providers, st.LeftOutProviders)
	return st
}

// actorsFrom are the entries of the actor that runs from a reference.
func (st State) actorsFrom(ref string) []Actor {
	for _, a := range st.Actors {
		if a.Ref == ref {
			return st.actors(a.ID)
		}
	}
	return nil
}

// providers are those with an id or key; all of them where link is "".
func (st State) providers(id, link string) []Provider {
	var found []Provider
	for _, p := range st.Providers {
		if (p.ID == id || p.Key == id) && (link == "" || p.LinkName == link) {
			found = append(found, p)
		}
	}
	return found
}

// key is the key behind an id, or the id itself where nothing of that id runs here.
func (st State) key(id string) string {
	for _, a := range st.Actors {
		if a.ID == id {
			return a.Key
		}
	}
	for _, p := range st.Providers {
		if p.ID == id {
			return p.Key
		}
	}
	return id
}

// entry is the one with exactly these annotations, and its instances.
func entry(actors []Actor, annotations map[string]string) (Actor, bool) {
	for _, a := range actors {
		if maps.Equal(a.Annotations, annotations) {
			return a, true
		}
	}
	return Actor{}, false
}

// includes says that all has each of some.
func includes(all, some map[string]string) bool {
	for k, v := range some {
		if got, ok := all[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// missing names a configuration that is not there.
func (st State) missing(lists ...[]string) error {
	for _, names := range lists {
		for _, name := range names {
			if _, ok := st.Config[name]; !ok {
				return fmt.Errorf("configuration %.80q not found; put it first", name)
			}
		}
	}
	return nil
}

// sameLink finds the link that has the actor, contract and name of l, whether they name the actor by id or by key.
func (st State) sameLink(l lattice.Link) (Link, bool) {
	for _, other := range st.Links {
		if st.key(other.Actor) == st.key(l.Actor) && other.Contract == l.Contract && other.Name == l.Name {
			return other, true
		}
	}
	return Link{}, false
}

// fits says that this host has the labels that an auction asks for.
func (st State) fits(constraints map[string]string) bool { return includes(st.Labels, constraints) }
