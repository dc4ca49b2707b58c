package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/internal/node"
)

func newProvider() *cobra.Command {
	return group("provider", "Capability providers", newProviderList(), newProviderStart(), newProviderStop(), newProviderTest(), newProviderPack(), newProviderAttach(), newProviderDetach())
}

// providerItem is a provider in a listing.
type providerItem struct {
	Host        string            `json:"host"`
	Key         string            `json:"key"` // the name of one that is built in
	Name        string            `json:"name"`
	Contract    string            `json:"contract"`
	LinkName    string            `json:"link_name"`
	Ref         string            `json:"ref"`
	Revision    int64             `json:"revision"`
	Annotations map[string]string `json:"annotations"`

	// Process is what the box on this machine knows of a program; null for what is built in, and of boxes elsewhere.
	Process *node.ProviderStatus `json:"process"`
}

func newProviderList() *cobra.Command {
	var f latticeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List providers", Args: usage(cobra.NoArgs),
		Long: `List the providers of the box on this machine, with the state and health of those that
are programs of their own; of another box with --device; or, with --server alone, of
all boxes that are connected to the hub. Boxes elsewhere do not tell state and health:
edged events does, and their edged status.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := []providerItem{}
			err := f.inventories(cmd, func(h peer, st control.State) {
				for _, p := range st.Providers {
					all = append(all, providerItem{h.name, p.Key, p.Name, p.Contract, p.LinkName, p.Ref, p.Revision, known(p.Annotations), nil})
				}
			})
			if err == nil && f.device == "" && f.hub.server == "" {
				all, err = f.withProcesses(cmd, all)
			}
			if err != nil {
				return err
			}
			return printed(cmd, asJSON, all, func(w io.Writer) { showProviders(w, all) })
		},
	}
	f.registerHost(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// withProcesses adds what the box on this machine knows of its programs. One that does not run is in no inventory.
func (f *latticeFlags) withProcesses(cmd *cobra.Command, all []providerItem) ([]providerItem, error) {
	b, err := findBox(f.config)
	if err != nil {
		return nil, err
	}
	var programs list[node.ProviderStatus]
	if err := b.do(cmd.Context(), http.MethodGet, "/providers", &programs); err != nil {
		return nil, err
	}
	for _, p := range programs.Items {
		same := func(o providerItem) bool { return o.Key == p.Key && o.LinkName == p.LinkName }
		if i := slices.IndexFunc(all, same); i >= 0 {
			all[i].Process = &p
			continue
		}
		all = append(all, providerItem{b.device, p.Key, p.Name, p.Contract, p.LinkName, "", p.Revision, known(nil), &p})
	}
	return all, nil
}

func showProviders(w io.Writer, all []providerItem) {
	table(w, func(row func(...any)) {
		row("HOST", "PROVIDER", "CONTRACT", "LINK NAME", "STATE", "HEALTH", "REVISION", "FROM", "ANNOTATIONS", "KEY")
		for _, p := range all {
			var state, health string
			if p.Process != nil {
				state, health = p.Process.State, p.Process.Health
			}
			row(p.Host, p.Name, p.Contract, p.LinkName, state, health, p.Revision, p.Ref, texts(p.Annotations), p.Key)
		}
	})
	for _, p := range all {
		if s := p.Process; s != nil && cmp.Or(s.Error, s.Message) != "" {
			fmt.Fprintf(w, "\n%s, link name %s, started again %d times: %s\n", oneLine(cmp.Or(p.Name, p.Key)), oneLine(p.LinkName), s.Restarts, oneLine(cmp.Or(s.Error, s.Message)))
		}
	}
}

func newProviderStart() *cobra.Command {
	var c command
	var link, configuration string
	var annotations []string
	cmd := &cobra.Command{
		Use: "start REF", Short: "Start a provider", Args: usage(cobra.ExactArgs(1)),
		Long: `Start a provider from REF, and wait until it runs or it is known why it does not. It
belongs to the box: it comes back when the box is started again, hub or no hub.

` + refHelp,
		Example: "  edged provider start registry.example/modbus:0.3.0 --link-name hall3",
		RunE: func(cmd *cobra.Command, args []string) error {
			marks, err := valuesOf(cmd, annotations, "")
			if err != nil {
				return err
			}
			start := control.ProviderStart{LinkName: link, Annotations: marks}
			if configuration != "" {
				b, err := os.ReadFile(configuration)
				if err != nil {
					return err
				}
				start.Configuration = string(b)
			}
			return c.run(cmd, func(ctx context.Context, o *order) error {
				var err error
				if start.Ref, err = reference(o, args[0]); err != nil {
					return err
				}
				return o.await(ctx, start.Ref, func(ctx context.Context, accepted func() bool) (control.State, error) {
					return o.StartProvider(ctx, o.host.key, start, accepted)
				}, func(st control.State) string {
					i := slices.IndexFunc(st.Providers, func(p control.Provider) bool { return p.Ref == start.Ref && p.LinkName == link })
					p := st.Providers[i] // there is one, or it would not be done
					return fmt.Sprintf("%s (%s) serves %s, link name %s", p.Name, p.Key, p.Contract, p.LinkName)
				})
			})
		},
	}
	c.register(cmd)
	linkNameFlag(cmd, &link)
	cmd.Flags().StringVar(&configuration, "configuration", "", "file with what the provider is configured with (config_json of its host data)")
	_ = cmd.MarkFlagFilename("configuration")
	annotationFlag(cmd, &annotations, "annotation, KEY=VALUE; may be given more than once")
	return cmd
}

func newProviderStop() *cobra.Command {
	var c command
	var link string
	cmd := &cobra.Command{
		Use: "stop PROVIDER", Short: "Stop a provider", Args: usage(cobra.ExactArgs(1)),
		Long:    `Stop a provider. PROVIDER is its key, its name, or what it runs from. Its links stay.`,
		Example: "  edged provider stop modbus --link-name hall3",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd, func(ctx context.Context, o *order) error {
				st, err := o.State(ctx, o.host.key)
				if err != nil {
					return err
				}
				key, missing := pick("provider", args[0], st.Providers, func(p control.Provider) (string, string, string) { return p.Key, p.Name, p.Ref })
				if missing != nil {
					key = args[0] // the host knows what is to run there and can not
				}
				return o.await(ctx, args[0], func(ctx context.Context, accepted func() bool) (control.State, error) {
					st, err := o.StopProvider(ctx, o.host.key, control.ProviderStop{ID: key, LinkName: link}, accepted)
					return st, whyNot(missing, err)
				}, func(control.State) string { return args[0] + " is stopped" })
			})
		},
	}
	c.register(cmd)
	linkNameFlag(cmd, &link)
	cmd.ValidArgsFunction = c.completeFrom(func(st control.State) (all []string) {
		for _, p := range st.Providers {
			all = append(all, p.Key)
		}
		return all
	})
	return cmd
}

func linkNameFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "link-name", "default", "link name, which tells links for the same contract apart")
}
