package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// pollOutcome is how often a client that waits looks at the host itself: events are lost where a link is.
const pollOutcome = time.Second

// ScaleActor makes Max the number of instances of the entry of an actor that has these annotations, and starts it if it does not run. It returns with the
// state in which that is so, or with why it came to nothing. accepted is called once the host has accepted the command, and says whether to wait; if ctx ends meanwhile, the
// error is ErrNotDone, and the host goes on.
func (c *Client) ScaleActor(ctx context.Context, host string, a ActorScale, accepted func() bool) (State, error) {
	done := func(st State) bool {
		entry, ok := entry(st.entries(a.ID, a.Ref), a.Annotations)
		return ok && entry.Max == a.Max || !ok && a.Max == 0
	}
	req := map[string]any{"host_id": host, "actor_ref": a.Ref, "count": a.Max, "annotations": some(a.Annotations)}
	if a.ID != "" {
		req["actor_id"] = a.ID
	}
	return c.outcome(ctx, host, "scale", req, accepted, done, actorFailure(a.ID, a.Ref, a.Annotations))
}

// entries are those of an actor by its key, or without one by what it runs from.
func (st State) entries(id, ref string) []Actor {
	if id != "" {
		return st.actors(id)
	}
	return st.actorsFrom(ref)
}

// StopActor stops all instances of an actor that have the annotations. See ScaleActor.
func (c *Client) StopActor(ctx context.Context, host, id string, annotations map[string]string, accepted func() bool) (State, error) {
	done := func(st State) bool {
		return !slices.ContainsFunc(st.actors(id), func(a Actor) bool { return includes(a.Annotations, annotations) })
	}
	req := map[string]any{"host_id": host, "actor_ref": id, "count": 0, "annotations": some(annotations)}
	return c.outcome(ctx, host, "sa", req, accepted, done, actorFailure(id, "", nil))
}

// UpdateActor replaces the code of a running actor. See ScaleActor.
func (c *Client) UpdateActor(ctx context.Context, host string, u ActorUpdate, accepted func() bool) (State, error) {
	before, err := c.State(ctx, host)
	if err != nil {
		return State{}, err
	}
	was := before.actors(u.ID)
	done := func(st State) bool {
		if len(was) == 0 {
			return false
		}
		is, ok := entry(st.actors(u.ID), was[0].Annotations)
		// From the same reference it is new when the revision is, or the host calls it another instance.
		return ok && is.Ref == u.Ref && (was[0].Ref != u.Ref || was[0].Revision != is.Revision || was[0].Instance != is.Instance)
	}
	req := map[string]any{"host_id": host, "actor_id": u.ID, "new_actor_ref": u.Ref}
	return c.outcome(ctx, host, "upd", req, accepted, done, actorFailure(u.ID, u.Ref, nil))
}

// StartProvider starts a provider from a reference. See ScaleActor.
func (c *Client) StartProvider(ctx context.Context, host string, p ProviderStart, accepted func() bool) (State, error) {
	done := func(st State) bool {
		return slices.ContainsFunc(st.Providers, func(o Provider) bool { return o.Ref == p.Ref && o.LinkName == p.LinkName })
	}
	req := map[string]any{"host_id": host, "provider_ref": p.Ref, "link_name": p.LinkName, "annotations": some(p.Annotations)}
	if p.Configuration != "" {
		req["configuration"] = p.Configuration
	}
	return c.outcome(ctx, host, "lp", req, accepted, done, func(e Event) error {
		var f providerEvent
		if e.Name != "provider_start_failed" || json.Unmarshal(e.Data, &f) != nil || f.ProviderRef != p.Ref || f.LinkName != p.LinkName {
			return nil
		}
		return failure(f.Error)
	})
}

// StopProvider stops a provider. See ScaleActor.
func (c *Client) StopProvider(ctx context.Context, host string, p ProviderStop, accepted func() bool) (State, error) {
	done := func(st State) bool { return len(st.providers(p.ID, p.LinkName)) == 0 }
	req := map[string]any{"host_id": host, "provider_ref": p.ID, "link_name": p.LinkName}
	return c.outcome(ctx, host, "sp", req, accepted, done, func(Event) error { return nil })
}

// actorFailure is why a command for an actor came to nothing, if an event says that it did. An actor that is not known yet has no key in it. One that
// names other code is of another command: hosts tell an event twice, and the second time may come after that command has ended.
func actorFailure(id, ref string, annotations map[string]string) func(Event) error {
	return func(e Event) error {
		switch e.Name {
		case "actor_start_failed", "actors_start_failed", "actor_scale_failed", "component_scale_failed", "actor_update_failed":
		default:
			return nil
		}
		var f actorEvent
		if json.Unmarshal(e.Data, &f) != nil {
			return nil
		}
		sameRef := f.Ref == ref || f.ActorRef == ref
		if named := cmp.Or(f.Ref, f.ActorRef) != ""; ref != "" && named && !sameRef {
			return nil
		}
		byRef := ref != "" && sameRef && (annotations == nil || maps.Equal(f.Annotations, annotations))
		if !byRef && (id == "" || f.PublicKey != id) {
			return nil
		}
		return failure(cmp.Or(f.Error, f.Reason))
	}
}

func failure(why string) error {
	return errors.New(cmp.Or(why, "it failed, and the host does not say why"))
}

// outcome gives a command to a host and waits until its state is as it should be, or an event says that it will not be.
func (c *Client) outcome(ctx context.Context, host, verb string, req any, accepted func() bool, done func(State) bool, failed func(Event) error) (State, error) {
	w, err := c.watch() // before the command, so that no event is missed
	if err != nil {
		return State{}, err
	}
	defer w.close()
	if err := c.command(ctx, "cmd."+host+"."+verb, req); err != nil {
		return State{}, err
	}
	if !accepted() {
		return State{}, nil
	}
	tick := time.NewTicker(pollOutcome)
	defer tick.Stop()
	for {
		// The state first: what another command failed at does not matter then.
		st, err := c.State(ctx, host)
		if err == nil && done(st) {
			return st, nil
		}
		for waiting := true; waiting; {
			select {
			case m := <-w.messages:
				e, ok := w.event(m)
				if !ok || e.Source != host {
					continue
				}
				if err := failed(e); err != nil {
					return State{}, err
				}
				waiting = e.Name == "host_heartbeat"
			case <-tick.C:
				waiting = false
			case <-ctx.Done():
				return State{}, fmt.Errorf("%w: %w", ErrNotDone, context.Cause(ctx))
			}
		}
	}
}
