package blobstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edged-io/edged/store"
)

// ErrNoObject: there is no object of that name.
var ErrNoObject = errors.New("no such object")

// BucketInfo is a bucket as an operator sees it.
type BucketInfo struct {
	Name  string
	Files int64 // objects and uploads
	Bytes int64 // what they take on the disk
}

// Buckets returns those that hold something, by name.
func (p *Provider) Buckets() []BucketInfo {
	all := make(map[string]BucketInfo)
	for _, info := range p.db.Spaces(Space) {
		name := strings.TrimPrefix(info.Name, Space)
		all[name] = BucketInfo{Name: name}
	}
	p.files.mu.Lock()
	for name, u := range p.files.used {
		all[name] = BucketInfo{name, u.files, u.bytes}
	}
	p.files.mu.Unlock()
	sorted := make([]BucketInfo, 0, len(all))
	for _, b := range all {
		sorted = append(sorted, b)
	}
	slices.SortFunc(sorted, func(a, b BucketInfo) int { return cmp.Compare(a.Name, b.Name) })
	return sorted
}

// ObjectInfo is an object as an operator sees it.
type ObjectInfo struct {
	Container, Object            string
	Length                       int64
	ContentType, ContentEncoding string
	Modified                     time.Time
	// Version is another one each time that the object is put.
	Version string
}

func (o object) info(container, name string) ObjectInfo {
	return ObjectInfo{container, name, o.length, o.contentType, o.contentEncoding, time.Unix(0, o.modified).UTC(), o.file}
}

// Objects calls fn for each object of a bucket that is committed, by container and name,
// until fn fails.
func (p *Provider) Objects(bucket string, fn func(ObjectInfo) error) error {
	space := Space + bucket
	return p.db.List(space, keyContainer, func(key string, v []byte) error {
		name := strings.TrimPrefix(key, keyContainer)
		in, err := decodeContainer(v)
		if err != nil {
			return fmt.Errorf("container %q: %w", name, err)
		}
		base := objectKey(in.number, "")
		return p.db.List(space, base, func(key string, v []byte) error {
			o, err := decodeObject(v)
			if err != nil {
				return fmt.Errorf("object %q: %w", key, err)
			}
			return fn(o.info(name, key[len(base):]))
		})
	})
}

// Read returns up to n bytes of an object from an offset on, and what it is. It fails with
// ErrNoObject.
func (p *Provider) Read(ctx context.Context, bucketName, container, name string, offset int64, n int) (part []byte, info ObjectInfo, err error) {
	err = p.db.Do(ctx, func(ctx context.Context, t *store.Turn) error {
		c := &call{ctx: ctx, p: p, turn: t, bucket: bucket{name: bucketName}}
		o, ok, err := c.object(container, name)
		if err == nil && !ok {
			err = fmt.Errorf("object %q in container %q of bucket %q: %w", name, container, bucketName, ErrNoObject)
		}
		if err != nil {
			return err
		}
		info = o.info(container, name)
		offset = min(max(offset, 0), o.length)
		part, err = p.files.read(o.file, offset, int(min(int64(n), o.length-offset)))
		return err
	})
	return part, info, err
}

// Empty removes all that a bucket holds.
func (p *Provider) Empty(ctx context.Context, bucket string) error {
	space := Space + bucket
	for more := true; more; {
		err := p.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
			keys, err := t.Keys(space, "", "", sweepBatch)
			if err != nil {
				return err
			}
			for _, key := range keys {
				if err := p.change(t, space, key, nil); err != nil {
					return err
				}
			}
			more = len(keys) > 0
			return nil
		})
		if err != nil {
			return fmt.Errorf("empty bucket %s: %w", bucket, err)
		}
	}
	p.notify()
	return nil
}
