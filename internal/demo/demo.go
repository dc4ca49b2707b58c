// Package demo shows what a box is for, on one machine and in less than a
// minute: sensors send readings to a box, an actor handles them, the hub gets
// them, while the link is cut and the box is killed; at the end, what the hub
// holds is compared with what was acknowledged to the sensors.
//
// The nouns. The hub, the sensors and the view are in this process. The box is
// a child process, so that to kill it is to kill it. Gates stand in for the
// cables between them. A round is one run of the story; a ledger is what one
// sensor has sent in it.
//
// It leaves nothing behind: its ports are free ones of the loopback interface,
// its files are in a temporary folder, and the box does not outlive it.
package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/edged-io/edged/internal/config"
)

// Options are what Run needs to know. Box, App, Duration and Rate are required.
type Options struct {
	// Box returns the command that runs a box with a device file, not started.
	Box func(deviceFile string) *exec.Cmd
	// App is the folder of the example app, which is greenhouse.
	App string
	// Duration is that of a round, the comparison not included.
	Duration time.Duration
	// Rate is how many readings per second the sensors send together.
	Rate int
	// Forever adds rounds until Finish. Else there is one.
	Forever bool
	// Keep leaves the folder with the state where it is.
	Keep bool
	// Finish, when it is closed, ends the round early. It is compared all the
	// same.
	Finish <-chan struct{}
	// Screen shows what happens; nil shows nothing.
	Screen Screen

	tamper func(ctx context.Context, h *hub) error // of tests, before the comparison
}

// Limits of Options.
const (
	MinDuration = 2 * time.Second
	MaxDuration = 10 * time.Minute
	MaxRate     = 2000
)

// ErrDifferent: the hub holds something else than what was acknowledged.
var ErrDifferent = errors.New("the hub does not hold what was acknowledged, once and in order")

// Result is what a demo has shown. Counts are sums over all rounds.
type Result struct {
	Same     bool         `json:"same"` // no difference in any round
	Rounds   int          `json:"rounds"`
	Readings []Comparison `json:"readings"` // by sensor: acknowledged by the box, held by the hub
	Alarms   []Comparison `json:"alarms"`   // by sensor: due for a reading above the limit, held by the hub
	Relay    bool         `json:"relay_closed"`
	Kills    int          `json:"kills"`
	Cuts     int          `json:"cuts"`
	Peak     uint64       `json:"most_waiting"` // messages on the box's disk that the hub had not
	Seconds  float64      `json:"seconds"`
	Dir      string       `json:"state,omitempty"` // the folder with state and logs, if it was kept
}

// Check says whether a demo can be like that.
func (o Options) Check() error {
	switch {
	case o.Duration < MinDuration || o.Duration > MaxDuration:
		return fmt.Errorf("duration %s: must be %s to %s", o.Duration, MinDuration, MaxDuration)
	case o.Rate < 1 || o.Rate > MaxRate:
		return fmt.Errorf("rate %d: must be 1 to %d readings per second", o.Rate, MaxRate)
	}
	return nil
}

// Run shows the demo and returns when everything it started is gone. The error
// is ErrDifferent if the comparison found a difference, and the cause of ctx if
// that ended first. After any error but that of ctx the state is kept, and
// Result.Dir says where.
func Run(ctx context.Context, o Options) (r Result, err error) {
	if err := o.Check(); err != nil {
		return r, err
	}
	if err := CheckApp(o.App); err != nil {
		return r, err
	}
	if o.Screen == nil {
		o.Screen = quiet{}
	}
	dir, err := os.MkdirTemp("", "edged-demo-")
	if err != nil {
		return r, fmt.Errorf("folder for the state: %w", err)
	}
	defer func() {
		if o.Keep || err != nil && ctx.Err() == nil {
			r.Dir = dir
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	s, err := newStage(&o, dir)
	if err != nil {
		return r, err
	}
	defer o.Screen.Close()
	err = errors.Join(s.run(ctx), s.close())
	return s.result(), err
}

// streams that the story is about, with what the hub's lane has behind them.
const (
	streamReadings = "telemetry"
	streamAlarms   = "alarms"
)

// CheckApp says whether dir holds an app that the demo can show. It is an
// os.ErrNotExist if there is none.
func CheckApp(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, config.ManifestName)); err != nil {
		return fmt.Errorf("example app: %w", err)
	}
	app, err := config.LoadApp(dir)
	if err != nil {
		return err
	}
	uplinked := map[string]bool{}
	for _, s := range app.Streams {
		uplinked[s.Name] = s.Uplink
	}
	for _, name := range []string{streamReadings, streamAlarms} {
		if !uplinked[name] {
			return fmt.Errorf("app in %s: no stream %s with uplink = true, as examples/thermostat has it", dir, name)
		}
	}
	return nil
}
