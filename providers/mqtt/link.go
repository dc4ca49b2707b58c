package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/edged-io/edged/store"
)

// link is one connection of a Client. Messages go through three goroutines: paho's handler hands over, stageAll submits turns, ackAll acknowledges
// in order what is on disk. Each hand-over has a bound and waits at it, back to the socket.
type link struct {
	c       *Client
	paho    paho.Client
	repeats *repeats
	useful  atomic.Bool   // something was achieved: the next attempt need not wait long
	ended   chan struct{} // closed when no more is to be taken
	lost    chan error    // the first reason to end
	abort   func() bool   // stops ctx from closing the connection, once it is established

	truncation string // marks a payload that was cut
	incoming   chan *inbound
	pending    chan *inbound
	trail      trail // of messages that the broker keeps; stageAll's own
}

// inbound is one message from the broker.
type inbound struct {
	m      paho.Message
	msg    store.Message
	repeat bool
	fate   chan error // one value
}

// Limits of a link.
const (
	linkTimeout   = 20 * time.Second // to connect, to subscribe, to write
	settleTimeout = 2 * time.Second  // for the broker to take the last acknowledgements
	quiesceMillis = 250
)

func newLink(c *Client) *link {
	l := &link{
		c: c, ended: make(chan struct{}), lost: make(chan error, 1), truncation: randomClientID(),
		incoming: make(chan *inbound, c.o.Window), pending: make(chan *inbound, c.o.Window),
	}
	return l
}

// serve connects, calls up, and returns when the connection is lost or ctx has ended, with the reason.
func (l *link) serve(ctx context.Context, up func()) error {
	l.paho = paho.NewClient(l.options(ctx))
	connected := l.paho.Connect().(*paho.ConnectToken)
	<-connected.Done() // it has a timeout, and ends with ctx
	if l.abort != nil {
		l.abort()
	}
	if err := connected.Error(); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	present := connected.SessionPresent()
	var work sync.WaitGroup
	err := l.resume(ctx, present, func() {
		work.Go(func() { l.stageAll(context.WithoutCancel(ctx)) })
		work.Go(func() { l.ackAll(context.WithoutCancel(ctx)) })
	})
	if err == nil {
		up()
		began := time.Now()
		select {
		case err = <-l.lost:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		l.useful.CompareAndSwap(false, time.Since(began) > l.c.o.MaxBackoff)
	}
	close(l.ended)
	l.settle(&work)
	return err
}

// settle lets what is on its way to the disk be acknowledged, if the broker takes it in time, and disconnects.
func (l *link) settle(work *sync.WaitGroup) {
	quiet := make(chan struct{})
	go func() { work.Wait(); close(quiet) }() // waited for below
	select {
	case <-quiet:
	case <-time.After(settleTimeout):
	}
	l.paho.Disconnect(quiesceMillis)
	<-quiet
}

func (l *link) options(ctx context.Context) *paho.ClientOptions {
	c := l.c
	o := paho.NewClientOptions().AddBroker(c.url.String()).SetClientID(c.o.ClientID)
	o.SetUsername(c.o.Username).SetPassword(c.o.Password)
	o.SetCleanSession(false).SetOrderMatters(true).SetAutoAckDisabled(true)
	o.SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false) // Run does these, with a new paho client each time
	o.SetStore(paho.NewMemoryStore())                                     // what must survive is in our store
	o.SetProtocolVersion(4)
	o.SetKeepAlive(c.o.KeepAlive).SetPingTimeout(c.o.KeepAlive).SetConnectTimeout(linkTimeout).SetWriteTimeout(linkTimeout)
	o.SetCustomOpenConnectionFn(l.dial(ctx))
	o.SetDefaultPublishHandler(l.take)
	o.SetConnectionLostHandler(func(_ paho.Client, err error) { l.fail(fmt.Errorf("connection lost: %w", err)) })
	return o
}

func (l *link) fail(err error) {
	select {
	case l.lost <- err:
	default:
	}
}

// take is paho's handler. It only hands over, and waits when too much is under way.
func (l *link) take(_ paho.Client, m paho.Message) {
	select {
	case l.incoming <- &inbound{m: m, fate: make(chan error, 1)}:
		l.c.stats.received.Add(1)
	case <-l.ended:
	}
}

// stageAll submits a turn for each message, in order.
func (l *link) stageAll(ctx context.Context) {
	defer close(l.pending)
	for {
		select {
		case <-l.ended:
			return
		case in := <-l.incoming:
			select {
			case l.pending <- in: // before its fate can be known, so that acknowledgements keep the order
			case <-l.ended:
				return
			}
			l.stage(ctx, in)
		}
	}
}

func (l *link) stage(ctx context.Context, in *inbound) {
	payload, whole := l.untruncate(in.m.Payload())
	subject, err := subjectOf(in.m.Topic())
	in.msg = store.Message{Subject: subject, Data: payload}
	if err == nil && (!whole || len(payload) > l.c.o.MaxMessage) {
		err = fmt.Errorf("message on topic %s: over %d bytes: %w", in.m.Topic(), l.c.o.MaxMessage, store.ErrTooLarge)
	}
	if err != nil {
		in.fate <- err
		return
	}
	submit(ctx, l.c.o.Store, func(t *store.Turn) (err error) {
		in.repeat = false
		if in.m.Qos() > 0 {
			if err := l.trail.follow(t); err != nil {
				return err
			}
			in.repeat, err = l.repeats.note(t, in.m.MessageID(), in.m.Duplicate(), in.m.Topic(), payload)
			if in.repeat || err != nil {
				return err
			}
		}
		err = l.c.o.Stage(t, in.msg)
		if _, ok := never(err); ok {
			l.trail.skip()
		}
		return err
	}, func(err error) { in.fate <- err })
	l.trail.step()
}

// ackAll acknowledges in the order in which the messages came. After the first that can not be, none is.
func (l *link) ackAll(ctx context.Context) {
	var failed error
	for in := range l.pending {
		err := <-in.fate
		if failed != nil {
			continue
		}
		if err != nil {
			if err = l.refused(ctx, in, err); err != nil {
				failed = fmt.Errorf("message on topic %s: %w", in.m.Topic(), err)
				l.c.failed.begin(l.c.log, "messages of the MQTT broker can not be stored", "err", err)
				l.fail(failed)
				continue
			}
		} else {
			l.c.failed.end(l.c.log, "messages of the MQTT broker are stored again", time.Now())
		}
		if in.repeat {
			l.c.stats.repeats.Add(1)
		}
		l.useful.Store(true)
		in.m.Ack()
	}
}

// refused makes a dead letter of what can never be stored. The error is that of a message which the broker must keep.
func (l *link) refused(ctx context.Context, in *inbound, cause error) error {
	reason, ok := never(cause)
	if !ok {
		if in.m.Qos() == 0 { // the broker does not keep it anyway
			l.c.stats.dropped.Add(1)
			return nil
		}
		return cause
	}
	l.c.stats.deadLetters.Add(1)
	if l.c.o.DeadLetter == nil {
		l.c.log.Warn("message of the MQTT broker refused", "topic", in.m.Topic(), "err", cause)
		return nil
	}
	return l.c.o.DeadLetter(ctx, in.msg, reason, cause)
}

// clientRecord is the session with the broker on disk: what tells its repeats from those of an earlier one, and what it is subscribed to.
type clientRecord struct {
	Version int      `json:"v"`
	Epoch   []byte   `json:"epoch"`
	Filters []string `json:"filters,omitempty"`
}

func (l *link) recordKey() string { return "c\x00" + clientKey(l.c.o.URL, l.c.o.ClientID) }

// resume brings our memory of the session in line with the broker's, begins to take messages, and subscribes to what the session lacks. A broker that has
// kept the session with the same filters is not asked again: it would send its retained messages anew each time.
func (l *link) resume(ctx context.Context, present bool, begin func()) error {
	if len(l.c.o.Filters) == 0 {
		begin()
		return nil
	}
	record, err := l.loadRecord()
	if err != nil {
		return err
	}
	if !present || record == nil {
		record = &clientRecord{Version: sessionVersion}
		e := newEpoch()
		record.Epoch = e[:]
		if err := clientRepeats(l.c.o.URL, l.c.o.ClientID, e).forget(ctx, l.c.o.Store); err != nil {
			return fmt.Errorf("begin a session: %w", err)
		}
		if err := l.saveRecord(ctx, record); err != nil {
			return err
		}
	}
	l.repeats = clientRepeats(l.c.o.URL, l.c.o.ClientID, epoch(record.Epoch))
	begin()
	var wanted []string
	for _, f := range l.c.o.Filters {
		wanted = append(wanted, fmt.Sprintf("%d%s", f.QoS, f.Topic))
	}
	slices.Sort(wanted)
	if slices.Equal(wanted, record.Filters) {
		return nil
	}
	complete, err := l.subscribe(ctx, record.Filters)
	if err != nil || !complete {
		return err
	}
	record.Filters = wanted
	return l.saveRecord(ctx, record)
}

// subscribe asks for all filters and takes back those of old that are not wanted any more. complete is false if the broker refused one.
func (l *link) subscribe(ctx context.Context, old []string) (complete bool, err error) {
	wanted := make(map[string]byte)
	for _, f := range l.c.o.Filters {
		wanted[f.Topic] = max(f.QoS, wanted[f.Topic])
	}
	for _, o := range old {
		if _, keep := wanted[o[1:]]; keep {
			continue
		}
		if err := l.wait(ctx, l.paho.Unsubscribe(o[1:])); err != nil {
			return false, fmt.Errorf("unsubscribe from %s: %w", o[1:], err)
		}
	}
	token := l.paho.SubscribeMultiple(wanted, nil).(*paho.SubscribeToken)
	if err := l.wait(ctx, token); err != nil {
		return false, fmt.Errorf("subscribe: %w", err)
	}
	complete = true
	for filter, code := range token.Result() {
		if code > 2 {
			l.c.log.Error("subscription refused by the MQTT broker", "filter", filter)
			complete = false
		}
	}
	return complete, nil
}

func (l *link) wait(ctx context.Context, t paho.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case err := <-l.lost:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(linkTimeout):
		return errors.New("no answer in time")
	}
}

// loadRecord returns nil if there is no record that makes sense.
func (l *link) loadRecord() (*clientRecord, error) {
	t := l.c.o.Store.Begin()
	defer t.Discard()
	value, ok, err := t.Get(spaceSessions, l.recordKey())
	if err != nil || !ok {
		return nil, err
	}
	return decodeClientRecord(value), nil
}

func decodeClientRecord(value []byte) *clientRecord {
	var r clientRecord
	if json.Unmarshal(value, &r) != nil || r.Version != sessionVersion || len(r.Epoch) != len(epoch{}) {
		return nil
	}
	for _, f := range r.Filters {
		if f == "" || strings.Trim(f[:1], "01") != "" {
			return nil
		}
	}
	return &r
}

func (l *link) saveRecord(ctx context.Context, r *clientRecord) error {
	value, err := json.Marshal(r)
	if err == nil {
		err = l.c.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error { return t.Put(spaceSessions, l.recordKey(), value) })
	}
	if err != nil {
		return fmt.Errorf("save the session with the MQTT broker: %w", err)
	}
	return nil
}
