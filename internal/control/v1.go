package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/edged-io/edged/lattice"
)

// answer1 answers version 1. subject is what follows the lattice: noun, verb and sometimes an id.
func (s *Service) answer1(ctx context.Context, subject []string, body []byte) (reply any, due bool, err error) {
	if len(subject) < 2 || len(subject) > 3 {
		return nil, true, errUnsupported
	}
	done := func(message string, err error) (any, bool, error) {
		return reply1{Success: true, Message: message}, true, err
	}
	have := func(response any) (any, bool, error) {
		return reply1{Success: true, Response: response}, true, nil
	}
	st := s.host.State()
	what := subject[0] + "." + subject[1]
	if len(subject) == 2 {
		switch what {
		case "host.ping":
			return have(s.host1(st))
		case "component.auction", "provider.auction":
			return s.auction1(st, subject[0], body)
		case "registry.put":
			return done("successfully put registries", s.setRegistries(ctx, body))
		case "link.put":
			return done("successfully set link", s.putLink1(ctx, body))
		case "link.del":
			return done("successfully deleted link", s.deleteLink1(ctx, body))
		case "link.get":
			return have(links1(st))
		case "claims.get":
			return have(claimsMaps(st))
		case "config.get": // an addition of ours
			return have(append([]string{}, slices.Sorted(maps.Keys(st.Config))...))
		}
		return nil, true, errUnsupported
	}
	switch what {
	case "host.get":
		return have(inventory1(st))
	case "host.stop":
		other, err := s.stopHost(body)
		if other {
			err = errors.New("the request names another host")
		}
		return done("successfully handled stop host", err)
	case "component.scale":
		message, err := s.scale1(ctx, body)
		return done(message, err)
	case "component.update":
		message, err := s.update1(ctx, body)
		return done(message, err)
	case "provider.start":
		return done("successfully started provider", s.startProvider1(ctx, body))
	case "provider.stop":
		return done("successfully stopped provider", s.stopProvider1(ctx, body))
	case "label.put", "label.del":
		message := "successfully put label"
		if subject[1] == "del" {
			message = "successfully deleted label"
		}
		key, value, err := label(body, subject[1] == "put")
		if err == nil {
			err = s.setLabel(ctx, key, value)
		}
		return done(message, err)
	case "config.put":
		return done("successfully put config", s.putConfig1(ctx, subject[2], body))
	case "config.del":
		if len(subject[2]) > MaxName {
			return nil, true, fmt.Errorf("a name has %d bytes at most", MaxName)
		}
		return done("successfully deleted config", s.setConfig(ctx, subject[2], nil))
	case "config.get":
		values, ok := st.Config[subject[2]]
		if !ok {
			return done("Configuration not found", nil)
		}
		return have(texts(values))
	}
	return nil, true, errUnsupported
}

// request1 is the union of what commands for components and providers send.
type request1 struct {
	ComponentRef    string            `json:"component_ref"`
	ComponentID     string            `json:"component_id"`
	NewComponentRef string            `json:"new_component_ref"`
	Count           *uint32           `json:"count"`
	MaxInstances    *uint32           `json:"max_instances"` // as documents have it; count is what is sent
	AllowUpdate     bool              `json:"allow_update"`
	Limits          map[string]string `json:"component_limits"`
	ProviderRef     string            `json:"provider_ref"`
	ProviderID      string            `json:"provider_id"`
	Annotations     map[string]string `json:"annotations"`
	Config          []string          `json:"config"`
}

// scale1 accepts a number of instances.
func (s *Service) scale1(ctx context.Context, body []byte) (message string, err error) {
	var req request1
	if err := decode(body, &req); err != nil {
		return "", err
	}
	if req.Count == nil {
		req.Count = req.MaxInstances
	}
	var c checker
	scale := ActorScale{
		ID: c.name("component_id", req.ComponentID), Ref: c.ref("component_ref", req.ComponentRef),
		Annotations: c.pairs("annotations", req.Annotations), Max: c.count("count", req.Count),
		Config: c.names("config", req.Config), Limits: c.pairs("component_limits", req.Limits),
	}
	if c.err != nil {
		return "", c.err
	}
	running := s.host.State().actors(scale.ID)
	if len(running) == 0 {
		return "", s.scale(ctx, scale, false)
	}
	// A component has its annotations from who started it; not to repeat them does not make another entry.
	if len(scale.Annotations) == 0 && len(running) == 1 {
		scale.Annotations = running[0].Annotations
	}
	if running[0].Ref == scale.Ref {
		return "", s.scale(ctx, scale, false)
	}
	wanted := scale.Ref
	scale.Ref = running[0].Ref
	if scale.Max == 0 {
		return "", s.scale(ctx, scale, false)
	}
	if !req.AllowUpdate {
		message = fmt.Sprintf("component %s keeps running from %s; update it to run it from %s", scale.ID, scale.Ref, wanted)
		return message, s.scale(ctx, scale, false)
	}
	message = fmt.Sprintf("component %s is updated from %s to %s", scale.ID, scale.Ref, wanted)
	if err := s.updateActor(ctx, ActorUpdate{ID: scale.ID, Ref: wanted}, nil); err != nil {
		return "", err
	}
	return message, s.scaleAfterUpdate(ctx, scale)
}

// scaleAfterUpdate scales an actor from whatever reference it runs by then.
func (s *Service) scaleAfterUpdate(ctx context.Context, c ActorScale) error {
	if err := s.host.State().missing(c.Config); err != nil {
		return err
	}
	running := s.host.State().actors(c.ID)
	if len(running) == 0 {
		return fmt.Errorf("component %s not found", c.ID)
	}
	return s.lanes.add(ctx, actorLane(running[0].ID, ""), func(ctx context.Context) {
		if running := s.host.State().actors(c.ID); len(running) > 0 {
			c.Ref = running[0].Ref
			s.scaleNow(ctx, c, false)
		}
	})
}

// update1 accepts new code.
func (s *Service) update1(ctx context.Context, body []byte) (message string, err error) {
	var req request1
	if err := decode(body, &req); err != nil {
		return "", err
	}
	var c checker
	u := ActorUpdate{ID: c.name("component_id", req.ComponentID), Ref: c.ref("new_component_ref", req.NewComponentRef)}
	annotations := c.pairs("annotations", req.Annotations)
	if c.err != nil {
		return "", c.err
	}
	running := s.host.State().actors(u.ID)
	if len(running) == 0 {
		return "", fmt.Errorf("component %s not found", u.ID)
	}
	if running[0].Ref == u.Ref {
		return fmt.Sprintf("component %s runs from %s already", u.ID, u.Ref), nil
	}
	return fmt.Sprintf("component %s is updated from %s to %s", u.ID, running[0].Ref, u.Ref), s.updateActor(ctx, u, annotations)
}

func (s *Service) startProvider1(ctx context.Context, body []byte) error {
	var req request1
	if err := decode(body, &req); err != nil {
		return err
	}
	var c checker
	p := ProviderStart{
		ID: c.name("provider_id", req.ProviderID), Ref: c.ref("provider_ref", req.ProviderRef), LinkName: "default",
		Annotations: c.pairs("annotations", req.Annotations), Config: c.names("config", req.Config),
	}
	if running := s.host.State().providers(p.ID, ""); len(running) > 0 {
		c.fail("provider %s is already running", p.ID)
	}
	return c.then(func() error { return s.startProvider(ctx, p) })
}

func (s *Service) stopProvider1(ctx context.Context, body []byte) error {
	var req request1
	if err := decode(body, &req); err != nil {
		return err
	}
	if req.ProviderID == "" {
		req.ProviderID = req.ProviderRef
	}
	var c checker
	id := c.name("provider_id", req.ProviderID)
	return c.then(func() error { return s.stopProvider(ctx, id, "") })
}

// auction1 bids, or is silent.
func (s *Service) auction1(st State, what string, body []byte) (reply any, due bool, err error) {
	var req struct {
		ComponentRef string            `json:"component_ref"`
		ComponentID  string            `json:"component_id"`
		ProviderRef  string            `json:"provider_ref"`
		ProviderID   string            `json:"provider_id"`
		Constraints  map[string]string `json:"constraints"`
	}
	if err := decode(body, &req); err != nil {
		return nil, true, err
	}
	var c checker
	if req.Constraints == nil {
		c.fail("constraints is missing")
	}
	constraints := c.pairs("constraints", req.Constraints)
	ref, id := req.ComponentRef, req.ComponentID
	if what == "provider" {
		ref, id = req.ProviderRef, req.ProviderID
	}
	ref, id = c.ref(what+"_ref", ref), c.name(what+"_id", id)
	there := len(st.actors(id)) > 0
	if what == "provider" {
		there = len(st.providers(id, "")) > 0
	}
	bid := map[string]any{what + "_ref": ref, what + "_id": id, "constraints": constraints, "host_id": st.ID}
	return reply1{Success: true, Response: bid}, !there && st.fits(constraints), c.err
}

// putLink1 puts a link of version 1, whose source may be a provider that calls its target. One that is well-formed and refused is an event.
func (s *Service) putLink1(ctx context.Context, body []byte) error {
	var req link1
	if err := decode(body, &req); err != nil {
		return err
	}
	l, err := req.link()
	if err != nil {
		return err
	}
	req = req.clean()
	if err = s.conflicts(req, l); err == nil {
		err = s.putLink(ctx, l)
	}
	if err != nil {
		s.events.failed(linkFailed(req, err), "a link was not put", err)
	}
	return err
}

// conflicts refuses a link that leads elsewhere than one which is there.
func (s *Service) conflicts(req link1, l Link) error {
	st := s.host.State()
	for _, other := range st.Links {
		if err := conflict(st, newLink1(st, other), req); err != nil {
			return err
		}
	}
	if old, ok := st.sameLink(l.Link); ok && st.key(old.Provider) != st.key(l.Provider) {
		return fmt.Errorf("actor %s has a link %s for %s to another provider, %s; delete it first", old.Actor, old.Name, old.Contract, old.Provider)
	}
	return nil
}

// conflict refuses a link that shares an interface with another one of the same source and name, and leads elsewhere.
func conflict(st State, there, wanted link1) error {
	if st.key(there.Source) != st.key(wanted.Source) || there.Name != wanted.Name ||
		there.Namespace != wanted.Namespace || there.Package != wanted.Package || st.key(there.Target) == st.key(wanted.Target) {
		return nil
	}
	for _, face := range wanted.Interfaces {
		if slices.Contains(there.Interfaces, face) {
			return errors.New("link already exists with different target, consider deleting the existing link or using a different link name")
		}
	}
	return nil
}

// deleteLink1 deletes all links of a source with a name, for a WIT package.
func (s *Service) deleteLink1(ctx context.Context, body []byte) error {
	var req link1
	if err := decode(body, &req); err != nil {
		return err
	}
	var c checker
	source, name := c.name("source_id", req.Source), c.linkName("name", req.Name)
	namespace, pkg := c.contract("wit_namespace", req.Namespace), c.contract("wit_package", req.Package)
	return c.then(func() error {
		st := s.host.State()
		return s.deleteLinks(ctx, st, func(l Link) bool {
			there := newLink1(st, l)
			return st.key(there.Source) == st.key(source) && there.Name == name && there.Namespace == namespace && there.Package == pkg
		})
	})
}

// putConfig1 replaces a configuration.
func (s *Service) putConfig1(ctx context.Context, name string, body []byte) error {
	var req map[string]string
	if err := decode(body, &req); err != nil {
		return err
	}
	var c checker
	if len(name) > MaxName {
		c.fail("a name has %d bytes at most", MaxName)
	}
	values := make(map[string][]byte, len(req))
	for k, v := range c.values("configuration", req) {
		values[k] = []byte(v)
	}
	return c.then(func() error { return s.setConfig(ctx, name, values) })
}

// link is the link that a link of version 1 stands for.
func (r link1) link() (Link, error) {
	var c checker
	r.Source, r.Target = c.name("source_id", r.Source), c.name("target", r.Target)
	r.Name = c.linkName("name", r.Name)
	r.Namespace, r.Package = c.contract("wit_namespace", r.Namespace), c.contract("wit_package", r.Package)
	w := WIT{Namespace: r.Namespace, Package: r.Package, Interfaces: c.names("interfaces", r.Interfaces)}
	contract, inward := ContractOf(w)
	l := Link{
		Link: lattice.Link{Actor: r.Source, Provider: r.Target, Contract: contract, Name: r.Name, Values: map[string]string{}},
		WIT:  w, SourceConfig: c.names("source_config", r.SourceConfig), TargetConfig: c.names("target_config", r.TargetConfig),
	}
	if inward {
		l.Actor, l.Provider = l.Provider, l.Actor
	}
	return l, c.err
}
