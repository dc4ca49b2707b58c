package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/store"
)

// heldSpace is where the store keeps what the control interface has put: a record in JSON for each thing, by kind and name.
const heldSpace = "control"

// heldFormat is the version of the records. One that is newer is left alone.
const heldFormat = "1"

var errHeldFormat = errors.New("what control tools have put was written by another version of edged, and is left alone until that one runs again")

// held is what the control interface has put, which comes back when the box starts. A held that others can see does not change any more.
type held struct {
	Actors    map[string]heldActor    // by key
	Providers map[string]heldProvider // by key and link name
	Links     map[string]heldLink     // by actor, contract and link name, as they were put
	Deleted   map[string]heldLink     // of which the lattice has still to hear
	Declared  map[string]heldLink     // links of apps that the lattice was told of
	Config    map[string]map[string][]byte
	Told      map[string]map[string]string // Config as the lattice has it
	Lattice   string                       // that Shared, Deleted, Declared and Told are about; "" for none yet
	Labels    map[string]heldLabel         // those that differ from the device file
	Logins    map[string]heldLogin         // of registries, by host and port
}

// heldActor is an actor and where its module came from. The module is in the state directory, by its digest.
type heldActor struct {
	ID       string            `json:"id"`
	Ref      string            `json:"ref"`
	Digest   string            `json:"digest"` // sha256:… of the module
	Name     string            `json:"name"`   // within its app
	Revision int64             `json:"revision"`
	Entries  []heldEntry       `json:"entries"`
	Limits   map[string]string `json:"limits,omitempty"`
}

// heldEntry are the instances of an actor with the same annotations.
type heldEntry struct {
	Annotations map[string]string `json:"annotations,omitempty"`
	Max         uint32            `json:"max"`
}

type heldLink struct {
	Actor        string            `json:"actor"` // key or id
	Contract     string            `json:"contract"`
	Name         string            `json:"name"`
	Provider     string            `json:"provider"` // key, id, or name of a built-in one
	Values       map[string]string `json:"values,omitempty"`
	Namespace    string            `json:"wit_namespace,omitempty"`
	Package      string            `json:"wit_package,omitempty"`
	Interfaces   []string          `json:"interfaces,omitempty"`
	SourceConfig []string          `json:"source_config,omitempty"`
	TargetConfig []string          `json:"target_config,omitempty"`

	Shared *sharedLink `json:"shared,omitempty"` // as the lattice has it; nil while it does not
}

// heldLabel is a label, or that one of the device file is gone.
type heldLabel struct {
	Value   string `json:"value"`
	Deleted bool   `json:"deleted,omitempty"`
}

type heldLogin struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	Token    string `json:"token,omitempty"`
}

func newHeldLink(l control.Link) heldLink {
	return heldLink{
		Actor: l.Actor, Contract: l.Contract, Name: l.Name, Provider: l.Provider, Values: l.Values,
		Namespace: l.WIT.Namespace, Package: l.WIT.Package, Interfaces: l.WIT.Interfaces,
		SourceConfig: l.SourceConfig, TargetConfig: l.TargetConfig,
	}
}

func (l heldLink) control() control.Link {
	return control.Link{
		Link:         lattice.Link{Actor: l.Actor, Contract: l.Contract, Name: l.Name, Provider: l.Provider, Values: l.Values},
		WIT:          control.WIT{Namespace: l.Namespace, Package: l.Package, Interfaces: l.Interfaces},
		SourceConfig: l.SourceConfig, TargetConfig: l.TargetConfig,
	}
}

func heldLinkKey(actor, contract, name string) string { return actor + " " + contract + " " + name }

func (l heldLink) key() string { return heldLinkKey(l.Actor, l.Contract, l.Name) }

// clone returns a held to change: its maps are its own, what is in them is not.
func (h *held) clone() *held {
	return &held{
		Actors: cloned(h.Actors), Providers: cloned(h.Providers), Links: cloned(h.Links),
		Deleted: cloned(h.Deleted), Declared: cloned(h.Declared),
		Config: cloned(h.Config), Told: cloned(h.Told), Lattice: h.Lattice, Labels: cloned(h.Labels), Logins: cloned(h.Logins),
	}
}

// join makes h that of a box in a lattice, which knows nothing yet if it was in another.
func (h *held) join(lattice string) {
	if h.Lattice != "" {
		for at, l := range h.Links {
			l.Shared = nil
			h.Links[at] = l
		}
		clear(h.Deleted)
		clear(h.Declared)
		clear(h.Told)
	}
	h.Lattice = lattice
}

// cloned is maps.Clone that never returns nil.
func cloned[V any](m map[string]V) map[string]V {
	if m == nil {
		return make(map[string]V)
	}
	return maps.Clone(m)
}

// actor returns an actor by its key or id, and its key.
func (h *held) actor(id string) (key string, a heldActor, ok bool) {
	if a, ok := h.Actors[id]; ok {
		return id, a, true
	}
	for key, a := range h.Actors {
		if a.ID == id {
			return key, a, true
		}
	}
	return "", heldActor{}, false
}

// key returns the key behind an id of an actor or provider, or the id itself.
func (h *held) key(id string) string {
	if key, _, ok := h.actor(id); ok {
		return key
	}
	for _, p := range h.Providers {
		if p.ID == id {
			return p.Key
		}
	}
	return id
}

// values are those of a link with its configurations in them.
func (h *held) values(l heldLink) map[string]string {
	return control.State{Config: h.Config}.LinkValues(l.control())
}

// max is how many instances of an actor may run at once.
func (a heldActor) max() (n uint64) {
	for _, e := range a.Entries {
		n += uint64(e.Max)
	}
	return n
}

// entry returns the index of the entry with exactly these annotations, -1 for none.
func (a heldActor) entry(annotations map[string]string) int {
	return slices.IndexFunc(a.Entries, func(e heldEntry) bool { return maps.Equal(e.Annotations, annotations) })
}

// scaled returns the actor with another number of instances of one entry; without instances it has none.
func (a heldActor) scaled(annotations map[string]string, n uint32) heldActor {
	i := a.entry(annotations)
	a.Entries = slices.Clone(a.Entries)
	switch {
	case i < 0 && n > 0:
		a.Entries = append(a.Entries, heldEntry{Annotations: annotations, Max: n})
	case i >= 0 && n == 0:
		a.Entries = slices.Delete(a.Entries, i, i+1)
	case i >= 0:
		a.Entries[i].Max = n
	}
	return a
}

// kinds of records.
const (
	kindActor    = "actor/"
	kindProvider = "provider/"
	kindLink     = "link/"
	kindDeleted  = "deleted/"
	kindDeclared = "declared/"
	kindConfig   = "config/"
	kindTold     = "told/"
	kindLabel    = "label/"
	kindLogin    = "registry/"
)

// loadHeld reads what the control interface has put. A record that can not be read is left out and named in the error, which comes beside the rest.
func loadHeld(db *store.DB) (*held, error) {
	h := (&held{}).clone()
	var errs []error
	format := heldFormat
	err := db.List(heldSpace, "", func(key string, value []byte) error {
		kind, name, _ := strings.Cut(key, "/")
		var err error
		switch kind + "/" {
		case kindActor:
			err = decodeHeld(h.Actors, name, value)
		case kindProvider:
			err = decodeHeld(h.Providers, name, value)
		case kindLink:
			err = decodeHeld(h.Links, name, value)
		case kindDeleted:
			err = decodeHeld(h.Deleted, name, value)
		case kindDeclared:
			err = decodeHeld(h.Declared, name, value)
		case kindConfig:
			err = decodeHeld(h.Config, name, value)
		case kindTold:
			err = decodeHeld(h.Told, name, value)
		case kindLabel:
			err = decodeHeld(h.Labels, name, value)
		case kindLogin:
			err = decodeHeld(h.Logins, name, value)
		case "lattice/":
			h.Lattice = string(value)
		case "format/":
			format = string(value)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("record %s can not be read, put it again: %w", key, err))
		}
		return nil
	})
	if err == nil && format != heldFormat {
		return (&held{}).clone(), fmt.Errorf("%w: it is %q", errHeldFormat, format)
	}
	return h, errors.Join(append(errs, err)...)
}

func decodeHeld[V any](m map[string]V, name string, value []byte) error {
	var v V
	if err := json.Unmarshal(value, &v); err != nil {
		return err
	}
	m[name] = v
	return nil
}

// saveHeld makes the records of next those on disk, where was are.
func saveHeld(ctx context.Context, db *store.DB, was, next *held) error {
	c := heldChange{put: make(map[string][]byte)}
	err := errors.Join(
		diffHeld(&c, kindActor, was.Actors, next.Actors), diffHeld(&c, kindProvider, was.Providers, next.Providers),
		diffHeld(&c, kindLink, was.Links, next.Links), diffHeld(&c, kindDeleted, was.Deleted, next.Deleted),
		diffHeld(&c, kindDeclared, was.Declared, next.Declared), diffHeld(&c, kindConfig, was.Config, next.Config),
		diffHeld(&c, kindTold, was.Told, next.Told), diffHeld(&c, kindLabel, was.Labels, next.Labels), diffHeld(&c, kindLogin, was.Logins, next.Logins),
	)
	if err != nil || len(c.put)+len(c.gone) == 0 && was.Lattice == next.Lattice {
		return err
	}
	return db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		err := errors.Join(t.Put(heldSpace, "format", []byte(heldFormat)), t.Put(heldSpace, "lattice", []byte(next.Lattice)))
		for key, value := range c.put {
			err = errors.Join(err, t.Put(heldSpace, key, value))
		}
		for _, key := range c.gone {
			err = errors.Join(err, t.Delete(heldSpace, key))
		}
		return err
	})
}

// heldChange is what has to change on disk.
type heldChange struct {
	put  map[string][]byte
	gone []string
}

func diffHeld[V any](c *heldChange, kind string, was, next map[string]V) error {
	for name, v := range next {
		if before, ok := was[name]; ok && reflect.DeepEqual(before, v) {
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("%s%s: %w", kind, name, err)
		}
		c.put[kind+name] = b
	}
	for name := range was {
		if _, ok := next[name]; !ok {
			c.gone = append(c.gone, kind+name)
		}
	}
	return nil
}
