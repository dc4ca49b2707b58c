package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/broker"
)

// progressEvery is how often the progress of a long comparison is told.
const progressEvery = 2 * time.Second

func newHubVerify() *cobra.Command {
	var f hubFlags
	var cfg, device, stream string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verify", Short: "Prove that a hub holds what it acknowledged to a box", Args: usage(cobra.NoArgs),
		Long: `Compare what a hub holds of a box with what it acknowledged to that box. The box
keeps a digest of each uplinked stream, over ranges of sequences; the lane on the
hub is read from its first message to its last and added up in the same way, in
constant memory. A message that is missing, altered, added or there twice is named.

The box is asked through the hub with --device, else on this machine. The login
given for the hub must be allowed to read the stream EDGE_UP.`,
		Example: "  edged hub verify --server nats://hub.example:4222 --device press-7\n  edged hub verify --server nats://hub.example:4222 --stream telemetry --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := broker.VerifyOptions{Domain: f.domain, Device: device, Stream: stream}
			if device == "" {
				b, err := findBox(cfg)
				if err != nil {
					return err
				}
				o.Device, o.Ask = b.device, b.digest
			}
			nc, err := f.connect()
			if err != nil {
				return err
			}
			defer nc.Close()
			if !asJSON {
				o.Progress = progress(cmd.ErrOrStderr())
			}
			all, err := broker.Verify(cmd.Context(), nc, o)
			if errors.Is(err, broker.ErrBoxSilent) {
				err = unreachable{err}
			}
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), list[broker.LaneReport]{append([]broker.LaneReport{}, all...)})
			} else {
				showReports(cmd.OutOrStdout(), all)
			}
			return errors.Join(err, judge(all))
		},
	}
	f.register(cmd)
	configFlag(cmd, &cfg)
	cmd.Flags().StringVar(&device, "device", "", "device id, to ask the box through the hub")
	cmd.Flags().StringVar(&stream, "stream", "", "one stream instead of all that are uplinked")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// digest asks the box for what the hub should hold.
func (b *box) digest(ctx context.Context, stream string) (d broker.DeviceDigest, err error) {
	return d, b.do(ctx, http.MethodGet, "/digest?stream="+url.QueryEscape(stream), &d)
}

// progress tells how far a comparison is.
func progress(w io.Writer) func(stream string, read, of uint64) {
	last := time.Now()
	return func(stream string, read, of uint64) {
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			fmt.Fprintf(w, "%s: %d of %d messages read\n", stream, read, of)
		}
	}
}

func showReports(w io.Writer, all []broker.LaneReport) {
	table(w, func(row func(...any)) {
		row("STREAM", "RESULT", "ON THE HUB", "PROVEN", "NEWER")
		for _, r := range all {
			row(r.Stream, r.Result, r.Read, r.Proven, r.Newer)
		}
	})
	for _, r := range all {
		for _, f := range r.Findings {
			fmt.Fprintf(w, "%s: %s\n", r.Stream, finding(f))
		}
		for _, u := range r.Unproven {
			fmt.Fprintf(w, "%s: not proven: %s, of which the hub holds %d messages: %s\n", r.Stream, sequences(u.From, u.To), u.Count, u.Why)
		}
	}
}

// finding is a fault in words.
func finding(f broker.LaneFinding) string {
	at := sequences(f.From, f.To)
	switch f.Kind {
	case "missing":
		return at + " missing on the hub"
	case "added":
		return at + " on the hub and not of this box"
	case "altered":
		return at + " not what the box sent"
	case "repeated":
		return fmt.Sprintf("%s there more than once, again at the hub's %d", at, f.HubSeq)
	case "order":
		return fmt.Sprintf("%s out of order, at the hub's %d", at, f.HubSeq)
	case "foreign":
		return fmt.Sprintf("a message of somebody else is at the hub's %d", f.HubSeq)
	}
	return fmt.Sprintf("%s differ: the hub acknowledged %d messages and holds %d", at, f.Box, f.Hub)
}

func sequences(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("message %d", from)
	}
	return fmt.Sprintf("messages %d to %d", from, to)
}

// judge is the outcome as an exit code.
func judge(all []broker.LaneReport) error {
	n := 0
	for _, r := range all {
		if r.Result == broker.ResultDiffers {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("the hub does not hold what it acknowledged: %d of %d lanes differ", n, len(all))
}
