package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/control"
	"github.com/edged-io/edged/internal/nameform"
	"github.com/edged-io/edged/lattice"
)

// An actor that was started by a command of the control interface is an app of its own, assembled from what was put instead of read from a manifest.
// So it is checked, served, changed and ended in the way of all apps. See docs/decisions/0012-commanded-apps.md.

// commanded is what the control interface has put, and what became of it.
type commanded struct {
	held    atomic.Pointer[held]
	unread  error                           // why nothing can be put; set by New
	out     map[string]error                // apps of it that are not served, and why; guarded by Node.apply
	service atomic.Pointer[control.Service] // who is told of changes; nil for nobody

	putting bool // put is at work: what it has run so far is not shown; guarded by Node.apply

	sharing   chan struct{}   // holds one: share is to run
	elsewhere map[string]bool // keys of the actors elsewhere that the bus knows; belongs to share

	keeping sync.Mutex // held while held changes, on disk too: each change builds on the one before

	archives  sync.Mutex              // held while archives of providers come and go with their records
	relinking sync.Mutex              // guards linked; held while providers are told, so that they hear of links in order
	linked    map[string]lattice.Link // links that relink has made known

	mu    sync.Mutex        // guards what follows
	shown appSet            // the apps that go with held
	state *control.State    // nil when it has to be made anew
	ids   map[string]string // of entries of actors and of providers, for as long as they run
}

// openCommanded reads what was put before.
func (n *Node) openCommanded() error {
	h, err := loadHeld(n.db)
	if err != nil {
		n.log.Error("not all that control tools have put is back", "err", err)
		n.health.degrade("control", "", err)
	}
	if errors.Is(err, errHeldFormat) {
		n.commanded.unread = err
	}
	n.commanded.held.Store(h)
	n.commanded.out, n.commanded.sharing = make(map[string]error), make(chan struct{}, 1)
	return nil
}

// held returns what the control interface has put. It is not to be changed.
func (n *Node) held() *held { return n.commanded.held.Load() }

// nameForm is what names of streams and folders are made of.
const nameForm = nameform.Form(64)

// assembledName is the name of the app of an actor.
func assembledName(key string) string {
	if app, _, unsigned := strings.Cut(key, "/"); unsigned {
		return app
	}
	if name := config.AssembledPrefix + key; nameForm.MatchString(name) {
		return name
	}
	sum := sha256.Sum256([]byte(key))
	return config.AssembledPrefix + hex.EncodeToString(sum[:16])
}

// modulesDir has the modules that were started by command, in a folder for each actor.
func (n *Node) modulesDir() string { return filepath.Join(n.stateDir, "control") }

func moduleFile(digest string) string { return strings.TrimPrefix(digest, "sha256:") + ".wasm" }

// maxInstances is how many an actor has at most; who asks for more is shown what was asked for.
const maxInstances = 256

// assembly is the app of an actor, with its links to built-in providers.
func (n *Node) assembly(h *held, key string) config.Assembly {
	a := h.Actors[key]
	limits := cloned(a.Limits)
	limits["instances"] = strconv.FormatUint(min(a.max(), maxInstances), 10)
	name, version := assembledName(key), strconv.FormatInt(a.Revision, 10)
	if a.Revision == 0 {
		version = strings.TrimPrefix(a.Digest, "sha256:")[:12]
	}
	return config.Assembly{
		Name: name, Version: version, Dir: filepath.Join(n.modulesDir(), name), Actor: a.Name, Module: moduleFile(a.Digest),
		Limits: limits, Links: h.builtinLinks(key),
	}
}

// builtinLinks are those that an actor has with providers of the box, in a fixed order.
func (h *held) builtinLinks(key string) (all []config.Link) {
	for _, at := range sortedKeys(h.Links) {
		if l := h.Links[at]; config.IsBuiltin(l.Provider) && h.key(l.Actor) == key {
			all = append(all, config.Link{Contract: l.Contract, Provider: l.Provider, Name: l.Name, Values: h.values(l)})
		}
	}
	return all
}

// commandedAtBoot returns the apps of the actors that were started by command before.
func (n *Node) commandedAtBoot() (all []*config.App) {
	h := n.held()
	for _, key := range sortedKeys(h.Actors) {
		a := n.assembly(h, key)
		c, err := config.Assemble(a)
		if err != nil {
			n.leaveOut(&config.App{Name: a.Name, Version: a.Version, Assembled: true}, err)
			continue
		}
		all = append(all, c)
	}
	return all
}

// put changes what the control interface has put by edit, and what runs with it: first what runs, then the disk, so that nothing is kept that can not be
// served. touched is the key of the actor that it is about, "" for none, and wasm a new module of it, nil for none. edit is called twice, and what it is
// about is the same both times.
func (n *Node) put(ctx context.Context, touched string, wasm *module, edit func(*held) error) error {
	if n.commanded.unread != nil {
		return n.commanded.unread
	}
	if err := n.apply.LockContext(ctx); err != nil {
		return err
	}
	defer n.apply.Unlock()
	defer n.tidyModules()
	n.commanded.putting = true
	defer func() {
		n.commanded.putting = false
		n.show(n.apps) // what was put is told to the lattice by keepWith; what was not, must not be, or share would try it again at once
	}()
	was, next := n.held(), n.held().clone()
	if err := edit(next); err != nil {
		return err
	}
	if wasm != nil {
		if err := wasm.store(n.modulesDir()); err != nil {
			return err
		}
	}
	before := n.apps.configs()
	want, err := n.follow(was, next, touched)
	if err != nil {
		return err
	}
	altered := !slices.Equal(want, before)
	if altered {
		if faults := n.o.Device.CheckApps(want); len(faults) > 0 {
			return faults.Reasons()
		}
		if err := n.change(ctx, want); err != nil {
			return err
		}
	}
	if err := n.keepWith(ctx, edit, n.apps); err != nil {
		if altered {
			err = errors.Join(err, n.change(context.WithoutCancel(ctx), before))
		}
		return err
	}
	for name := range n.commanded.out {
		if n.apps[name] != nil || !next.has(name) {
			delete(n.commanded.out, name)
			n.health.recover("app", name)
		}
	}
	return nil
}

// show has the state of the host tell of these apps.
func (n *Node) show(s appSet) {
	n.commanded.mu.Lock()
	n.commanded.shown = s
	n.commanded.mu.Unlock()
	n.relink()
	n.hostChanged()
}

// keep is put for what no app depends on.
func (n *Node) keep(ctx context.Context, edit func(*held) error) error {
	return n.keepWith(ctx, edit, nil)
}

// keepWith is keep for what goes with other apps than those that are shown, if not nil: nobody sees the one without the other.
func (n *Node) keepWith(ctx context.Context, edit func(*held) error, apps appSet) error {
	c := &n.commanded
	if c.unread != nil {
		return c.unread
	}
	c.keeping.Lock()
	defer c.keeping.Unlock()
	was, next := n.held(), n.held().clone()
	if err := edit(next); err != nil {
		return err
	}
	if err := saveHeld(context.WithoutCancel(ctx), n.db, was, next); err != nil {
		return fmt.Errorf("nothing was changed, since it can not be stored: %w", err)
	}
	c.mu.Lock()
	c.held.Store(next)
	if apps != nil {
		c.shown = apps
	}
	c.mu.Unlock()
	n.relink()
	n.shareSoon()
	n.hostChanged()
	return nil
}

// has says whether there is an actor whose app has that name.
func (h *held) has(app string) bool { return h.keyOf(app) != "" }

// keyOf is the key of the actor whose app has that name, "" for none.
func (h *held) keyOf(app string) string {
	for key := range h.Actors {
		if assembledName(key) == app {
			return key
		}
	}
	return ""
}

// follow returns the apps that are to run when next takes the place of was. What is the same in both stays as it is, also where it does not run, but
// for the actor that was touched: to put one thing does not fail for another one.
func (n *Node) follow(was, next *held, touched string) ([]*config.App, error) {
	want := slices.DeleteFunc(n.apps.configs(), func(c *config.App) bool { return c.Assembled })
	for key := range next.Actors {
		a := n.assembly(next, key)
		running := n.apps[a.Name]
		if _, had := was.Actors[key]; had && key != touched && reflect.DeepEqual(a, n.assembly(was, key)) {
			if running != nil {
				want = append(want, running.config)
			}
			continue
		}
		c, err := config.Assemble(a)
		if err != nil {
			return nil, err
		}
		if running != nil && running.config.Digest == c.Digest {
			c = running.config
		}
		want = append(want, c)
	}
	slices.SortFunc(want, compareApps)
	return want, nil
}

// compareApps orders apps by name, those that were started by command last: where two are at odds, it is one of them that gives way.
func compareApps(a, b *config.App) int {
	rank := func(c *config.App) int {
		if c.Assembled {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
}

// configs are those of the apps, in the order of compareApps.
func (s appSet) configs() (all []*config.App) {
	for _, a := range s.sorted() {
		all = append(all, a.config)
	}
	return all
}

// tidyModules removes the modules that nobody needs. Node.apply is held.
func (n *Node) tidyModules() {
	needed := make(map[string]bool)
	for key, a := range n.held().Actors {
		needed[filepath.Join(assembledName(key), moduleFile(a.Digest))] = true
	}
	folders, err := os.ReadDir(n.modulesDir())
	if err != nil {
		return // there are none
	}
	for _, folder := range folders {
		files, _ := os.ReadDir(filepath.Join(n.modulesDir(), folder.Name()))
		kept := 0
		for _, f := range files {
			if name := filepath.Join(folder.Name(), f.Name()); needed[name] {
				kept++
			} else if err := os.Remove(filepath.Join(n.modulesDir(), name)); err != nil {
				n.log.Warn("a module that nobody needs is still there", "file", name, "err", err)
			}
		}
		if kept == 0 {
			_ = os.Remove(filepath.Join(n.modulesDir(), folder.Name())) // not empty, if a file stayed
		}
	}
}
