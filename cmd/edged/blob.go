package main

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/node"
)

func newBlob() *cobra.Command {
	ls := listing("ls", "List buckets of objects", "/blobs", func(w io.Writer, l list[node.BlobBucketStatus]) {
		table(w, func(row func(...any)) {
			row("BUCKET", "FILES", "BYTES", "LIMIT", "ACTORS")
			for _, b := range l.Items {
				row(b.Bucket, b.Files, b.Bytes, b.Limit, words(b.Actors))
			}
		})
	})
	return group("blob", "Objects that actors keep", ls, newBlobObjects(), newBlobGet(), newBlobRemove())
}

func newBlobObjects() *cobra.Command {
	var cfg string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "objects BUCKET", Short: "List the objects of a bucket", Args: usage(cobra.ExactArgs(1)),
		Example: "  edged blob objects greenhouse",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			var l list[node.ObjectStatus]
			if err := b.do(cmd.Context(), http.MethodGet, "/blobs/"+url.PathEscape(args[0]), &l); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), l)
			}
			return shown(cmd.OutOrStdout(), func(w io.Writer) {
				table(w, func(row func(...any)) {
					row("CONTAINER", "OBJECT", "BYTES", "TYPE", "MODIFIED")
					for _, o := range l.Items {
						row(o.Container, o.Object, o.Bytes, o.ContentType, o.Modified.Format("2006-01-02T15:04:05Z"))
					}
				})
			})
		},
	}
	configFlag(cmd, &cfg)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func newBlobGet() *cobra.Command {
	var cfg string
	cmd := &cobra.Command{
		Use: "get BUCKET CONTAINER OBJECT", Short: "Write an object to standard output", Args: usage(cobra.ExactArgs(3)),
		Example: "  edged blob get greenhouse pictures 2026-01-31.jpg > picture.jpg",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			q, version := url.Values{"container": {args[1]}, "object": {args[2]}}, ""
			for at := int64(0); ; {
				q.Set("offset", strconv.FormatInt(at, 10))
				var part node.ObjectPart
				if err := b.do(cmd.Context(), http.MethodGet, "/blobs/"+url.PathEscape(args[0])+"/object?"+q.Encode(), &part); err != nil {
					return err
				}
				if at == 0 {
					version = part.Version
				}
				if part.Version != version {
					return errors.New("the object was put anew while it was read: get it again")
				}
				if _, err := cmd.OutOrStdout().Write(part.Data); err != nil {
					return err
				}
				if at += int64(len(part.Data)); at >= part.Bytes {
					return nil
				}
			}
		},
	}
	configFlag(cmd, &cfg)
	return cmd
}

func newBlobRemove() *cobra.Command {
	return newBucketRemove("/blobs/", "with the objects it holds", &cobra.Command{
		Short: "Remove a bucket of objects that no actor uses any more",
		Long: `Remove all objects of a bucket. It must be of no actor that runs, and goes with
--force only, since they are lost then.`,
		Example: "  edged blob rm greenhouse --force",
	})
}
