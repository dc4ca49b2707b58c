package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/cgroup"
	"github.com/edged-io/edged/internal/node"
	"github.com/edged-io/edged/runtime"
)

const compileVerb = "compile-module"

// newCompile is what a box runs for each new module. Its work takes tens of
// megabytes and all of a core, which are not the box's that way.
func newCompile() *cobra.Command {
	return &cobra.Command{
		Use: compileVerb + " CACHE", Short: "Compile the module on standard input into a cache", Args: usage(cobra.ExactArgs(1)), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			// Where memory is short, the collector gives pages back early. That
			// takes twice the time, and less of what others have.
			if limit := cgroup.MemoryLimit(); limit > 0 {
				debug.SetMemoryLimit(node.HeapLimit(limit))
			}
			if code := runtime.Compile(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout()); code != 0 {
				return errReported{exitCode(code)}
			}
			return nil
		},
	}
}

// exitCode is all that is to be told.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }
