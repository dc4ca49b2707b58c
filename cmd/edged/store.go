package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/store"
)

func newStore() *cobra.Command {
	return group("store", "The file that holds messages and state", newStoreCheck(), newStoreSalvage(), newStoreCompact())
}

func newStoreCheck() *cobra.Command {
	return storeVerb("check", "Read the whole store and say what of it is damaged", `Read the whole store and say what it holds and what of it is damaged. Nothing is changed.
A box that runs is asked to read its own; it goes on meanwhile. Exit code 5 means
damage: the next start of the box carries over what can be read, as salvage does.`,
		showReport, func(ctx context.Context, b *box, d *config.Device) (r store.Report, err error) {
			err = b.do(ctx, http.MethodGet, "/store/check", &r)
			if notRunning(err) {
				r, err = store.Check(ctx, d.Device.StateDir)
			}
			if err == nil && r.Damaged {
				err = errReported{store.ErrDamaged}
			}
			return r, err
		})
}

func newStoreSalvage() *cobra.Command {
	return storeVerb("salvage", "Set a damaged store aside and carry over what can be read", `Set a damaged store aside, in quarantine/ in the state directory, and put one in its place
that holds everything that can be read. This is what the start of a box does too. The
box must not run. A store without damage is left as it is.`,
		showReport, func(ctx context.Context, _ *box, d *config.Device) (store.Report, error) {
			return store.Salvage(ctx, d.Device.StateDir)
		})
}

func newStoreCompact() *cobra.Command {
	return storeVerb("compact", "Give room that the store does not need back to the disk", `Copy what the store holds into a new file that takes its place. A box that runs does it
without stopping; it gives up where publishers would have to wait for more than half a
second. It does it by itself, too, when there is much to gain and little going on.`,
		showCompaction, func(ctx context.Context, b *box, d *config.Device) (r store.CompactReport, err error) {
			err = b.do(ctx, http.MethodPost, "/store/compact", &r)
			if notRunning(err) {
				r, err = store.Compact(ctx, store.Options{
					Dir: d.Device.StateDir, MaxBytes: int64(d.Store.MaxBytes), Logger: slog.New(slog.DiscardHandler),
				})
			}
			return r, err
		})
}

// storeVerb is a verb that does something with the store of a box, through the
// box if it runs, and shows what came of it, even if that is an error that was
// reported.
func storeVerb[T any](use, short, long string, show func(io.Writer, T), do func(context.Context, *box, *config.Device) (T, error)) *cobra.Command {
	var cfg string
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := config.LoadDevice(cfg)
			if err != nil {
				return err
			}
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			b.client.Timeout = 0 // a large store takes its time
			var result T
			err = watched(cmd.ErrOrStderr(), use, func() (err error) {
				result, err = do(cmd.Context(), b, d)
				return err
			})
			if errors.Is(err, store.ErrLocked) {
				return hinted{err, "stop the box first"}
			}
			if err != nil && !errors.As(err, new(errReported)) {
				return err
			}
			if asJSON {
				return errors.Join(err, printJSON(cmd.OutOrStdout(), result))
			}
			show(cmd.OutOrStdout(), result)
			return err
		},
	}
	configFlag(cmd, &cfg)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// notRunning says whether err is that there is no box to ask, and not that one
// ended while it was asked.
func notRunning(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// watched runs fn and lets whoever sits at a terminal see that it goes on.
func watched(w io.Writer, what string, fn func() error) error {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return fn()
	}
	done := make(chan error, 1)
	go func() { done <- fn() }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seconds := 1; ; seconds++ {
		select {
		case err := <-done:
			if seconds > 1 {
				fmt.Fprint(w, "\r\033[K")
			}
			return err
		case <-tick.C:
			fmt.Fprintf(w, "\r%s: %d s", what, seconds)
		}
	}
}

func showReport(w io.Writer, r store.Report) {
	fmt.Fprintf(w, "%s: %d bytes, %d pages in use\n", r.File, r.Bytes, r.Pages)
	if len(r.Streams) > 0 {
		fmt.Fprintln(w)
		table(w, func(row func(...any)) {
			row("STREAM", "FIRST", "LAST", "MESSAGES", "BYTES", "LOST")
			for _, s := range r.Streams {
				row(s.Name, s.First, s.Last, s.Msgs, s.Bytes, s.Lost)
			}
		})
	}
	fmt.Fprintln(w)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note        %s\n", n)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "finding     %s\n", f)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "finding     and %d more\n", r.More)
	}
	for _, l := range r.LostLines() {
		fmt.Fprintf(w, "lost        %s\n", l)
	}
	if r.Aside != "" {
		fmt.Fprintf(w, "set aside   %s\n", r.Aside)
	}
	for _, q := range r.Quarantine {
		fmt.Fprintf(w, "quarantine  %s, %d bytes: %s\n", q.File, q.Bytes, lostText(q.Lost))
	}
	switch {
	case !r.Damaged:
		fmt.Fprintln(w, "nothing is damaged")
	case r.Aside == "":
		fmt.Fprintln(w, "it is damaged: start the box, or run edged store salvage, to carry over what can be read")
	default:
		fmt.Fprintln(w, "what could be read was carried over")
	}
}

func lostText(lines []string) string {
	if len(lines) == 0 {
		return "it is not known what was lost"
	}
	return "lost " + strings.Join(lines, "; ")
}

func showCompaction(w io.Writer, r store.CompactReport) {
	fmt.Fprintf(w, "%d bytes before, %d after, in %s; publishers waited for %s\n",
		r.Before, r.After, r.Took.Round(time.Millisecond), r.Paused.Round(time.Microsecond))
}
