package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/lattice"
)

func newLink() *cobra.Command {
	return group("link", "Links of actors to providers", newLinkList(), newLinkPut(), newLinkRemove())
}

// linkItem is a link in a listing.
type linkItem struct {
	Actor    string            `json:"actor"`
	Provider string            `json:"provider"`
	Contract string            `json:"contract"`
	Name     string            `json:"name"`
	Values   map[string]string `json:"values"`
}

func newLinkList() *cobra.Command {
	var f latticeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the links of the lattice", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := []linkItem{}
			err := f.do(cmd, func(ctx context.Context, o *operator) error {
				links, err := o.Links(ctx)
				for _, l := range links {
					all = append(all, linkItem{l.Actor, l.Provider, l.Contract, l.Name, known(l.Values)})
				}
				return err
			})
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b linkItem) int {
				return cmp.Or(cmp.Compare(a.Actor, b.Actor), cmp.Compare(a.Contract, b.Contract), cmp.Compare(a.Name, b.Name))
			})
			return printed(cmd, asJSON, all, func(w io.Writer) {
				table(w, func(row func(...any)) {
					row("ACTOR", "CONTRACT", "LINK NAME", "PROVIDER", "VALUES")
					for _, l := range all {
						row(l.Actor, l.Contract, l.Name, l.Provider, texts(l.Values))
					}
				})
			})
		},
	}
	f.register(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newLinkPut() *cobra.Command {
	var f latticeFlags
	var name, file string
	cmd := &cobra.Command{
		Use: "put ACTOR PROVIDER CONTRACT [KEY=VALUE…]", Short: "Link an actor to a provider", Args: usage(cobra.MinimumNArgs(3)),
		Long: `Link an actor to a provider, with values for the provider. ACTOR and PROVIDER are
keys, or names of what runs; what does not run is linked by its key. A link with the
same actor, contract and link name is replaced. Links belong to the lattice: they count wherever the two run. Those that
the manifest of an app has are changed there.

Values that others should not see in the process list are read from a file.`,
		Example: "  edged link put MCATS5…JPUL VDWUSK…CDVS wasmcloud:keyvalue bucket=greenhouse\n  edged link put MCATS5…JPUL VDWUSK…CDVS wasmcloud:keyvalue --values redis.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			values, err := valuesOf(cmd, args[3:], file)
			if err != nil {
				return err
			}
			return f.do(cmd, func(ctx context.Context, o *operator) error {
				l := lattice.Link{Actor: args[0], Provider: args[1], Contract: args[2], Name: name, Values: values}
				if err := o.nameKeys(ctx, cmd, &l); err != nil {
					return err
				}
				return o.PutLink(ctx, l)
			})
		},
	}
	f.register(cmd)
	linkNameFlag(cmd, &name)
	cmd.Flags().StringVar(&file, "values", "", "file with values, a JSON object of texts; - for standard input")
	_ = cmd.MarkFlagFilename("values", "json")
	cmd.ValidArgsFunction = f.completeLinked
	return cmd
}

func newLinkRemove() *cobra.Command {
	var f latticeFlags
	var name string
	cmd := &cobra.Command{
		Use: "rm ACTOR CONTRACT", Short: "Remove a link", Args: usage(cobra.ExactArgs(2)),
		Long:    `Remove the link of an actor for a contract. One that is not there is no error.`,
		Example: "  edged link rm MCATS5…JPUL wasmcloud:keyvalue",
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.do(cmd, func(ctx context.Context, o *operator) error {
				l := lattice.Link{Actor: args[0], Contract: args[1], Name: name}
				links, err := o.Links(ctx)
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(links, func(there control.Link) bool { return there.Actor == l.Actor }) {
					if err := o.nameKeys(ctx, cmd, &l); err != nil {
						return err
					}
				}
				return o.DeleteLink(ctx, l)
			})
		},
	}
	f.register(cmd)
	linkNameFlag(cmd, &name)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return f.complete(cmd, func(ctx context.Context, c *control.Client) (all []string, err error) {
			links, err := c.Links(ctx)
			for _, l := range links {
				switch {
				case len(args) == 0:
					all = append(all, l.Actor)
				case len(args) == 1 && l.Actor == args[0]:
					all = append(all, l.Contract)
				}
			}
			slices.Sort(all)
			return slices.Compact(all), err
		})
	}
	return cmd
}

// nameKeys puts keys in the place of names of what runs. A key stays, as does an id by which a host tells something apart, or which nothing has yet.
func (o *operator) nameKeys(ctx context.Context, cmd *cobra.Command, l *lattice.Link) error {
	isKey := func(s string) bool {
		_, err := claims.Parse(s)
		return err == nil || s == ""
	}
	if isKey(l.Actor) && isKey(l.Provider) {
		return nil
	}
	hosts, err := o.hosts(ctx, cmd, "")
	if err != nil {
		return err
	}
	var actors, providers []runs
	for _, h := range hosts {
		st, err := o.State(ctx, h.key)
		if err != nil {
			return h.of(err)
		}
		for _, a := range st.Actors {
			actors = append(actors, runs{a.ID, a.Key, a.Name})
		}
		for _, p := range st.Providers {
			providers = append(providers, runs{p.ID, p.Key, p.Name})
		}
	}
	if l.Actor, err = linkedKey("actor", l.Actor, actors); err != nil {
		return err
	}
	l.Provider, err = linkedKey("provider", l.Provider, providers)
	return err
}

// runs is what an actor or provider is called.
type runs struct{ id, key, name string }

// linkedKey is the key of the one that has a name; what is an id or a key, or unknown, is returned.
func linkedKey(kind, wanted string, all []runs) (string, error) {
	var keys []string
	for _, r := range all {
		if r.id == wanted || r.key == wanted {
			return wanted, nil
		}
		if r.name == wanted && !slices.Contains(keys, r.key) {
			keys = append(keys, r.key)
		}
	}
	switch len(keys) {
	case 0:
		return wanted, nil
	case 1:
		return keys[0], nil
	}
	return "", usageError{fmt.Errorf("%s %q is one of several: %s", kind, wanted, words(keys))}
}

// completeLinked offers actors, providers and then their contracts.
func (f *latticeFlags) completeLinked(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	all := []string{}
	err := f.inventories(cmd, func(_ peer, st control.State) {
		switch len(args) {
		case 0:
			for _, a := range st.Actors {
				all = append(all, a.Key)
			}
		case 1, 2:
			for _, p := range st.Providers {
				if len(args) == 1 {
					all = append(all, p.Key)
				} else if p.Key == args[1] {
					all = append(all, p.Contract)
				}
			}
		}
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	slices.Sort(all)
	return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
}
