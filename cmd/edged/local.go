package main

import (
	"bytes"
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
	return b.send(ctx, method, path, nil, reply)
}

// send is do with a body, which becomes JSON if it is not nil.
func (b *box) send(ctx context.Context, method, path string, body, reply any) error {
	var data io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		data = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://box"+path, data)
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
			return shown(cmd.OutOrStdout(), func(w io.Writer) { show(w, reply) })
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
			fmt.Fprint(t, oneLine(fmt.Sprint(c)))
		}
		fmt.Fprintln(t)
	})
	_ = t.Flush() // shown has the error
}

// shown is text for people that was written whole, or the reason why it was not.
func shown(w io.Writer, write func(io.Writer)) error {
	c := &checked{w: w}
	write(c)
	return c.err
}

// checked is a writer that remembers the first error, after which it writes
// nothing.
type checked struct {
	w   io.Writer
	err error
}

func (c *checked) Write(p []byte) (n int, err error) {
	if c.err != nil {
		return 0, c.err
	}
	n, c.err = c.w.Write(p)
	return n, c.err
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
