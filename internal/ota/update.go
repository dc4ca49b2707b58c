package ota

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/claims"
)

// errSuperseded says that something newer is desired.
var errSuperseded = errors.New("something newer is desired")

// refusal is an error that trying again cannot help.
type refusal struct{ err error }

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }

// maxContent is how many downloads may turn out to be something else before the
// release is given up: each costs its bytes on the link.
const maxContent = 3

// work brings one release after the other to its end. It begins with what a restart
// interrupted, which needs no hub if all is on the box.
func (a *Agent) work(ctx context.Context) {
	retry := backoff{least: a.opts.RetryMin, most: a.opts.RetryMax}
	last := ""
	a.prune()
	for ctx.Err() == nil {
		d := a.next()
		if d == nil {
			a.pause(ctx, a.wake, time.Hour)
			continue
		}
		if key := d.key(); key != last {
			last = key
			retry.reset()
		}
		err := a.tryOnce(ctx, *d)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil, errors.Is(err, errSuperseded):
			a.setTrouble(*d, nil)
		default:
			a.setTrouble(*d, err)
			a.pause(ctx, a.wake, retry.next())
		}
	}
}

// next is what to work on, or nil: the newest that the hub wants, or else what was
// begun, unless it has come to its end already.
func (a *Agent) next() *Desired {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := a.want
	if d == nil {
		d = a.rec.Desired
	}
	if d == nil || a.rec.Desired == nil || a.rec.Desired.key() != d.key() || a.unsaved {
		return d
	}
	if a.rec.State == RolledBack {
		return nil
	}
	// A committed release that was found damaged is desired still.
	if run, ok := a.running[d.App]; a.rec.State == Committed && ok && run.Release() == d.Release() {
		return nil
	}
	return d
}

// tryOnce goes as far as it can with d. An error means that trying again may help;
// what failed for good is recorded, and no error.
func (a *Agent) tryOnce(ctx context.Context, d Desired) error {
	a.mu.Lock()
	rec, unsaved := a.rec, a.unsaved
	run, runs := a.running[d.App]
	a.mu.Unlock()
	same := rec.Desired != nil && rec.Desired.key() == d.key()
	if same && unsaved {
		return a.save(rec)
	}
	t := try{Desired: d}
	if same {
		t.trials, t.admitted = rec.Trials, rec.Admitted || rec.State == Committed
	}
	var err error
	switch {
	case a.applied == d.key() || runs && run.key() == d.key():
		return a.commit(d)
	case runs && run.Release() == d.Release():
		// The same files under another version or signature: nothing to swap.
		if err = a.checkSignature(t); err == nil {
			return a.commit(d)
		}
	default:
		err = a.advance(ctx, t)
	}
	var final refusal
	if errors.As(err, &final) && ctx.Err() == nil {
		return a.rollBack(d, final)
	}
	return err
}

// try is a desired state on its way.
type try struct {
	Desired
	trials   int  // begun before and not ended
	admitted bool // the dates of its signature were checked before
}

func (t try) record(s State) record {
	return record{State: s, Desired: &t.Desired, Trials: t.trials, Admitted: t.admitted}
}

// advance is the way from desired to committed.
func (a *Agent) advance(ctx context.Context, t try) error {
	if t.trials >= maxTrials {
		return refusal{fmt.Errorf("the box did not survive %d trials", t.trials)}
	}
	// Said first, so that what is reported answers what is desired. What was staged
	// before a restart need not be fetched, as a rule; bring looks.
	if t.trials == 0 {
		if err := a.save(t.record(Fetching)); err != nil {
			return err
		}
		a.reached("fetching saved")
	}
	if err := a.checkSignature(t); err != nil {
		return err
	}
	t.admitted = true
	if err := a.bring(ctx, t); err != nil {
		return err
	}
	s := a.disk.staged(t.Desired)
	if err := a.save(t.record(StagedWhole)); err != nil {
		return err
	}
	a.reached("staged saved")
	if err := a.admit(ctx, t, s); err != nil {
		return err
	}
	// Counted before it begins: a release that takes the box down must not do so for ever.
	begun := t
	begun.trials++
	if err := a.save(begun.record(Trial)); err != nil {
		return err
	}
	a.reached("trial saved")
	a.log.Info("trying release", "app", s.App, "version", s.Version, "release", s.Release)
	if err := a.opts.Apply(ctx, s); err != nil {
		if ctx.Err() != nil {
			// The daemon ends; that is not the release's fault and does not count.
			return errors.Join(err, a.save(t.record(StagedWhole)))
		}
		if errors.Is(err, ErrLater) {
			return errors.Join(err, a.save(t.record(StagedWhole)))
		}
		return refusal{err}
	}
	a.applied = t.key()
	a.reached("applied")
	return a.commit(t.Desired)
}

// admit has a staged release looked at. Something newer that is desired ends it.
func (a *Agent) admit(ctx context.Context, t try, s Staged) error {
	if a.opts.Admit == nil {
		return nil
	}
	admitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !a.setCut(cancel, t.key()) {
		return errSuperseded
	}
	err := a.opts.Admit(admitCtx, s)
	a.clearCut()
	switch {
	case admitCtx.Err() != nil && ctx.Err() == nil:
		return errSuperseded
	case err == nil || errors.Is(err, ErrLater):
		return err
	}
	return refusal{err}
}

// checkSignature needs no file of the app: it compares the digests that are desired
// with those that are signed, and every file is compared with its digest later.
func (a *Agent) checkSignature(t try) error {
	d := t.Desired
	if d.Sig == "" && a.opts.AllowUnsigned {
		return nil
	}
	app, err := claims.VerifyApp(d.all(), d.Sig, a.policy(t))
	if errors.Is(err, claims.ErrNotYetValid) {
		return err // the clock may be wrong until the box has asked for the time
	}
	if err != nil {
		return refusal{err}
	}
	if app.Name != d.App || app.Version != d.Version {
		return refusal{fmt.Errorf("signed is %.80q %.80q, desired is %q %q: %w", app.Name, app.Version, d.App, d.Version, claims.ErrHash)}
	}
	return nil
}

// bring makes the folder of the release whole, from the hub where it must. Something
// newer that is desired ends it.
func (a *Agent) bring(ctx context.Context, t try) error {
	d := t.Desired
	if a.disk.intact(d) == nil {
		return writeSignature(a.disk.staged(d).Dir, d.Sig)
	}
	if err := a.save(t.record(Fetching)); err != nil {
		return err
	}
	fetchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !a.setCut(cancel, d.key()) {
		return errSuperseded
	}
	err := a.fetchAll(fetchCtx, d)
	a.clearCut()
	if fetchCtx.Err() != nil && ctx.Err() == nil {
		return errSuperseded
	}
	if err != nil {
		return err
	}
	if err := a.disk.stage(d); err != nil {
		return err
	}
	a.reached("folder staged")
	return nil
}

func (a *Agent) fetchAll(ctx context.Context, d Desired) error {
	if a.hub == nil {
		return errors.New("files are missing, and there is no hub")
	}
	f := fetcher{hub: *a.hub, place: a.disk.artifact, room: a.disk.root, reserve: a.opts.ReserveBytes, reached: a.reached}
	for _, digest := range d.digests() {
		err := f.fetch(ctx, digest)
		if errors.Is(err, errContent) {
			if a.content++; a.content >= maxContent {
				a.content = 0
				return refusal{err}
			}
		}
		if err != nil {
			return err
		}
		a.content = 0
		a.reached("artifact fetched")
	}
	return nil
}

// commit makes d what the app runs, also after a boot. The file current decides: a
// power cut before it is written brings the old release back and its trial again, one
// after it brings the new one.
func (a *Agent) commit(d Desired) error {
	a.mu.Lock()
	old, had := a.running[d.App]
	a.mu.Unlock()
	if had && old.Release() != d.Release() {
		if err := a.disk.saveRelease(rollbackName, old); err != nil {
			return err
		}
		a.reached("rollback written")
	}
	if err := errors.Join(writeSignature(a.disk.staged(d).Dir, d.Sig), a.disk.saveRelease(currentName, d)); err != nil {
		return err
	}
	a.reached("current written")
	a.mu.Lock()
	a.running[d.App] = d
	delete(a.damaged, d.App)
	a.mu.Unlock()
	a.applied = ""
	a.log.Info("release is committed", "app", d.App, "version", d.Version, "release", d.Release())
	err := a.settle(record{State: Committed, Desired: &d})
	a.reached("committed saved")
	a.prune()
	return err
}

// rollBack records that d is not to be tried again. What ran before still runs.
func (a *Agent) rollBack(d Desired, why error) error {
	a.log.Error("release is rolled back", "app", d.App, "version", d.Version, "release", d.Release(), "err", why)
	err := a.settle(record{State: RolledBack, Desired: &d, Error: limit(why.Error()), Refused: claims.Refused(why)})
	a.reached("rolled-back saved")
	a.prune()
	return err
}

// limit keeps an error text, which may come out of a module, within what a record
// and a report may hold. It is valid UTF-8, so that JSON brings it back unchanged.
func limit(s string) string {
	const most = 4 << 10
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

// save writes rec, and only then lets it count. What is on disk already is not
// written again: a release that is waited for must not wear out the flash.
func (a *Agent) save(rec record) error {
	rec.Format = recordFormat
	a.mu.Lock()
	same := !a.unsaved && reflect.DeepEqual(a.rec, rec)
	a.mu.Unlock()
	if same {
		return nil
	}
	if err := writeJSON(a.disk.stateFile(), rec); err != nil {
		return err
	}
	a.mu.Lock()
	a.rec, a.unsaved = rec, false
	a.mu.Unlock()
	signal(a.report)
	return nil
}

// settle lets rec count even if it cannot be written: the release has had its try.
// An error means that it is still to be written.
func (a *Agent) settle(rec record) error {
	rec.Format = recordFormat
	a.mu.Lock()
	a.rec, a.unsaved = rec, true
	a.trouble, a.worry = "", "" // what held it up before is over, and no part of how it ended
	a.mu.Unlock()
	return a.save(rec)
}

// prune is housekeeping: what it leaves behind is removed the next time.
func (a *Agent) prune() {
	a.mu.Lock()
	rec := a.rec
	a.mu.Unlock()
	keep := rec.Desired
	if rec.State == RolledBack || rec.State == Committed {
		keep = nil
	}
	if err := a.disk.prune(keep); err != nil {
		a.log.Warn("old releases cannot be removed", "err", err)
	}
}

// setCut says how to stop fetching for something newer. It returns false if there is
// something newer already.
func (a *Agent) setCut(cut func(), key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.want != nil && a.want.key() != key {
		return false
	}
	a.cut, a.cutKey = cut, key
	return true
}

func (a *Agent) clearCut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cut, a.cutKey = nil, ""
}

// setTrouble is what is reported while something is tried again; it is logged when it
// begins.
func (a *Agent) setTrouble(d Desired, err error) {
	text := ""
	if err != nil {
		text = limit(err.Error())
	}
	a.mu.Lock()
	began := a.trouble == "" && text != ""
	changed := a.trouble != text
	a.trouble, a.worry = text, d.key()
	a.mu.Unlock()
	if began {
		a.log.Warn("update is held up; trying again", "err", err)
	}
	if changed {
		signal(a.report)
	}
}
