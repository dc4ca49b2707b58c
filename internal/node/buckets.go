package node

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/edged-io/edged/internal/config"
)

// BucketUse is who is linked to a bucket.
type BucketUse struct {
	// Limit is the largest of those of its actors; 0 where it has none.
	Limit  int64    `json:"limit"`
	Actors []string `json:"actors"` // keys
}

// bucketUses are by name.
type bucketUses map[string]*BucketUse

// of returns who uses a bucket, nobody for one that it did not know yet.
func (u bucketUses) of(name string) *BucketUse {
	if u[name] == nil {
		u[name] = &BucketUse{Actors: []string{}}
	}
	return u[name]
}

// bucketUses returns the buckets that the apps are linked to, with a provider that has
// some; bucket says which one a link is for, and the limit that it sets.
func (n *Node) bucketUses(provider string, bucket func(a *app, l config.Link) (name string, limit int64)) bucketUses {
	all := make(bucketUses)
	for _, a := range n.health.running().sorted() {
		for _, l := range a.config.Links {
			if l.Provider != provider {
				continue
			}
			name, limit := bucket(a, l)
			u, key := all.of(name), a.key(l.Actor)
			u.Limit = max(u.Limit, limit)
			if !slices.Contains(u.Actors, key) {
				u.Actors = append(u.Actors, key)
			}
		}
	}
	for _, u := range all {
		slices.Sort(u.Actors)
	}
	return all
}

// removable says why the bucket that a request names is not to be removed, nil if it is;
// content is what it holds.
func (u BucketUse) removable(r *http.Request, content string) error {
	name := r.PathValue("bucket")
	switch {
	case len(u.Actors) > 0:
		return fmt.Errorf("bucket %s: %w by actor %s, remove its app first", name, errInUse, strings.Join(u.Actors, ", "))
	case r.URL.Query().Get("force") != "true":
		return fmt.Errorf("bucket %s holds %s, which --force removes with it: %w", name, content, errInUse)
	}
	return nil
}
