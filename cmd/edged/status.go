package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/node"
)

func newStatus() *cobra.Command {
	var cfg, device string
	var f hubFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show the state of a box", Args: usage(cobra.NoArgs),
		Long: `Show the state of the box on this machine, or, with --server and --device, of a box
anywhere, through the hub. A box that is not connected is shown as the hub last
knew it.`,
		Example: "  edged status\n  edged status --server nats://hub.example:4222 --device press-7 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := status(cmd, cfg, device, &f)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return shown(cmd.OutOrStdout(), func(w io.Writer) { showStatus(w, s) })
		},
	}
	configFlag(cmd, &cfg)
	f.register(cmd)
	cmd.Flags().StringVar(&device, "device", "", "device id, with --server")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func status(cmd *cobra.Command, cfg, device string, f *hubFlags) (s node.Status, err error) {
	switch {
	case f.server == "" && device != "":
		return s, usageOf(cmd, errors.New("--device is for --server"))
	case f.server != "" && device == "":
		return s, usageOf(cmd, errors.New("--server needs --device"))
	case f.server != "":
		nc, err := f.connect()
		if err != nil {
			return s, err
		}
		defer nc.Close()
		s, err = node.RemoteStatus(cmd.Context(), nc, f.domain, device)
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, node.ErrNoHub) {
			err = unreachable{err}
		}
		return s, err
	}
	b, err := findBox(cfg)
	if err != nil {
		return s, err
	}
	return s, b.do(cmd.Context(), http.MethodGet, "/status", &s)
}

func showStatus(w io.Writer, s node.Status) {
	link := "link " + s.Link
	if s.Epoch == "" && s.Version != "" { // the box itself says so: only one with a hub has an epoch
		link = "no hub"
	}
	fmt.Fprintf(w, "%s: %s, version %s, %d dead letters\n", s.Device, link, s.Version, s.Dead)
	if s.Epoch != "" {
		fmt.Fprintf(w, "epoch     %s\n", s.Epoch)
	}
	if s.Desired != nil {
		fmt.Fprintf(w, "desired   %s %s\n", s.Desired.App, s.Desired.Version)
	}
	if r := s.Reported; r != nil && r.App != "" {
		fmt.Fprintf(w, "reported  %s %s %s\n", r.State, r.Version, r.Error)
	}
	for _, a := range s.Apps {
		fmt.Fprintf(w, "app       %s %s: %s\n", a.Name, a.Version, words(a.Actors))
	}
	for _, t := range s.Turns {
		fmt.Fprintf(w, "turns     %s/%s %s: %d\n", t.App, t.Actor, t.Version, t.Turns)
	}
	if r := s.Reload; r != nil && r.Error != "" {
		fmt.Fprintf(w, "reload    %s: %s\n", r.Time.Format(time.RFC3339), r.Error)
	}
	for _, p := range s.Problems {
		fmt.Fprintf(w, "problem   %s\n", p)
	}
	fmt.Fprintln(w)
	showStreams(w, s.Streams)
	showUplinks(w, s.Streams)
}

// showUplinks is about the streams that go to a hub.
func showUplinks(w io.Writer, all []node.StreamStatus) {
	all = slices.DeleteFunc(slices.Clone(all), func(s node.StreamStatus) bool { return s.Hub == nil })
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(w)
	table(w, func(row func(...any)) {
		row("UPLINK", "PRIORITY", "BACKLOG", "BYTES", "BYTES/S", "HUB LAST", "HUB MESSAGES", "AS OF", "WAITS FOR")
		for _, s := range all {
			at := "never asked"
			if !s.Hub.Time.IsZero() {
				at = s.Hub.Time.UTC().Format(time.RFC3339)
			}
			row(s.Name, s.Priority, s.Lag, s.BacklogBytes, s.Rate, s.Hub.Last, s.Hub.Msgs, at, firstLine(s.Waits))
		}
	})
}
