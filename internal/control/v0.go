package control

import (
	"context"
	"fmt"
	"maps"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/lattice"
)

// answer0 answers version 0. subject is what follows the lattice.
func (s *Service) answer0(ctx context.Context, subject []string, body []byte) (reply any, due bool, err error) {
	at := func(i int) string {
		if i < len(subject) {
			return subject[i]
		}
		return ""
	}
	done := func(err error) (any, bool, error) { return ack0{Accepted: true}, true, err }
	st := s.host.State()
	switch noun := at(0); {
	case noun == "cmd" && len(subject) == 3:
		if at(2) == "stop" {
			other, err := s.stopHost(body)
			return ack0{Accepted: true}, !other, err
		}
		return done(s.command0(ctx, at(2), body))
	case noun == "auction" && len(subject) == 2:
		return s.auction0(st, at(1), body)
	case noun == "linkdefs" && len(subject) == 2:
		return done(s.link0(ctx, at(1), body))
	case noun == "labels" && len(subject) == 3 && (at(2) == "put" || at(2) == "del"):
		key, value, err := label(body, at(2) == "put")
		if err == nil {
			err = s.setLabel(ctx, key, value)
		}
		return done(err)
	case noun == "registries" && len(subject) == 2 && at(1) == "put":
		return done(s.setRegistries(ctx, body))
	case noun == "config":
		return done(s.putConfig0(ctx, subject[1:], body))
	case noun == "ping" && len(subject) == 2 && at(1) == "hosts":
		return s.host0(st), true, nil
	case noun == "get" && len(subject) == 3 && at(2) == "inv":
		return inventory0(st), true, nil
	case noun == "get" && at(1) == "config" && len(subject) > 2:
		return config0(st, subject[2:])
	case noun == "get" && len(subject) == 2 && at(1) == "claims":
		return map[string]any{"claims": claimsMaps(st)}, true, nil
	case noun == "get" && len(subject) == 2 && at(1) == "links":
		return map[string]any{"links": links0(st)}, true, nil
	}
	return nil, true, errUnsupported
}

// request0 is the union of what commands for actors and providers send.
type request0 struct {
	ActorRef      string            `json:"actor_ref"`
	ActorID       string            `json:"actor_id"`
	NewActorRef   string            `json:"new_actor_ref"`
	Count         *uint32           `json:"count"`
	ProviderRef   string            `json:"provider_ref"`
	LinkName      string            `json:"link_name"`
	Annotations   map[string]string `json:"annotations"`
	Configuration string            `json:"configuration"`
}

// command0 accepts a command for an actor or a provider.
func (s *Service) command0(ctx context.Context, verb string, body []byte) error {
	switch verb {
	case "la", "sa", "scale", "upd", "lp", "sp":
	default:
		return errUnsupported
	}
	var req request0
	if err := decode(body, &req); err != nil {
		return err
	}
	var c checker
	annotations := c.pairs("annotations", req.Annotations)
	switch verb {
	case "la":
		if req.Count == nil {
			req.Count = new(uint32(1))
		}
		scale := ActorScale{Ref: c.ref("actor_ref", req.ActorRef), Annotations: annotations, Max: c.count("count", req.Count)}
		if scale.Max == 0 {
			c.fail("count is 0; to stop instances, scale or stop the actor")
		}
		return c.then(func() error { return s.scale(ctx, scale, true) })
	case "scale":
		scale := ActorScale{
			ID: c.nameOr("actor_id", req.ActorID, ""), Ref: c.ref("actor_ref", req.ActorRef),
			Annotations: annotations, Max: c.count("count", req.Count),
		}
		return c.then(func() error { return s.scale(ctx, scale, false) })
	case "sa":
		if req.Count == nil {
			req.Count = new(uint32) // all
		}
		id, count := c.name("actor_ref", req.ActorRef), c.count("count", req.Count)
		return c.then(func() error { return s.stopActor(ctx, id, count, annotations) })
	case "upd":
		u := ActorUpdate{ID: c.name("actor_id", req.ActorID), Ref: c.ref("new_actor_ref", req.NewActorRef)}
		return c.then(func() error { return s.updateActor(ctx, u, annotations) })
	case "lp":
		p := ProviderStart{
			Ref: c.ref("provider_ref", req.ProviderRef), LinkName: c.linkName("link_name", req.LinkName),
			Annotations: annotations, Configuration: req.Configuration,
		}
		if len(p.Configuration) > MaxConfigBytes {
			c.fail("configuration has %d bytes; %d are allowed", len(p.Configuration), MaxConfigBytes)
		}
		return c.then(func() error { return s.startProvider(ctx, p) })
	default:
		id, link := c.name("provider_ref", req.ProviderRef), c.linkName("link_name", req.LinkName)
		return c.then(func() error { return s.stopProvider(ctx, id, link) })
	}
}

// then goes on where nothing was wrong.
func (c *checker) then(f func() error) error {
	if c.err != nil {
		return c.err
	}
	return f()
}

// auction0 bids, or is silent.
func (s *Service) auction0(st State, what string, body []byte) (reply any, due bool, err error) {
	var req struct {
		ActorRef    string            `json:"actor_ref"`
		ProviderRef string            `json:"provider_ref"`
		LinkName    string            `json:"link_name"`
		Constraints map[string]string `json:"constraints"`
	}
	if what != "actor" && what != "provider" {
		return nil, true, errUnsupported
	}
	if err := decode(body, &req); err != nil {
		return nil, true, err
	}
	var c checker
	constraints := c.pairs("constraints", req.Constraints)
	if what == "actor" {
		ref := c.ref("actor_ref", req.ActorRef)
		return map[string]any{"actor_ref": ref, "constraints": constraints, "host_id": st.ID}, st.fits(constraints), c.err
	}
	ref, link := c.ref("provider_ref", req.ProviderRef), c.linkName("link_name", req.LinkName)
	free := true
	for _, p := range st.Providers {
		free = free && (p.Ref != ref || p.LinkName != link)
	}
	bid := map[string]any{"provider_ref": ref, "link_name": link, "constraints": constraints, "host_id": st.ID}
	return bid, free && st.fits(constraints), c.err
}

// link0 puts or deletes a link.
func (s *Service) link0(ctx context.Context, verb string, body []byte) error {
	if verb != "put" && verb != "del" {
		return errUnsupported
	}
	var req struct {
		Actor    string            `json:"actor_id"`
		Provider string            `json:"provider_id"`
		Name     string            `json:"link_name"`
		Contract string            `json:"contract_id"`
		Values   map[string]string `json:"values"`
	}
	if err := decode(body, &req); err != nil {
		return err
	}
	var c checker
	l := Link{Link: lattice.Link{
		Actor: c.name("actor_id", req.Actor), Contract: c.contract("contract_id", req.Contract), Name: c.linkName("link_name", req.Name),
	}}
	if verb == "del" {
		return c.then(func() error {
			st := s.host.State()
			gone, ok := st.sameLink(l.Link)
			if !ok {
				return nil
			}
			return s.deleteLinks(ctx, st, func(l Link) bool { return key(l) == key(gone) })
		})
	}
	l.Provider, l.Values = c.name("provider_id", req.Provider), c.values("values", req.Values)
	return c.then(func() error { return s.putLink(ctx, l) })
}

// putConfig0 puts or deletes what is configured for an actor or provider. subject is verb, entity and key.
func (s *Service) putConfig0(ctx context.Context, subject []string, body []byte) error {
	var verb, entity, name string
	switch len(subject) {
	case 3:
		verb, entity, name = subject[0], subject[1], subject[2]
		if verb != "put" && verb != "del" {
			return errUnsupported
		}
	case 2:
		verb, entity = subject[0], subject[1]
		// Clients clear with del, hosts used to expect clear.
		if verb != "del" && verb != "clear" {
			return errUnsupported
		}
	default:
		return errUnsupported
	}
	if !isKey(entity, claims.Module, claims.Service) {
		return fmt.Errorf("%.80q is not the key of an actor or a provider", entity)
	}
	if name == "" {
		return s.setConfig(ctx, entity, nil)
	}
	if len(name) > MaxName {
		return fmt.Errorf("a name has %d bytes at most", MaxName)
	}
	values := maps.Clone(s.host.State().Config[entity])
	if values == nil {
		values = map[string][]byte{}
	}
	if verb == "del" {
		if _, ok := values[name]; !ok {
			return nil
		}
		if delete(values, name); len(values) == 0 {
			values = nil
		}
	} else {
		values[name] = append([]byte{}, body...)
	}
	if size := sizeOf(values); len(values) > MaxPairs || size > MaxConfigBytes {
		return fmt.Errorf("%s would have %d names with %d bytes; %d with %d are allowed", entity, len(values), size, MaxPairs, MaxConfigBytes)
	}
	return s.setConfig(ctx, entity, values)
}

// config0 is one value, or all of an entity. subject is entity and key.
func config0(st State, subject []string) (any, bool, error) {
	values := st.Config[subject[0]]
	switch {
	case len(subject) > 2:
		return nil, true, errUnsupported
	case len(subject) == 2:
		v, found := values[subject[1]]
		return map[string]any{"found": found, "data": octets(v)}, true, nil
	case len(values) == 0:
		return noBody(nil), true, nil
	}
	all := make(map[string]octets, len(values))
	for k, v := range values {
		all[k] = v
	}
	return all, true, nil
}
