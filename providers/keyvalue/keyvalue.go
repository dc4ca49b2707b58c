// Package keyvalue is the built-in provider of wasmcloud:keyvalue: strings,
// counters, lists and sets that an actor keeps from call to call.
//
// All of it is in the store and staged in the turn of the call, so that what
// an actor counted and the message it counted commit together, or not at all.
// Keys live in buckets; the link value "bucket" names the one of an actor, and
// actors linked to the same bucket share it. The link value "max_bytes" bounds
// what a bucket may hold when the actor adds to it.
//
// A list or set is one value: each change writes all of it. Its size is bounded
// so that this stays cheap.
//
// Its errors are those of providers.Fail, of the service "keyvalue".
package keyvalue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

// Contract is the capability contract served here.
const Contract = "wasmcloud:keyvalue"

// Limits of what an actor can keep under one key, and of what it can ask for.
const (
	MaxKeyBytes  = 900       // of a key; the bucket's name comes on top
	MaxTextBytes = 1 << 20   // of a string
	MaxListBytes = 128 << 10 // of all items of a list or set, with up to 5 bytes for each
	MaxItems     = 16 << 10  // in a list or set
	MaxSets      = 128       // that one union or intersection reads
	MaxReply     = 1 << 20   // bytes of a union
)

// Space is what the names of buckets begin with in the store.
const Space = "kv/"

// ErrState is a change that was refused because the bucket, or all state of the
// box, would hold too much.
var ErrState = errors.New("state is full")

// Provider serves wasmcloud:keyvalue from a store. Its methods may be called
// from any goroutine.
type Provider struct {
	db *store.DB

	mu    sync.RWMutex // guards links
	links map[link]bucket

	sweeper sweeper
}

type link struct{ actor, name string }

// bucket is what a link leads to.
type bucket struct {
	name     string
	maxBytes int64 // 0 for any number
}

var _ providers.Provider = (*Provider)(nil)

// New returns a provider that keeps everything in db. What has expired takes room
// until Run removes it.
func New(db *store.DB) *Provider {
	return &Provider{db: db, links: make(map[link]bucket), sweeper: newSweeper()}
}

// Contract is wasmcloud:keyvalue.
func (p *Provider) Contract() string { return Contract }

// PutLink takes the link values "bucket", by default the actor, and "max_bytes",
// by default no bound.
func (p *Provider) PutLink(_ context.Context, l lattice.Link) error {
	b := bucket{name: l.Values["bucket"]}
	if b.name == "" {
		b.name = l.Actor
	}
	if len(b.name) > 128 {
		return fmt.Errorf("link %s to keyvalue: bucket %.40q… is longer than 128 bytes", l.Actor, b.name)
	}
	if most := l.Values["max_bytes"]; most != "" {
		n, err := strconv.ParseInt(most, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("link %s to keyvalue: max_bytes %.40q is no number of bytes", l.Actor, most)
		}
		b.maxBytes = n
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[link{l.Actor, l.Name}] = b
	return nil
}

// DeleteLink forgets the link. What the bucket holds stays.
func (p *Provider) DeleteLink(_ context.Context, l lattice.Link) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, link{l.Actor, l.Name})
	return nil
}

// Call serves one operation. All of them are staged in the turn of ctx; without
// one, each is a turn of its own.
func (p *Provider) Call(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	p.mu.RLock()
	to, ok := p.links[link{inv.Origin.Key, inv.Target.Link}]
	p.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("%s: %w for %s", inv.Operation, lattice.ErrNoLink, Contract)
	}
	name, ok := strings.CutPrefix(inv.Operation, "KeyValue.")
	op := operations[name]
	if !ok || op == nil {
		return nil, fail(providers.ErrFormat, fmt.Errorf("%.80q is no operation of %s", inv.Operation, Contract))
	}
	var reply []byte
	err := p.db.Do(ctx, func(ctx context.Context, t *store.Turn) (err error) {
		b := &bucketTurn{ctx: ctx, p: p, turn: t, bucket: to, space: Space + to.name}
		reply, err = op(b, providers.Decoder(inv.Payload))
		return err
	})
	if err != nil {
		return nil, fail(kindOf(err), fmt.Errorf("%s: %w", name, err))
	}
	return reply, nil
}

func fail(kind, cause error) error { return providers.Fail("keyvalue", kind, cause) }

// kindOf is the kind of an error of an operation, nil for one of the store.
func kindOf(err error) error {
	var format *formatError
	if errors.As(err, &format) {
		return providers.ErrFormat
	}
	return nil
}

// formatError is a request that makes no sense, or not with what is there.
type formatError struct{ error }

func (e *formatError) Unwrap() error { return e.error }

func formatf(format string, args ...any) error {
	return &formatError{fmt.Errorf(format, args...)}
}

// bucketTurn is a bucket as a turn sees it.
type bucketTurn struct {
	ctx    context.Context // of one call, which is as long as b lives
	p      *Provider
	turn   *store.Turn
	bucket bucket
	space  string
}

// over says whether a life is.
func (p *Provider) over(l life) bool {
	switch {
	case l.until > 0:
		return l.until <= p.db.Elapsed()
	case l.ttl > 0:
		return p.left(l) <= 0
	}
	return false
}

// left is how much is left of a life that ends.
func (p *Provider) left(l life) time.Duration {
	if l.until > 0 {
		return l.until - p.db.Elapsed()
	}
	return l.ttl - p.db.Age(l.since)
}

func (b *bucketTurn) get(key string, want kind) (item, bool, error) {
	if err := checkKey(key); err != nil {
		return item{}, false, err
	}
	v, ok, err := b.turn.Get(b.space, key)
	if err != nil || !ok {
		return item{kind: want}, false, err
	}
	it, err := decodeItem(v)
	if err != nil {
		return item{}, false, fmt.Errorf("key %q: %w", key, err)
	}
	if b.p.over(it.life) {
		return item{kind: want}, false, nil
	}
	if want != anyKind && it.kind != want {
		return item{}, false, formatf("key %q holds a %s, not a %s", key, it.kind, want)
	}
	return it, true, nil
}

func checkKey(key string) error {
	switch {
	case len(key) > MaxKeyBytes:
		return fmt.Errorf("key of %d bytes, at most %d: %w", len(key), MaxKeyBytes, store.ErrTooLarge)
	case !utf8.ValidString(key):
		return formatf("key %.80q is not UTF-8", key)
	}
	return nil
}

// put stages a value. One that is over a limit is refused if it is more than what
// was there: a list that is too long can be made shorter.
func (b *bucketTurn) put(key string, it item, more bool) error {
	if it.until > 0 { // of an earlier version: what was left of it is what there is
		it.since, it.ttl, it.until = b.p.db.Elapsed(), max(b.p.left(it.life), 1), 0
	}
	v := it.encode()
	switch {
	case !more:
	case it.kind == text && len(it.items[0]) > MaxTextBytes:
		return fmt.Errorf("key %q: string of %d bytes, at most %d: %w", key, len(it.items[0]), MaxTextBytes, store.ErrTooLarge)
	case it.kind == text:
	case len(it.items) > MaxItems:
		return fmt.Errorf("key %q: %s of %d items, at most %d: %w", key, it.kind, len(it.items), MaxItems, store.ErrTooLarge)
	case len(v) > MaxListBytes+valueHead:
		return fmt.Errorf("key %q: %s of more than %d bytes: %w", key, it.kind, MaxListBytes, store.ErrTooLarge)
	}
	err := b.turn.PutWithin(b.space, key, v, b.bucket.maxBytes)
	if errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrBound) {
		return fmt.Errorf("key %q of bucket %s: %w: %w", key, b.bucket.name, ErrState, err)
	}
	if err == nil && it.ttl > 0 {
		b.turn.AfterCommit(func() { b.p.sweeper.expect(b.p.left(it.life)) })
	}
	return err
}

// valueHead is what a stored value has before its items, at most.
const valueHead = 32

func (b *bucketTurn) del(key string, want kind) (existed bool, err error) {
	_, existed, err = b.get(key, want)
	if err != nil || !existed {
		return false, err
	}
	return true, b.turn.Delete(b.space, key)
}
