package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Payloads that are larger than a message go through the object store of the lattice.
const (
	chunkBytes = 900 << 10 // from here on they do
	maxPayload = 64 << 20  // more is not fetched
	extraTime  = 13 * time.Second
)

// bucket is the one that all in the lattice share. Who needs it first creates it.
func (h *Host) bucket(ctx context.Context) (jetstream.ObjectStore, error) {
	bucket, err := h.js.ObjectStore(ctx, h.Lattice)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		bucket, err = h.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: h.Lattice})
	}
	return bucket, err
}

func (h *Host) stow(ctx context.Context, name string, payload []byte) error {
	bucket, err := h.bucket(ctx)
	if err == nil {
		_, err = bucket.PutBytes(ctx, name, payload)
	}
	if err != nil {
		return fmt.Errorf("%d bytes are more than a message takes, and the object store: %w", len(payload), err)
	}
	return nil
}

// fetch reads a payload, and deletes it if check has nothing against it.
func (h *Host) fetch(ctx context.Context, name string, length uint64, check func([]byte) error) ([]byte, error) {
	if length > maxPayload {
		return nil, fmt.Errorf("payload of %d bytes, at most %d", length, maxPayload)
	}
	ctx, cancel := context.WithTimeout(ctx, extraTime)
	defer cancel()
	payload := make([]byte, length)
	bucket, err := h.bucket(ctx)
	if err == nil {
		var object jetstream.ObjectResult
		if object, err = bucket.Get(ctx, name); err == nil {
			_, err = io.ReadFull(object, payload)
			_ = object.Close() // only read from
		}
	}
	if err != nil {
		return nil, fmt.Errorf("payload of %d bytes in the object store: %w", length, err)
	}
	if err := check(payload); err != nil {
		return nil, err
	}
	_ = bucket.Delete(ctx, name) // nobody fails for what is left over
	return payload, nil
}
