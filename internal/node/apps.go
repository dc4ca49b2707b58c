package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/edged-io/edged/internal/config"
)

// app is an app that runs.
type app struct {
	config    *config.App
	digest    string // of the manifest and all modules: the same digest is the same app
	actors    []*actor
	providers []provided // that are not built in
}

// appSet is what runs, by name of the app. Node.apply guards changes; health
// guards what others look at.
type appSet map[string]*app

// swapBudget is how long handlers may take to come to rest when an app changes.
const swapBudget = 30 * time.Second

// applyAtBoot starts the apps of the box. One that can not run is left out, so
// that the others do. Nothing is compiled: what is not in the cache comes while the
// box serves.
func (n *Node) applyAtBoot(ctx context.Context) {
	n.apply.Lock()
	defer n.apply.Unlock()
	n.booting = true
	defer func() { n.booting = false }()
	found, err := n.findApps()
	if err != nil {
		n.o.Faults(err)
		n.log.Error("some apps are left out", "err", err)
		n.health.degrade("apps", "", err)
	}
	all := make(appSet)
	for _, c := range n.compatible(append(found, n.commandedAtBoot()...)) {
		a, err := n.prepare(ctx, c)
		if err != nil {
			if mayWait(err) {
				n.waitFor(c, err)
			} else {
				n.leaveOut(c, err)
			}
			continue
		}
		all[c.Name] = a
	}
	if err := n.commit(ctx, nil, all); err != nil {
		n.log.Warn("apps can not be served together, they are tried one by one", "err", err)
		all = n.commitEach(ctx, all)
	}
	n.setApps(all)
	n.warnOfOrphans(all)
	n.late = slices.DeleteFunc(n.late, func(a *actor) bool { return !slices.Contains(all.actors(), a) }) // left out
	n.tellCompiling(n.late, len(n.late))
}

// compatible leaves out apps that are at odds with one before them, by a name,
// a subject or a line.
func (n *Node) compatible(found []*config.App) []*config.App {
	if len(n.o.Device.CheckApps(found)) == 0 {
		return found
	}
	var kept []*config.App
	for _, c := range found {
		if faults := n.o.Device.CheckApps(append(slices.Clip(kept), c)); len(faults) > 0 {
			n.leaveOut(c, faults)
			continue
		}
		kept = append(kept, c)
	}
	return kept
}

// commitEach adds the apps one after the other, after all of them together could
// not be served, and returns those that could.
func (n *Node) commitEach(ctx context.Context, all appSet) appSet {
	served := make(appSet)
	if err := n.commit(ctx, all, served); err != nil {
		n.log.Error("streams can not be served", "err", err)
	}
	for _, a := range all.sorted() {
		try := maps.Clone(served)
		try[a.config.Name] = a
		if err := n.commit(ctx, served, try); err != nil {
			n.leaveOut(a.config, errors.Join(err, n.commit(ctx, try, served)))
			n.discard(ctx, nil, a)
			continue
		}
		served = try
	}
	return served
}

func (n *Node) leaveOut(c *config.App, err error) {
	n.log.Error("app left out", "app", c.Name, "version", c.Version, "err", err)
	if c.Assembled {
		err = fmt.Errorf("%w; edged actor stop %s gives it up", err, n.held().keyOf(c.Name))
		n.commanded.out[c.Name] = err
	}
	n.health.degrade("app", c.Name, err)
}

// waitFor leaves out an app until it can start.
func (n *Node) waitFor(c *config.App, err error) {
	n.waiting = append(n.waiting, func(ctx context.Context) bool { return n.startLate(ctx, c) })
	n.log.Warn("app has to wait", "app", c.Name, "version", c.Version, "err", err)
	if c.Assembled {
		n.commanded.out[c.Name] = err
	}
	n.health.degrade("app", c.Name, err)
}

// Reload reads the apps folder again. It is all or nothing: if anything in it
// is wrong, what runs goes on as it is, and the error says why.
func (n *Node) Reload(ctx context.Context) error {
	fetched := n.fetchAll(ctx) // while nobody waits for apps to change
	n.apply.Lock()
	defer n.apply.Unlock()
	found, err := n.findApps()
	if err == nil {
		err = fetched
	}
	if err == nil {
		for _, c := range n.apps.configs() {
			if c.Assembled {
				found = append(found, c)
			}
		}
		if faults := n.o.Device.CheckApps(found); len(faults) > 0 {
			err = faults
		}
	}
	if err == nil {
		err = n.change(ctx, found)
	}
	n.health.reloaded(n.o.Now(), err)
	if err != nil {
		return err
	}
	n.health.recover("app", "")
	for app, err := range n.commanded.out {
		n.health.degrade("app", app, err)
	}
	n.health.recover("apps", "")
	n.dropOrphans()
	return nil
}

// applyApp runs the app in dir, in place of the one of the same name. If it
// does not start, or is not healthy, the old one goes on and the error says
// why.
func (n *Node) applyApp(ctx context.Context, dir string) error {
	n.apply.Lock()
	defer n.apply.Unlock()
	c, err := config.LoadApp(dir)
	if err != nil {
		return err
	}
	all := []*config.App{c}
	for name, a := range n.apps {
		if name != c.Name {
			all = append(all, a.config)
		}
	}
	if faults := n.o.Device.CheckApps(all); len(faults) > 0 {
		return faults
	}
	return n.change(ctx, all)
}

// findApps returns the apps the box should run: those that were pushed, and
// those in the apps folder with other names.
func (n *Node) findApps() ([]*config.App, error) {
	var found []*config.App
	var errs []error
	pushed := make(map[string]bool)
	if n.updates != nil {
		for _, s := range n.updates.Current() {
			c, err := config.LoadApp(s.Dir)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			found = append(found, c)
			pushed[c.Name] = true
		}
	}
	local, err := n.o.Device.LoadApps()
	if err != nil {
		errs = append(errs, err)
	}
	for _, c := range local {
		if pushed[c.Name] {
			n.log.Info("a pushed app takes the place of the one in the apps folder", "app", c.Name)
			continue
		}
		found = append(found, c)
	}
	if faults := n.o.Device.CheckApps(found); len(faults) > 0 && err == nil {
		errs = append(errs, faults)
	}
	return found, errors.Join(errs...)
}

// change makes the apps in want the ones that run. Those that are the same as
// before are not touched.
func (n *Node) change(ctx context.Context, want []*config.App) error {
	next := make(appSet)
	var started []*app
	// What was begun is brought to an end, also when the time is up.
	lasting := context.WithoutCancel(ctx)
	for _, c := range want {
		a, err := n.same(ctx, c)
		if a == nil && err == nil {
			if a, err = n.prepare(ctx, c); err == nil {
				started = append(started, a)
			}
		}
		if err != nil {
			n.discard(lasting, n.apps, started...)
			return err
		}
		next[c.Name] = a
	}
	if err := n.swap(ctx, next, n.forget); err != nil {
		n.discard(lasting, n.apps, started...)
		return err
	}
	return nil
}

// swap makes next what runs, or leaves all as it was. forget takes from the disk
// what is not declared any more.
func (n *Node) swap(ctx context.Context, next appSet, forget func(old, next appSet, keep onDisk)) error {
	ctx, cancel := context.WithTimeout(ctx, swapBudget)
	defer cancel()
	lasting := context.WithoutCancel(ctx)
	old, before := n.apps, n.onDisk()
	goOn, err := n.pause(ctx, old, next)
	if err != nil {
		return err
	}
	defer goOn()
	if err := n.commit(ctx, old, next); err != nil {
		back := n.commit(lasting, next, old)
		forget(next, old, before)
		return errors.Join(err, back)
	}
	n.o.Failpoint("swap-after-commit")
	forget(old, next, onDisk{})
	n.setApps(next)
	n.httpChanged()
	for name, a := range old {
		if next[name] != a {
			n.discard(lasting, next, a)
		}
	}
	return nil
}

// same returns the app that runs if c is no other, else nil.
func (n *Node) same(ctx context.Context, c *config.App) (*app, error) {
	running := n.apps[c.Name]
	switch {
	case running == nil || c.Assembled && c.Digest != running.digest:
		return nil, nil
	case c.Assembled || c == running.config:
		return running, nil
	}
	digest, err := n.digestApp(ctx, c)
	if err != nil || digest != running.digest {
		return nil, err
	}
	return running, nil
}

// prepare starts the actors of an app, checks their signatures and their
// health. Nothing else is touched.
func (n *Node) prepare(ctx context.Context, c *config.App) (_ *app, err error) {
	a := &app{config: c, digest: c.Digest}
	if !c.Assembled { // its module is the whole of it, and signed itself
		if err := n.verifyApp(ctx, c); err != nil {
			return nil, err
		}
		if a.digest, err = n.digestApp(ctx, c); err != nil {
			return nil, err
		}
	}
	if a.providers, err = n.prepareProviders(ctx, c); err != nil {
		return nil, err
	}
	for _, ac := range c.Actors {
		actor, err := n.goOn(c, ac)
		if actor == nil && err == nil {
			actor, err = n.startActor(ctx, c, ac)
		}
		if err != nil {
			n.discard(ctx, n.apps, a)
			return nil, err
		}
		a.actors = append(a.actors, actor)
	}
	return a, nil
}

// goOn returns the actor that runs, if only what it is linked with is another than
// before; nil if it has to be started. The name of its module is the digest of it.
func (n *Node) goOn(c *config.App, ac config.Actor) (*actor, error) {
	running := n.apps[c.Name]
	if running == nil || !c.Assembled {
		return nil, nil
	}
	for _, actor := range running.actors {
		if actor.config == ac && actor.version == c.Version {
			return actor, actor.checkMandate(c)
		}
	}
	return nil, nil
}

// discard ends actors that nobody is to call any more, which are those that keep
// does not have; calls under way end first.
func (n *Node) discard(ctx context.Context, keep appSet, apps ...*app) {
	kept := keep.actors()
	for _, a := range apps {
		for _, actor := range a.actors {
			if slices.Contains(kept, actor) {
				continue
			}
			if err := actor.code.close(ctx); err != nil {
				n.log.Warn("actor does not end", "actor", actor.key, "version", actor.version, "err", err)
			}
			if m := actor.code.runs.Load(); m != nil {
				actor.meter.end(m)
			}
			n.health.recover(actor.compiling())
		}
	}
}

func (n *Node) setApps(next appSet) {
	n.apps = next
	n.health.setApps(next)
	names := make([]string, 0, len(next))
	for _, a := range next {
		names = append(names, a.config.Name+" "+a.config.Version)
	}
	slices.Sort(names)
	n.log.Info("apps run", "apps", names)
	if !n.commanded.putting {
		n.show(next)
		n.shareSoon()
	}
}

// orphans are the subscriptions that no app has: they keep messages for nobody.
func (n *Node) orphans(next appSet) map[string]string {
	_, subs, err := n.wanted(next)
	if err != nil {
		return nil // commit has said so
	}
	orphans := n.db.Subscriptions()
	for name, stream := range orphans {
		if isSystem(name) || isOutbox(name, stream) || slices.ContainsFunc(subs, func(s subscription) bool { return s.Name == name }) {
			delete(orphans, name)
		}
	}
	return orphans
}

// warnOfOrphans names them. At boot they stay: their app may only be missing.
func (n *Node) warnOfOrphans(next appSet) {
	for name, stream := range n.orphans(next) {
		n.log.Warn("no app reads a subscription, its messages are kept until a reload", "subscription", name, "stream", stream)
	}
}

// dropOrphans deletes them, after a reload in which every app was well: what is
// not there then was taken away by somebody.
func (n *Node) dropOrphans() {
	for name, stream := range n.orphans(n.apps) {
		n.log.Info("subscription dropped", "subscription", name, "stream", stream)
		if err := n.db.DeleteSubscription(name); err != nil {
			n.log.Warn("subscription can not be dropped", "subscription", name, "err", err)
		}
	}
}

// digestApp is over everything that decides how an app behaves.
func (n *Node) digestApp(ctx context.Context, c *config.App) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, c.Digest)
	for _, a := range c.Actors {
		path, err := n.code(ctx, c, a.Module, a.Ref)
		if err != nil {
			return "", err
		}
		_, digest, err := readModule(path)
		if err != nil {
			return "", fmt.Errorf("app %s: %w", c.Name, err)
		}
		fmt.Fprintln(h, a.Name, digest)
	}
	for _, p := range c.Providers {
		if p.Remote != "" || filepath.IsAbs(p.Exec) {
			continue
		}
		path, err := n.providerFile(ctx, c, p)
		if err != nil {
			return "", err
		}
		digest, err := digestFile(path)
		if err != nil {
			return "", fmt.Errorf("app %s: %w", c.Name, err)
		}
		fmt.Fprintln(h, "provider", p.Name, digest)
	}
	for _, s := range c.HTTP { // they may be in a file of their own
		fmt.Fprintln(h, s.Name, s.Settings.JSON())
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

func sha256Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
