package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/atomicfile"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/wasm"
)

// signFlags are those of edged sign. What is for modules alone says so.
type signFlags struct {
	seed, expires, notBefore string
	asJSON                   bool

	// Of modules.
	identity, name, version, alias, section, out string
	caps, tags                                   []string
	rev                                          int64
	keep                                         bool
}

// moduleFlags are of no use for an app.
var moduleFlags = []string{"module-key", "name", "cap", "rev", "ver", "alias", "tag", "section", "out", "keep"}

func newSign() *cobra.Command {
	var f signFlags
	cmd := &cobra.Command{
		Use: "sign DIR|MODULE", Short: "Sign an app, or a module", Args: usage(cobra.ExactArgs(1)),
		Long: `Sign an app or a module with the seed of an account.

An app is a folder: app.sig is written into it, over the manifest and all files. A
box that trusts the account runs the app. Modules in it need no signature of their
own; those that have one are held to it as well.

A module gets claims, in a section at its end: its identity, and the contracts that
it may use (--cap, as often as needed); it may use no others. Claims that it had
are replaced, with --keep only where a flag says something else. The module is
changed in place, or goes to --out.

The identity is the key by which boxes and other actors know it. Unless --module-key
says otherwise it is the one that the module has in its claims, else one that follows
from the account and the name: the same account and name make the same identity.

Dates are days ("90d"), a duration ("36h") or a time (2030-01-31, or RFC 3339).`,
		Example: `  edged sign --seed fleet.seed ./greenhouse
  edged sign thermostat.wasm --seed fleet.seed --cap wasmcloud:keyvalue --ver 1.2.0 --rev 3
  edged sign their.wasm --keep --seed fleet.seed --out ours.wasm`,
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			if !info.IsDir() {
				return f.signModule(cmd, args[0])
			}
			for _, name := range moduleFlags {
				if cmd.Flags().Changed(name) {
					return usageOf(cmd, fmt.Errorf("--%s is for a module, and %s is a folder", name, args[0]))
				}
			}
			return f.signApp(cmd, args[0])
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.seed, "seed", "", "file with the seed of an account key, or - (or EDGED_SEED_FILE)")
	fl.StringVar(&f.expires, "expires", "", "when it may not be admitted any more; never unless given")
	fl.StringVar(&f.notBefore, "not-before", "", "before when it may not be admitted")
	fl.BoolVar(&f.asJSON, "json", false, "print one JSON document")
	fl.StringVar(&f.identity, "module-key", "", "of a module: its identity, a public key (M…) or a file with its seed")
	fl.StringVar(&f.name, "name", "", "of a module: its name; that of the file unless given")
	fl.StringArrayVar(&f.caps, "cap", nil, "of a module: a contract that it may use")
	fl.Int64Var(&f.rev, "rev", 0, "of a module: its revision, higher with each release; the time of signing unless given")
	fl.StringVar(&f.version, "ver", "", "of a module: its version, for people")
	fl.StringVar(&f.alias, "alias", "", "of a module: another name by which actors may call it")
	fl.StringArrayVar(&f.tags, "tag", nil, "of a module: a tag")
	fl.StringVar(&f.section, "section", claims.SectionName, "of a module: the section of the claims, wasmcloud_jwt, or jwt for readers before 2023")
	fl.StringVar(&f.out, "out", "", "of a module: the file to write instead of changing the module")
	fl.BoolVar(&f.keep, "keep", false, "of a module: keep what its claims say where no flag says something else")
	for _, name := range []string{"seed", "module-key"} {
		_ = cmd.MarkFlagFilename(name)
	}
	_ = cmd.MarkFlagFilename("out", "wasm")
	for name, values := range map[string][]string{"cap": wasm.Contracts, "section": {claims.SectionName, claims.OldSectionName}} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return cmd
}

// account reads the seed that signs.
func (f *signFlags) account(cmd *cobra.Command) (claims.Seed, error) {
	path := cmp.Or(f.seed, os.Getenv("EDGED_SEED_FILE"))
	if path == "" {
		return claims.Seed{}, usageOf(cmd, errors.New("--seed is needed: the file with the seed of an account key"))
	}
	seed, err := readSeed(cmd, path)
	if err == nil && seed.Kind() != claims.Account {
		err = usageError{hinted{
			fmt.Errorf("seed in %s is of kind %s, want account", path, seed.Kind()), "make one with: edged keys gen account --out fleet.seed",
		}}
	}
	return seed, err
}

// dates reads the flags of that name.
func (f *signFlags) dates(cmd *cobra.Command) (d claims.Dates, err error) {
	now, err := clock(os.Getenv("EDGED_CLOCK"))
	if err != nil {
		return d, err
	}
	d.Issued = now()
	for flag, to := range map[string]**time.Time{"expires": &d.Expires, "not-before": &d.NotBefore} {
		text := cmd.Flag(flag).Value.String()
		if text == "" {
			continue
		}
		at, err := parseDate(text, d.Issued)
		if err != nil {
			return d, usageOf(cmd, fmt.Errorf("--%s %w", flag, err))
		}
		*to = &at
	}
	if d.Expires != nil && !d.Expires.After(d.Issued) {
		return d, usageOf(cmd, fmt.Errorf("--expires %s is in the past", f.expires))
	}
	return d, nil
}

// parseDate reads days or a duration from now on, or a time.
func parseDate(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 20); err == nil {
			return now.AddDate(0, 0, int(n)), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(d), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: want days like 90d, a duration like 36h, or a time like 2030-01-31", text)
}

// signed is what was done, for --json.
type signed struct {
	File     string     `json:"file"`
	Issuer   string     `json:"issuer"`
	Name     string     `json:"name"`
	Version  string     `json:"version"`
	Identity string     `json:"identity,omitempty"`
	Caps     []string   `json:"caps,omitempty"`
	Hash     string     `json:"hash,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
}

func (f *signFlags) signApp(cmd *cobra.Command, dir string) error {
	app, err := config.LoadApp(dir)
	if err != nil {
		return err
	}
	seed, err := f.account(cmd)
	if err != nil {
		return err
	}
	dates, err := f.dates(cmd)
	if err != nil {
		return err
	}
	// A box holds a module to its own claims, whoever signed the app.
	for _, a := range app.Actors {
		if a.Ref != "" {
			if !oci.Pinned(a.Ref) {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: what %s names may change, so that the module has to be signed by itself; a digest is covered by the signature of the app\n", a.Ref)
			}
			continue
		}
		note, err := moduleNote(filepath.Join(dir, filepath.FromSlash(a.Module)), seed.Key())
		if err != nil {
			return err
		}
		if note != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: module %s %s\n", a.Module, note)
		}
	}
	path, err := claims.SignAppWithin(dir, app.Name, app.Version, dates, seed)
	if errors.Is(err, claims.ErrSeed) {
		return hinted{err, "move it out of the folder: every box would get it"}
	}
	if err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(cmd.OutOrStdout(), signed{File: path, Issuer: seed.Key().String(), Name: app.Name, Version: app.Version, Expires: dates.Expires})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s %s signed by %s\n", path, app.Name, app.Version, seed.Key())
	return nil
}

// moduleNote says what the signer of an app should know of a module in it; nothing of
// one that has no claims, or some by the same account.
func moduleNote(path string, signer claims.Key) (string, error) {
	bin, err := readModule(path)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(string(bin), "\x00asm") {
		return "", nil // the box says what it is instead
	}
	r, err := claims.InspectModule(bin)
	if err != nil {
		return "can not be read, and boxes will not run it: " + err.Error(), nil
	}
	if fault := r.Fault(); fault != nil {
		return fmt.Sprintf("has claims that do not hold, and boxes will refuse it: %v; sign it again: edged sign %s", fault, path), nil
	}
	if r.Form == nil && r.Claims.Issuer != signer.String() {
		return fmt.Sprintf("has claims by another account: boxes must trust %s too, or sign it again: edged sign --keep %s", r.Claims.Issuer, path), nil
	}
	return "", nil
}

func readModule(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file", path)
	case info.Size() > claims.MaxModule:
		return nil, fmt.Errorf("%s: %d bytes, at most %d", path, info.Size(), claims.MaxModule)
	}
	return os.ReadFile(path)
}

func (f *signFlags) signModule(cmd *cobra.Command, path string) error {
	bin, err := readModule(path)
	if err != nil {
		return err
	}
	seed, err := f.account(cmd)
	if err != nil {
		return err
	}
	dates, err := f.dates(cmd)
	if err != nil {
		return err
	}
	if f.section != claims.SectionName && f.section != claims.OldSectionName {
		return usageOf(cmd, fmt.Errorf("--section %s: want %s or %s", f.section, claims.SectionName, claims.OldSectionName))
	}
	old, err := claims.InspectModule(bin)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	c, err := f.moduleClaims(cmd, path, old)
	if err != nil {
		return err
	}
	c = claims.WithDates(c, dates)
	how, err := f.identify(cmd, &c, old, seed)
	if err != nil {
		return err
	}
	out, err := claims.SignModuleIn(bin, f.section, c, seed)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	to, mode := cmp.Or(f.out, path), os.FileMode(0o644)
	if info, err := os.Stat(to); err == nil {
		mode = info.Mode().Perm()
	}
	if err := atomicfile.WriteFile(to, out, mode); err != nil {
		return err
	}
	f.warn(cmd, bin, c.Wascap.Caps)
	w := c.Wascap
	if f.asJSON {
		report, err := claims.InspectModule(out)
		if err != nil {
			return err
		}
		return printJSON(cmd.OutOrStdout(), signed{
			File: to, Issuer: seed.Key().String(), Name: w.Name, Version: w.Ver, Identity: c.Subject, Caps: report.Claims.Wascap.Caps,
			Hash: report.Hash, Expires: dates.Expires,
		})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: %s signed by %s\n", to, strings.TrimSpace(w.Name+" "+w.Ver), seed.Key())
	fmt.Fprintf(cmd.OutOrStdout(), "identity: %s (%s)\n", c.Subject, how)
	fmt.Fprintf(cmd.OutOrStdout(), "may use: %s\n", cmp.Or(strings.Join(w.Caps, ", "), "nothing"))
	return nil
}

// moduleClaims are what the flags say, and with --keep what the old claims do.
func (f *signFlags) moduleClaims(cmd *cobra.Command, path string, old claims.ModuleReport) (c claims.Claims[claims.ModuleClaims], err error) {
	w := claims.ModuleClaims{}
	given := cmd.Flags().Changed
	if f.keep {
		if errors.Is(old.Form, claims.ErrUnsigned) {
			return c, usageOf(cmd, fmt.Errorf("%s has no claims to --keep", path))
		}
		if fault := errors.Join(old.Form, old.Signature, old.HashFault); fault != nil {
			return c, hinted{fmt.Errorf("%s: its claims can not be kept: %w", path, fault), "leave out --keep, and say what it may use with --cap"}
		}
		w = old.Claims.Wascap
		w.Caps = slices.DeleteFunc(slices.Clone(w.Caps), func(id string) bool { return id == "" })
	}
	w.Prov = false
	if name := strings.TrimSuffix(filepath.Base(path), ".wasm"); given("name") || w.Name == "" {
		w.Name = cmp.Or(f.name, name)
	}
	if given("cap") || !f.keep {
		w.Caps = slices.Compact(slices.Sorted(slices.Values(f.caps)))
	}
	if given("tag") || !f.keep {
		w.Tags = f.tags
	}
	if given("rev") || !f.keep {
		w.Rev = f.rev
	}
	if given("ver") || !f.keep {
		w.Ver = f.version
	}
	if given("alias") || !f.keep {
		w.CallAlias = f.alias
	}
	c.Wascap = w
	return c, nil
}

// identify gives the module its identity, and says where that came from.
func (f *signFlags) identify(cmd *cobra.Command, c *claims.Claims[claims.ModuleClaims], old claims.ModuleReport, account claims.Seed) (how string, err error) {
	switch {
	case f.identity != "":
		key, err := claims.Parse(f.identity)
		if err != nil {
			seed, err := readSeed(cmd, f.identity)
			if err != nil {
				return "", fmt.Errorf("--module-key: %w", err)
			}
			key = seed.Key()
		}
		if key.Kind() != claims.Module {
			return "", usageOf(cmd, fmt.Errorf("--module-key %s is of kind %s, want module", key, key.Kind()))
		}
		c.Subject = key.String()
		return "of --module-key", nil
	case old.Form == nil && old.Signature == nil:
		c.Subject = old.Claims.Subject
		return "as it had", nil
	}
	seed, err := account.Identity(c.Wascap.Name)
	if err != nil {
		return "", err
	}
	c.Subject = seed.Key().String()
	return "it follows from the account and the name " + c.Wascap.Name, nil
}

// warn tells what may be a mistake.
func (f *signFlags) warn(cmd *cobra.Command, bin []byte, caps []string) {
	w := cmd.ErrOrStderr()
	for _, id := range caps {
		if near := nearContract(id); near != "" {
			fmt.Fprintf(w, "warning: no contract of edged is called %s; is %s meant?\n", id, near)
		}
	}
	d := wasm.Describe(bin)
	if why := whyNoActor(cmd.Context(), bin, d, mostMemory); why != "" {
		fmt.Fprintf(w, "warning: no box will run this as an actor: %s\n", why)
		return
	}
	var left []string
	for _, id := range d.Contracts {
		if !slices.Contains(caps, id) {
			left = append(left, id)
		}
	}
	if len(left) > 0 {
		fmt.Fprintf(w, "note: the module has the names of contracts in it that it may not use: %s\n", strings.Join(left, ", "))
	}
}

// nearContract returns the known contract that id is a misspelling of, "" for none.
func nearContract(id string) (near string) {
	if slices.Contains(wasm.Contracts, id) {
		return ""
	}
	best := 3
	for _, known := range wasm.Contracts {
		if n := distance(id, known); n < best {
			near, best = known, n
		}
	}
	return near
}

// distance is how many letters have to be put in, left out or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
