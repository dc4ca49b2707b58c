package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/providers/providertest"
)

func newProviderTest() *cobra.Command {
	var o providertest.Options
	var values, calls []string
	var remote, strict, verbose, asJSON bool
	cmd := &cobra.Command{
		Use: "test PROGRAM|ARCHIVE [-- ARG…]", Short: "Check that a provider does what hosts and actors rely on",
		Long: `Check a capability provider in any language: start it as a host does, link actors,
call it as they would and as nobody should, and stop it. No box is needed; a NATS
server runs inside for the time of the test.

Each check ends as PASS, WARN (it works, but not with every host, or not well) or
FAIL; the exit code is 1 if one failed. For the contract wasmcloud:keyvalue the
operations are checked too. For others, give calls that succeed with --call; the
first is made a hundred times, so it should only read.

With --remote the host data line is printed, for a provider that somebody else
starts: it reads the line on standard input.`,
		Example: `  edged provider test ./my-provider --contract example:sensor --values port=/dev/ttyS0 --call 'Sensor.Read={"pin":3}'
  edged provider test ./kv.js --contract wasmcloud:keyvalue --values path=/tmp/kv.db
  edged provider test --remote --contract example:sensor --json`,
		Args: usage(func(cmd *cobra.Command, args []string) error {
			if remote {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.MinimumNArgs(1)(cmd, args)
		}),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.Values, err = pairs(values); err != nil {
				return usageOf(cmd, err)
			}
			for _, call := range calls {
				c, err := callOf(call)
				if err != nil {
					return usageOf(cmd, err)
				}
				o.Calls = append(o.Calls, c)
			}
			dir, err := os.MkdirTemp("", "edged-provider-test-")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			out := cmd.OutOrStdout()
			if remote {
				to := out
				if asJSON {
					to = cmd.ErrOrStderr()
				}
				o.Ready = func(line string) { fmt.Fprintln(to, line) }
				if !cmd.Flags().Changed("start") {
					o.Start = remoteStart
				}
			} else if o.Command, err = program(&o, args, dir); err != nil {
				return err
			}
			if verbose {
				o.Output = cmd.ErrOrStderr()
			}
			if !asJSON {
				o.Report = func(r providertest.Result) { showCheck(out, r) }
			}
			if o.URL == "" {
				nats := broker.NewHubServer(dir, slog.New(slog.DiscardHandler))
				if err := nats.Start(); err != nil {
					return err
				}
				defer nats.Stop()
				o.URL = nats.ClientURL()
			}
			results, err := providertest.Run(cmd.Context(), o)
			if errors.Is(err, providertest.ErrOptions) {
				return usageOf(cmd, err)
			}
			if err != nil {
				return err
			}
			return showChecks(out, results, strict, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Contract, "contract", "edged:test", "capability contract id of the links")
	flags.StringVar(&o.LinkName, "link-name", "default", "name of the links")
	flags.StringArrayVar(&values, "values", nil, "a value of the links, KEY=VALUE; may be given again")
	flags.StringArrayVar(&calls, "call", nil, "a call that has to succeed, OPERATION or OPERATION=JSON; may be given again")
	flags.StringVar(&o.Config, "config-json", "", "what a start command would bring, as one text")
	flags.StringVar(&o.URL, "url", "", "use this NATS server, with JetStream, in place of one of its own")
	flags.DurationVar(&o.Timeout, "timeout", 2*time.Second, "how long to wait for an answer")
	flags.DurationVar(&o.Start, "start", 15*time.Second, "how long the provider may take to start")
	flags.BoolVar(&remote, "remote", false, "print the host data line, and wait for who starts the provider with it (5m)")
	flags.BoolVar(&strict, "strict", false, "warnings are failures")
	flags.BoolVarP(&verbose, "verbose", "v", false, "show what the provider prints")
	flags.BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// remoteStart is how long somebody may take to start a provider by hand.
const remoteStart = 5 * time.Minute

// pairs reads KEY=VALUE.
func pairs(all []string) (map[string]string, error) {
	values := make(map[string]string)
	for _, s := range all {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("value %q: want KEY=VALUE", s)
		}
		values[key] = value
	}
	return values, nil
}

// callOf reads OPERATION or OPERATION=JSON.
func callOf(s string) (c providertest.Call, err error) {
	operation, text, ok := strings.Cut(s, "=")
	c.Operation = operation
	if operation == "" {
		return c, fmt.Errorf("call %q: want OPERATION or OPERATION=JSON", s)
	}
	if ok {
		if c.Payload, err = payloadOf(text); err != nil {
			return c, fmt.Errorf("call %s: %w", operation, err)
		}
	}
	return c, nil
}

// program is the command line of what is tested. An archive is unpacked into dir, and
// says which contract it serves.
func program(o *providertest.Options, args []string, dir string) ([]string, error) {
	path := args[0]
	if !strings.HasSuffix(path, ".par") && !strings.HasSuffix(path, ".par.gz") {
		if strings.Contains(path, "/") || filepath.IsAbs(path) {
			info, err := os.Stat(path)
			switch {
			case err != nil:
				return nil, err
			case info.IsDir(), info.Mode()&0o111 == 0:
				return nil, hinted{fmt.Errorf("%s is not executable", path), "a script begins with the line #!/usr/bin/env INTERPRETER; then chmod +x"}
			}
			if path, err = filepath.Abs(path); err != nil {
				return nil, err
			}
		}
		return append([]string{path}, args[1:]...), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from
	exec := filepath.Join(dir, "provider")
	to, err := os.OpenFile(exec, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return nil, err
	}
	p, err := claims.ExtractArchive(to, f, claims.Policy{AnyIssuer: true}, claims.Targets(goruntime.GOOS, goruntime.GOARCH)...)
	if err := errors.Join(err, to.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if p.Contract != "" {
		o.Contract = p.Contract
	}
	return append([]string{exec}, args[1:]...), nil
}

// checkItem is a check in the JSON document.
type checkItem struct {
	Check  string `json:"check"`
	Status string `json:"status"` // PASS, WARN or FAIL
	Detail string `json:"detail,omitempty"`
	TookMS int64  `json:"took_ms"`
}

func showCheck(w io.Writer, r providertest.Result) {
	fmt.Fprintf(w, "%s %s", r.Status, r.Check)
	if r.Detail != "" {
		fmt.Fprintf(w, ": %s", r.Detail)
	}
	fmt.Fprintln(w)
}

func showChecks(w io.Writer, results []providertest.Result, strict, asJSON bool) error {
	passed := providertest.Passed(results, strict)
	n := make(map[providertest.Status]int)
	items := make([]checkItem, 0, len(results))
	for _, r := range results {
		n[r.Status]++
		items = append(items, checkItem{r.Check, string(r.Status), r.Detail, r.Took.Milliseconds()})
	}
	if asJSON {
		doc := struct {
			Passed bool        `json:"passed"`
			Items  []checkItem `json:"items"`
		}{passed, items}
		if err := printJSON(w, doc); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintf(w, "%d passed, %d warnings, %d failed\n", n[providertest.Pass], n[providertest.Warn], n[providertest.Fail]); err != nil {
		return err
	}
	if !passed {
		return errReported{errors.New("the provider does not pass")}
	}
	return nil
}
