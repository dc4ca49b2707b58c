// Package ota brings apps to a box over the air and keeps them there.
//
// A hub holds three things in JetStream: the desired state of each box, what each
// box reports, and the files of apps, named by their digest. Push writes the first
// and the last. On the box an Agent watches its own desired state, fetches the files
// it lacks, checks digests and signature, stages the release in a folder of its own,
// has it tried by Options.Apply, and then commits it or goes back. It reports each
// step.
//
// Guarantees: what a box runs is always one whole release, the old or the new,
// whatever is cut off at whatever moment. No byte is used before it was compared
// with its digest, no release before its signature was, if one is required. A
// release that failed is not tried again until another is desired. Without a hub
// the box goes on with what it has, and finishes what it has fetched. Reporting
// decides nothing.
//
// What is left to others: reading the manifest, swapping the running app, judging
// its health (all behind Apply), and the link to the hub.
package ota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
)

// Options are what an Agent needs.
type Options struct {
	// Conn is the connection through which the hub can be reached, now or later. Nil
	// for a box without a hub: then only what was begun before is finished.
	Conn *nats.Conn
	// Domain is the hub's JetStream domain, "" where Conn is connected to the hub itself.
	Domain string
	// Device is the box's id and its key in the buckets.
	Device string
	// StateDir is the box's state directory. The folders apps and artifacts in it
	// belong to the Agent.
	StateDir string

	// Issuers are the account keys whose apps may run.
	Issuers []claims.Key
	// AllowUnsigned lets apps without a signature run. A signature that is there must
	// hold all the same; if there are no Issuers, any account may have made it.
	AllowUnsigned bool

	// Admit, if not nil, looks at a staged release before it is tried: its manifest,
	// its modules, and what these need from elsewhere. An error refuses the release for
	// good, unless it wraps ErrLater. Its context ends when something newer is desired.
	Admit func(context.Context, Staged) error
	// Apply puts the release in the place of what the app runs now and returns when it
	// is healthy. If it returns an error, the old one must be running as before. It may
	// be called again for a release after a restart, or if it returned ErrLater. It is called from Run's goroutine,
	// for one release at a time, and its context ends with Run.
	Apply func(context.Context, Staged) error

	// ReserveBytes of the disk stay free of downloads, for the messages of the box; 0 for
	// 32 MiB.
	ReserveBytes int64

	Logger *slog.Logger
	// Now is the clock for the dates of signatures; nil for time.Now.
	Now func() time.Time
	// Poll is how often the desired state is read even if no change was seen; 0 for 30 s.
	Poll time.Duration
	// RetryMin and RetryMax are the shortest and longest wait after a failure that may
	// pass; 0 for 1 s and 60 s.
	RetryMin, RetryMax time.Duration
}

// ErrLater says of a release that it can not be admitted or applied yet.
var ErrLater = errors.New("it is tried again")

// maxTrials is how often a release is started without the box living to see the end
// of it: more than once, since a power cut is not the release's fault.
const maxTrials = 3

// Agent keeps a box at its desired state. Current, Status and Poke may be called
// from any goroutine.
type Agent struct {
	opts Options
	log  *slog.Logger
	disk disk
	hub  *hub // nil without a connection

	wake   chan struct{} // one token: there is something new to work on
	report chan struct{} // one token: there is something new to report
	poke   chan struct{} // one token: read the desired state now

	// These belong to the goroutine of Run that works on updates.
	applied string // key of a desired state that runs but is not recorded yet
	content int    // downloads in a row that were not what they should be

	mu      sync.Mutex // guards what follows
	rec     record
	unsaved bool // rec is not on disk yet
	running map[string]Desired
	damaged map[string]error // by app; what New found
	want    *Desired         // newest that the hub had; nil for none
	invalid string           // why the newest could not be read
	trouble string           // what is being tried again, in words
	worry   string           // key of the desired state that trouble is about
	cut     func()           // stops fetching, for something newer
	cutKey  string           // what is being fetched

	reached func(point string) // for the tests of power cuts
}

// New takes hold of the state directory and reads what each app runs, all files
// included. Damaged releases are logged, and the one before is used. It starts
// nothing.
func New(opts Options) (*Agent, error) {
	if opts.Apply == nil || opts.Logger == nil || opts.StateDir == "" || !appName.MatchString(opts.Device) {
		return nil, errors.New("ota: Apply, Logger, StateDir and a device id are needed")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.ReserveBytes == 0 {
		opts.ReserveBytes = 32 << 20
	}
	opts.Poll = orDefault(opts.Poll, 30*time.Second)
	opts.RetryMin = orDefault(opts.RetryMin, time.Second)
	opts.RetryMax = max(opts.RetryMin, orDefault(opts.RetryMax, time.Minute))
	a := &Agent{
		opts: opts, log: opts.Logger, disk: disk{root: opts.StateDir}, reached: func(string) {},
		wake: make(chan struct{}, 1), report: make(chan struct{}, 1), poke: make(chan struct{}, 1),
	}
	if opts.Conn != nil {
		js, err := newJetStream(opts.Conn, opts.Domain)
		if err != nil {
			return nil, fmt.Errorf("ota: %w", err)
		}
		a.hub = &hub{js: js, device: opts.Device}
	}
	if err := a.load(); err != nil {
		return nil, fmt.Errorf("ota: %w", err)
	}
	return a, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

func (a *Agent) load() error {
	if err := a.disk.create(); err != nil {
		return err
	}
	rec, err := a.disk.loadRecord()
	if errors.Is(err, errDamaged) {
		// Nothing is lost but how far an update was: the hub says again what it wants.
		rec = record{Format: recordFormat, State: Idle}
		aside, asideErr := a.disk.setAside(a.disk.stateFile())
		a.log.Error("update state is damaged; starting without it", "err", errors.Join(err, asideErr), "file", aside)
		err = nil
	}
	if err != nil {
		return err
	}
	running, damaged, err := a.disk.load()
	if err != nil {
		return err
	}
	for app, err := range damaged {
		a.log.Error("an installed release is damaged", "app", app, "err", err)
	}
	a.rec, a.running, a.damaged = rec, running, damaged
	return nil
}

// Damaged tells of each app with a damaged release what is wrong with it and what
// runs instead, until a release of the app is committed.
func (a *Agent) Damaged() []error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []error
	for _, app := range slices.Sorted(maps.Keys(a.damaged)) {
		instead := "nothing of it runs"
		if run, ok := a.running[app]; ok {
			instead = "version " + run.Version + " runs"
		}
		all = append(all, fmt.Errorf("app %s: %s: %w", app, instead, a.damaged[app]))
	}
	return all
}

// Current is what the box is to run, in order of names: one release for each app
// that was committed. It needs no hub.
func (a *Agent) Current() []Staged {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []Staged
	for _, app := range slices.Sorted(maps.Keys(a.running)) {
		all = append(all, a.disk.staged(a.running[app]))
	}
	return all
}

// Status is what the box knows: the newest desired state it has seen, and what it
// reports.
func (a *Agent) Status() Status {
	r := a.reported()
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Status{Desired: a.want, Reported: &r}
	if s.Desired == nil {
		s.Desired = a.rec.Desired
	}
	return s
}

// Poke makes the Agent talk to the hub now and not only when its time has come. It
// is for the moment when the link comes up.
func (a *Agent) Poke() {
	signal(a.poke)
	signal(a.wake)
	signal(a.report)
}

// signal leaves a token unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run keeps the box at its desired state until ctx ends, and then returns nil. It
// is to be called once, after the apps of Current were started.
func (a *Agent) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if a.hub != nil {
		wg.Go(func() { a.follow(ctx) })
		wg.Go(func() { a.keepReporting(ctx) })
	}
	a.work(ctx)
	return nil
}

// reported makes the report out of what is known.
func (a *Agent) reported() Reported {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.invalid != "" {
		return Reported{State: RolledBack, Error: a.invalid}
	}
	r := Reported{State: a.rec.State, Error: a.rec.Error, Refused: a.rec.Refused}
	d := a.rec.Desired
	if d == nil {
		r.Error = a.trouble
		return r
	}
	if r.Error == "" && a.worry == d.key() && (!r.Settled() || a.unsaved) {
		r.Error = a.trouble
	}
	r.App, r.Version, r.Digest, r.Release, r.Desired = d.App, d.Version, d.Manifest, d.Release(), d.key()
	if run, ok := a.running[d.App]; ok {
		r.Running = &Running{Version: run.Version, Digest: run.Manifest, Release: run.Release()}
	}
	return r
}
