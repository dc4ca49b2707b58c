package powercut

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// explorer checks states of one record.
type explorer struct {
	rec      *Record
	seed     uint64
	want     int
	workers  int
	start    time.Time
	progress func(Result)
	from     int    // cuts before it are left out
	onlyOpen bool   // see checker
	dir      string // where states are laid out
	found    *Finding
}

// task is a state to check, and whether to open it twice.
type task struct {
	s     *state
	again bool
}

// explore adds to res what it did.
func (e *explorer) explore(ctx context.Context, res *Result) (err error) {
	acts, err := history(e.rec)
	if err != nil {
		return err
	}
	res.Acts += len(acts)
	if e.dir, err = newScratch(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(e.dir)) }()
	if err := e.rec.saveTo(filepath.Join(e.dir, recordFile)); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	tasks := make(chan task, 16*e.workers)
	results := make(chan checked, 16*e.workers)
	var wg sync.WaitGroup
	for i := range e.workers {
		wg.Go(func() { e.work(ctx, i, tasks, results) })
	}
	wg.Go(func() {
		defer close(tasks)
		res.Cuts += e.enumerate(ctx, tasks)
	})
	go func() { // ends with the others
		wg.Wait()
		close(results)
	}()
	last := time.Now()
	for r := range results {
		var b broken
		switch {
		case errors.As(r.err, &b):
			if e.found == nil {
				e.found = &Finding{Problem: b.Error(), Seed: e.seed, Cut: r.s.cut, Choice: r.s.choice}
			}
			stop()
		case r.err != nil:
			err = errors.Join(err, r.err)
			stop()
		case r.s != nil:
			res.States++
		}
		if e.progress != nil && time.Since(last) > time.Second {
			last = time.Now()
			now := Result{States: res.States, Wanted: res.Wanted, Runs: res.Runs, Syncs: res.Syncs, Acts: res.Acts, Seed: res.Seed, Took: time.Since(e.start).Seconds()}
			e.progress(now)
		}
	}
	if e.found != nil {
		return err
	}
	return errors.Join(err, context.Cause(ctx))
}

// checked is a state with what is wrong with it.
type checked struct {
	s   *state
	err error
}

func (e *explorer) work(ctx context.Context, number int, tasks <-chan task, results chan<- checked) {
	dir := filepath.Join(e.dir, strconv.Itoa(number))
	c, err := newChecker(e.rec, dir)
	if err != nil {
		results <- checked{nil, err}
		return
	}
	c.onlyOpen = e.onlyOpen
	for t := range tasks {
		if ctx.Err() != nil {
			continue // the one who sends them ends soon
		}
		// Should the process itself end in the store, this is what it was at.
		err := writeFinding(dir, &Finding{Problem: "the process ended while it looked at this state", Seed: e.seed, Cut: t.s.cut, Choice: t.s.choice})
		if err == nil {
			err = c.check(t.s, t.again)
		}
		results <- checked{t.s, err}
	}
}

// enumerate sends the states to check, and returns how many cuts they are of.
func (e *explorer) enumerate(ctx context.Context, tasks chan<- task) (cuts int) {
	shares := e.shares()
	d := newDisk(e.rec)
	for cut := 0; cut <= len(e.rec.Moments); cut++ {
		if cut > 0 {
			d.step(e.rec.Moments[cut-1])
		}
		if shares[cut] == 0 || cut < e.from {
			continue
		}
		cuts++
		r := rand.New(rand.NewPCG(e.seed, uint64(cut)))
		for s := range d.options().some(cut, shares[cut], r) {
			select {
			case tasks <- task{s, r.IntN(8) == 0}:
			case <-ctx.Done():
				return cuts
			}
		}
	}
	return cuts
}

// shares says how many states of each cut to check: one of each moment after
// which something else may be on the disk, and more where there is more to
// choose.
func (e *explorer) shares() []int {
	moments := e.rec.Moments
	counts := make([]int64, len(moments)+1)
	d := newDisk(e.rec)
	cuts := 0
	for cut := range counts {
		if cut > 0 {
			m := moments[cut-1]
			d.step(m)
			// That a write has ended changes nothing, and that a sync begins.
			if k := e.rec.Ops[m.Op].Kind; m.End != (k == Sync) {
				continue
			}
		}
		counts[cut] = d.options().count()
		cuts++
	}
	shares := make([]int, len(counts))
	if cuts > e.want { // too few states for all: some cuts, evenly
		n := 0
		for cut, c := range counts {
			if c == 0 {
				continue
			}
			if n*e.want/cuts != (n+1)*e.want/cuts {
				shares[cut] = 1
			}
			n++
		}
		return shares
	}
	// What some cuts have too little for is left to the others.
	left := e.want
	for level := 1; left > 0; level *= 2 {
		before := left
		for cut, c := range counts {
			add := min(int64(level)-int64(shares[cut]), c-int64(shares[cut]), int64(left))
			if add > 0 {
				shares[cut] += int(add)
				left -= int(add)
			}
		}
		if left == before && level > e.want {
			break
		}
	}
	return shares
}
