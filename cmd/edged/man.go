//go:build man

package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// buildCommands are those of a build that makes the package, with the tag man:
// what writes man pages is of no use on a box, and of half a megabyte.
func buildCommands() []*cobra.Command {
	return []*cobra.Command{{
		Use: "man DIR", Short: "Write the man pages into a folder", Args: usage(cobra.ExactArgs(1)), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			// A page without a date is the same in each build.
			epoch := time.Unix(0, 0).UTC()
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "edged", Manual: "edged", Date: &epoch}, args[0])
		},
	}}
}
