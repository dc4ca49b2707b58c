package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/store"
)

const (
	// pullMessages is how many messages are asked for at a time at most, and so
	// how many may be on their way without being acknowledged.
	pullMessages = 64
	// firstPull is how many are asked for before anything is known of the link.
	// What a narrow link cannot carry between two pings brings it down.
	firstPull = 8
	// downAckWait is how long the hub waits for an acknowledgement before it
	// sends a message again.
	downAckWait = time.Minute
)

// inlet takes what the hub has for the box under one filter, by a durable
// consumer of its own: a box has one for itself, one for each of its groups, and
// one for what goes to all. With a filter each the hub can allow a box its own
// and no other. Its goroutine owns all but what mu guards.
type inlet struct {
	p        *pumps
	db       *store.DB
	log      *slog.Logger
	consumer string
	address  string // "edge.down.device.press-7."

	js      jetstream.JetStream
	mark    watermark
	former  []watermark // of other hubs, the last one first
	ask     int         // messages to ask for
	next    uint64      // the consumer's number of the next delivery
	started bool        // the mark was seen again after the consumer was made
	pace    pace
	trouble condition

	mu    sync.Mutex // guards shown
	shown InletStatus
}

// watermark is the last message of the hub that the box has. It is committed
// together with that message.
type watermark struct {
	Created time.Time `json:"created"` // of the hub's stream: which hub it is
	Seq     uint64    `json:"seq"`     // the hub's sequence; 0 if only the time tells
	Time    time.Time `json:"time"`    // when the hub stored that message; zero if not known
}

// inletRecord is what the store remembers of an inlet.
type inletRecord struct {
	watermark
	Former []watermark `json:"former,omitempty"`
}

// maxFormerHubs bounds how many hubs are remembered.
const maxFormerHubs = 8

// has says whether a message is one that the box has. A hub that lost its last
// messages gives their sequences to later ones, so the time must fit too.
func (w watermark) has(seq uint64, at time.Time) bool {
	switch {
	case w.Time.IsZero():
		return seq <= w.Seq
	case w.Seq == 0:
		return !at.After(w.Time)
	}
	return seq <= w.Seq && !at.After(w.Time)
}

// InletStatus is how far what the hub has for the box has come down.
type InletStatus struct {
	Consumer string
	Seq      uint64 // the hub's sequence of the last message the box has
	Received uint64 // messages put into streams since the start
	Rejected uint64 // messages that became dead letters since the start
	Repeats  uint64 // messages that another hub had sent before, since the start
	Err      string // why it does not go on now; "" if it does
}

// errOutOfStep: a delivery got lost, or came again, so that the order has to be
// made anew.
var errOutOfStep = errors.New("a delivery of the hub is missing or came again")

// downConsumer names the consumer of an address. "=" is in no device id.
func downConsumer(device, of string) string { return "edged-" + device + of }

// downAddresses returns the consumers of a box and what each is for.
func downAddresses(device string, groups []string) []downAddress {
	all := []downAddress{{downConsumer(device, ""), subjectDown + "device." + device + "."}}
	for _, g := range groups {
		all = append(all, downAddress{downConsumer(device, "=group="+g), subjectDown + "group." + g + "."})
	}
	return append(all, downAddress{downConsumer(device, "=all"), subjectDown + "all."})
}

type downAddress struct{ consumer, address string }

// down takes what the hub has for the box until ctx ends.
func (p *pumps) down(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, a := range downAddresses(p.o.Device, p.o.Groups) {
		in := newInlet(p, a)
		p.mu.Lock()
		p.inlets = append(p.inlets, in)
		p.mu.Unlock()
		wg.Go(func() { in.run(ctx) })
	}
}

// Inlets returns the state of each address of the box.
func (p *pumps) Inlets() []InletStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []InletStatus
	for _, in := range p.inlets {
		in.mu.Lock()
		all = append(all, in.shown)
		in.mu.Unlock()
	}
	return all
}

func newInlet(p *pumps, a downAddress) *inlet {
	log := p.o.Log.With("consumer", a.consumer)
	return &inlet{
		p: p, db: p.o.Store, log: log, consumer: a.consumer, address: a.address, ask: firstPull,
		pace:    pace{least: p.o.Timing.Least, most: p.o.Timing.Most},
		trouble: condition{log: log, now: p.o.Now},
		shown:   InletStatus{Consumer: a.consumer},
	}
}

func (in *inlet) key() string { return "down/" + in.consumer }

func (in *inlet) run(ctx context.Context) {
	t := in.db.Begin()
	var rec inletRecord
	_, err := getRecord(t, in.key(), &rec)
	t.Discard()
	in.mark, in.former = rec.watermark, rec.Former
	if err != nil {
		in.log.Error("downlink cannot read its watermark", "err", err)
		return
	}
	for ctx.Err() == nil {
		changed := in.p.pauseUntilUp(ctx)
		if changed == nil {
			return
		}
		err := in.takeWhileUp(ctx, changed)
		if storeEnded(err) {
			return // the server ends for it
		}
		sleep(ctx, in.pace.next(), nil)
	}
}

// takeWhileUp takes messages until the link changes.
func (in *inlet) takeWhileUp(ctx context.Context, changed <-chan struct{}) error {
	up, stop := whileUp(ctx, changed)
	defer stop()
	api := in.p.api()
	js, err := jetstream.NewWithAPIPrefix(api.nc, strings.TrimSuffix(api.prefix, "."))
	if err != nil {
		return err
	}
	in.js = js
	for up.Err() == nil {
		err := in.take(up, api)
		if up.Err() != nil {
			break
		}
		in.noteTrouble(err)
		if storeEnded(err) {
			return err
		}
		sleep(up, in.pace.next(), nil)
	}
	return context.Cause(up)
}

func (in *inlet) noteTrouble(err error) {
	text := ""
	if err != nil {
		text = err.Error()
		in.trouble.begin("downlink waits", err)
	} else {
		in.trouble.end("downlink goes on")
		in.pace.reset()
	}
	in.mu.Lock()
	in.shown.Err, in.shown.Seq = text, in.mark.Seq
	in.mu.Unlock()
}

// take makes sure of the consumer and takes messages until something fails.
func (in *inlet) take(ctx context.Context, api *hubAPI) error {
	hub, err := api.stream(ctx, streamDown)
	if err != nil {
		return err
	}
	cons, err := in.attach(ctx, hub)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		in.noteTrouble(nil)
		if err := in.pull(ctx, cons); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// pull asks for messages once, and places what comes.
func (in *inlet) pull(ctx context.Context, cons jetstream.Consumer) error {
	asked, cancel := context.WithTimeout(ctx, in.p.o.Timing.Pull)
	defer cancel()
	batch, err := cons.Fetch(in.ask, jetstream.FetchContext(asked), jetstream.FetchHeartbeat(in.p.o.Timing.Pull/4))
	if err != nil {
		return fmt.Errorf("ask for messages: %w", err)
	}
	messages, n := batch.Messages(), 0
	for m := range messages {
		some := gather(m, messages)
		if err := in.accept(ctx, some); err != nil {
			return err
		}
		n += len(some)
	}
	if err := batch.Error(); err != nil && asked.Err() == nil {
		return fmt.Errorf("ask for messages: %w", err)
	}
	switch {
	case ctx.Err() != nil:
		in.ask = max(1, in.ask/2)
	case n == in.ask:
		in.ask = min(pullMessages, in.ask*2)
	}
	return nil
}

// gather returns first and what is there beside it.
func gather(first jetstream.Msg, messages <-chan jetstream.Msg) []jetstream.Msg {
	all := []jetstream.Msg{first}
	for len(all) < pullMessages {
		select {
		case m, ok := <-messages:
			if !ok {
				return all
			}
			all = append(all, m)
		default:
			return all
		}
	}
	return all
}
