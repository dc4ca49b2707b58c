package node

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/providers/blobstore"
)

// BlobBucketStatus is a bucket of objects.
type BlobBucketStatus struct {
	Bucket string `json:"bucket"`
	Files  int64  `json:"files"` // objects, and uploads under way
	Bytes  int64  `json:"bytes"`
	// Limit is the largest of those of its actors; 0 where it has none.
	Limit  int64    `json:"limit"`
	Actors []string `json:"actors"` // keys
}

// blobBuckets returns those that hold something, or that an actor is linked to, by name.
func (n *Node) blobBuckets() []BlobBucketStatus {
	all := make(map[string]*BlobBucketStatus)
	of := func(name string) *BlobBucketStatus {
		if all[name] == nil {
			all[name] = &BlobBucketStatus{Bucket: name, Actors: []string{}}
		}
		return all[name]
	}
	for _, b := range n.blobs.Buckets() {
		s := of(b.Name)
		s.Files, s.Bytes = b.Files, b.Bytes
	}
	for _, a := range n.health.running().sorted() {
		for _, l := range a.config.Links {
			if l.Provider != config.ProviderBlobStore {
				continue
			}
			b, key := of(l.Values[blobstore.ValueBucket]), a.key(l.Actor)
			limit, _ := strconv.ParseInt(l.Values[blobstore.ValueMaxBytes], 10, 64) // of a manifest that was checked
			b.Limit = max(b.Limit, cmp.Or(limit, blobstore.DefaultMaxBytes))
			if !slices.Contains(b.Actors, key) {
				b.Actors = append(b.Actors, key)
			}
		}
	}
	sorted := make([]BlobBucketStatus, 0, len(all))
	for _, b := range all {
		slices.Sort(b.Actors)
		sorted = append(sorted, *b)
	}
	slices.SortFunc(sorted, func(a, b BlobBucketStatus) int { return cmp.Compare(a.Bucket, b.Bucket) })
	return sorted
}

// ObjectStatus is an object of a bucket.
type ObjectStatus struct {
	Container   string    `json:"container"`
	Object      string    `json:"object"`
	Bytes       int64     `json:"bytes"`
	ContentType string    `json:"content_type"`
	Modified    time.Time `json:"modified"`
	Version     string    `json:"version"` // another one each time that it is put
}

func objectStatus(o blobstore.ObjectInfo) ObjectStatus {
	return ObjectStatus{o.Container, o.Object, o.Length, o.ContentType, o.Modified, o.Version}
}

// maxObjects is how many objects an answer lists.
const maxObjects = 100_000

// listObjects serves GET /blobs/{bucket}.
func (n *Node) listObjects(r *http.Request) (any, error) {
	var all []ObjectStatus
	bucket := r.PathValue("bucket")
	err := n.blobs.Objects(bucket, func(o blobstore.ObjectInfo) error {
		if len(all) == maxObjects {
			return fmt.Errorf("bucket %s has more than %d objects, which are too many to list", bucket, maxObjects)
		}
		all = append(all, objectStatus(o))
		return nil
	})
	return items(all), err
}

// ObjectPart is a part of an object, and what it is of.
type ObjectPart struct {
	ObjectStatus
	Data []byte `json:"data"` // base64
}

// objectPartBytes is how much of an object an answer has.
const objectPartBytes = 1 << 20

// readObject serves GET /blobs/{bucket}/object?container=…&object=…&offset=….
func (n *Node) readObject(r *http.Request) (any, error) {
	q := r.URL.Query()
	offset, err := strconv.ParseInt(q.Get("offset"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: offset: %w", errRequest, err)
	}
	data, info, err := n.blobs.Read(r.Context(), r.PathValue("bucket"), q.Get("container"), q.Get("object"), offset, objectPartBytes)
	return ObjectPart{objectStatus(info), data}, err
}

// removeBlobs serves DELETE /blobs/{bucket}: it deletes all that a bucket holds that no
// actor is linked to.
func (n *Node) removeBlobs(r *http.Request) (any, error) {
	name := r.PathValue("bucket")
	n.apply.Lock() // no app comes meanwhile
	defer n.apply.Unlock()
	all := n.blobBuckets()
	i := slices.IndexFunc(all, func(b BlobBucketStatus) bool { return b.Bucket == name })
	switch {
	case i < 0:
		return nil, fmt.Errorf("bucket %s: %w", name, errNoBucket)
	case len(all[i].Actors) > 0:
		return nil, fmt.Errorf("bucket %s: %w by actor %s, remove its app first", name, errInUse, strings.Join(all[i].Actors, ", "))
	case r.URL.Query().Get("force") != "true":
		return nil, fmt.Errorf("bucket %s holds %d objects, which --force removes with it: %w", name, all[i].Files, errInUse)
	}
	return struct{}{}, n.blobs.Empty(r.Context(), name)
}
