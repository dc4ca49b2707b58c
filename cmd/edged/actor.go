package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/node"
)

func newActor() *cobra.Command {
	ls := listing("ls", "List actors, what they did, and which limits they met", "/actors", func(w io.Writer, l list[node.ActorStatus]) {
		table(w, func(row func(...any)) {
			row("ACTOR", "APP", "VERSION", "BUSY", "IDLE", "WAITING", "MEMORY", "CALLS", "ERRORS", "TRAPS", "LIMITS MET")
			for _, a := range l.Items {
				row(a.Key, a.App, a.Version, a.Busy, a.Idle, a.Waiting, a.Memory, a.Calls, a.Errors, a.Traps, strings.Join(limitsMet(a.Limits), ", "))
			}
		})
		for _, a := range l.Items {
			if f := a.Failure; f != nil {
				became := f.Outcome
				if f.Message != "" {
					became = f.Message + ": " + became
				}
				fmt.Fprintf(w, "\n%s failed last at %s:\n  %s\n  %s\n", oneLine(a.Key), f.Time.Format(time.RFC3339), oneLine(f.Error), oneLine(became))
			}
		}
	})
	return group("actor", "Actors of the box", ls)
}

func limitsMet(all []node.LimitStatus) (met []string) {
	for _, l := range all {
		if l.Met > 0 {
			met = append(met, fmt.Sprintf("%s %d", l.Name, l.Met))
		}
	}
	return met
}
