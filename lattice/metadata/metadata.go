// Package metadata keeps what all hosts of a lattice know in common: links, and the
// claims of actors and providers. It is in the key-value bucket LATTICEDATA_{lattice} of
// the hub, in the form of classic wasmCloud hosts, and a copy of it in the store of the
// box. The copy decides: what is put is in it, on disk, before it is acknowledged, with
// or without a hub, and a box that starts without one has all it had.
//
// While the hub is there, changes go both ways at once. After a time apart each key is
// merged for itself: a change by one side only holds; where both changed it, to
// different things, a link is what the lattice has and the box's own change is kept as
// a [Conflict], and claims are those of the higher revision. Only the mark of a deletion
// deletes: what the bucket knows nothing of is put there again, so that a hub that lost
// something, or is another one, gets it back. docs/decisions/0011 says why.
//
// What a link or a record of claims means for the box is left to others: the keys
// and values are names and texts here.
package metadata

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/lattice/wire"
	"github.com/edged-io/edged/store"
)

// Bounds of what a lattice may hold here. What the bucket has beyond them is left
// out, and Status says so.
const (
	MaxRecords     = 16_384    // links and claims
	MaxBytes       = 8 << 20   // all of them as JSON
	MaxRecordBytes = 900 << 10 // one as JSON, so that it fits into a message
	MaxConflicts   = 256       // that are kept
	maxText        = 256       // bytes of a key, contract id or name
)

// Errors of changes.
var (
	ErrRecord   = errors.New("not a record of a lattice")
	ErrTooLarge = errors.New("too large for the metadata of a lattice")
	ErrFull     = errors.New("the metadata of the lattice is full")
)

// Store is what Metadata needs of store.DB.
type Store interface {
	Begin() *store.Turn
	List(space, prefix string, fn func(key string, value []byte) error) error
}

// Options are what a Metadata is made from. Conn, Lattice and Store must be there.
type Options struct {
	Conn            *nats.Conn // in the account of the lattice; it stays the caller's
	Lattice         string     // its name: letters, digits, "_" and "-"
	JetStreamDomain string     // of the hub; "" for the account's own
	Store           Store
	// Link says whether the hub can be reached, and gives a channel that is closed
	// when that changes, or may have; nil for one that always can.
	Link func() (up bool, changed <-chan struct{})
	// Changed is told, after the fact and in the goroutine of Run, that somebody else
	// changed what Links, Claims or Conflicts return; many changes may be told
	// together. It may call any method. Nil for nobody.
	Changed    func()
	Now        func() time.Time // for the time of conflicts; nil for time.Now
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil for none

	// Of tests; 0 for what holds.
	maxBytes                          int
	retryMin, retryMax, look, timeout time.Duration
}

// Metadata is the copy of one lattice. Its methods may be called from any goroutine,
// also before and after Run.
type Metadata struct {
	o Options
	keeps
	log  *slog.Logger
	wake chan struct{} // holds one: there is something to send

	writing sync.Mutex // held while the copy changes, on disk and then in memory

	mu        sync.Mutex // guards what follows
	entries   map[string]entry
	bytes     int // of the values in entries
	conflicts map[string]Conflict
	pending   map[string]struct{} // keys of entries that the hub does not have
	leftOut   map[string]struct{} // keys of the bucket that do not read, or have no room
	status    Status

	lost prometheus.Counter
}

// Status is how the copy and the bucket stand.
type Status struct {
	Synced  bool   // the hub has all, and the copy has all that the hub has
	Pending int    // changes that the hub does not have
	Records int    // in the copy
	LeftOut int    // records of the bucket that do not read, or have no room here
	Err     string // why it is not synced, where that is known
}

// A Conflict is a change of a link that was made here and lost: somebody else changed
// the same link, and that reached the lattice first. It goes when the link is changed
// here the next time, or with Settle.
type Conflict struct {
	Link   lattice.Link // actor, contract and name of both
	Mine   *lattice.Link
	Theirs *lattice.Link // nil for deleted, like Mine
	Time   time.Time     // when it was found
}

// keeps says what is kept, and where.
type keeps struct {
	bucket, about string // of the hub
	space         string // of the copy
	is            func(key string) bool
	decode        func(key string, value []byte) (record, error)
}

// New reads the copy. It starts nothing.
func New(o Options) (*Metadata, error) {
	return newMetadata(o, keeps{
		bucket: "LATTICEDATA_" + o.Lattice, about: "links and claims of a lattice", space: "lattice/" + o.Lattice,
		is: func(key string) bool {
			return strings.HasPrefix(key, linkPrefix) || strings.HasPrefix(key, claimsPrefix)
		},
		decode: decode,
	})
}

func newMetadata(o Options, what keeps) (*Metadata, error) {
	switch {
	case o.Conn == nil || o.Store == nil:
		return nil, errors.New("metadata: Conn and Store must be there")
	case !wire.IsToken(o.Lattice):
		return nil, fmt.Errorf("metadata: lattice %q: a name has letters, digits, _ and - only", o.Lattice)
	}
	if o.Link == nil {
		o.Link = func() (bool, <-chan struct{}) { return true, nil }
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.maxBytes = cmp.Or(o.maxBytes, MaxBytes)
	o.retryMin = cmp.Or(o.retryMin, time.Second)
	o.retryMax = cmp.Or(o.retryMax, time.Minute)
	o.look = cmp.Or(o.look, time.Minute)
	o.timeout = cmp.Or(o.timeout, requestTimeout)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	m := &Metadata{
		o: o, keeps: what, log: o.Logger, wake: make(chan struct{}, 1),
		entries: make(map[string]entry), conflicts: make(map[string]Conflict), pending: make(map[string]struct{}), leftOut: make(map[string]struct{}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edged_lattice_conflicts_total",
			Help: "Changes of links that were lost to others'.",
		}),
	}
	if err := m.load(); err != nil {
		return nil, fmt.Errorf("metadata of lattice %s: %w", o.Lattice, err)
	}
	return m, m.register()
}

func (m *Metadata) register() error {
	if m.o.Registerer == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{
		m.lost,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "edged_lattice_metadata_pending",
			Help: "Links and claims that the hub does not have yet.",
		}, func() float64 { return float64(m.Status().Pending) }),
	} {
		if err := m.o.Registerer.Register(c); err != nil {
			return fmt.Errorf("metadata: %w", err)
		}
	}
	return nil
}

// PutLink puts a link, in place of one with the same actor, contract and name. It is on
// disk when PutLink returns.
func (m *Metadata) PutLink(l lattice.Link) error {
	r := newLink(l)
	if err := r.check(); err != nil {
		return err
	}
	return m.change(LinkKey(l), r, true)
}

// DeleteLink deletes the link with this actor, contract and name; one that is not
// there is no error.
func (m *Metadata) DeleteLink(l lattice.Link) error {
	return m.change(LinkKey(l), record{}, true)
}

// PutClaims makes the claims of an actor or provider known, unless those of a higher
// revision are. Who starts one does it each time.
func (m *Metadata) PutClaims(c Claims) error {
	r := newClaims(c)
	if err := r.check(); err != nil {
		return err
	}
	return m.change(claimsPrefix+c.Subject, r, false)
}

// Links returns the links of the lattice, ordered by actor, contract and name. Their
// values are not to be changed.
func (m *Metadata) Links() []lattice.Link {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []lattice.Link
	for _, e := range m.entries {
		if e.now.link != nil {
			all = append(all, *e.now.link)
		}
	}
	slices.SortFunc(all, func(a, b lattice.Link) int {
		return cmp.Or(cmp.Compare(a.Actor, b.Actor), cmp.Compare(a.Contract, b.Contract), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// Claims returns the claims that are known, ordered by subject. Their lists are not to
// be changed.
func (m *Metadata) Claims() []Claims {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Claims
	for _, e := range m.entries {
		if e.now.claims != nil {
			all = append(all, *e.now.claims)
		}
	}
	slices.SortFunc(all, func(a, b Claims) int { return cmp.Compare(a.Subject, b.Subject) })
	return all
}

// Conflicts returns the changes that were made here and lost, ordered like Links.
func (m *Metadata) Conflicts() []Conflict {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Conflict
	for _, c := range m.conflicts {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Link.Actor, b.Link.Actor), cmp.Compare(a.Link.Contract, b.Link.Contract), cmp.Compare(a.Link.Name, b.Link.Name))
	})
	return all
}

// Settle forgets the conflict about the link with the actor, contract and name of l: an
// operator has decided.
func (m *Metadata) Settle(l lattice.Link) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	m.mu.Lock()
	_, lost := m.conflicts[LinkKey(l)]
	m.mu.Unlock()
	if !lost {
		return nil
	}
	c := newChanges()
	c.conflicts[LinkKey(l)] = nil
	return m.write(c)
}

// Status says how the copy and the bucket stand.
func (m *Metadata) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.status
	st.Pending, st.LeftOut = len(m.pending), len(m.leftOut)
	for _, e := range m.entries {
		if !e.now.none() {
			st.Records++
		}
	}
	st.Synced = st.Synced && st.Pending == 0
	return st
}
