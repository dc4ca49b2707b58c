// Command edged runs a box, and talks to boxes and hubs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	goruntime "runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/ota"
	"github.com/edged-io/edged/store"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2 // usage or configuration
	exitUnreachable = 3
	exitRefused     = 4 // signature or policy
	exitStore       = 5 // locked or unusable
)

func main() {
	goruntime.MemProfileRate = 0 // nobody can ask for the profile, and it has its price in memory
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main, for tests too.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot(args)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	report(errOut, err)
	return codeOf(err)
}

// usageError is a wrong use of the command line.
type usageError struct{ error }

// unreachable is a box or hub that does not answer.
type unreachable struct{ error }

func (e unreachable) Unwrap() error { return e.error }

// hinted is an error with a remedy.
type hinted struct {
	error
	hint string
}

func (e hinted) Unwrap() error { return e.error }

// errReported was told already; only its code is left to give.
type errReported struct{ error }

func (e errReported) Unwrap() error { return e.error }

func report(w io.Writer, err error) {
	var done errReported
	if errors.As(err, &done) {
		return
	}
	var faults config.Faults
	if errors.As(err, &faults) {
		fmt.Fprintln(w, faults)
		return
	}
	var remote boxFaults
	if errors.As(err, &remote) {
		fmt.Fprintln(w, remote)
		return
	}
	fmt.Fprintf(w, "edged: %s\n", printable([]byte(err.Error())))
	var h hinted
	if errors.As(err, &h) {
		fmt.Fprintf(w, "hint: %s\n", h.hint)
	}
}

func codeOf(err error) int {
	var usage usageError
	var faults config.Faults
	var gone unreachable
	var code exitCode
	switch {
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage), errors.As(err, &faults), errors.As(err, new(boxFaults)):
		return exitUsage
	case errors.As(err, &gone):
		return exitUnreachable
	case errors.Is(err, store.ErrLocked), errors.Is(err, store.ErrUnusable), errors.Is(err, store.ErrFailed), errors.Is(err, store.ErrDamaged):
		return exitStore
	}
	if claims.Refused(err) || errors.Is(err, errRefused) || errors.Is(err, ota.ErrRefused) {
		return exitRefused
	}
	if errors.As(err, new(notActor)) {
		return exitUsage
	}
	return exitFailed
}

// newRoot makes the command for args. The two verbs that a box runs are made without
// the others, and keep nothing of them in memory.
func newRoot(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "edged",
		Short: "An edge appliance in one program",
		Long: `edged turns a Linux box into an edge appliance: it keeps messages and the state
of actors on disk, runs WebAssembly actors, drives local hardware, and syncs
with a NATS hub when there is a link.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageOf(cmd, err) })
	switch {
	case len(args) > 0 && args[0] == runVerb:
		root.AddCommand(newRun())
		return root
	case len(args) > 0 && args[0] == compileVerb:
		root.AddCommand(newCompile())
		return root
	}
	root.AddCommand(
		newRun(), newCheck(), newStatus(), newStream(), newSubscription(), newActor(), newProvider(), newState(), newBlob(), newCall(), newDLQ(), newGPIO(), newReload(), newStore(),
		newHub(), newPush(), newHost(), newLink(), newConfig(), newLabel(), newEvents(), newKeys(), newSign(), newInspect(), newDemo(), newSelftest(), newVersion(), newCompile(),
	)
	root.AddCommand(buildCommands()...)
	return root
}

// usage makes what is wrong with arguments, or a flag that is missing, a usage
// error.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := errors.Join(check(cmd, args), cmd.ValidateRequiredFlags()); err != nil {
			return usageOf(cmd, err)
		}
		return nil
	}
}

func usageOf(cmd *cobra.Command, err error) error {
	return usageError{hinted{err, "see " + cmd.CommandPath() + " --help"}}
}

func (e usageError) Unwrap() error { return e.error }

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: usage(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		var names []string
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				names = append(names, sub.Name())
			}
		}
		return usageOf(cmd, fmt.Errorf("%s needs one of: %s", cmd.CommandPath(), strings.Join(names, ", ")))
	}}
	c.AddCommand(commands...)
	return c
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: usage(cobra.NoArgs),
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "edged", version) },
	}
}
