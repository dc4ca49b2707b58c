package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/wasm"
	"github.com/edged-io/edged/runtime"
)

func newCheck() *cobra.Command {
	var path string
	var trust []string
	cmd := &cobra.Command{
		Use: "check [DIR…]", Short: "Check the device file and the apps, and change nothing", Args: usage(cobra.ArbitraryArgs),
		Long: `Check the device file, and each app in its apps folder: the manifest, whether its
modules are those of actors, as far as that is seen without running them, and
whether the box would take the signatures of the app and of its modules. With DIR, check
these apps alone, against the device file if --config is given, or against the keys
of --trust; with neither, a signature that is there has to fit, whoever it is by.

Dates are only warned about, since a box that has admitted an app goes on with it.
The exit code is 2 for faults in files, and 4 for signatures that would be refused.`,
		Example: "  edged check --config edged.toml\n  edged check ./greenhouse --trust ADIWLLM2YB…",
		RunE: func(cmd *cobra.Command, args []string) error {
			now, err := clock(os.Getenv("EDGED_CLOCK"))
			if err != nil {
				return err
			}
			c := checker{cmd: cmd, now: now()}
			for _, text := range trust {
				key, err := claims.Parse(text)
				if err == nil && key.Kind() != claims.Account {
					err = errors.New("not that of an account")
				}
				if err != nil {
					return usageOf(cmd, fmt.Errorf("--trust %w", err))
				}
				c.policy.Issuers = append(c.policy.Issuers, key)
			}
			if len(args) == 0 && len(trust) > 0 {
				return usageOf(cmd, errors.New("--trust is for apps: name their folders"))
			}
			what := path
			if len(args) > 0 {
				what = strings.Join(args, ", ")
			}
			if err := c.check(args, path); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", what)
			return nil
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringArrayVar(&trust, "trust", nil, "account key whose signature counts")
	return cmd
}

// checker looks at apps as a box would.
type checker struct {
	cmd      *cobra.Command
	policy   claims.Policy
	unsigned bool // apps need no signature
	now      time.Time
}

func (c *checker) check(dirs []string, path string) error {
	var d *config.Device
	if len(dirs) == 0 {
		if err := config.Check(path); err != nil {
			return err
		}
	}
	if len(dirs) == 0 || c.cmd.Flags().Changed("config") {
		var err error
		if d, err = config.LoadDevice(path); err != nil {
			return err
		}
		if err := c.trusts(d.Trust); err != nil {
			return err
		}
	} else if len(c.policy.Issuers) == 0 {
		c.policy.AnyIssuer, c.unsigned = true, true
	}
	var apps []*config.App
	if len(dirs) == 0 {
		var err error
		if apps, err = config.LoadApps(d.Apps.Dir); err != nil {
			return err
		}
	}
	for _, dir := range dirs {
		app, err := config.LoadApp(dir)
		if err != nil {
			return err
		}
		apps = append(apps, app)
	}
	if faults := config.CheckApps(apps); len(faults) > 0 {
		return faults
	}
	var errs []error
	for _, app := range apps {
		if err := c.app(app); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	err := errors.Join(errs...)
	if isNotActor(err) {
		return notActor{err}
	}
	return refusal{err}
}

// notActor is a module that is none of an actor.
type notActor struct{ error }

// mostMemory is that of a module by itself, of which no manifest says what it may use.
const mostMemory = 4 << 30

// whyNoActor says why a module of which f is the description does not run as an actor
// with that much memory, "" if nothing is found.
func whyNoActor(ctx context.Context, bin []byte, f wasm.File, memory uint64) string {
	if why := f.NotAnActor(); why != "" {
		return why
	}
	if err := runtime.Check(ctx, bin, runtime.Limits{MemoryBytes: memory}); err != nil {
		return err.Error()
	}
	return ""
}

// isNotActor says whether all that is wrong are such modules.
func isNotActor(err error) bool {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(all.Unwrap(), func(err error) bool { return !isNotActor(err) })
	}
	_, ok := err.(notActor)
	return ok
}

// trusts takes whom a device file trusts.
func (c *checker) trusts(t config.Trust) error {
	for _, s := range t.Issuers {
		key, err := claims.Parse(s)
		if err != nil {
			return err
		}
		c.policy.Issuers = append(c.policy.Issuers, key)
	}
	c.unsigned = t.AllowUnsigned
	c.policy.AnyIssuer = t.AllowUnsigned && len(c.policy.Issuers) == 0
	return nil
}

// app says why a box would not take the signatures of an app and its modules.
func (c *checker) app(a *config.App) error {
	err := c.admitted("app "+a.Name, func(p claims.Policy) error {
		s, err := claims.VerifyAppDir(a.Dir, p)
		if err == nil && s.Name != a.Name {
			err = fmt.Errorf("signed as %s: %w", s.Name, claims.ErrSignature)
		}
		return err
	})
	errs := []error{}
	switch {
	case errors.Is(err, claims.ErrUnsigned) && c.unsigned:
	case errors.Is(err, claims.ErrUnsigned):
		errs = append(errs, hinted{fmt.Errorf("app %s: %w", a.Name, err), "sign it: edged sign --seed FILE " + a.Dir})
	case err != nil:
		errs = append(errs, fmt.Errorf("app %s: %w", a.Name, err))
	}
	for _, actor := range a.Actors {
		if actor.Ref != "" {
			continue // it is looked at when it is fetched
		}
		what := "app " + a.Name + ": module " + actor.Module
		bin, err := readModule(filepath.Join(a.Dir, filepath.FromSlash(actor.Module)))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if why := whyNoActor(c.cmd.Context(), bin, wasm.Describe(bin), uint64(actor.Limits.Memory)); why != "" {
			errs = append(errs, notActor{fmt.Errorf("%s: no box runs it as an actor: %s", what, why)})
		}
		if !strings.HasPrefix(string(bin), "\x00asm") {
			continue // there are no claims in it
		}
		var m claims.SignedModule
		err = c.admitted(what, func(p claims.Policy) error {
			found, err := claims.VerifyModule(bin, p)
			if err == nil {
				m = found
			}
			return err
		})
		switch {
		case errors.Is(err, claims.ErrUnsigned): // the signature of its app lets it in
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		default:
			errs = append(errs, c.granted(what, m, a, actor.Name))
		}
	}
	return errors.Join(errs...)
}

// granted holds what the manifest links and calls against the claims of an actor: a
// box refuses to start one that would be called by a contract it is not given, and
// refuses each call by a link that it is not given.
func (c *checker) granted(what string, m claims.SignedModule, a *config.App, actor string) error {
	for _, contract := range a.CalledBy(actor) {
		if !slices.Contains(m.Caps, contract) {
			return fmt.Errorf("%s: the manifest has it called by %s, and the claims do not give it that", what, contract)
		}
	}
	for _, l := range a.Links {
		if l.Actor == actor && !slices.Contains(m.Caps, l.Contract) {
			fmt.Fprintf(c.cmd.ErrOrStderr(), "warning: %s: the manifest links %s, and the claims do not give it: such calls will be refused\n", what, l.Contract)
		}
	}
	return nil
}

// admitted checks as a box does that has admitted it before, and warns where one
// that sees it the first time would not.
func (c *checker) admitted(what string, verify func(claims.Policy) error) error {
	if err := verify(c.policy); err != nil {
		return err
	}
	first := c.policy
	first.Admission = c.now
	if err := verify(first); err != nil {
		fmt.Fprintf(c.cmd.ErrOrStderr(), "warning: %s: a box that has not admitted it before refuses it: %v\n", what, err)
	}
	return nil
}
