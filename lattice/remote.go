package lattice

import (
	"cmp"
	"context"
	"maps"
	"slices"
)

// SetRemote has Call reach through remote what nobody serves here; nil is for a
// box on its own. remote fails with ErrNoEntity where nobody serves it elsewhere.
func (b *Bus) SetRemote(remote Handler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remote = remote
}

// SetThrough has each call of what is served here go through fn, which calls the
// handler; nil has none. It is how tests put every call into its encoding and out
// again.
func (b *Bus) SetThrough(fn func(ctx context.Context, inv Invocation, h Handler) ([]byte, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.through = fn
}

// watcher is who wants to know what is served.
type watcher struct{ tell func(e Entity, served bool) }

// Watch tells fn of all that is served, at once, and then of what begins and what
// ends to be, in order, until stop is called. fn must not call Handle, Replace,
// Prepare, Remove or Watch; after stop has returned it is not called any more.
func (b *Bus) Watch(fn func(e Entity, served bool)) (stop func()) {
	b.telling.Lock()
	defer b.telling.Unlock()
	served := slices.SortedFunc(maps.Keys(b.told), func(x, y Entity) int {
		return cmp.Or(cmp.Compare(x.Key, y.Key), cmp.Compare(x.Link, y.Link))
	})
	for _, e := range served {
		fn(e, true)
	}
	w := &watcher{fn}
	b.watchers[w] = struct{}{}
	return func() {
		b.telling.Lock()
		defer b.telling.Unlock()
		delete(b.watchers, w)
	}
}
