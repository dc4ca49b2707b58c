// Package keyvalue is the built-in provider of wasmcloud:keyvalue: strings,
// counters, lists and sets that an actor keeps from call to call.
//
// All of it is in the store and staged in the turn of the call, so that what
// an actor counted and the message it counted commit together, or not at all.
// Keys live in buckets; the link value "bucket" names the one of an actor, and
// actors linked to the same bucket share it.
package keyvalue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// Contract is the capability contract served here.
const Contract = "wasmcloud:keyvalue"

// Limits of what an actor can keep under one key.
const (
	MaxKeyBytes   = 900     // of a key; the bucket's name comes on top
	MaxValueBytes = 1 << 20 // of a string, or of all items of a list or set
	MaxItems      = 1 << 16 // in a list or set
)

var errOperation = errors.New("no such operation")

// Provider serves wasmcloud:keyvalue from a store.
type Provider struct {
	db *store.DB

	mu      sync.RWMutex // guards buckets
	buckets map[link]string
}

type link struct{ actor, name string }

var _ providers.Provider = (*Provider)(nil)

// New returns a provider that keeps everything in db.
func New(db *store.DB) *Provider {
	return &Provider{db: db, buckets: make(map[link]string)}
}

// Contract is wasmcloud:keyvalue.
func (p *Provider) Contract() string { return Contract }

// PutLink takes the link value "bucket"; without one the bucket is named after
// the actor.
func (p *Provider) PutLink(_ context.Context, l lattice.Link) error {
	bucket := l.Values["bucket"]
	if bucket == "" {
		bucket = l.Actor
	}
	if len(bucket) > 128 {
		return fmt.Errorf("link %s to keyvalue: bucket %.40q… is longer than 128 bytes", l.Actor, bucket)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buckets[link{l.Actor, l.Name}] = bucket
	return nil
}

// DeleteLink forgets the link. What the bucket holds stays.
func (p *Provider) DeleteLink(_ context.Context, l lattice.Link) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.buckets, link{l.Actor, l.Name})
	return nil
}

// Call serves one operation. All of them are staged in the turn of ctx; without
// one, each is a turn of its own.
func (p *Provider) Call(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	p.mu.RLock()
	bucket, ok := p.buckets[link{inv.Origin.Key, inv.Target.Link}]
	p.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("%s: %w for %s", inv.Operation, lattice.ErrNoLink, Contract)
	}
	op, ok := operations[strings.TrimPrefix(inv.Operation, "KeyValue.")]
	if !ok || !strings.HasPrefix(inv.Operation, "KeyValue.") {
		return nil, fmt.Errorf("%s: %w of %s", inv.Operation, errOperation, Contract)
	}
	var reply []byte
	err := p.db.Do(ctx, func(_ context.Context, t *store.Turn) error {
		d := msgpack.NewDecoder(inv.Payload)
		b := &bucketTurn{turn: t, space: "kv/" + bucket, now: p.db.Elapsed()}
		var err error
		reply, err = op(b, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", inv.Operation, err)
	}
	return reply, nil
}

// bucketTurn is a bucket as a turn sees it.
type bucketTurn struct {
	turn  *store.Turn
	space string
	now   time.Duration
}

func (b *bucketTurn) get(key string, want kind) (item, bool, error) {
	if len(key) > MaxKeyBytes {
		return item{}, false, fmt.Errorf("key of %d bytes, at most %d", len(key), MaxKeyBytes)
	}
	v, ok, err := b.turn.Get(b.space, key)
	if err != nil || !ok {
		return item{kind: want}, false, err
	}
	it, err := decodeItem(v)
	if err != nil {
		return item{}, false, fmt.Errorf("key %s: %w", key, err)
	}
	if it.expires > 0 && it.expires <= b.now {
		return item{kind: want}, false, nil
	}
	if want != anyKind && it.kind != want {
		return item{}, false, fmt.Errorf("key %s holds a %s, not a %s", key, it.kind, want)
	}
	return it, true, nil
}

func (b *bucketTurn) put(key string, it item) error {
	if len(it.items) > MaxItems {
		return fmt.Errorf("key %s: %s of more than %d items", key, it.kind, MaxItems)
	}
	v := it.encode()
	if len(v) > MaxValueBytes+64 {
		return fmt.Errorf("key %s: %s of more than %d bytes", key, it.kind, MaxValueBytes)
	}
	return b.turn.Put(b.space, key, v)
}

func (b *bucketTurn) del(key string, want kind) (existed bool, err error) {
	_, existed, err = b.get(key, want)
	if err != nil || !existed {
		return false, err
	}
	return true, b.turn.Delete(b.space, key)
}
