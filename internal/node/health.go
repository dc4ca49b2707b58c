package node

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// health is what others may know of the box while it runs.
type health struct {
	mu       sync.Mutex // guards all below
	ready    bool
	apps     appSet
	degraded map[problemKey]string       // what does not work, and why
	counts   map[turnsKey]*atomic.Uint64 // turns committed since start
	reload   *ReloadStatus               // the last one; nil for none
}

// problemKey names what does not work: an app and its name, for one.
type problemKey struct{ part, name string }

type turnsKey struct{ app, actor, version string }

func (h *health) setReady() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = true
}

func (h *health) setApps(s appSet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.apps = maps.Clone(s)
}

func (h *health) degrade(part, name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.degraded == nil {
		h.degraded = make(map[problemKey]string)
	}
	h.degraded[problemKey{part, name}] = strings.ReplaceAll(err.Error(), "\n", "; ")
}

// recover forgets that something did not work; name "" means all of the part.
func (h *health) recover(part, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.degraded, func(k problemKey, _ string) bool {
		return k.part == part && (name == "" || k.name == name)
	})
}

// names returns what of a part does not work.
func (h *health) names(part string) (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range h.degraded {
		if k.part == part {
			names = append(names, k.name)
		}
	}
	return names
}

// reloaded notes how a reload ended.
func (h *health) reloaded(at time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := ReloadStatus{Count: 1, Time: at.UTC()}
	if h.reload != nil {
		r.Count += h.reload.Count
	}
	if err != nil {
		r.Error = err.Error()
	}
	h.reload = &r
}

// actor returns the one that runs with that key, nil for none.
func (h *health) actor(key string) *actor {
	for _, a := range h.actors() {
		if a.key == key {
			return a
		}
	}
	return nil
}

// turns returns the counter of a version of an actor.
func (h *health) turns(app, actor, version string) *atomic.Uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counts == nil {
		h.counts = make(map[turnsKey]*atomic.Uint64)
	}
	k := turnsKey{app, actor, version}
	if h.counts[k] == nil {
		h.counts[k] = new(atomic.Uint64)
	}
	return h.counts[k]
}

// problems returns what does not work, a line each.
func (h *health) problems() (ready bool, lines []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, why := range h.degraded {
		what := strings.TrimSpace(k.part+" "+k.name) + ": "
		lines = append(lines, what+strings.TrimPrefix(why, what))
	}
	slices.Sort(lines)
	return h.ready, lines
}
