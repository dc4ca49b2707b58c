package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

// This file is what both versions do with a state: what they accept, and what is done in a lane once it is accepted.

// reserved begins the labels that a host has by itself.
const reserved = "hostcore."

// ofApp refuses to change what an app declares.
func ofApp(what, app string) error {
	if app == "" {
		return nil
	}
	return fmt.Errorf("%s belongs to the app %s; change the app instead", what, app)
}

// scale accepts a number of instances for one entry. add says that they come on top of those that run.
func (s *Service) scale(ctx context.Context, c ActorScale, add bool) error {
	st := s.host.State()
	if c.Max == 0 {
		st = st.stoppable()
	}
	running := st.actorsFrom(c.Ref)
	if c.ID != "" {
		running = st.actors(c.ID)
	}
	if len(running) > 0 {
		a := running[0]
		if c.Max == 0 && !add {
			c.Ref = a.Ref // a stop is one, whatever it runs from
		}
		if a.Ref != c.Ref {
			return fmt.Errorf("actor %s runs from %s already; use update to run it from %s", a.ID, a.Ref, c.Ref)
		}
		if err := ofApp("actor "+a.ID, a.App); err != nil {
			return err
		}
		c.ID = a.ID
	}
	if err := st.missing(c.Config); err != nil {
		return err
	}
	return s.lanes.add(ctx, actorLane(c.ID, c.Ref), func(ctx context.Context) {
		s.scaleNow(ctx, c, add)
	})
}

// scaleNow is scale in its lane.
func (s *Service) scaleNow(ctx context.Context, c ActorScale, add bool) {
	st := s.host.State()
	if c.Max == 0 {
		st = st.stoppable()
	}
	running := st.actorsFrom(c.Ref)
	if c.ID != "" {
		running = st.actors(c.ID)
	}
	a, ok := entry(running, c.Annotations)
	if add {
		c.Max = uint32(min(uint64(c.Max)+uint64(a.Max), MaxInstances-1))
	}
	if !ok && c.Max == 0 {
		return // as it is already
	}
	if ok {
		c.ID = a.ID
	}
	if err := s.host.ScaleActor(ctx, c); err != nil {
		s.events.failed(actorFailed(s.host.State(), c, err), "an actor was not scaled", err)
		return
	}
	s.Changed()
}

// actorLane is the lane of an actor, or of its reference while nobody knows its key.
func actorLane(id, ref string) string {
	if id != "" {
		return "actor " + id
	}
	return "ref " + ref
}

// stopActor accepts to stop count instances of the entries that have the annotations, all of them if count is 0.
func (s *Service) stopActor(ctx context.Context, id string, count uint32, annotations map[string]string) error {
	chosen := func() []Actor {
		var found []Actor
		for _, a := range s.host.State().stoppable().actors(id) {
			if includes(a.Annotations, annotations) {
				found = append(found, a)
			}
		}
		return found
	}
	running := chosen()
	if len(running) == 0 {
		if len(s.host.State().stoppable().actors(id)) > 0 {
			return fmt.Errorf("actor %s runs on this host, but not with these annotations", id)
		}
		return fmt.Errorf("actor %s does not run on this host", id)
	}
	if err := ofApp("actor "+id, running[0].App); err != nil {
		return err
	}
	return s.lanes.add(ctx, actorLane(running[0].ID, ""), func(ctx context.Context) {
		left := count
		for _, a := range chosen() {
			c := ActorScale{ID: a.ID, Ref: a.Ref, Annotations: a.Annotations}
			if count > 0 {
				if left == 0 {
					break
				}
				stops := min(left, a.Max)
				left -= stops
				c.Max = a.Max - stops
			}
			if err := s.host.ScaleActor(ctx, c); err != nil {
				s.events.failed(actorFailed(s.host.State(), c, err), "an actor was not stopped", err)
			}
		}
		s.Changed()
	})
}

// updateActor accepts new code for an actor. Annotations, if there are any, must be those of one of its entries.
func (s *Service) updateActor(ctx context.Context, u ActorUpdate, annotations map[string]string) error {
	running := s.host.State().actors(u.ID)
	if len(running) == 0 {
		return fmt.Errorf("actor %s does not run on this host", u.ID)
	}
	if _, ok := entry(running, annotations); len(annotations) > 0 && !ok {
		return fmt.Errorf("actor %s runs on this host, but not with these annotations", u.ID)
	}
	if err := ofApp("actor "+u.ID, running[0].App); err != nil {
		return err
	}
	u.ID = running[0].ID
	return s.lanes.add(ctx, actorLane(u.ID, ""), func(ctx context.Context) { s.updateNow(ctx, u) })
}

// updateNow is updateActor in its lane.
func (s *Service) updateNow(ctx context.Context, u ActorUpdate) {
	running := s.host.State().actors(u.ID)
	if len(running) == 0 {
		return // stopped meanwhile, which events have told
	}
	if err := s.host.UpdateActor(ctx, u); err != nil {
		s.events.failed(updateFailed(s.host.State(), running[0], u, err), "an actor was not updated", err)
		return
	}
	s.Changed()
}

// startProvider accepts to start a provider.
func (s *Service) startProvider(ctx context.Context, p ProviderStart) error {
	st := s.host.State()
	for _, other := range st.Providers {
		same := other.Ref == p.Ref && p.ID == "" || p.ID != "" && (other.ID == p.ID || other.Key == p.ID)
		if same && other.LinkName == p.LinkName {
			return fmt.Errorf("provider %s with link name %s runs on this host already", other.ID, other.LinkName)
		}
	}
	if err := st.missing(p.Config); err != nil {
		return err
	}
	lane := "provider " + p.ID
	if p.ID == "" {
		lane = "ref " + p.Ref
	}
	return s.lanes.add(ctx, lane, func(ctx context.Context) {
		if err := s.host.StartProvider(ctx, p); err != nil {
			s.events.failed(providerFailed(s.host.State(), p, err), "a provider was not started", err)
			return
		}
		s.Changed()
	})
}

// stopProvider accepts to stop a provider; all that have the id where link is "".
func (s *Service) stopProvider(ctx context.Context, id, link string) error {
	st := s.host.State().stoppable()
	running := st.providers(id, link)
	switch {
	case len(running) > 0:
	case len(st.providers(id, "")) > 0:
		return errors.New("provider with that link name is not running")
	default:
		return fmt.Errorf("provider %s is not running on this host", id)
	}
	for _, p := range running {
		if p.Kept != "" {
			return fmt.Errorf("provider %s: %s", p.ID, p.Kept)
		}
		if err := ofApp("provider "+p.ID, p.App); err != nil {
			return err
		}
	}
	return s.lanes.add(ctx, "provider "+running[0].ID, func(ctx context.Context) {
		for _, p := range running {
			if err := s.host.StopProvider(ctx, ProviderStop{ID: p.ID, LinkName: p.LinkName}); err != nil {
				s.log.Warn("a provider was not stopped", "provider", p.ID, "link", p.LinkName, "err", err)
			}
		}
		s.Changed()
	})
}

// change makes a change that is answered when it is made.
func (s *Service) change(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := f(ctx); err != nil {
		return err
	}
	s.Changed()
	return nil
}

// putLink puts a link. The one it takes the place of keeps how it names its actor, so that it is one link and not two.
func (s *Service) putLink(ctx context.Context, l Link) error {
	st := s.host.State()
	if err := st.missing(l.SourceConfig, l.TargetConfig); err != nil {
		return err
	}
	if len(st.actors(l.Provider)) > 0 || isKey(l.Provider, claims.Module) {
		return fmt.Errorf("%s is an actor; a link leads to a provider, and actors call each other by key or call alias without one", l.Provider)
	}
	if len(st.providers(l.Actor, "")) > 0 || isKey(l.Actor, claims.Service) {
		return fmt.Errorf("%s is a provider; a link for %s begins at an actor", l.Actor, l.Contract)
	}
	if old, ok := st.sameLink(l.Link); ok {
		if err := ofApp("link "+old.Name+" of "+old.Actor, old.App); err != nil {
			return err
		}
		l.Actor = old.Actor
	} else if len(st.Links) >= MaxStored {
		return fmt.Errorf("there are %d links, which is as many as can be; delete one first", len(st.Links))
	}
	return s.change(ctx, func(ctx context.Context) error { return s.host.PutLink(ctx, l) })
}

// deleteLinks deletes those of the links of st that are chosen.
func (s *Service) deleteLinks(ctx context.Context, st State, chosen func(Link) bool) error {
	for _, l := range st.Links {
		if !chosen(l) {
			continue
		}
		if err := ofApp("link "+l.Name+" of "+l.Actor, l.App); err != nil {
			return err
		}
		if err := s.change(ctx, func(ctx context.Context) error { return s.host.DeleteLink(ctx, l.Link) }); err != nil {
			return err
		}
	}
	return nil
}

// setConfig makes values a configuration, or deletes it where they are nil.
func (s *Service) setConfig(ctx context.Context, name string, values map[string][]byte) error {
	all := s.host.State().Config
	if old, ok := all[name]; ok == (values != nil) && maps.EqualFunc(old, values, bytes.Equal) {
		return nil // as the second copy of a request that all hosts hear
	}
	if values != nil {
		size, others := sizeOf(values), 0
		for other, v := range all {
			if other != name {
				size += sizeOf(v)
				others++
			}
		}
		if size > MaxStoredBytes || others >= MaxStored {
			return fmt.Errorf("there would be %d configurations with %d bytes; %d with %d are allowed", others+1, size, MaxStored, MaxStoredBytes)
		}
	}
	return s.change(ctx, func(ctx context.Context) error { return s.host.SetConfig(ctx, name, values) })
}

func sizeOf(values map[string][]byte) int {
	size := 0
	for k, v := range values {
		size += len(k) + len(v)
	}
	return size
}

// setLabel puts a label, or deletes it where value is nil.
func (s *Service) setLabel(ctx context.Context, key string, value *string) error {
	if strings.HasPrefix(strings.ToLower(key), reserved) {
		return fmt.Errorf("label %.80q: labels that begin with %s are the host's own", key, reserved)
	}
	labels := map[string]string{}
	for k, v := range s.host.State().Labels {
		if !strings.HasPrefix(k, reserved) {
			labels[k] = v
		}
	}
	if value == nil {
		delete(labels, key)
	} else {
		labels[key] = *value
	}
	var c checker
	if c.pairs("labels", labels); c.err != nil {
		return fmt.Errorf("%w; delete one first", c.err)
	}
	return s.change(ctx, func(ctx context.Context) error { return s.host.SetLabels(ctx, labels) })
}

// label reads a request to put or delete a label.
func label(body []byte, put bool) (key string, value *string, err error) {
	var req struct {
		Key   string  `json:"key"`
		Value *string `json:"value"`
	}
	if err := decode(body, &req); err != nil {
		return "", nil, err
	}
	key = strings.TrimSpace(req.Key)
	switch {
	case key == "":
		return "", nil, errors.New("key is missing")
	case len(key) > MaxName:
		return "", nil, fmt.Errorf("key has %d bytes; %d are allowed", len(key), MaxName)
	case !put:
		return key, nil, nil
	case req.Value == nil:
		return "", nil, errors.New("value is missing")
	case len(*req.Value) > MaxValueBytes:
		return "", nil, fmt.Errorf("value has %d bytes; %d are allowed", len(*req.Value), MaxValueBytes)
	}
	return key, req.Value, nil
}

// setRegistries adds logins.
func (s *Service) setRegistries(ctx context.Context, body []byte) error {
	var req map[string]registry
	if err := decode(body, &req); err != nil {
		return err
	}
	var c checker
	logins := c.registries(req)
	if c.err != nil {
		return c.err
	}
	return s.change(ctx, func(ctx context.Context) error { return s.host.SetRegistries(ctx, logins) })
}

// stopHost reads a request to stop; other says that another host is meant.
func (s *Service) stopHost(body []byte) (other bool, err error) {
	var req struct {
		Host    string  `json:"host_id"`
		Timeout *uint64 `json:"timeout"` // milliseconds
	}
	if len(strings.TrimSpace(string(body))) > 0 {
		if err := decode(body, &req); err != nil {
			return false, err
		}
	}
	if id := strings.TrimSpace(req.Host); id != "" && id != s.host.State().ID {
		return true, nil
	}
	within := stopTimeout
	if req.Timeout != nil {
		within = time.Duration(min(*req.Timeout, uint64(maxStop.Milliseconds()))) * time.Millisecond
	}
	s.leave = &within
	return false, nil
}

// maxStop is the longest time that a host is given to stop.
const maxStop = 10 * time.Minute
