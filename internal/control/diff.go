package control

import (
	"bytes"
	"cmp"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

// diff is what has to be told to who knows the state before, so that it knows the state after: first what is gone, then what is new. One change has several events, one
// in the words of each generation of hosts; readers ignore what they do not know.
func diff(before, after State) []event {
	var events []event
	if !maps.Equal(before.Labels, after.Labels) {
		events = append(events, event{"labels_changed", map[string]any{"host_id": after.ID, "labels": some(after.Labels)}})
	}
	events = append(events, diffActors(before, after)...)
	events = append(events, diffProviders(before, after)...)
	events = append(events, diffConfig(before, after)...)
	return append(events, diffLinks(before, after)...)
}

// each goes through two lists by key: f gets what is in the first only, in both, or in the second only, in order of the keys.
func each[T any](before, after []T, key func(T) string, f func(was, is *T)) {
	type pair struct{ was, is *T }
	pairs := map[string]pair{}
	for i := range before {
		pairs[key(before[i])] = pair{was: &before[i]}
	}
	for i := range after {
		p := pairs[key(after[i])]
		p.is = &after[i]
		pairs[key(after[i])] = p
	}
	for _, k := range slices.SortedFunc(maps.Keys(pairs), func(a, b string) int {
		return cmp.Or(gone(pairs[a].is == nil)-gone(pairs[b].is == nil), cmp.Compare(a, b))
	}) {
		f(pairs[k].was, pairs[k].is)
	}
}

// gone puts what is gone before what is there.
func gone(yes bool) int {
	if yes {
		return 0
	}
	return 1
}

// actorEvent is the data of all events of actors, under the names of all generations. What a reader insists on is there when it is empty, too: one
// that misses a member drops the event.
type actorEvent struct {
	PublicKey   string            `json:"public_key"`
	ComponentID string            `json:"component_id,omitempty"`
	HostID      string            `json:"host_id"`
	Ref         string            `json:"image_ref"`
	Annotations map[string]string `json:"annotations"`
	Claims      any               `json:"claims,omitempty"`
	Count       *uint64           `json:"count,omitempty"`
	Remaining   *uint64           `json:"remaining,omitempty"`
	Max         *uint32           `json:"max_instances,omitempty"`
	Instance    *string           `json:"instance_id,omitempty"`
	API         *int              `json:"api_version,omitempty"`
	Revision    *int64            `json:"revision,omitempty"`
	ActorRef    string            `json:"actor_ref,omitempty"`
	Error       string            `json:"error,omitempty"`
	Reason      string            `json:"reason,omitempty"`
}

// base is what every event of an entry has.
func (a Actor) base(st State) actorEvent {
	return actorEvent{PublicKey: a.Key, HostID: st.ID, Ref: a.Ref, Annotations: some(a.Annotations)}
}

func actorKey(a Actor) string { return a.Key + " " + string(mustJSON(some(a.Annotations))) }

func diffActors(before, after State) []event {
	var events []event
	known := claimsEvents(after, before)
	each(before.Actors, after.Actors, actorKey, func(was, is *Actor) {
		var from, to uint32
		a := was
		if was != nil {
			from = was.Max
		}
		if is != nil {
			a, to = is, is.Max
		}
		if was != nil && is != nil && (was.Ref != is.Ref || was.Revision != is.Revision || was.Instance != is.Instance) {
			e := is.base(after)
			e.Revision, e.Instance = new(revision(is.Revision)), &is.Instance
			events = append(events, event{"actor_updated", e})
		}
		if from == to && (was == nil || is == nil || was.Ref == is.Ref) {
			return
		}
		with := func(f func(*actorEvent)) actorEvent {
			e := a.base(after)
			f(&e)
			return e
		}
		if from == 0 {
			events = append(events, event{"actor_started", with(func(e *actorEvent) {
				e.API, e.Instance, e.Claims = new(0), &a.Instance, known.actor(a.Key)
			})})
		}
		if to > from {
			events = append(events, event{"actors_started", with(func(e *actorEvent) {
				e.Count, e.Claims = new(uint64(to-from)), known.actor(a.Key)
			})})
		}
		if to == 0 {
			events = append(events, event{"actor_stopped", with(func(e *actorEvent) { e.Instance = &a.Instance })})
		}
		if to < from {
			events = append(events, event{"actors_stopped", with(func(e *actorEvent) {
				e.Count, e.Remaining = new(uint64(from-to)), new(uint64(to))
			})})
		}
		scaled := with(func(e *actorEvent) { e.Max, e.Claims = new(to), known.actor(a.Key) })
		events = append(events, event{"actor_scaled", scaled})
		scaled.ComponentID = a.ID
		events = append(events, event{"component_scaled", scaled})
	})
	return events
}

// actorFailed is a number of instances that was not reached.
func actorFailed(st State, c ActorScale, cause error) []event {
	e := actorEvent{HostID: st.ID, Ref: c.Ref, Annotations: some(c.Annotations), Error: clip(cause.Error(), maxErrorBytes)}
	if c.ID != "" {
		e.PublicKey = st.key(c.ID)
	}
	events := []event{}
	if c.Max > 0 {
		started := e
		started.ActorRef = c.Ref
		events = append(events, event{"actor_start_failed", started}, event{"actors_start_failed", e})
	}
	e.Max = &c.Max
	events = append(events, event{"actor_scale_failed", e})
	e.ComponentID = cmp.Or(c.ID, c.Ref)
	return append(events, event{"component_scale_failed", e})
}

// updateFailed is an update that did not happen.
func updateFailed(st State, a Actor, u ActorUpdate, cause error) []event {
	e := actorEvent{
		PublicKey: a.Key, HostID: st.ID, Ref: u.Ref, Annotations: some(a.Annotations), Revision: new(revision(a.Revision)), Instance: &a.Instance,
		Reason: clip(cause.Error(), maxErrorBytes),
	}
	return []event{{"actor_update_failed", e}}
}

// providerEvent is the data of all events of providers; see actorEvent.
type providerEvent struct {
	PublicKey   string            `json:"public_key"`
	ProviderID  string            `json:"provider_id"`
	HostID      string            `json:"host_id"`
	Ref         *string           `json:"image_ref,omitempty"`
	ProviderRef string            `json:"provider_ref,omitempty"`
	LinkName    string            `json:"link_name"`
	Contract    string            `json:"contract_id"`
	Instance    *string           `json:"instance_id,omitempty"`
	Annotations map[string]string `json:"annotations,omitzero"`
	Claims      any               `json:"claims,omitempty"`
	Reason      string            `json:"reason,omitempty"`
	Error       string            `json:"error,omitempty"`
}

func (p Provider) base(st State) providerEvent {
	return providerEvent{
		PublicKey: p.Key, ProviderID: p.ID, HostID: st.ID, LinkName: p.LinkName, Contract: p.Contract,
	}
}

func (p Provider) whole(st State) providerEvent {
	e := p.base(st)
	e.Ref, e.Instance, e.Annotations = &p.Ref, &p.Instance, some(p.Annotations)
	return e
}

func healthOf(st State, p Provider) providerEvent { return p.base(st) }

func diffProviders(before, after State) []event {
	var events []event
	known := claimsEvents(after, before)
	key := func(p Provider) string { return p.Key + " " + p.LinkName }
	each(before.Providers, after.Providers, key, func(was, is *Provider) {
		if was != nil && (is == nil || was.Instance != is.Instance) {
			e := was.whole(after)
			if e.Reason = "stopped"; is != nil {
				e.Reason = "restarted"
			}
			events = append(events, event{"provider_stopped", e})
			was = nil
		}
		if is == nil {
			return
		}
		health := HealthUnknown
		if was == nil {
			e := is.whole(after)
			e.Claims = known.provider(is.Key)
			events = append(events, event{"provider_started", e})
		} else {
			health = was.Health
		}
		switch {
		case is.Health == health:
		case is.Health == Healthy:
			events = append(events, event{"health_check_passed", healthOf(after, *is)})
		case is.Health == Unhealthy:
			events = append(events, event{"health_check_failed", healthOf(after, *is)})
		}
	})
	return events
}

// providerFailed is a provider that was not started.
func providerFailed(st State, p ProviderStart, cause error) []event {
	return []event{{"provider_start_failed", providerEvent{
		ProviderRef: p.Ref, ProviderID: p.ID, HostID: st.ID, LinkName: p.LinkName, Error: clip(cause.Error(), maxErrorBytes),
	}}}
}

// linkEvent is a link as both versions have it.
type linkEvent struct {
	ID string `json:"id,omitempty"`
	*link0
	link1
	Error string `json:"error,omitempty"`
}

func newLinkEvent(st State, l Link) linkEvent {
	l0 := newLink0(st, l)
	return linkEvent{ID: LinkID(l0.Actor, l0.Contract, l0.Name), link0: &l0, link1: newLink1(st, l)}
}

// linkFailed is a link of version 1 that was not put.
func linkFailed(l link1, cause error) []event {
	l.Interfaces, l.SourceConfig, l.TargetConfig = list(l.Interfaces), list(l.SourceConfig), list(l.TargetConfig)
	return []event{{"linkdef_set_failed", linkEvent{link1: l, Error: clip(cause.Error(), maxErrorBytes)}}}
}

func diffLinks(before, after State) []event {
	var events []event
	each(before.Links, after.Links, key, func(was, is *Link) {
		if is == nil {
			events = append(events, event{"linkdef_deleted", newLinkEvent(before, *was)})
			return
		}
		if was == nil || !reflect.DeepEqual(*was, *is) || !maps.Equal(before.LinkValues(*was), after.LinkValues(*is)) {
			events = append(events, event{"linkdef_set", newLinkEvent(after, *is)})
		}
	})
	return events
}

// key is what links are told apart by.
func key(l Link) string { return l.Actor + " " + l.Contract + " " + l.Name }

// configEvent is a configuration for who knows those by name, or one value of an entity for who knows entities and keys.
type configEvent struct {
	Entity string `json:"entity_id,omitempty"`
	Key    string `json:"key,omitempty"`
	Name   string `json:"config_name,omitempty"`
}

// diffConfig tells of each configuration, and of each value of those that have the key of an actor or a provider for a name, as version 0 puts them.
func diffConfig(before, after State) []event {
	var events []event
	names := map[string]bool{}
	for _, st := range []State{before, after} {
		for name := range st.Config {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, wasThere := before.Config[name]
		is, isThere := after.Config[name]
		if wasThere == isThere && maps.EqualFunc(was, is, bytes.Equal) {
			continue
		}
		what := "config_set"
		if !isThere {
			what = "config_deleted"
		}
		events = append(events, event{what, configEvent{Name: name}})
		if !isKey(name, claims.Module, claims.Service) {
			continue
		}
		for _, k := range slices.Sorted(maps.Keys(was)) {
			if _, ok := is[k]; !ok {
				events = append(events, event{"config_deleted", configEvent{Entity: name, Key: k}})
			}
		}
		for _, k := range slices.Sorted(maps.Keys(is)) {
			if v, ok := was[k]; !ok || !bytes.Equal(v, is[k]) {
				events = append(events, event{"config_set", configEvent{Entity: name, Key: k}})
			}
		}
	}
	return events
}

// claimsEvent is how events tell claims.
type claimsEvent struct {
	CallAlias *string  `json:"call_alias,omitempty"`
	Caps      []string `json:"caps,omitzero"`
	Issuer    string   `json:"issuer"`
	Tags      []string `json:"tags"`
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	Revision  *int64   `json:"revision,omitempty"`
	NotBefore string   `json:"not_before_human"`
	Expires   string   `json:"expires_human"`
}

// knownClaims are the claims of actors and providers by key.
type knownClaims map[string]Claims

// claimsEvents are those of the states given, the first that has them.
func claimsEvents(states ...State) knownClaims {
	all := knownClaims{}
	for _, st := range states {
		for _, c := range st.Claims {
			if _, ok := all[c.Subject]; !ok {
				all[c.Subject] = c
			}
		}
	}
	return all
}

// actor are the claims of an actor; empty ones of an unsigned actor, for readers insist on them.
func (k knownClaims) actor(key string) claimsEvent {
	c := k[key]
	e := k.provider(key)
	e.CallAlias, e.Caps, e.Tags, e.Revision = &c.CallAlias, list(c.Caps), list(c.Tags), new(revision(c.Revision))
	return e
}

// provider are the claims of a provider, which have no tags.
func (k knownClaims) provider(key string) claimsEvent {
	c := k[key]
	return claimsEvent{
		Issuer: c.Issuer, Name: c.Name, Version: c.Version,
		NotBefore: when(c.NotBefore, "immediately"), Expires: when(c.Expires, "never"),
	}
}

func when(t time.Time, never string) string {
	if t.IsZero() {
		return never
	}
	return t.UTC().Format(time.RFC3339)
}
