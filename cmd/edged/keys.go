package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/claims"
)

func newKeys() *cobra.Command {
	return group("keys", "Keys that sign", newKeysGen(), newKeysLs(), newKeysShow())
}

// keyLine is a key as it is shown.
type keyLine struct {
	File string `json:"file,omitempty"`
	Kind string `json:"kind"`
	Key  string `json:"key"`
	Seed string `json:"seed,omitempty"`
}

func newKeysGen() *cobra.Command {
	var out string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "gen [KIND]", Short: "Make a key", Args: usage(cobra.MaximumNArgs(1)), ValidArgsFunction: completeKinds,
		Long: `Make a key. KIND is account (the default; it signs apps and modules), module,
cluster, server, operator, user or service.

With --out the seed, which is the secret half, goes to that file with mode 0600,
and only the public key is printed. Without it both are printed.`,
		Example: "  edged keys gen account --out fleet.seed",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := claims.Account
			if len(args) > 0 {
				var err error
				if kind, err = claims.ParseKind(args[0]); err != nil {
					return usageOf(cmd, err)
				}
			}
			seed, err := claims.Generate(kind)
			if err != nil {
				return err
			}
			shown := keyLine{Kind: kind.String(), Key: seed.Key().String(), Seed: seed.Reveal()}
			if out != "" {
				if err := writeSeed(out, seed); err != nil {
					return err
				}
				shown.Seed = ""
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), shown)
			}
			if shown.Seed != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "seed (keep it secret): %s\n", shown.Seed)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "public key: %s\n", shown.Key)
			return nil
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "file for the seed; it must not exist")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	_ = cmd.MarkFlagFilename("out")
	return cmd
}

func completeKinds(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"account", "module", "cluster", "server", "operator", "user", "service"}, cobra.ShellCompDirectiveNoFileComp
}

func newKeysShow() *cobra.Command {
	var reveal, asJSON bool
	cmd := &cobra.Command{
		Use: "show FILE|KEY", Short: "Show the kind and the public key of a seed, or of a key", Args: usage(cobra.ExactArgs(1)),
		Long: `Show the kind and the public key of a seed in a file ("-" for standard input), or
of a public key. The seed itself is shown with --seed only.`,
		Example: "  edged keys show fleet.seed",
		RunE: func(cmd *cobra.Command, args []string) error {
			shown, err := lookUpKey(cmd, args[0], reveal)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), shown)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "kind: %s\npublic key: %s\n", shown.Kind, shown.Key)
			if shown.Seed != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "seed (keep it secret): %s\n", shown.Seed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&reveal, "seed", false, "show the seed as well")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func lookUpKey(cmd *cobra.Command, arg string, reveal bool) (keyLine, error) {
	if key, err := claims.Parse(arg); err == nil {
		if reveal {
			return keyLine{}, usageOf(cmd, errors.New("a public key does not tell its seed"))
		}
		return keyLine{Kind: key.Kind().String(), Key: key.String()}, nil
	}
	if _, err := claims.ParseSeed(arg); err == nil {
		return keyLine{}, usageError{hinted{errors.New("a seed is not given on the command line, where others see it"), "give the file that holds it, or - for standard input"}}
	}
	seed, err := readSeed(cmd, arg)
	if err != nil {
		return keyLine{}, err
	}
	shown := keyLine{Kind: seed.Kind().String(), Key: seed.Key().String()}
	if reveal {
		shown.Seed = seed.Reveal()
	}
	return shown, nil
}

func newKeysLs() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls [DIR]", Short: "List the seeds in a folder, by their public keys", Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			found := []keyLine{}
			for _, e := range entries {
				if seed, ok := claims.SeedFile(filepath.Join(dir, e.Name())); ok {
					found = append(found, keyLine{File: filepath.Join(dir, e.Name()), Kind: seed.Kind().String(), Key: seed.Key().String()})
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list[keyLine]{found})
			}
			return shown(cmd.OutOrStdout(), func(w io.Writer) {
				table(w, func(row func(...any)) {
					row("FILE", "KIND", "PUBLIC KEY")
					for _, k := range found {
						row(k.File, k.Kind, k.Key)
					}
				})
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// writeSeed never replaces a file: the seed in it could not be made again.
func writeSeed(path string, seed claims.Seed) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return hinted{err, "a seed is not overwritten; choose another file"}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, seed.Reveal())
	return errors.Join(err, f.Sync(), f.Close())
}

// readSeed reads the seed in a file, or on standard input.
func readSeed(cmd *cobra.Command, path string) (claims.Seed, error) {
	const most = 64 << 10
	in, name := cmd.InOrStdin(), "standard input"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return claims.Seed{}, fmt.Errorf("seed: %w", err)
		}
		defer f.Close() // only read from
		in, name = f, path
	}
	b, err := io.ReadAll(io.LimitReader(in, most))
	if err != nil {
		return claims.Seed{}, fmt.Errorf("seed: %w", err)
	}
	seed, err := claims.ParseSeed(strings.TrimSpace(string(b)))
	if err != nil {
		return claims.Seed{}, fmt.Errorf("seed in %s: %w", name, err)
	}
	return seed, nil
}
