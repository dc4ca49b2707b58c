package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/internal/node"
)

func newActor() *cobra.Command {
	return group("actor", "Actors of a box", newActorList(), newActorStart(), newActorStop(), newActorScale(), newActorUpdate())
}

// actorItem is an actor in the listing of a box that is elsewhere.
type actorItem struct {
	Host        string            `json:"host"`
	Key         string            `json:"key"`
	Name        string            `json:"name"`
	Ref         string            `json:"ref"`
	Revision    int64             `json:"revision"`
	Instances   uint32            `json:"instances"` // that may run at once
	Annotations map[string]string `json:"annotations"`
}

func newActorList() *cobra.Command {
	var f latticeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List actors, what they did, and which limits they met", Args: usage(cobra.NoArgs),
		Long: `List the actors of the box on this machine, with what they did and which limits they
met; or, with --device or --server, what runs on boxes elsewhere, by the inventory
that they give.`,
		Example: "  edged actor ls\n  edged actor ls --server nats://hub.example:4222\n  edged actor ls --server nats://hub.example:4222 --device press-7 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.device == "" && f.hub.server == "" {
				return f.actorsHere(cmd, asJSON)
			}
			all := []actorItem{}
			err := f.inventories(cmd, func(h peer, st control.State) {
				for _, a := range st.Actors {
					all = append(all, actorItem{h.name, a.Key, a.Name, a.Ref, a.Revision, a.Max, known(a.Annotations)})
				}
			})
			if err != nil {
				return err
			}
			slices.SortStableFunc(all, func(a, b actorItem) int {
				return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key))
			})
			return printed(cmd, asJSON, all, func(w io.Writer) {
				table(w, func(row func(...any)) {
					row("HOST", "ACTOR", "REVISION", "INSTANCES", "FROM", "ANNOTATIONS", "KEY")
					for _, a := range all {
						row(a.Host, a.Name, a.Revision, a.Instances, a.Ref, texts(a.Annotations), a.Key)
					}
				})
			})
		},
	}
	f.registerHost(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// actorsHere asks the box itself, which knows more than it tells the lattice.
func (f *latticeFlags) actorsHere(cmd *cobra.Command, asJSON bool) error {
	b, err := findBox(f.config)
	if err != nil {
		return err
	}
	var l list[node.ActorStatus]
	if err := b.do(cmd.Context(), http.MethodGet, "/actors", &l); err != nil {
		return err
	}
	return printed(cmd, asJSON, l.Items, func(w io.Writer) { showActors(w, l.Items) })
}

func showActors(w io.Writer, all []node.ActorStatus) {
	table(w, func(row func(...any)) {
		row("ACTOR", "VERSION", "BUSY", "IDLE", "WAITING", "MEMORY", "CALLS", "ERRORS", "TRAPS", "LIMITS MET", "KEY")
		for _, a := range all {
			row(calledActor(a), a.Version, a.Busy, a.Idle, a.Waiting, a.Memory, a.Calls, a.Errors, a.Traps, strings.Join(limitsMet(a.Limits), ", "), keyOf(a))
		}
	})
	for _, a := range all {
		if f := a.Failure; f != nil {
			fmt.Fprintf(w, "\n%s failed last at %s:\n  %s\n  %s\n", oneLine(calledActor(a)), f.Time.Format(time.RFC3339), oneLine(f.Error), oneLine(became(f)))
		}
	}
}

// calledActor is an actor with its app; one that belongs to no app has its name alone.
func calledActor(a node.ActorStatus) string {
	if strings.HasPrefix(a.App, config.AssembledPrefix) {
		return a.Name
	}
	return a.App + "/" + a.Name
}

func limitsMet(all []node.LimitStatus) (met []string) {
	for _, l := range all {
		if l.Met > 0 {
			met = append(met, fmt.Sprintf("%s %d", l.Name, l.Met))
		}
	}
	return met
}

// keyOf is the key of a signed actor; another one has none but its name.
func keyOf(a node.ActorStatus) string {
	if a.Key == a.App+"/"+a.Name {
		return ""
	}
	return a.Key
}

// became says what was handled, if that has a name, and what became of it.
func became(f *node.FailureStatus) string {
	if f.Message == "" {
		return f.Outcome
	}
	return f.Message + ": " + f.Outcome
}
