package broker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/store"
)

// pumpOptions is what the pumps between the box and the hub need.
type pumpOptions struct {
	Store *store.DB
	// Conn returns a connection in the LINK account whose inboxes are under
	// hubInbox(Device).
	Conn   func() *nats.Conn
	Link   linkTeller
	Device string
	Groups []string
	Domain string // of the hub's JetStream
	// MaxRate bounds what goes up, in bytes per second over all lanes. 0 means no
	// bound.
	MaxRate int
	Place   placer
	Log     *slog.Logger
	// MachineID names the machine, "" if that is not known. Nil means MachineID.
	MachineID func() (string, error)
	// Failpoint, in tests, is called at "uplink-before-batch" (the hub was asked
	// how far it is, and a batch is about to go), "uplink-after-hub-ack" (the hub
	// has the batch, the box does not know it yet) and "downlink-before-ack" (the
	// box has a message, the hub does not know it yet).
	Failpoint func(name string)
	Now       func() time.Time
	Timing    pumpTiming
}

// pumpTiming are the times of the pumps. Zero values mean the defaults.
type pumpTiming struct {
	// Request is how long the hub may take to answer a question. 0 means 10 s.
	Request time.Duration
	// Least and Most bound the pause after a failed try. 0 means 250 ms and 30 s.
	Least, Most time.Duration
	// Settle is how long the acknowledgement of a batch may wait for company,
	// so that a trickle does not cost a sync for each message. 0 means 250 ms.
	Settle time.Duration
	// Pull is how long a request for messages waits at the hub. 0 means 2 min.
	Pull time.Duration
}

// placer puts a message that came from the hub into the streams of the box.
type placer interface {
	Covers(subject string) (stream string, ok bool)
	Stage(t *store.Turn, m Message) error
}

// linkTeller says whether the leaf connection is up. changed is closed at the
// next change.
type linkTeller interface {
	LinkState() (up bool, changed <-chan struct{})
}

func (o *pumpOptions) setDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MachineID == nil {
		o.MachineID = MachineID
	}
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	t := &o.Timing
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&t.Request, 10 * time.Second}, {&t.Least, 250 * time.Millisecond}, {&t.Most, 30 * time.Second}, {&t.Settle, 250 * time.Millisecond}, {&t.Pull, 2 * time.Minute}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
}

// hubInbox is the prefix of the inboxes that a box's connections to the hub use.
// With an inbox of its own for each box the hub can keep one from reading the
// answers meant for another.
func hubInbox(device string) string { return boxInboxes + device }

// boxInboxes begins the inboxes of boxes.
const boxInboxes = "_INBOX.edged."

// uplinkSubscription is the name of the position that the hub has in a stream. A
// message is kept until the hub has acknowledged it.
func uplinkSubscription(stream string) string { return "$uplink/" + stream }

// LaneStatus is how far an uplinked stream has come on the hub.
type LaneStatus struct {
	Stream  string
	Epoch   string
	Last    uint64 // the last sequence on the box
	Acked   uint64 // the hub has all up to here
	HubSeq  uint64 // the hub's own sequence of that message; 0 if not known
	Lag     uint64 // messages that the hub does not have
	Bytes   int64  // what those hold, about
	Rate    int64  // bytes per second that go up, over the last seconds
	Hub     HubHolds
	Synced  bool   // the hub was asked since the link came up
	Refused uint64 // messages that became tombstones since the start
	Lost    uint64 // messages that the hub acknowledged and lost, found since the start
	Err     string // why the lane does not go on now; "" if it does
}

// HubHolds is what the hub holds of a lane, as it acknowledged: what it lost since, or
// what its own limits took, it tells when it is asked.
type HubHolds struct {
	Last uint64    `json:"last"` // the sequence of the last message
	Msgs uint64    `json:"msgs"` // messages of this epoch, since the box counts them
	Time time.Time `json:"time"` // when the hub said so; zero if it was not asked since the start
}

// pumps are the way between the box and the hub: uplinked streams go up, each in
// a lane of its own, and what the hub has for the box comes down.
type pumps struct {
	o      pumpOptions
	epochs *epochs
	queue  *linkQueue

	mu     sync.Mutex // guards the fields below
	lanes  map[string]*uplinkLane
	inlets []*inlet

	scanning sync.Mutex // held while a lane looks into itself on the hub
}

// newPumps reads the epoch of the store, or begins one. It starts nothing.
func newPumps(ctx context.Context, o pumpOptions) (*pumps, error) {
	o.setDefaults()
	id, err := o.MachineID()
	if err != nil {
		o.Log.Warn("the machine cannot be told from others", "err", err)
	}
	e, err := openEpochs(ctx, o.Store, id, o.Log, o.Now)
	if err != nil {
		return nil, err
	}
	return &pumps{o: o, epochs: e, queue: newLinkQueue(o.MaxRate), lanes: make(map[string]*uplinkLane)}, nil
}

func (p *pumps) api() *hubAPI {
	return &hubAPI{nc: p.o.Conn(), prefix: apiPrefix(p.o.Domain), timeout: p.o.Timing.Request}
}

// ensureUplink lets the messages of a stream be kept, from now on, until the hub
// has them.
func ensureUplink(db *store.DB, stream string) error {
	return db.EnsureSubscription(store.SubscriptionConfig{Name: uplinkSubscription(stream), Stream: stream})
}

// up moves one uplinked stream to the hub until ctx ends. The stream must have
// its position, see ensureUplink.
func (p *pumps) up(ctx context.Context, stream string) {
	l := newLane(p, stream)
	p.mu.Lock()
	p.lanes[stream] = l
	p.mu.Unlock()
	l.run(ctx)
	p.mu.Lock()
	if p.lanes[stream] == l {
		delete(p.lanes, stream)
	}
	p.mu.Unlock()
}

// Lanes returns the state of each lane that is pumped, by stream.
func (p *pumps) Lanes() []LaneStatus {
	p.mu.Lock()
	all := make([]LaneStatus, 0, len(p.lanes))
	lanes := make([]*uplinkLane, 0, len(p.lanes))
	for _, l := range p.lanes {
		lanes = append(lanes, l)
	}
	p.mu.Unlock()
	for _, l := range lanes {
		all = append(all, l.status())
	}
	slices.SortFunc(all, func(a, b LaneStatus) int { return strings.Compare(a.Stream, b.Stream) })
	return all
}

// pauseUntilUp waits for the link. It returns a channel that is closed when that
// changes again, or nil when ctx has ended.
func (p *pumps) pauseUntilUp(ctx context.Context) (changed <-chan struct{}) {
	for ctx.Err() == nil {
		up, changed := p.o.Link.LinkState()
		if up {
			return changed
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// whileUp returns a context that ends with errLinkChanged when the link goes
// down. stop must be called.
func whileUp(ctx context.Context, changed <-chan struct{}) (up context.Context, stop func()) {
	up, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-changed:
			cancel(errLinkChanged)
		case <-up.Done():
		}
	})
	return up, func() {
		cancel(nil)
		wg.Wait()
	}
}

// storeEnded says whether err ends a pump: there is nothing to pump from or to.
func storeEnded(err error) bool {
	return errors.Is(err, store.ErrFailed) || errors.Is(err, store.ErrClosed)
}
