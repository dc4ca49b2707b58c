package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/edged-io/edged/internal/powercut"
)

func newSelftest() *cobra.Command {
	workload := &cobra.Command{
		Use: "workload SPEC", Hidden: true, Args: usage(cobra.ExactArgs(1)),
		Short: "What selftest powercut watches",
		RunE:  func(_ *cobra.Command, args []string) error { return powercut.Workload(args[0]) },
	}
	return group("selftest", "Prove the store's promises on this machine", newSelftestPowercut(), workload)
}

// errFound is a promise that was broken.
var errFound = errors.New("a power cut can break a promise of the store")

func newSelftestPowercut() *cobra.Command {
	var o powercut.Options
	var replay string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "powercut", Short: "Try what power cuts do to the store", Args: usage(cobra.NoArgs),
		Long: `Run a store in a folder of this machine's disk, and write down each write and each
sync that it asks for. Then lay out, one after the other, the states in which a
power cut could have left the folder: at each moment what was synced is there,
and of what was written since any part may be, in any order, with torn pages.
In each, open the store and compare what it holds with what its users had been
told until then: what was acknowledged is there once, each turn is whole or
absent, repeats are recognised and positions agree.

The exit code is 1 if a state breaks a promise. That state is kept, and --replay
looks at it again. No power is cut, nothing outside the folder is touched, and
no store of a box either. What the disk itself does with a sync is not seen.`,
		Example: "  edged selftest powercut\n  edged selftest powercut --states 1000000 --dir /var/lib/edged",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if replay != "" {
				return replayPowercut(cmd, replay, asJSON)
			}
			if o.States < 1 {
				return usageOf(cmd, fmt.Errorf("--states %d: it takes at least 1", o.States))
			}
			return selftestPowercut(cmd, o, asJSON)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.States, "states", 10_000, "how many states to check")
	f.StringVar(&o.Dir, "dir", "", "folder of the disk to use (default: the one for temporary files)")
	f.Uint64Var(&o.Seed, "seed", 1, "another seed makes another run")
	f.StringVar(&replay, "replay", "", "folder of a finding to look at again")
	f.BoolVar(&asJSON, "json", false, "print the result as one JSON document, and nothing else")
	_ = cmd.MarkFlagDirname("dir")
	_ = cmd.MarkFlagDirname("replay")
	return cmd
}

func selftestPowercut(cmd *cobra.Command, o powercut.Options, asJSON bool) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	o.Command = func(spec string) (path string, args, env []string) {
		return program, []string{program, "selftest", "workload", spec}, os.Environ()
	}
	clear := func() {}
	if !asJSON {
		o.Progress, clear = powercutProgress(cmd.ErrOrStderr())
	}
	res, err := powercut.Run(cmd.Context(), o)
	clear()
	if errors.Is(err, powercut.ErrNoTrace) {
		err = hinted{err, "run it as root, or let it trace its own children: sysctl kernel.yama.ptrace_scope=1, or in a container --cap-add=SYS_PTRACE"}
	}
	if asJSON {
		err = errors.Join(printJSON(cmd.OutOrStdout(), res), err)
	} else if err == nil || res.States > 0 {
		res.Print(cmd.OutOrStdout())
	}
	if err == nil && res.Finding != nil {
		err = hinted{errFound, "edged selftest powercut --replay " + res.Finding.Dir + " looks at it again; please report it with that folder"}
	}
	return err
}

// powercutProgress shows how far it is: in place on a terminal, a line now and
// then elsewhere.
func powercutProgress(w io.Writer) (show func(powercut.Result), clear func()) {
	file, ok := w.(*os.File)
	if ok && term.IsTerminal(int(file.Fd())) {
		return func(r powercut.Result) { fmt.Fprintf(w, "\r\x1b[K%s", r.Line()) }, func() { fmt.Fprint(w, "\r\x1b[K") }
	}
	next := 10.0 // seconds
	return func(r powercut.Result) {
		if r.Took >= next {
			next = r.Took * 1.2
			fmt.Fprintln(w, r.Line())
		}
	}, func() {}
}

func replayPowercut(cmd *cobra.Command, dir string, asJSON bool) error {
	f, problem, err := powercut.Replay(dir)
	if err != nil {
		return err
	}
	was := f.Problem
	f.Problem = problem
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), f)
	} else if problem != "" {
		f.Print(cmd.OutOrStdout())
	} else {
		fmt.Fprintf(cmd.OutOrStdout(), "Nothing is wrong with it any more. It was: %s\n", was)
	}
	if err == nil && problem != "" {
		err = errFound
	}
	return err
}
