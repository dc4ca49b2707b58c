package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/node"
	"github.com/edged-io/edged/store"
)

func newDLQ() *cobra.Command {
	return group("dlq", "Dead letters: messages that were given up", newDLQList(), newDLQShow(), newDLQReplay(), newDLQDrop())
}

// letterFilter are the flags that choose among dead letters.
type letterFilter struct{ stream, subscription, reason string }

func (f *letterFilter) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.stream, "stream", "", "only those of a stream")
	cmd.Flags().StringVar(&f.subscription, "subscription", "", "only those of a subscription")
	cmd.Flags().StringVar(&f.reason, "reason", "", "only those with a reason, such as max-deliver or rejected")
}

func newDLQList() *cobra.Command {
	var cfg string
	var asJSON bool
	var f letterFilter
	cmd := &cobra.Command{
		Use: "ls", Short: "List dead letters", Args: usage(cobra.NoArgs),
		Example: "  edged dlq ls\n  edged dlq ls --reason rejected --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			q := url.Values{"stream": {f.stream}, "subscription": {f.subscription}, "reason": {f.reason}}
			var l list[store.DeadLetter]
			if err := b.do(cmd.Context(), http.MethodGet, "/dlq?"+q.Encode(), &l); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), l)
			}
			showDeadLetters(cmd.OutOrStdout(), l.Items)
			return nil
		},
	}
	configFlag(cmd, &cfg)
	f.register(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func jsonFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print one JSON document")
}

func showDeadLetters(w io.Writer, all []store.DeadLetter) {
	table(w, func(row func(...any)) {
		row("ID", "TIME", "STREAM", "SEQ", "SUBJECT", "SUBSCRIPTION", "ATTEMPTS", "REASON", "REPLAY TO", "ERROR")
		for _, d := range all {
			row(d.ID, d.Time.Format(time.RFC3339), d.Stream, d.Seq, d.Subject, d.Subscription, d.Attempts, d.Reason, d.ReplayTo,
				firstLine(strings.TrimPrefix(d.Error, "actor "+d.Actor+" "+d.ActorVersion+": ")))
		}
	})
}

func newDLQShow() *cobra.Command {
	var cfg string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show a dead letter with its message", Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			var d store.DeadLetter
			if err := b.do(cmd.Context(), http.MethodGet, "/dlq/"+url.PathEscape(args[0]), &d); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), d)
			}
			return shown(cmd.OutOrStdout(), func(w io.Writer) { showDeadLetter(w, d) })
		},
	}
	configFlag(cmd, &cfg)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document; header and data are base64")
	return cmd
}

func showDeadLetter(w io.Writer, d store.DeadLetter) {
	table(w, func(row func(...any)) {
		row("id", d.ID)
		row("time", d.Time.Format(time.RFC3339))
		row("stream", fmt.Sprintf("%s %d", d.Stream, d.Seq))
		row("subject", d.Subject)
		row("subscription", d.Subscription)
		row("actor", d.Actor+" "+d.ActorVersion)
		row("attempts", d.Attempts)
		row("reason", d.Reason)
		if d.ReplayTo != "" {
			row("replay to", d.ReplayTo)
		}
	})
	fmt.Fprintf(w, "\nerror:\n%s\n\nheader:\n%sdata (%d bytes):\n%s\n",
		printable([]byte(d.Error)), printable(d.Header), len(d.Data), printable(d.Data))
}

// letterVerb is a verb that changes dead letters: some by their ids, or all that
// a filter leaves.
func letterVerb(cmd *cobra.Command, path, done string, choice *node.DeadLetterChoice) *cobra.Command {
	var cfg string
	var asJSON bool
	var f letterFilter
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case choice.All && len(args) > 0:
			return usageOf(cmd, errors.New("want ids or --all, not both"))
		case !choice.All && len(args) == 0:
			return usageOf(cmd, errors.New("want the ids of dead letters, or --all"))
		case !choice.All && f != (letterFilter{}):
			return usageOf(cmd, errors.New("--stream, --subscription and --reason are for --all"))
		}
		for _, arg := range args {
			id, err := strconv.ParseUint(arg, 10, 64)
			if err != nil {
				return usageOf(cmd, fmt.Errorf("%q is no id of a dead letter", arg))
			}
			choice.IDs = append(choice.IDs, id)
		}
		choice.Stream, choice.Subscription, choice.Reason = f.stream, f.subscription, f.reason
		b, err := findBox(cfg)
		if err != nil {
			return err
		}
		var l list[store.DeadLetter]
		if err := b.send(cmd.Context(), http.MethodPost, path, choice, &l); err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), l)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d %s\n", len(l.Items), done)
		return nil
	}
	configFlag(cmd, &cfg)
	f.register(cmd)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&choice.All, "all", false, "all, or all that --stream, --subscription and --reason leave")
	return cmd
}

func newDLQReplay() *cobra.Command {
	choice := &node.DeadLetterChoice{}
	cmd := letterVerb(&cobra.Command{
		Use: "replay ID…", Short: "Let dead letters be handled once more",
		Long: `Let dead letters be handled once more, by the subscription each comes from or by
another one, in the order in which they were stored, and with as many attempts as
any message gets. A dead letter ends when it has been handled. One that fails
again stays, with its new error.`,
		Example: "  edged dlq replay 17 18\n  edged dlq replay --all --subscription work\n  edged dlq replay 17 --to audit",
	}, "/dlq/replay", "to be handled once more", choice)
	cmd.Flags().StringVar(&choice.To, "to", "", "another subscription than the one each comes from")
	return cmd
}

func newDLQDrop() *cobra.Command {
	return letterVerb(&cobra.Command{
		Use: "drop ID…", Short: "Drop dead letters for good",
		Example: "  edged dlq drop 17 18\n  edged dlq drop --all --reason rejected",
	}, "/dlq/drop", "dropped", &node.DeadLetterChoice{})
}
