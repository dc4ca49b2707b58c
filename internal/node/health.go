package node

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// health is what others may know of the box while it runs.
type health struct {
	mu       sync.Mutex // guards all below
	ready    bool
	apps     appSet
	degraded map[string]string           // what does not work, and why
	counts   map[turnsKey]*atomic.Uint64 // turns committed since start
}

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

func (h *health) degrade(what string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.degraded == nil {
		h.degraded = make(map[string]string)
	}
	h.degraded[what] = err.Error()
}

// recover forgets what did not work.
func (h *health) recover() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.degraded = nil
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
	for _, what := range slices.Sorted(maps.Keys(h.degraded)) {
		lines = append(lines, fmt.Sprintf("%s: %s", what, h.degraded[what]))
	}
	return h.ready, lines
}

// blame says which actor an error is of.
func (h *health) blame(key string, err error) error {
	for _, a := range h.actors() {
		if a.key == key {
			return &blamed{err, a.app + "/" + a.config.Name, a.version}
		}
	}
	return err
}
