package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func newHost() *cobra.Command {
	return group("host", "Hosts of the lattice: boxes, and classic hosts", newHostList(), newHostStop())
}

// hostItem is a host in a listing.
type hostItem struct {
	Key     string            `json:"key"`
	Name    string            `json:"name"`
	Version string            `json:"version"`
	Started time.Time         `json:"started"`
	Labels  map[string]string `json:"labels"`
}

func newHostList() *cobra.Command {
	var f latticeFlags
	var asJSON bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "ls", Short: "List the hosts that are there", Args: usage(cobra.NoArgs),
		Long: `List the hosts of the lattice that say that they are there: those that the box on
this machine reaches, or, with --server, those that are connected to the hub.`,
		Example: "  edged host ls\n  edged host ls --server nats://hub.example:4222 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := []hostItem{}
			err := f.do(cmd, func(ctx context.Context, o *operator) error {
				hosts, err := o.Hosts(ctx, wait)
				for _, h := range hosts {
					all = append(all, hostItem{h.ID, h.FriendlyName, h.Version, h.Started.UTC().Truncate(time.Second), known(h.Labels)})
				}
				return err
			})
			if err != nil {
				return err
			}
			return printed(cmd, asJSON, all, func(w io.Writer) {
				table(w, func(row func(...any)) {
					row("HOST", "VERSION", "UP", "LABELS", "KEY")
					for _, h := range all {
						row(h.Name, h.Version, time.Since(h.Started).Round(time.Second), texts(h.Labels), h.Key)
					}
				})
			})
		},
	}
	f.register(cmd)
	cmd.Flags().DurationVar(&wait, "wait", askAround, "how long hosts have to answer")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newHostStop() *cobra.Command {
	var f latticeFlags
	var within time.Duration
	cmd := &cobra.Command{
		Use: "stop", Short: "Stop a box", Args: usage(cobra.NoArgs),
		Long: `Stop a box in good order: its actors and providers end, and so does edged. Under
systemd the unit starts it again after 3 s, with all that was put by these verbs;
systemctl stop edged keeps it down.`,
		Example: "  edged host stop --server nats://hub.example:4222 --device press-7",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.do(cmd, func(ctx context.Context, o *operator) error {
				h, err := o.host(ctx, cmd, f.device)
				if err != nil {
					return err
				}
				return h.of(o.StopHost(ctx, h.key, within))
			})
		},
	}
	f.registerHost(cmd)
	cmd.Flags().DurationVar(&within, "within", 10*time.Second, "how long it has")
	return cmd
}

// printed shows a listing, as a document or for people.
func printed[T any](cmd *cobra.Command, asJSON bool, items []T, show func(io.Writer)) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), list[T]{items})
	}
	return shown(cmd.OutOrStdout(), show)
}
