package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Payloads that are larger than a message go through the object store of the lattice.
const (
	ChunkBytes = 900 << 10        // more does not go into a message
	ExtraTime  = 13 * time.Second // that a call with such a payload may take
	maxPayload = 64 << 20         // more is not fetched

	bucketTime  = 5 * time.Second // for the host to make the object store
	bucketPause = 100 * time.Millisecond
)

// A Right says what a provider may do with the object store.
type Right int

const (
	MayMake Right = iota // use it, and make it: with hosts that say nothing of it
	MayUse               // use it; the host makes it
	MayNot
)

var errNoObjects = errors.New("the box keeps providers from it: see lattice.provider_objects in its device file")

// Objects is the object store of a lattice.
type Objects struct {
	js      jetstream.JetStream
	lattice string
	right   Right
}

// NewObjects is for the account of a connection, or for a domain of JetStream.
func NewObjects(conn *nats.Conn, lattice, domain string, right Right) (*Objects, error) {
	js, err := jetstream.New(conn)
	if domain != "" {
		js, err = jetstream.NewWithDomain(conn, domain)
	}
	return &Objects{js, lattice, right}, err
}

// bucket is the one that all in the lattice share. Who needs it first, and may, creates
// it; a box makes it soon after a provider is there.
func (o *Objects) bucket(ctx context.Context) (bucket jetstream.ObjectStore, err error) {
	if o.right == MayNot {
		return nil, errNoObjects
	}
	for end := time.Now().Add(bucketTime); ; {
		bucket, err = o.js.ObjectStore(ctx, o.lattice)
		if !errors.Is(err, jetstream.ErrBucketNotFound) {
			return bucket, err
		}
		if o.right == MayMake {
			return o.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: o.lattice})
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the host has not made it: %w", err)
		}
		select {
		case <-time.After(bucketPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("the host has not made it: %w", ctx.Err())
		}
	}
}

// Put keeps a payload under a name.
func (o *Objects) Put(ctx context.Context, name string, payload []byte) error {
	bucket, err := o.bucket(ctx)
	if err == nil {
		_, err = bucket.PutBytes(ctx, name, payload)
	}
	if err != nil {
		return fmt.Errorf("%d bytes are more than a message takes, and the object store: %w", len(payload), err)
	}
	return nil
}

// Take reads a payload, and deletes it if check has nothing against it.
func (o *Objects) Take(ctx context.Context, name string, length uint64, check func([]byte) error) ([]byte, error) {
	if length > maxPayload {
		return nil, fmt.Errorf("payload of %d bytes, at most %d", length, maxPayload)
	}
	ctx, cancel := context.WithTimeout(ctx, ExtraTime)
	defer cancel()
	payload := make([]byte, length)
	bucket, err := o.bucket(ctx)
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
