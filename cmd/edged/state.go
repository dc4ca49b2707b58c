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
	var cfg string
	var force bool
	cmd := &cobra.Command{
		Use: "rm BUCKET", Short: "Remove a bucket that no actor uses any more", Args: usage(cobra.ExactArgs(1)),
		Long: `Remove all that a bucket holds. It must be of no actor that runs, and goes with
--force only, since it is lost then.`,
		Example: "  edged state rm greenhouse --force",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			path := "/state/" + url.PathEscape(args[0]) + "?force=" + strconv.FormatBool(force)
			return b.do(cmd.Context(), http.MethodDelete, path, &struct{}{})
		},
	}
	configFlag(cmd, &cfg)
	cmd.Flags().BoolVar(&force, "force", false, "with the keys it holds")
	return cmd
}
