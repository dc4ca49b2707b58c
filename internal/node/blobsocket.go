package node

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/providers/blobstore"
)

// BlobBucketStatus is a bucket of objects.
type BlobBucketStatus struct {
	Bucket string `json:"bucket"`
	Files  int64  `json:"files"` // objects, and uploads under way
	Bytes  int64  `json:"bytes"`
	BucketUse
}

// blobBuckets returns those that hold something, or that an actor is linked to, by name.
func (n *Node) blobBuckets() []BlobBucketStatus {
	uses := n.bucketUses(config.ProviderBlobStore, func(_ *app, l config.Link) (string, int64) {
		limit, _ := strconv.ParseInt(l.Values[blobstore.ValueMaxBytes], 10, 64) // of a manifest that was checked
		return l.Values[blobstore.ValueBucket], cmp.Or(limit, blobstore.DefaultMaxBytes)
	})
	held := make(map[string]blobstore.BucketInfo)
	for _, b := range n.blobs.Buckets() {
		held[b.Name] = b
		uses.of(b.Name)
	}
	all := make([]BlobBucketStatus, 0, len(uses))
	for _, name := range sortedKeys(uses) {
		all = append(all, BlobBucketStatus{name, held[name].Files, held[name].Bytes, *uses[name]})
	}
	return all
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
	if i < 0 {
		return nil, fmt.Errorf("bucket %s: %w", name, errNoBucket)
	}
	if err := all[i].removable(r, fmt.Sprintf("%d objects", all[i].Files)); err != nil {
		return nil, err
	}
	return struct{}{}, n.blobs.Empty(r.Context(), name)
}
