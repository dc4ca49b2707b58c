package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/internal/claims"
)

func newProviderPack() *cobra.Command {
	var f signFlags
	var c claims.ProviderClaims
	cmd := &cobra.Command{
		Use: "pack FILE.par TARGET=PROGRAM…", Short: "Make a provider archive", Args: usage(cobra.MinimumNArgs(2)),
		Long: `Make a provider archive of a program for each kind of machine that it is for, signed
with the seed of an account. TARGET is x86_64-linux, aarch64-linux or armv7-linux, and
others as Rust names them.

The identity is the key by which hosts know the provider. Unless --provider-key says
otherwise it follows from the account and the name: the same account and name make the
same identity. Boxes that trust the account run it.`,
		Example: `  edged provider pack modbus.par --seed fleet.seed --contract acme:modbus --ver 0.3.0 --rev 3 \
      x86_64-linux=dist/modbus-amd64 aarch64-linux=dist/modbus-arm64`,
		RunE: func(cmd *cobra.Command, args []string) error {
			seed, err := f.account(cmd)
			if err != nil {
				return err
			}
			dates, err := f.dates(cmd)
			if err != nil {
				return err
			}
			programs := make(map[string]string)
			for _, a := range args[1:] {
				target, program, ok := strings.Cut(a, "=")
				if !ok || target == "" || programs[target] != "" {
					return usageOf(cmd, fmt.Errorf("%q: want TARGET=PROGRAM, each target once", a))
				}
				programs[target] = program
			}
			c.Name = cmp.Or(c.Name, strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0])))
			key := claims.NamedKey(claims.Service, seed.Key().String()+" "+c.Name)
			if f.identity != "" {
				if key, err = claims.Parse(f.identity); err != nil || key.Kind() != claims.Service {
					return usageOf(cmd, fmt.Errorf("--provider-key %.60q: want a public key, V and 55 letters", f.identity))
				}
			}
			token := claims.WithDates(claims.Claims[claims.ProviderClaims]{Subject: key.String(), Wascap: c}, dates)
			var archive bytes.Buffer
			if err := claims.WriteArchive(&archive, token, programs, seed); err != nil {
				return err
			}
			if err := atomicfile.Replace(args[0], archive.Bytes(), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: provider %s (%s) serves %s, for %s\n", args[0], c.Name, key, c.Contract, strings.Join(slices.Sorted(maps.Keys(programs)), ", "))
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.seed, "seed", "", "file with the seed of an account key, or - (or EDGED_SEED_FILE)")
	fl.StringVar(&f.expires, "expires", "", "when it may not be admitted any more; never unless given")
	fl.StringVar(&f.notBefore, "not-before", "", "before when it may not be admitted")
	fl.StringVar(&f.identity, "provider-key", "", "its identity, a public key (V…)")
	fl.StringVar(&c.Contract, "contract", "", "contract that it serves (required)")
	fl.StringVar(&c.Name, "name", "", "its name; that of the file unless given")
	fl.StringVar(&c.Vendor, "vendor", "", "who makes it")
	fl.StringVar(&c.Ver, "ver", "", "its version, for people")
	fl.Int64Var(&c.Rev, "rev", 0, "its revision, higher with each release; the time of signing unless given")
	_ = cmd.MarkFlagRequired("contract")
	_ = cmd.MarkFlagFilename("seed")
	return cmd
}
