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
			row("ACTOR", "VERSION", "BUSY", "IDLE", "WAITING", "MEMORY", "CALLS", "ERRORS", "TRAPS", "LIMITS MET", "KEY")
			for _, a := range l.Items {
				row(a.App+"/"+a.Name, a.Version, a.Busy, a.Idle, a.Waiting, a.Memory, a.Calls, a.Errors, a.Traps, strings.Join(limitsMet(a.Limits), ", "), keyOf(a))
			}
		})
		for _, a := range l.Items {
			if f := a.Failure; f != nil {
				fmt.Fprintf(w, "\n%s failed last at %s:\n  %s\n  %s\n", oneLine(a.App+"/"+a.Name), f.Time.Format(time.RFC3339), oneLine(f.Error), oneLine(became(f)))
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
