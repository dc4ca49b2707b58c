package main

import (
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/node"
)

func newState() *cobra.Command {
	ls := listing("ls", "List buckets of key-value state", "/state", func(w io.Writer, l list[node.BucketStatus]) {
		table(w, func(row func(...any)) {
			row("BUCKET", "KEYS", "BYTES", "LIMIT", "ACTORS")
			for _, b := range l.Items {
				row(b.Bucket, b.Keys, b.Bytes, b.Limit, words(b.Actors))
			}
		})
	})
	return group("state", "Key-value state of actors", ls, newStateRemove())
}

func newStateRemove() *cobra.Command {
	return newBucketRemove("/state/", "with the keys it holds", &cobra.Command{
		Short: "Remove a bucket that no actor uses any more",
		Long: `Remove all that a bucket holds. It must be of no actor that runs, and goes with
--force only, since it is lost then.`,
		Example: "  edged state rm greenhouse --force",
	})
}

// newBucketRemove is the verb rm of the buckets that the box has under path, with the
// texts of cmd; forced is that of its flag.
func newBucketRemove(path, forced string, cmd *cobra.Command) *cobra.Command {
	var cfg string
	var force bool
	cmd.Use, cmd.Args = "rm BUCKET", usage(cobra.ExactArgs(1))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		b, err := findBox(cfg)
		if err != nil {
			return err
		}
		return b.do(cmd.Context(), http.MethodDelete, path+url.PathEscape(args[0])+"?force="+strconv.FormatBool(force), &struct{}{})
	}
	configFlag(cmd, &cfg)
	cmd.Flags().BoolVar(&force, "force", false, forced)
	return cmd
}
