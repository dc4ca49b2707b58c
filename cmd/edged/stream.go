package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/node"
)

func newStream() *cobra.Command {
	ls := listing("ls", "List streams", "/streams", func(w io.Writer, l list[node.StreamStatus]) { showStreams(w, l.Items) })
	return group("stream", "Streams of the box", ls, newStreamRemove())
}

func showStreams(w io.Writer, all []node.StreamStatus) {
	table(w, func(row func(...any)) {
		row("STREAM", "FIRST", "LAST", "ACKED", "LAG", "MESSAGES", "BYTES", "DELAYED", "DROPPED", "DURABILITY", "AT RISK", "PRIORITY", "NOTE")
		for _, s := range all {
			row(s.Name, s.First, s.Last, s.Acked, s.Lag, s.Messages, s.Bytes, s.Delayed, dropped(s), s.Durability, atRisk(s.AtRisk), s.Priority, note(s))
		}
	})
}

// dropped is a count, with its reasons where there is one.
func dropped(s node.StreamStatus) string {
	var why []string
	for reason, n := range s.Reasons {
		if n > 0 {
			why = append(why, reason+" "+strconv.FormatUint(n, 10))
		}
	}
	if len(why) == 0 {
		return strconv.FormatUint(s.Dropped, 10)
	}
	slices.SortFunc(why, cmp.Compare)
	return fmt.Sprintf("%d (%s)", s.Dropped, strings.Join(why, ", "))
}

// atRisk is what a power cut would take now.
func atRisk(r node.RiskStatus) string {
	if r.Messages == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%d ms)", r.Messages, r.Ms)
}

func note(s node.StreamStatus) string {
	if s.Undeclared {
		return "undeclared"
	}
	return ""
}

func newStreamRemove() *cobra.Command {
	var cfg string
	var force bool
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Remove a stream that no app declares any more", Args: usage(cobra.ExactArgs(1)),
		Long: `Remove a stream that no app declares any more, with its subscriptions. One that still
holds messages is removed with --force only, and its messages are lost.`,
		Example: "  edged stream rm telemetry\n  edged stream rm telemetry --force",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			path := "/streams/" + url.PathEscape(args[0]) + "?force=" + strconv.FormatBool(force)
			return b.do(cmd.Context(), http.MethodDelete, path, &struct{}{})
		},
	}
	configFlag(cmd, &cfg)
	cmd.Flags().BoolVar(&force, "force", false, "with the messages it holds")
	return cmd
}

func newSubscription() *cobra.Command {
	ls := listing("ls", "List subscriptions", "/subscriptions", func(w io.Writer, l list[node.SubscriptionStatus]) {
		table(w, func(row func(...any)) {
			row("SUBSCRIPTION", "STREAM", "ACKED", "PENDING", "IN FLIGHT", "RETRYING", "DELIVERED", "DEAD", "NOTE")
			for _, s := range l.Items {
				var notes []string
				if s.Paused {
					notes = append(notes, "paused")
				}
				if s.Undeclared {
					notes = append(notes, "undeclared")
				}
				row(s.Name, s.Stream, s.Acked, s.Pending, s.InFlight, s.Retrying, s.Delivered, s.DeadLetters, words(notes))
			}
		})
	})
	c := group("subscription", "Subscriptions of the box", ls)
	c.Aliases = []string{"sub"}
	return c
}
