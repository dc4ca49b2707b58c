package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/lattice/wire"
)

// envelopeBytes is more than an envelope has beside its payload.
const envelopeBytes = 32 << 10

// fits says whether a payload of n bytes can go in a message.
func (l *Lattice) fits(n int) bool { return int64(n)+envelopeBytes <= l.o.Conn.MaxPayload() }

// large says whether a payload is to go through the object store: peers agree on
// when, but a server may let less through.
func (l *Lattice) large(payload []byte) bool {
	return len(payload) > wire.ChunkBytes || !l.fits(len(payload))
}

// MakeBucket makes the object store for large payloads, if it is not there: for those
// in the lattice who may use it and not make it.
func (l *Lattice) MakeBucket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, chunkedExtra)
	defer cancel()
	if _, err := l.bucket(ctx); err != nil {
		return fmt.Errorf("object store %s: %w", l.o.Lattice, objectError(err))
	}
	return nil
}

// bucket has the name of the lattice, and whoever needs it first creates it.
func (l *Lattice) bucket(ctx context.Context) (jetstream.ObjectStore, error) {
	bucket, err := l.js.ObjectStore(ctx, l.o.Lattice)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		bucket, err = l.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: l.o.Lattice})
		if errors.Is(err, jetstream.ErrBucketExists) {
			bucket, err = l.js.ObjectStore(ctx, l.o.Lattice)
		}
	}
	return bucket, err
}

// stow puts a payload into the object store of the lattice.
func (l *Lattice) stow(ctx context.Context, name string, payload []byte) error {
	ctx, cancel := context.WithTimeout(ctx, chunkedExtra)
	defer cancel()
	bucket, err := l.bucket(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTooLarge, objectError(err))
	}
	if _, err := bucket.PutBytes(ctx, name, payload); err != nil {
		return fmt.Errorf("%w for a message, and the object store fails: %w", ErrTooLarge, objectError(err))
	}
	return nil
}

// fetch reads a payload from the object store. It must have the length that its
// envelope says, for which there is room. Once it has been checked, drop has to follow.
func (l *Lattice) fetch(ctx context.Context, name string, length uint64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, chunkedExtra)
	defer cancel()
	bucket, err := l.js.ObjectStore(ctx, l.o.Lattice)
	if err != nil {
		return nil, fmt.Errorf("payload of %d bytes: %w", length, objectError(err))
	}
	object, err := bucket.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("payload of %d bytes: %w", length, objectError(err))
	}
	defer object.Close()
	info, err := object.Info()
	if err == nil && info.Size != length {
		return nil, fmt.Errorf("payload has %d bytes, its envelope says %d", info.Size, length)
	}
	payload := make([]byte, length)
	if err == nil {
		_, err = io.ReadFull(object, payload)
	}
	if err != nil {
		return nil, fmt.Errorf("payload of %d bytes: %w", length, objectError(err))
	}
	return payload, nil
}

// drop deletes a payload that was read, or that nobody will read.
func (l *Lattice) drop(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
	defer cancel()
	bucket, err := l.js.ObjectStore(ctx, l.o.Lattice)
	if err == nil {
		err = bucket.Delete(ctx, name)
	}
	if err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		l.log.Debug("payload not deleted from the object store", "object", name, "err", err)
	}
}

// dropTime is how long deleting a payload may take. Nothing fails with it.
const dropTime = 2 * time.Second

// objectError says what is missing where there is no JetStream.
func objectError(err error) error {
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) || errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%w: %w", ErrNoJetStream, err)
	}
	return err
}
