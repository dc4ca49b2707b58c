package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/control"
)

const refHelp = `REF is a reference in a registry, such as registry.example/thermostat:1.2.0, or a
file of the box, such as /var/lib/actors/thermostat.wasm.`

func newActorStart() *cobra.Command {
	var c command
	var count uint32
	var annotations []string
	cmd := &cobra.Command{
		Use: "start REF", Short: "Start an actor", Args: usage(cobra.ExactArgs(1)),
		Long: `Start an actor from REF, and wait until it runs or it is known why it does not. It
belongs to the box: it comes back when the box is started again, hub or no hub.

` + refHelp,
		Example: "  edged actor start registry.example/thermostat:1.2.0 --count 4\n  edged actor start --server nats://hub.example:4222 --device press-7 registry.example/thermostat:1.2.0",
		RunE: func(cmd *cobra.Command, args []string) error {
			if count == 0 {
				return usageOf(cmd, fmt.Errorf("--count is 0; edged actor stop stops an actor"))
			}
			marks, err := valuesOf(cmd, annotations, "")
			if err != nil {
				return err
			}
			return c.run(cmd, func(ctx context.Context, o *order) error {
				ref, err := reference(o, args[0])
				if err != nil {
					return err
				}
				scale := control.ActorScale{Ref: ref, Max: count, Annotations: marks}
				return o.await(ctx, scale.Ref, func(ctx context.Context, accepted func() bool) (control.State, error) {
					return o.ScaleActor(ctx, o.host.key, scale, accepted)
				}, func(st control.State) string {
					return entryText(find(st, func(a control.Actor) bool { return a.Ref == scale.Ref && maps.Equal(a.Annotations, marks) }))
				})
			})
		},
	}
	c.register(cmd)
	cmd.Flags().Uint32Var(&count, "count", 1, "how many calls it may serve at once")
	annotationFlag(cmd, &annotations, "annotation of these instances, KEY=VALUE; may be given more than once")
	return cmd
}

func newActorScale() *cobra.Command {
	var c command
	var annotations []string
	cmd := &cobra.Command{
		Use: "scale ACTOR COUNT", Short: "Change how many calls an actor may serve at once", Args: usage(cobra.ExactArgs(2)),
		Long: `Change how many calls an actor may serve at once. ACTOR is its key, its name, or what
it runs from. With 0 it is stopped.`,
		Example: "  edged actor scale thermostat 8",
		RunE: func(cmd *cobra.Command, args []string) error {
			count, err := strconv.ParseUint(args[1], 10, 31)
			if err != nil {
				return usageOf(cmd, fmt.Errorf("%q is no number of instances", args[1]))
			}
			marks, err := valuesOf(cmd, annotations, "")
			if err != nil {
				return err
			}
			return c.run(cmd, func(ctx context.Context, o *order) error {
				a, err := o.entry(ctx, args[0], marks)
				if err != nil {
					return err
				}
				scale := control.ActorScale{ID: a.Key, Ref: a.Ref, Max: uint32(count), Annotations: a.Annotations}
				return o.await(ctx, named(a), func(ctx context.Context, accepted func() bool) (control.State, error) {
					return o.ScaleActor(ctx, o.host.key, scale, accepted)
				}, func(st control.State) string {
					return entryText(find(st, func(b control.Actor) bool { return b.Key == a.Key && maps.Equal(a.Annotations, b.Annotations) }))
				})
			})
		},
	}
	c.register(cmd)
	annotationFlag(cmd, &annotations, "which instances, where there are some with other annotations, KEY=VALUE")
	cmd.ValidArgsFunction = c.completeFrom(actorNames)
	return cmd
}

func newActorStop() *cobra.Command {
	var c command
	var annotations []string
	cmd := &cobra.Command{
		Use: "stop ACTOR", Short: "Stop an actor", Args: usage(cobra.ExactArgs(1)),
		Long: `Stop all instances of an actor, or those with the annotations that are given. ACTOR
is its key, its name, or what it runs from. Its links stay.`,
		Example: "  edged actor stop thermostat",
		RunE: func(cmd *cobra.Command, args []string) error {
			marks, err := valuesOf(cmd, annotations, "")
			if err != nil {
				return err
			}
			return c.run(cmd, func(ctx context.Context, o *order) error {
				key, missing := o.actor(ctx, args[0])
				if missing != nil {
					key = args[0] // the host knows what is to run there and can not
				}
				return o.await(ctx, args[0], func(ctx context.Context, accepted func() bool) (control.State, error) {
					st, err := o.StopActor(ctx, o.host.key, key, marks, accepted)
					return st, whyNot(missing, err)
				}, func(control.State) string { return args[0] + " is stopped" })
			})
		},
	}
	c.register(cmd)
	annotationFlag(cmd, &annotations, "stop instances with this annotation only, KEY=VALUE")
	cmd.ValidArgsFunction = c.completeFrom(actorNames)
	return cmd
}

func newActorUpdate() *cobra.Command {
	var c command
	cmd := &cobra.Command{
		Use: "update ACTOR REF", Short: "Replace the code of a running actor, losing no call", Args: usage(cobra.ExactArgs(2)),
		Long: `Replace the code of a running actor. The module at REF has the same key and a higher
revision. Calls that are served end with the old code; no call is lost.

ACTOR is its key, its name, or what it runs from. ` + refHelp,
		Example: "  edged actor update thermostat registry.example/thermostat:1.3.0",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd, func(ctx context.Context, o *order) error {
				key, err := o.actor(ctx, args[0])
				if err != nil {
					return err
				}
				ref, err := reference(o, args[1])
				if err != nil {
					return err
				}
				u := control.ActorUpdate{ID: key, Ref: ref}
				return o.await(ctx, args[0]+" from "+u.Ref, func(ctx context.Context, accepted func() bool) (control.State, error) {
					return o.UpdateActor(ctx, o.host.key, u, accepted)
				}, func(st control.State) string {
					return entryText(find(st, func(a control.Actor) bool { return a.Key == key }))
				})
			})
		},
	}
	c.register(cmd)
	cmd.ValidArgsFunction = c.completeFrom(actorNames)
	return cmd
}

func annotationFlag(cmd *cobra.Command, to *[]string, help string) {
	cmd.Flags().StringArrayVar(to, "annotation", nil, help)
}

// reference is what a host is told. A file that is named from the working directory is named from the root for the box on this machine, which works
// in another one.
func reference(o *order, ref string) (string, error) {
	relative := strings.HasPrefix(ref, "./") || strings.HasPrefix(ref, "../")
	if o.host.name != o.box {
		if relative {
			return "", usageError{hinted{fmt.Errorf("%s: a file of another box is named from its root", ref), "put it there or into a registry; edged push takes whole apps to a box"}}
		}
		return ref, nil
	}
	if filepath.IsAbs(ref) {
		return ref, nil
	}
	if _, err := os.Stat(ref); err != nil {
		if relative { // and so no reference in a registry
			return "", usageError{err}
		}
		return ref, nil
	}
	return filepath.Abs(ref)
}

// actor is the key of an actor of the host.
func (o *order) actor(ctx context.Context, wanted string) (string, error) {
	st, err := o.State(ctx, o.host.key)
	if err != nil {
		return "", err
	}
	return pick("actor", wanted, st.Actors, func(a control.Actor) (string, string, string) { return a.Key, a.Name, a.Ref })
}

// entry is the one of an actor that has these annotations, or the only one if there are none.
func (o *order) entry(ctx context.Context, wanted string, annotations map[string]string) (control.Actor, error) {
	st, err := o.State(ctx, o.host.key)
	if err != nil {
		return control.Actor{}, err
	}
	key, err := pick("actor", wanted, st.Actors, func(a control.Actor) (string, string, string) { return a.Key, a.Name, a.Ref })
	if err != nil {
		return control.Actor{}, err
	}
	entries := slices.DeleteFunc(st.Actors, func(a control.Actor) bool { return a.Key != key })
	if len(annotations) == 0 && len(entries) == 1 {
		return entries[0], nil
	}
	var there []string
	for _, a := range entries {
		if maps.Equal(a.Annotations, annotations) {
			return a, nil
		}
		there = append(there, "{"+texts(a.Annotations)+"}")
	}
	return control.Actor{}, usageError{hinted{
		fmt.Errorf("actor %s has instances with annotations: %s", wanted, words(there)),
		"say which are meant with --annotation",
	}}
}

func find(st control.State, which func(control.Actor) bool) control.Actor {
	if i := slices.IndexFunc(st.Actors, which); i >= 0 {
		return st.Actors[i]
	}
	return control.Actor{}
}

// entryText tells what runs.
func entryText(a control.Actor) string {
	if a.Max == 0 {
		return "it is stopped"
	}
	calls := "calls"
	if a.Max == 1 {
		calls = "call"
	}
	return fmt.Sprintf("%s, revision %d, serves %d %s at once, from %s", named(a), a.Revision, a.Max, calls, a.Ref)
}

// named is what an actor is called, and its key.
func named(a control.Actor) string {
	if a.Name == "" || a.Name == a.Key {
		return a.Key
	}
	return a.Name + " (" + a.Key + ")"
}

func actorNames(st control.State) (all []string) {
	for _, a := range st.Actors {
		name := a.Name
		if name == "" || strings.ContainsAny(name, " \t") {
			name = a.Key
		}
		all = append(all, name)
	}
	return all
}
