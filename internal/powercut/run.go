package powercut

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"
)

// Options are what Run needs to know.
type Options struct {
	// Dir is a folder of the disk that is asked. Folders are made in it, and
	// removed again, but for a finding. "" means the one for temporary files.
	Dir string
	// States is how many states are checked. 0 means 10,000.
	States int
	// Seed makes another run of 0, which is a seed like others.
	Seed uint64
	// Workers is how many states are checked at the same time. 0 means one for
	// each processor.
	Workers int
	// Command says how to start the workload.
	Command Command
	// Progress, if set, is called about once a second, by one goroutine.
	Progress func(Result)

	plant    string
	onlyOpen bool
}

// Result is what was done, and found.
type Result struct {
	States  int      `json:"states"`  // checked
	Wanted  int      `json:"wanted"`  // to be checked
	Cuts    int      `json:"cuts"`    // moments at which the power was cut
	Syncs   int      `json:"syncs"`   // of the workload
	Acts    int      `json:"acts"`    // of the workload
	Runs    int      `json:"runs"`    // of the workload
	Seed    uint64   `json:"seed"`    // of the first run
	Took    float64  `json:"seconds"` // all in all
	Finding *Finding `json:"finding,omitempty"`
}

// Finding is a state that breaks a promise.
type Finding struct {
	Problem string   `json:"problem"`
	Seed    uint64   `json:"seed"` // of the run
	Cut     int      `json:"cut"`  // the power was cut before this moment of the record
	Choice  Choice   `json:"choice"`
	There   []string `json:"there"`  // what of the changes pending at the cut is on the disk
	Around  []string `json:"around"` // the moments before and after it
	// Dir has the folder as the cut left it in state/, the record, and this
	// finding. Replay looks at it again.
	Dir string `json:"dir"`
}

// statesPerRun bounds how many states of one run of the workload are checked,
// so that many states are of many runs.
const statesPerRun = 25_000

// Run records the workload and checks states until there were as many as asked
// for, or one is a finding. It fails with ErrNoTrace where it can not record.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.States <= 0 {
		o.States = 10_000
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	// The store's garbage is a fifth of the work, and a small heap.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	start := time.Now()
	res := Result{Wanted: o.States, Seed: o.Seed}
	dir, err := filepath.Abs(o.Dir)
	o.Dir = dir
	for run := uint64(0); res.States < o.States && res.Finding == nil && err == nil; run++ {
		if run > 0 && o.plant != "" {
			break
		}
		want := min(o.States-res.States, statesPerRun)
		err = o.run(ctx, start, o.Seed+run, want, &res)
	}
	res.Took = time.Since(start).Seconds()
	return res, err
}

// run checks states of one run of the workload.
func (o *Options) run(ctx context.Context, start time.Time, seed uint64, want int, res *Result) error {
	rec, err := o.record(ctx, seed)
	if err != nil {
		return err
	}
	rec, from := rec.plant(o.plant)
	res.Runs++
	res.Syncs += rec.Syncs()
	e := &explorer{rec: rec, seed: seed, want: want, workers: o.Workers, start: start, progress: o.Progress, from: from, onlyOpen: o.onlyOpen}
	err = e.explore(ctx, res)
	if err != nil || e.found == nil {
		return err
	}
	res.Finding, err = e.keep(o.Dir)
	return err
}

// actsPerRun is how much the workload does, about: some 300 syncs, and 2,000
// moments at which something else may be on the disk.
const actsPerRun = 400

func (o *Options) record(ctx context.Context, seed uint64) (rec *Record, err error) {
	dir, err := os.MkdirTemp(o.Dir, "edged-powercut-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	spec, err := json.Marshal(plan{Dir: dir, Seed: seed, Acts: actsPerRun, Plant: o.plant})
	if err != nil {
		return nil, err
	}
	path, args, env := o.Command(string(spec))
	if rec, err = record(ctx, dir, path, args, env); err == nil {
		err = rec.compare(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("record a run in %s: %w", dir, err)
	}
	return rec, nil
}

// keep writes down what was found.
func (e *explorer) keep(in string) (*Finding, error) {
	f := e.found
	f.Around = e.rec.around(f.Cut, 25)
	o := e.rec.optionsAt(f.Cut)
	f.There = o.describe(f.Choice)
	dir, err := os.MkdirTemp(in, fmt.Sprintf("edged-powercut-found-%d-%d-", f.Seed, f.Cut))
	if err != nil {
		return f, err
	}
	f.Dir = dir
	state := filepath.Join(dir, stateDir)
	if err := os.Mkdir(state, 0o700); err != nil {
		return f, err
	}
	if err := o.state(f.Cut, f.Choice).lay(state, new([]byte)); err != nil {
		return f, err
	}
	if err := e.rec.saveTo(filepath.Join(dir, recordFile)); err != nil {
		return f, err
	}
	return f, writeFinding(dir, f)
}

func (r *Record) saveTo(path string) error {
	w, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r.Save(w), w.Close())
}

func writeFinding(dir string, f *Finding) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, findingFile), append(b, '\n'), 0o600)
}

// Files of a finding.
const (
	stateDir    = "state"
	recordFile  = "record"
	findingFile = "finding.json"
)

// optionsAt is what there is to choose at a cut.
func (r *Record) optionsAt(cut int) *options {
	d := newDisk(r)
	for _, m := range r.Moments[:cut] {
		d.step(m)
	}
	return d.options()
}

// Replay checks the state of a finding again. It returns what it finds wrong
// this time, or "".
func Replay(dir string) (f Finding, problem string, err error) {
	b, err := os.ReadFile(filepath.Join(dir, findingFile))
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return f, "", err
	}
	r, err := os.Open(filepath.Join(dir, recordFile))
	if errors.Is(err, os.ErrNotExist) { // the workers of a run that ended early share one
		r, err = os.Open(filepath.Join(dir, "..", recordFile))
	}
	if err != nil {
		return f, "", err
	}
	defer r.Close()
	rec, err := Load(r)
	if err != nil {
		return f, "", fmt.Errorf("%s: %w", r.Name(), err)
	}
	if f.Cut < 0 || f.Cut > len(rec.Moments) {
		return f, "", fmt.Errorf("%s: there is no moment %d in the record", dir, f.Cut)
	}
	o := rec.optionsAt(f.Cut)
	if err := o.valid(f.Choice); err != nil {
		return f, "", fmt.Errorf("%s: %w", dir, err)
	}
	scratch, err := newScratch()
	if err != nil {
		return f, "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	c, err := newChecker(rec, scratch)
	if err != nil {
		return f, "", err
	}
	err = c.check(o.state(f.Cut, f.Choice), true)
	var b2 broken
	if errors.As(err, &b2) {
		problem, err = b2.Error(), nil
	}
	return f, problem, err
}
