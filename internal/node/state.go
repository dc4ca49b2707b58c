package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/providers/keyvalue"
	"github.com/edged-io/edged/store"
)

// BucketStatus is a bucket of key-value state.
type BucketStatus struct {
	Bucket string `json:"bucket"`
	Keys   int64  `json:"keys"`
	Bytes  int64  `json:"bytes"`
	// Limit is the largest of those of its actors; 0 where it has none.
	Limit  int64    `json:"limit"`
	Actors []string `json:"actors"` // keys
}

// buckets returns those that hold something, or that an actor is linked to, by
// name.
func (n *Node) buckets() []BucketStatus {
	all := make(map[string]*BucketStatus)
	of := func(name string) *BucketStatus {
		if all[name] == nil {
			all[name] = &BucketStatus{Bucket: name, Actors: []string{}}
		}
		return all[name]
	}
	for _, s := range n.db.Spaces(keyvalue.Space) {
		b := of(strings.TrimPrefix(s.Name, keyvalue.Space))
		b.Keys, b.Bytes = s.Keys, s.Bytes
	}
	for _, a := range n.health.running().sorted() {
		for _, l := range a.config.Links {
			if l.Provider != config.ProviderKeyValue {
				continue
			}
			b, key := of(l.Values["bucket"]), a.key(l.Actor)
			b.Limit = max(b.Limit, a.limits(l.Actor).State)
			if !slices.Contains(b.Actors, key) {
				b.Actors = append(b.Actors, key)
			}
		}
	}
	sorted := make([]BucketStatus, 0, len(all))
	for _, b := range all {
		slices.Sort(b.Actors)
		sorted = append(sorted, *b)
	}
	slices.SortFunc(sorted, func(a, b BucketStatus) int { return strings.Compare(a.Bucket, b.Bucket) })
	return sorted
}

// errNoBucket: there is nothing under that name.
var errNoBucket = errors.New("no such bucket")

// emptyBatch is how many keys are removed in one turn.
const emptyBatch = 256

// removeBucket serves DELETE /state/{bucket}: it deletes all that a bucket holds
// that no actor is linked to.
func (n *Node) removeBucket(r *http.Request) (any, error) {
	name := r.PathValue("bucket")
	n.apply.Lock() // no app comes meanwhile
	defer n.apply.Unlock()
	all := n.buckets()
	i := slices.IndexFunc(all, func(b BucketStatus) bool { return b.Bucket == name })
	switch {
	case i < 0:
		return nil, fmt.Errorf("bucket %s: %w", name, errNoBucket)
	case len(all[i].Actors) > 0:
		return nil, fmt.Errorf("bucket %s: %w by actor %s, remove its app first", name, errInUse, strings.Join(all[i].Actors, ", "))
	case r.URL.Query().Get("force") != "true":
		return nil, fmt.Errorf("bucket %s holds %d keys, which --force removes with it: %w", name, all[i].Keys, errInUse)
	}
	var keys []string
	empty := func() error {
		err := n.db.Do(r.Context(), func(_ context.Context, t *store.Turn) error {
			var errs []error
			for _, k := range keys {
				errs = append(errs, t.Delete(keyvalue.Space+name, k))
			}
			return errors.Join(errs...)
		})
		keys = keys[:0]
		return err
	}
	err := n.db.List(keyvalue.Space+name, "", func(key string, _ []byte) error {
		if keys = append(keys, key); len(keys) < emptyBatch {
			return nil
		}
		return empty()
	})
	if err == nil {
		err = empty()
	}
	return struct{}{}, err
}
