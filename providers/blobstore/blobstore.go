// Package blobstore is the built-in provider of wasmcloud:blobstore: objects of any
// size, in containers, that actors put, get in ranges or as a stream, and remove.
//
// The bytes of an object are a file. What says that there is an object, and in which
// file, is a record in the store and is staged in the turn of the call: so an object
// appears, is replaced or goes away with the message that the actor handled, or not at
// all. A file is synced before the turn that refers to it is committed, and removed
// after the last record that did is gone. What a crash leaves of files that no record
// refers to is removed by New.
//
// An upload in several parts is a record too, with how far it has come, so that it goes
// on over calls and restarts. A download that goes to the actor in several parts
// (ChunkReceiver.ReceiveChunk) begins when the turn that asked for it is committed; each
// part is a turn in which the actor's changes and the progress are committed together.
//
// Containers live in buckets, as the keys of keyvalue do: the link value "bucket" names
// the one of an actor, and "max_bytes" and "max_objects" bound it.
//
// Its errors are those of providers.Fail, of the service "blobstore". DESIGN.md says why
// things are as they are.
package blobstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

const (
	// Contract is the capability contract served here.
	Contract = "wasmcloud:blobstore"
	// ReceiveChunk is the operation of an actor that gets the parts of a download.
	ReceiveChunk = "ChunkReceiver.ReceiveChunk"
	// Space is what the names of buckets begin with in the store.
	Space = "blob/"
)

// Limits of what an actor can ask for.
const (
	MaxContainerName = 255       // bytes
	MaxObjectName    = 900       // bytes
	MaxType          = 255       // bytes of a content type, and of a content encoding
	MaxContainers    = 1024      // in a bucket
	MaxNames         = 1000      // that one operation lists or removes
	MaxChunk         = 16 << 20  // bytes that an actor sends at a time
	ChunkBytes       = 256 << 10 // that an actor gets at a time, at most
	MaxDownloads     = 256       // under way at a time
	MaxDownloadsEach = 16        // of one actor
)

// Link values.
const (
	ValueBucket     = "bucket"      // the key of the actor by default
	ValueMaxBytes   = "max_bytes"   // bytes of the files of the bucket; 64 MiB by default
	ValueMaxObjects = "max_objects" // files of the bucket; 10,000 by default
)

// What a bucket may hold where its link says nothing.
const (
	DefaultMaxBytes   = 64 << 20
	DefaultMaxObjects = 10_000
)

// Errors that say why there is no room.
var (
	// ErrBucketFull: the bucket would hold more than its link allows.
	ErrBucketFull = errors.New("the bucket is full")
	// ErrFull: all buckets of the box together would, or the disk has no room to spare.
	ErrFull = errors.New("the box has no room for it")
)

// Options are what a Provider is made from. Store and Dir must be there.
type Options struct {
	Store *store.DB
	// Dir holds the files, and nothing else. It is made if it is not there.
	Dir string
	// Lost takes what New finds in Dir without a record to it. Nil removes it; else it
	// is moved there. It is set where records may have been lost.
	Lost string
	// MaxBytes bounds the files of all buckets together, 0 for no bound.
	MaxBytes int64
	// MinFree is how many bytes the file system keeps free.
	MinFree int64
	// Call calls an actor with a part of a download, under the turn of the context.
	Call func(context.Context, lattice.Invocation) ([]byte, error)
	// Failed is told of a part that an actor failed at, and what becomes of it; nil for nobody.
	Failed     func(err error, outcome string)
	Now        func() time.Time // stamps objects; nil for the clock of the machine
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil for none
}

// Provider serves wasmcloud:blobstore. Its methods may be called from any goroutine.
type Provider struct {
	o     Options
	db    *store.DB
	log   *slog.Logger
	files *files

	forgotten time.Duration // see forgotten

	mu        sync.RWMutex // guards what follows
	links     map[linkID]*link
	works     map[*store.Turn]*work
	downloads map[downloadID]string // staged or under way: for which actor
	queued    []downloadID          // to be taken up by Run
	wake      chan struct{}         // tells Run of queued, and of files to remove
}

type linkID struct{ actor, name string }

// link is what a link leads to.
type link struct {
	bucket
	form atomic.Int32 // in which the actor wrote last, for what comes without any
}

type bucket struct {
	name       string
	maxBytes   int64
	maxObjects int64
}

func (b bucket) space() string { return Space + b.name }

var _ providers.Provider = (*Provider)(nil)

// New returns a provider of what Dir and the store hold. What no record refers to is
// removed, or moved to Lost.
func New(o Options) (*Provider, error) {
	if o.Store == nil || o.Dir == "" {
		return nil, errors.New("blobstore: Store and Dir must be there")
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Failed == nil {
		o.Failed = func(error, string) {}
	}
	p := &Provider{
		o: o, db: o.Store, log: o.Logger, forgotten: forgotten, links: make(map[linkID]*link), works: make(map[*store.Turn]*work),
		downloads: make(map[downloadID]string), wake: make(chan struct{}, 1),
	}
	p.files = newFiles(o, p.notify)
	if err := p.open(); err != nil {
		return nil, fmt.Errorf("blobstore: %w", err)
	}
	if o.Registerer != nil {
		if err := p.files.register(o.Registerer); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Contract is wasmcloud:blobstore.
func (p *Provider) Contract() string { return Contract }

// PutLink takes the link values "bucket", "max_bytes" and "max_objects".
func (p *Provider) PutLink(_ context.Context, l lattice.Link) error {
	to := &link{bucket: bucket{cmp.Or(l.Values[ValueBucket], l.Actor), DefaultMaxBytes, DefaultMaxObjects}}
	if len(to.name) > 128 {
		return fmt.Errorf("link %s to blobstore: bucket %.40q… is longer than 128 bytes", l.Actor, to.name)
	}
	for key, v := range map[string]*int64{ValueMaxBytes: &to.maxBytes, ValueMaxObjects: &to.maxObjects} {
		text := l.Values[key]
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			return fmt.Errorf("link %s to blobstore: %s %.40q is no number above 0", l.Actor, key, text)
		}
		*v = n
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if had := p.links[linkID{l.Actor, l.Name}]; had != nil {
		to.form.Store(had.form.Load())
	}
	p.links[linkID{l.Actor, l.Name}] = to
	return nil
}

// DeleteLink forgets the link. What the bucket holds stays, and so do its downloads,
// which wait for the link to come back.
func (p *Provider) DeleteLink(_ context.Context, l lattice.Link) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, linkID{l.Actor, l.Name})
	return nil
}

func (p *Provider) link(id linkID) *link {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.links[id]
}

// Call serves one operation. All of them are staged in the turn of ctx; without one,
// each is a turn of its own.
func (p *Provider) Call(ctx context.Context, inv lattice.Invocation) ([]byte, error) {
	id := linkID{inv.Origin.Key, inv.Target.Link}
	l := p.link(id)
	if l == nil {
		return nil, fmt.Errorf("%s: %w for %s", inv.Operation, lattice.ErrNoLink, Contract)
	}
	name, ok := strings.CutPrefix(inv.Operation, "Blobstore.")
	op, known := operations[name]
	if !ok || !known {
		return nil, fail(providers.ErrFormat, fmt.Errorf("%.80q is no operation of %s", inv.Operation, Contract))
	}
	payload, f, err := open(inv.Payload, form(l.form.Load()), op.isStruct)
	if err != nil {
		return nil, fail(providers.ErrFormat, fmt.Errorf("%s: %w", name, err))
	}
	l.form.Store(int32(f))
	var reply []byte
	err = p.db.Do(ctx, func(ctx context.Context, t *store.Turn) (err error) {
		c := &call{ctx: ctx, p: p, turn: t, bucket: l.bucket, link: id, form: f}
		reply, err = op.do(c, payload)
		return err
	})
	if err != nil {
		return nil, fail(kindOf(err), fmt.Errorf("%s: %w", name, err))
	}
	return reply, nil
}

func fail(kind, cause error) error { return providers.Fail("blobstore", kind, cause) }

// kindOf is the kind of an error of an operation, nil for one of the store.
func kindOf(err error) error {
	var c *cause
	if errors.As(err, &c) {
		return c.kind
	}
	return nil
}

// cause is an error with a kind.
type cause struct {
	kind error
	error
}

func (c *cause) Unwrap() error { return c.error }

func because(kind error, format string, args ...any) error {
	return &cause{kind, fmt.Errorf(format, args...)}
}

// call is one operation, as long as it lasts.
type call struct {
	ctx    context.Context
	p      *Provider
	turn   *store.Turn
	bucket bucket
	link   linkID
	form   form
}
