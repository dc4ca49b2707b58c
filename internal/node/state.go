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
	BucketUse
}

// buckets returns those that hold something, or that an actor is linked to, by
// name.
func (n *Node) buckets() []BucketStatus {
	uses := n.bucketUses(config.ProviderKeyValue, func(a *app, l config.Link) (string, int64) { return l.Values["bucket"], a.limits(l.Actor).State })
	held := make(map[string]store.SpaceInfo)
	for _, s := range n.db.Spaces(keyvalue.Space) {
		name := strings.TrimPrefix(s.Name, keyvalue.Space)
		held[name] = s
		uses.of(name)
	}
	all := make([]BucketStatus, 0, len(uses))
	for _, name := range sortedKeys(uses) {
		all = append(all, BucketStatus{name, held[name].Keys, held[name].Bytes, *uses[name]})
	}
	return all
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
	if i < 0 {
		return nil, fmt.Errorf("bucket %s: %w", name, errNoBucket)
	}
	if err := all[i].removable(r, fmt.Sprintf("%d keys", all[i].Keys)); err != nil {
		return nil, err
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
