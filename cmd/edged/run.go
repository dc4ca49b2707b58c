package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	goruntime "runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/cgroup"
	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/logtext"
	"github.com/edged-io/edged/internal/node"
)

const defaultConfig = "/etc/edged/edged.toml"

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "config", defaultConfig, "device file")
	_ = cmd.MarkFlagFilename("config", "toml")
}

// runVerb is the verb that runs the box.
const runVerb = "run"

func newRun() *cobra.Command {
	var path, level string
	cmd := &cobra.Command{
		Use: runVerb, Short: "Run the box", Args: usage(cobra.NoArgs),
		Long: `Run the box until SIGTERM or SIGINT. SIGHUP reads the apps folder again.

The log goes to standard error. When the box serves, with the apps that were
there before, it says msg=ready once, and systemd is told. Apps whose code is
not in the cache follow when it is compiled; edged status says which. The
addresses that were bound are in addresses.json in the state directory.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return usageOf(cmd, fmt.Errorf("--log-level %s: want debug, info, warn or error", level))
			}
			return runBox(cmd.Context(), path, newLog(cmd.ErrOrStderr(), l), cmd.ErrOrStderr())
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// newLog writes text, and the traces of errors beneath. Under systemd the journal stamps each line itself.
func newLog(w io.Writer, level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(logtext.NewHandler(w, o))
}

func runBox(ctx context.Context, path string, log *slog.Logger, errOut io.Writer) error {
	var tables sync.WaitGroup
	tables.Go(claims.Prepare) // on another core, while files are read
	defer tables.Wait()
	d, err := config.LoadDevice(path)
	if err != nil {
		return err
	}
	if d.Trust.AllowUnsigned {
		log.Warn("apps and actors without a signature may run: trust.allow_unsigned is for development")
	}
	start := os.Getenv("EDGED_CLOCK")
	now, err := clock(start)
	if err != nil {
		return err
	}
	if start == "" {
		now = nil // the machine's, which may be known to be right
	}
	limit := cgroup.MemoryLimit()
	if limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(node.HeapLimit(limit))
		log.Info("memory is limited by the cgroup", "bytes", limit)
	}
	endStart := collectLate()
	cores := processors()
	n, err := node.New(node.Options{
		Cores:       cores,
		MemoryLimit: limit,
		Device:      d, Version: version, Logger: log, Now: now, Failpoint: failpoint(os.Getenv("EDGED_FAILPOINT")),
		HubPing: hubPing(os.Getenv("EDGED_HUB_PING")), Encode: os.Getenv("EDGED_ENCODE") != "", Compiler: []string{"/proc/self/exe", compileVerb},
		Faults: func(err error) {
			var faults config.Faults
			if errors.As(err, &faults) {
				fmt.Fprintln(errOut, faults)
			}
		},
	})
	if err != nil {
		return err
	}
	notify := node.NewNotifier(log)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var after sync.WaitGroup
	err = n.Run(ctx, func(node.Addresses) {
		notify.Ready(ctx, n.Alive)
		after.Go(func() { reloadOnSignal(ctx, n, hup, notify, log) })
		after.Go(func() { tidy(ctx, endStart, log) })
	})
	notify.Stopping()
	cancel()
	after.Wait()
	return err
}

// startEnds is how long after it serves a box is done with what a start brings
// along: links are made, and those who listen are told what runs.
const startEnds = 250 * time.Millisecond

// tidy lets go of what the start took and nobody needs again, when it is over.
func tidy(ctx context.Context, endStart func(), log *slog.Logger) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(startEnds):
	}
	endStart()
	debug.FreeOSMemory()
	if err := dropStartPages(); err != nil {
		log.Debug("pages of the start are kept", "err", err)
	}
}

// startGC is GOGC until the box is ready: the heap of a start, some MiB, is not
// collected while actors are loaded, but once, when it is over. A memory limit
// stands above it.
const startGC = 400

// collectLate lets the heap grow to startGC, until end is called. Who sets GOGC
// has decided.
func collectLate() (end func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	was := debug.SetGCPercent(startGC)
	return func() { debug.SetGCPercent(was) }
}

// processors returns how many guests may compute at once, and sees to it that the
// scheduler has one processor more, so that a guest never has the last one. Who
// sets GOMAXPROCS has decided.
func processors() (cores int) {
	procs := goruntime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") != "" {
		return max(1, procs-1)
	}
	goruntime.GOMAXPROCS(procs + 1)
	return procs
}

func reloadOnSignal(ctx context.Context, n *node.Node, hup <-chan os.Signal, notify node.Notifier, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		notify.Reloading()
		if err := n.Reload(ctx); err != nil {
			log.Error("apps not reloaded, what runs goes on", "err", err)
			notify.Reloaded(err)
			continue
		}
		log.Info("apps reloaded")
		notify.Reloaded(nil)
	}
}
