package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers/keyvalue"
	"github.com/edged-io/edged/runtime"
	"github.com/edged-io/edged/store"
)

// limit is one of those that an actor is held to. docs/limits.md has a row for
// each.
type limit int

const (
	limitMemory limit = iota
	limitTime
	limitSteps
	limitCalls
	limitInstances
	limitLogRate
	limitPublishRate
	limitState
	limitTurn
	limitDepth
	limitRestarts
	numLimits
)

var limitNames = [numLimits]string{"memory", "time", "steps", "calls", "instances", "log_rate", "publish_rate", "state", "turn", "depth", "restarts"}

func (l limit) String() string { return limitNames[l] }

// meter holds an actor to the limits that are kept outside of its sandbox, and
// counts how often it met any. There is one for each key; it outlives the
// versions of the actor, so that its counters only grow.
type meter struct {
	calls    atomic.Int64 // in flight, those that wait included
	maxCalls atomic.Int64
	messages bucket
	owes     atomic.Bool // messages has been charged
	log      *actorLog
	met      [numLimits]atomic.Uint64 // but those that the sandbox counts

	mu   sync.Mutex       // guards all below
	live []*runtime.Actor // versions that are there; more than one while they change
	past runtime.Stats    // of those that are gone
}

// meters are those of all actors that were ever here.
type meters struct {
	mu  sync.Mutex // guards all
	all map[string]*meter
}

// meterNamed is meterOf, for an actor that is called title from now on in what it logs: the
// key of a signed one says nothing to people.
func (n *Node) meterNamed(key, title string) *meter {
	m := n.meterOf(key)
	m.log.log.Store(n.actorLogger(title))
	return m
}

func (n *Node) actorLogger(name string) *slog.Logger { return n.part("actor").With("actor", name) }

// meterOf returns the meter of the actor with that key.
func (n *Node) meterOf(key string) *meter {
	ms := &n.meters
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m := ms.all[key]
	if m == nil {
		m = &meter{}
		m.log = &actorLog{met: func(lines uint64) { m.met[limitLogRate].Add(lines) }}
		m.log.log.Store(n.actorLogger(key))
		m.set(config.DefaultLimits())
		if ms.all == nil {
			ms.all = make(map[string]*meter)
		}
		ms.all[key] = m
	}
	return m
}

// set gives the actor other limits.
func (m *meter) set(l config.ActorLimits) {
	m.maxCalls.Store(int64(l.Calls))
	m.messages.set(float64(l.PublishRate), float64(l.PublishRate))
	m.log.rate(l.LogRate)
}

// errBusy is a call that did not begin because of what its actor, or all of them,
// do just now. For a message it is store.ErrFull: it comes again, and that is no
// attempt.
var errBusy error = busyError{}

type busyError struct{}

func (busyError) Error() string { return "busy" }
func (busyError) Unwrap() error { return store.ErrFull }

// admit lets a call begin, once the actor owes no messages; done has to be
// called when it has ended. Who waits holds nothing: a turn that others wait for
// goes on at once, and leaves the debt to who comes next.
//
// Its errors are errBusy.
func (m *meter) admit(ctx context.Context) error {
	if m.calls.Add(1) > m.maxCalls.Load() {
		m.calls.Add(-1)
		m.met[limitCalls].Add(1)
		return fmt.Errorf("the actor has %d calls in flight, which is its limit: %w", m.maxCalls.Load(), errBusy)
	}
	if !m.owes.Load() {
		return nil
	}
	if t := store.TurnFrom(ctx); t != nil && t.Exclusive() {
		return nil
	}
	for waited := false; ; waited = true {
		d := m.messages.debt(time.Now())
		if d == 0 {
			return nil
		}
		if !waited {
			m.met[limitPublishRate].Add(1)
		}
		pause := time.NewTimer(d)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			m.done()
			return fmt.Errorf("the actor has published more than its publish_rate, and would wait for %s more: %w", d.Round(time.Millisecond), errBusy)
		}
	}
}

// done ends a call that was admitted.
func (m *meter) done() { m.calls.Add(-1) }

// published charges the actor for a message.
func (m *meter) published() {
	m.messages.charge(time.Now(), 1)
	m.owes.Store(true)
}

// begin counts what a version of the actor does.
func (m *meter) begin(a *runtime.Actor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live = append(m.live, a)
}

// end takes over the counters of a version that has ended.
func (m *meter) end(a *runtime.Actor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live = slices.DeleteFunc(m.live, func(b *runtime.Actor) bool { return a == b })
	m.past = addStats(m.past, a.Stats())
	m.past.Idle, m.past.Busy, m.past.MemoryBytes = 0, 0, 0
}

// stats are the counters of all versions of the actor, and how often each limit
// was met.
func (m *meter) stats() (s runtime.Stats, met [numLimits]uint64) {
	m.mu.Lock()
	s = m.past
	for _, a := range m.live {
		s = addStats(s, a.Stats())
	}
	m.mu.Unlock()
	for i := range met {
		met[i] = m.met[i].Load()
	}
	met[limitMemory], met[limitTime], met[limitSteps], met[limitInstances], met[limitRestarts] = s.MemoryLimit, s.Timeouts, s.StepLimit, s.Waited, s.Restarts
	return s, met
}

func addStats(a, b runtime.Stats) runtime.Stats {
	b.Calls += a.Calls
	b.GuestErrors += a.GuestErrors
	b.Traps += a.Traps
	b.Timeouts += a.Timeouts
	b.StepLimit += a.StepLimit
	b.MemoryLimit += a.MemoryLimit
	b.Cancelled += a.Cancelled
	b.Waited += a.Waited
	b.Restarts += a.Restarts
	b.Refused += a.Refused
	b.Started += a.Started
	b.Discarded += a.Discarded
	b.Recycled += a.Recycled
	b.Steps += a.Steps
	b.Idle += a.Idle
	b.Busy += a.Busy
	b.MemoryBytes += a.MemoryBytes
	return b
}

// succeeded is how many calls ended well.
func succeeded(s runtime.Stats) uint64 {
	return s.Calls - min(s.Calls, s.GuestErrors+s.Traps+s.Timeouts+s.StepLimit+s.Cancelled)
}

// sum is meter.stats of all actors together.
func (ms *meters) sum() (s runtime.Stats, met [numLimits]uint64) {
	ms.mu.Lock()
	all := slices.Collect(maps.Values(ms.all))
	ms.mu.Unlock()
	for _, m := range all {
		one, hit := m.stats()
		s = addStats(s, one)
		for i := range met {
			met[i] += hit[i]
		}
	}
	return s, met
}

// hostCall is what actors ask of the box: the bus answers, and what the limits of
// the actor want to know of it is noted.
func (n *Node) hostCall(ctx context.Context, actor, binding, namespace, operation string, payload []byte) ([]byte, error) {
	reply, err := n.bus.HostCall(ctx, actor, binding, namespace, operation, payload)
	if err == nil {
		if publishes(namespace, operation) {
			n.meterOf(actor).published()
		}
		return reply, nil
	}
	switch {
	case errors.Is(err, lattice.ErrTooDeep):
		n.meterOf(actor).met[limitDepth].Add(1)
	case errors.Is(err, keyvalue.ErrState):
		n.meterOf(actor).met[limitState].Add(1)
	case errors.Is(err, store.ErrBound):
		n.meterOf(actor).met[limitTurn].Add(1)
		rest(ctx, refusal)
	}
	return nil, err
}

// refusal is how long an actor waits for the answer that its turn is full. Asking
// again makes no room, and is all that some would do until their time is over.
const refusal = time.Millisecond

// rest waits for d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// publishes says whether an operation counts against the publish rate.
func publishes(contract, operation string) bool {
	switch operation {
	case "PubSub.Publish":
		return contract == config.ContractPubSub
	case "Messaging.Publish", "Messaging.Request":
		return contract == config.ContractMessaging
	}
	return false
}
