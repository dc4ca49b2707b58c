package node

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier speaks to systemd, where a unit of Type=notify started the process;
// else it says nothing.
type Notifier struct{ log *slog.Logger }

// NewNotifier returns a Notifier.
func NewNotifier(log *slog.Logger) Notifier { return Notifier{log} }

// Ready says that the box serves, and keeps the watchdog content until ctx ends
// as long as alive returns nil. It does not wait for that end.
func (s Notifier) Ready(ctx context.Context, alive func() error) {
	s.send(daemon.SdNotifyReady)
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("watchdog can not be used", "err", err)
	}
	if interval <= 0 || err != nil {
		return
	}
	go func() { // ends with ctx, at the end of the process
		tick := time.NewTicker(interval / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := alive(); err != nil {
				s.log.Error("watchdog is left to bark", "err", err)
				continue
			}
			s.send(daemon.SdNotifyWatchdog)
		}
	}()
}

// Reloading and Stopping say what happens next. Reloaded ends Reloading.
func (s Notifier) Reloading() {
	s.send(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// Reloaded says that the reload has ended, well or with err, which systemctl
// status shows.
func (s Notifier) Reloaded(err error) {
	status := "apps reloaded"
	if err != nil {
		status = "apps not reloaded: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	s.send(daemon.SdNotifyReady + "\nSTATUS=" + status)
}

// Stopping says that the box ends.
func (s Notifier) Stopping() { s.send(daemon.SdNotifyStopping) }

func (s Notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("systemd can not be told", "err", err)
	}
}
