package main

import (
	"context"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/control"
)

func newLabel() *cobra.Command {
	return group("label", "Labels of a box, which auctions ask for", newLabelList(), newLabelPut(), newLabelRemove())
}

// labelItem is a label of a host in a listing.
type labelItem struct {
	Host  string `json:"host"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

func newLabelList() *cobra.Command {
	var f latticeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List labels", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := []labelItem{}
			err := f.inventories(cmd, func(h peer, st control.State) {
				for _, k := range sortedKeys(st.Labels) {
					all = append(all, labelItem{h.name, k, st.Labels[k]})
				}
			})
			if err != nil {
				return err
			}
			return printed(cmd, asJSON, all, func(w io.Writer) {
				table(w, func(row func(...any)) {
					row("HOST", "LABEL", "VALUE")
					for _, l := range all {
						row(l.Host, l.Key, l.Value)
					}
				})
			})
		},
	}
	f.registerHost(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newLabelPut() *cobra.Command {
	var f latticeFlags
	cmd := &cobra.Command{
		Use: "put KEY=VALUE…", Short: "Put labels", Args: usage(cobra.MinimumNArgs(1)),
		Example: "  edged label put hall=3 line=paint",
		RunE: func(cmd *cobra.Command, args []string) error {
			labels, err := valuesOf(cmd, args, "")
			if err != nil {
				return err
			}
			return f.label(cmd, sortedKeys(labels), func(ctx context.Context, o *operator, host, key string) error {
				return o.PutLabel(ctx, host, key, labels[key])
			})
		},
	}
	f.registerHost(cmd)
	return cmd
}

func newLabelRemove() *cobra.Command {
	var f latticeFlags
	cmd := &cobra.Command{
		Use: "rm KEY…", Short: "Remove labels", Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.label(cmd, args, func(ctx context.Context, o *operator, host, key string) error {
				return o.DeleteLabel(ctx, host, key)
			})
		},
	}
	f.registerHost(cmd)
	cmd.ValidArgsFunction = f.completeFrom(func(st control.State) []string { return sortedKeys(st.Labels) })
	return cmd
}

// label changes labels of one host.
func (f *latticeFlags) label(cmd *cobra.Command, keys []string, change func(ctx context.Context, o *operator, host, key string) error) error {
	return f.do(cmd, func(ctx context.Context, o *operator) error {
		h, err := o.host(ctx, cmd, f.device)
		for _, key := range keys {
			if err == nil {
				err = h.of(change(ctx, o, h.key, key))
			}
		}
		return err
	})
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
