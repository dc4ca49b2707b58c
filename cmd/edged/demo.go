package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/edged-io/edged/internal/demo"
)

func newDemo() *cobra.Command {
	var o demo.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use: "demo", Short: "Show a box and a hub at work on this machine, and what they survive", Args: usage(cobra.NoArgs),
		Long: `Run a hub, a box with the example actor, and sensors that send to it, on free ports
of this machine. The link between box and hub is cut, and the box is killed with
SIGKILL and started again. At the end, what the hub holds is compared, for each
sensor, with what the box has acknowledged: the exit code is 1 if anything is
missing, repeated or out of order.

On a terminal the state is redrawn in place; elsewhere it is a line each second.
Ctrl-C ends the round early and compares all the same; Ctrl-C again leaves at
once. The state is in a temporary folder, which is removed unless something went
wrong.`,
		Example: "  edged demo\n  edged demo --duration 2m --rate 500\n  edged demo --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showDemo(cmd, o, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.App, "app", "", "folder of the example app (default demo/greenhouse beside the program)")
	f.DurationVar(&o.Duration, "duration", 30*time.Second, "length of a round")
	f.IntVar(&o.Rate, "rate", 100, "readings per second of all sensors together")
	f.BoolVar(&o.Forever, "forever", false, "begin again after each round, until Ctrl-C")
	f.BoolVar(&o.Keep, "keep", false, "keep the folder with the state and the logs")
	f.BoolVar(&asJSON, "json", false, "print the result as one JSON document, and nothing else")
	_ = cmd.MarkFlagDirname("app")
	return cmd
}

func showDemo(cmd *cobra.Command, o demo.Options, asJSON bool) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := o.Check(); err != nil {
		return usageOf(cmd, err)
	}
	if o.App == "" {
		if real, err := filepath.EvalSymlinks(program); err == nil {
			program = real
		}
		o.App = filepath.Join(filepath.Dir(program), "demo", "greenhouse")
	}
	err = demo.CheckApp(o.App)
	if errors.Is(err, fs.ErrNotExist) {
		return usageError{hinted{err, "make demo builds the app and shows it; or name its folder with --app"}}
	}
	if err != nil {
		return err
	}
	o.Box = func(file string) *exec.Cmd { return exec.Command(program, "run", "--config", file) }
	o.Screen = screen(cmd, asJSON)
	ctx, stop := secondSignal(cmd.Context())
	defer stop()
	o.Finish = cmd.Context().Done()

	r, err := demo.Run(ctx, o)
	if asJSON {
		err = errors.Join(err, printJSON(cmd.OutOrStdout(), r))
	} else {
		fmt.Fprintln(cmd.OutOrStdout())
		r.Print(cmd.OutOrStdout())
	}
	switch {
	case r.Dir == "":
	case err != nil:
		err = hinted{err, "state and logs are kept in " + r.Dir}
	case !asJSON:
		fmt.Fprintf(cmd.OutOrStdout(), "State and logs are kept in %s\n", r.Dir)
	}
	return err
}

// screen is the terminal as well as it can be used. With JSON, standard output
// is for the document alone.
func screen(cmd *cobra.Command, asJSON bool) demo.Screen {
	var w io.Writer = cmd.OutOrStdout()
	if asJSON {
		w = cmd.ErrOrStderr()
	}
	file, ok := w.(*os.File)
	dumb := os.Getenv("TERM") == "" || os.Getenv("TERM") == "dumb"
	switch {
	case ok && !dumb && term.IsTerminal(int(file.Fd())):
		return demo.NewLive(file, func() (columns, rows int) {
			columns, rows, err := term.GetSize(int(file.Fd()))
			if err != nil || columns == 0 || rows == 0 {
				return 80, 24
			}
			return columns, rows
		}, os.Getenv("NO_COLOR") == "")
	case asJSON:
		return nil
	}
	return demo.NewPlain(w)
}

// secondSignal returns a context that ends with the second signal that asks the
// program to end, or when the terminal is gone. The first signal ends the
// command's own.
func secondSignal(first context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(first))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() { // ends with ctx
		defer signal.Stop(signals)
		for asked := 0; asked < 2; asked++ {
			select {
			case s := <-signals:
				if s == syscall.SIGHUP {
					asked++
				}
			case <-ctx.Done():
				return
			}
		}
		cancel(errors.New("interrupted before the comparison"))
	}()
	return ctx, func() { cancel(nil) }
}
