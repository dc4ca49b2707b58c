package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
)

func newKeys() *cobra.Command { return group("keys", "Keys that sign", newKeysGen()) }

func newKeysGen() *cobra.Command {
	var out string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "gen [KIND]", Short: "Make a key", Args: usage(cobra.MaximumNArgs(1)),
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
			shown := struct {
				Key  string `json:"key"`
				Seed string `json:"seed,omitempty"`
			}{seed.Key().String(), seed.Reveal()}
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

func readSeed(path string) (claims.Seed, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return claims.Seed{}, fmt.Errorf("seed: %w", err)
	}
	seed, err := claims.ParseSeed(strings.TrimSpace(string(b)))
	if err != nil {
		return claims.Seed{}, fmt.Errorf("seed in %s: %w", path, err)
	}
	return seed, nil
}

func newSign() *cobra.Command {
	var seedFile string
	cmd := &cobra.Command{
		Use: "sign DIR", Short: "Sign an app: write app.sig over its manifest and all its files", Args: usage(cobra.ExactArgs(1)),
		Example: "  edged sign --seed fleet.seed ./greenhouse",
		RunE: func(cmd *cobra.Command, args []string) error {
			app, err := config.LoadApp(args[0])
			if err != nil {
				return err
			}
			if seedFile == "" {
				seedFile = os.Getenv("EDGED_SEED_FILE")
			}
			if seedFile == "" {
				return usageOf(cmd, errors.New("--seed is needed: the file with the seed of an account key"))
			}
			seed, err := readSeed(seedFile)
			if err != nil {
				return err
			}
			path, err := claims.SignApp(args[0], app.Name, app.Version, seed)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s %s signed by %s\n", path, app.Name, app.Version, seed.Key())
			return nil
		},
	}
	cmd.Flags().StringVar(&seedFile, "seed", "", "file with the seed of an account key (or EDGED_SEED_FILE)")
	_ = cmd.MarkFlagFilename("seed")
	return cmd
}
