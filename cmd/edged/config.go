package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func newConfig() *cobra.Command {
	return group("config", "Configurations of the lattice, by name", newConfigList(), newConfigGet(), newConfigPut(), newConfigRemove())
}

func newConfigList() *cobra.Command {
	var f latticeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the names of the configurations", Args: usage(cobra.NoArgs),
		Long: `List the names of the configurations that a box has. What tools of version 0 of the
control interface configured for an actor or a provider has its key for a name. Hosts
that are no boxes do not list them.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var names []string
			err := f.do(cmd, func(ctx context.Context, o *operator) (err error) {
				names, err = o.Configs(ctx)
				return err
			})
			if err != nil {
				return err
			}
			return printed(cmd, asJSON, append([]string{}, names...), func(w io.Writer) {
				for _, name := range names {
					fmt.Fprintln(w, oneLine(name))
				}
			})
		},
	}
	f.register(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newConfigGet() *cobra.Command {
	var f latticeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Show a configuration", Args: usage(cobra.ExactArgs(1)),
		Long: `Show a configuration. What tools of version 0 of the control interface configured for
an actor or a provider has its key for a name.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var values map[string]string
			err := f.do(cmd, func(ctx context.Context, o *operator) (err error) {
				var found bool
				values, found, err = o.Config(ctx, args[0])
				if err == nil && !found {
					err = usageError{fmt.Errorf("configuration %s: no such configuration", args[0])}
				}
				return err
			})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), known(values))
			}
			return shown(cmd.OutOrStdout(), func(w io.Writer) {
				for _, k := range sortedKeys(values) {
					fmt.Fprintf(w, "%s=%s\n", oneLine(k), printable([]byte(values[k])))
				}
			})
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document, which put takes")
	return cmd
}

func newConfigPut() *cobra.Command {
	var f latticeFlags
	var file string
	cmd := &cobra.Command{
		Use: "put NAME [KEY=VALUE…]", Short: "Put a configuration, all of it", Args: usage(cobra.MinimumNArgs(1)),
		Long: `Put a configuration: what it had before is replaced. Links and providers that name
it get the new values. Values that others should not see in the process list are
read from a file.`,
		Example: "  edged config put redis URL=redis://127.0.0.1:6379\n  edged config get redis --json | edged config put redis-2 --values -",
		RunE: func(cmd *cobra.Command, args []string) error {
			values, err := valuesOf(cmd, args[1:], file)
			if err != nil {
				return err
			}
			return f.do(cmd, func(ctx context.Context, o *operator) error { return o.PutConfig(ctx, args[0], values) })
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&file, "values", "", "file with values, a JSON object of texts; - for standard input")
	_ = cmd.MarkFlagFilename("values", "json")
	return cmd
}

func newConfigRemove() *cobra.Command {
	var f latticeFlags
	cmd := &cobra.Command{
		Use: "rm NAME…", Short: "Remove configurations", Args: usage(cobra.MinimumNArgs(1)),
		Long: `Remove configurations. One that is not there is no error.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.do(cmd, func(ctx context.Context, o *operator) (err error) {
				for _, name := range args {
					if err == nil {
						err = o.DeleteConfig(ctx, name)
					}
				}
				return err
			})
		},
	}
	f.register(cmd)
	return cmd
}
