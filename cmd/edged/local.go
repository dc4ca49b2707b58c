package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/node"
	"github.com/edged-io/edged/store"
)

// box is a running box on this machine, found by its device file.
type box struct {
	client *http.Client
	device string
}

func findBox(path string) (*box, error) {
	d, err := config.LoadDevice(path)
	if err != nil {
		return nil, err
	}
	socket := node.SocketPath(d.Device.StateDir)
	return &box{device: d.Device.ID, client: &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return node.DialSocket(ctx, socket)
		}},
	}}, nil
}

// do asks the box and decodes its answer into reply.
func (b *box) do(ctx context.Context, method, path string, reply any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://box"+path, nil)
	if err != nil {
		return err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return unreachable{hinted{
			fmt.Errorf("box %s does not answer: %w", b.device, err),
			"is it running with this device file, and do you have the right to its state directory?",
		}}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var p node.Problem
		if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&p); err != nil {
			return fmt.Errorf("box %s: %s", b.device, resp.Status)
		}
		return problem(resp.StatusCode, p.Error)
	}
	if err := json.NewDecoder(resp.Body).Decode(reply); err != nil {
		return fmt.Errorf("box %s: answer: %w", b.device, err)
	}
	return nil
}

// errRefused: the box refused a signature.
var errRefused = errors.New("refused")

// boxFaults are faults in manifests, as a box tells them: a line each.
type boxFaults string

func (f boxFaults) Error() string { return string(f) }

// problem is what a box answered instead.
func problem(status int, text string) error {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound:
		return usageError{errors.New(text)}
	case http.StatusForbidden:
		return fmt.Errorf("%w: %s", errRefused, text)
	case http.StatusUnprocessableEntity:
		return boxFaults(text)
	}
	return errors.New(text)
}

// printJSON writes one document.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// listing is a verb that asks the box for something and shows it.
func listing[T any](use, short, path string, show func(io.Writer, T)) *cobra.Command {
	var cfg string
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			var reply T
			if err := b.do(cmd.Context(), http.MethodGet, path, &reply); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), reply)
			}
			show(cmd.OutOrStdout(), reply)
			return nil
		},
	}
	configFlag(cmd, &cfg)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

type list[T any] struct {
	Items []T `json:"items"`
}

// table writes aligned columns.
func table(w io.Writer, rows func(row func(cells ...any))) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	rows(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, c)
		}
		fmt.Fprintln(t)
	})
	_ = t.Flush() // w is the terminal
}

func newStream() *cobra.Command {
	return group("stream", "Streams of the box", listing("ls", "List streams", "/streams",
		func(w io.Writer, l list[node.StreamStatus]) { showStreams(w, l.Items) }))
}

func showStreams(w io.Writer, all []node.StreamStatus) {
	table(w, func(row func(...any)) {
		row("STREAM", "FIRST", "LAST", "ACKED", "LAG", "BYTES", "DROPPED")
		for _, s := range all {
			row(s.Name, s.First, s.Last, s.Acked, s.Lag, s.Bytes, s.Dropped)
		}
	})
}

func newGPIO() *cobra.Command {
	var cfg string
	set := &cobra.Command{
		Use: "set CHIP LINE LEVEL", Short: "Move a line of the simulated chip sim0", Args: usage(cobra.ExactArgs(3)),
		Example: "  edged gpio set sim0 3 1 --config edged.toml",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			return b.do(cmd.Context(), http.MethodPost, fmt.Sprintf("/gpio/%s/%s/%s", args[0], args[1], args[2]), &struct{}{})
		},
	}
	configFlag(set, &cfg)
	ls := listing("ls", "List GPIO lines that actors own", "/gpio", func(w io.Writer, l list[node.Line]) {
		table(w, func(row func(...any)) {
			row("CHIP", "LINE", "DIRECTION", "LEVEL", "OWNER", "EDGES", "ERROR")
			for _, x := range l.Items {
				row(x.Chip, x.Line, x.Direction, level(x.Level), x.Owner, x.Edges, x.Error)
			}
		})
	})
	return group("gpio", "GPIO lines of the box", ls, set)
}

func level(high bool) int {
	if high {
		return 1
	}
	return 0
}

func newDLQ() *cobra.Command {
	ls := listing("ls", "List dead letters", "/dlq", func(w io.Writer, l list[store.DeadLetter]) {
		table(w, func(row func(...any)) {
			row("ID", "TIME", "STREAM", "SEQ", "SUBJECT", "SUBSCRIPTION", "ATTEMPTS", "REASON", "ERROR")
			for _, d := range l.Items {
				row(d.ID, d.Time.Format(time.RFC3339), d.Stream, d.Seq, d.Subject, d.Subscription, d.Attempts, d.Reason, firstLine(d.Error))
			}
		})
	})
	return group("dlq", "Dead letters: messages that were given up", ls, newDLQShow())
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
			if err := b.do(cmd.Context(), http.MethodGet, "/dlq/"+args[0], &d); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), d)
			}
			showDeadLetter(cmd.OutOrStdout(), d)
			return nil
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
	})
	fmt.Fprintf(w, "\nerror:\n%s\n\nheader:\n%sdata (%d bytes):\n%s\n", d.Error, d.Header, len(d.Data), printable(d.Data))
}

func newReload() *cobra.Command {
	var cfg string
	cmd := &cobra.Command{
		Use: "reload", Short: "Read the apps folder again, all or nothing", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			return b.do(cmd.Context(), http.MethodPost, "/reload", &struct{}{})
		},
	}
	configFlag(cmd, &cfg)
	return cmd
}
