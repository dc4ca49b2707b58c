package natsbroker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

const (
	pullMessages = 256 // on their way here, and to the disk, at a time
	// pendingMessages and pendingBytes bound what waits for the disk of QoS 0; what comes then is dropped and counted.
	pendingMessages, pendingBytes = 4096, 16 << 20
	drainTimeout                  = 2 * time.Second
	// confirming is how many acknowledgements of QoS 2 wait for the server at a time.
	confirming = 64
)

// receive begins to take messages.
func (l *link) receive(ctx context.Context, work *sync.WaitGroup) error {
	switch {
	case len(l.c.o.Filters) == 0:
		return nil
	case l.c.o.QoS == 0:
		return l.subscribe()
	}
	cons, origin, err := l.consumer(ctx)
	if err != nil {
		return err
	}
	messages, err := cons.Messages(jetstream.PullMaxMessages(pullMessages))
	if err != nil {
		return fmt.Errorf("consumer %s: %w", l.c.o.durable(), err)
	}
	pending := make(chan *inbound, pullMessages)
	work.Go(func() { l.ackAll(context.WithoutCancel(ctx), pending) })
	staged := make(chan struct{})
	work.Go(func() {
		defer close(staged)
		defer close(pending)
		l.stageAll(messages, origin, pending)
	})
	work.Go(func() {
		<-ctx.Done()
		if l.nc.IsClosed() {
			messages.Stop()
			return
		}
		messages.Drain() // what is here already is stored, or given back
		select {
		case <-staged:
		case <-time.After(drainTimeout):
			messages.Stop()
		}
	})
	return nil
}

// subscribe takes what is published from now on, best effort.
func (l *link) subscribe() error {
	for _, filter := range l.c.o.Filters {
		sub, err := l.nc.QueueSubscribe(filter, l.c.o.Group, l.take)
		if err == nil {
			err = sub.SetPendingLimits(pendingMessages, pendingBytes)
		}
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", filter, err)
		}
	}
	return l.nc.FlushTimeout(linkTimeout)
}

// take stages a message of QoS 0.
func (l *link) take(m *nats.Msg) {
	if topic.Reserved(m.Subject) {
		return // to listen to everything does not mean the machinery
	}
	l.c.stats.received.Add(1)
	msg, err := l.message(m.Subject, m.Header, m.Data)
	l.submit(func(t *store.Turn) error {
		if err != nil {
			return err
		}
		return l.c.o.Stage(t, msg)
	}, func(err error) {
		if err == nil {
			l.useful.Store(true)
			return
		}
		l.c.stats.dropped.Add(1)
	})
}

// message returns a message as the box has it.
func (l *link) message(subject string, h nats.Header, data []byte) (store.Message, error) {
	header, err := headerOf(h)
	m := store.Message{Subject: subject, Header: header, Data: data}
	switch {
	case err != nil:
		return m, fmt.Errorf("message on %s: %w", subject, err)
	case len(header)+len(data) > l.c.o.MaxMessage:
		return m, fmt.Errorf("message on %s: %d bytes, at most %d: %w", subject, len(header)+len(data), l.c.o.MaxMessage, store.ErrTooLarge)
	case topic.Reserved(subject):
		return m, fmt.Errorf("message on %s: the subject is reserved: %w", subject, ErrRefused)
	}
	return m, nil
}

// submit stages in a turn and submits it. settle is told its fate once and must not block.
func (l *link) submit(stage func(*store.Turn) error, settle func(error)) {
	t := l.c.o.Store.Begin()
	if err := stage(t); err != nil {
		t.Discard()
		settle(err)
		return
	}
	t.Submit(settle)
}

// durable is the name of the consumer: that of the client, or one that all of the group make.
func (o *Options) durable() string {
	if o.Group == "" {
		return o.Name
	}
	sum := sha256.Sum256([]byte(strings.Join(o.Filters, " ")))
	return "edged-" + o.Group + "-" + hex.EncodeToString(sum[:6])
}

// consumer finds the stream that holds what is wanted, and makes the durable consumer there, or takes the one that is there. origin tells messages of this
// stream from those of another.
func (l *link) consumer(ctx context.Context) (cons jetstream.Consumer, origin string, err error) {
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	stream, err := l.streamOf(ctx)
	if err != nil {
		return nil, "", err
	}
	info := stream.CachedInfo()
	sum := sha256.Sum256([]byte(l.c.o.URL + " " + l.c.o.Domain + " " + info.Config.Name + " " + info.Created.UTC().Format(time.RFC3339Nano)))
	origin = "j:" + hex.EncodeToString(sum[:8]) + ":"
	cons, err = l.inOrder(ctx, stream, origin)
	if err != nil {
		return nil, "", fmt.Errorf("consumer %s of stream %s: %w", l.c.o.durable(), info.Config.Name, err)
	}
	return cons, origin, nil
}

// inOrder returns the consumer. What a durable consumer has handed out and nobody acknowledged comes again when AckWait is over, behind newer messages. So
// where this client is alone it makes the consumer anew, from the first of these on; what it has acknowledged beyond that is recognised. Not so where
// the stream keeps messages for its consumers only (interest, work queue): it would drop them. Where it begins is on disk before the old consumer goes, so that a
// crash in between loses nothing.
func (l *link) inOrder(ctx context.Context, stream jetstream.Stream, origin string) (jetstream.Consumer, error) {
	o := &l.c.o
	config := jetstream.ConsumerConfig{
		Durable: o.durable(), Description: "made by edged", FilterSubjects: o.Filters, AckPolicy: jetstream.AckExplicitPolicy,
		DeliverPolicy: jetstream.DeliverNewPolicy, AckWait: o.AckWait, MaxAckPending: 4 * pullMessages,
	}
	l.alone = o.Group == "" && stream.CachedInfo().Config.Retention == jetstream.LimitsPolicy
	if !l.alone {
		return stream.CreateOrUpdateConsumer(ctx, config)
	}
	from, err := l.resumeAt(origin)
	if err != nil {
		return nil, err
	}
	there, err := stream.Consumer(ctx, config.Durable)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
	case err != nil:
		return nil, err
	case there.CachedInfo().NumAckPending == 0 && from == 0:
		was := there.CachedInfo().Config
		config.DeliverPolicy, config.OptStartSeq = was.DeliverPolicy, was.OptStartSeq // these can not be changed
		return stream.UpdateConsumer(ctx, config)
	default:
		if from == 0 {
			from = there.CachedInfo().AckFloor.Stream + 1
			if err := l.saveResume(ctx, origin, from); err != nil {
				return nil, err
			}
		}
		if err := stream.DeleteConsumer(ctx, config.Durable); err != nil {
			return nil, err
		}
	}
	if from > 0 {
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from
	}
	cons, err := stream.CreateConsumer(ctx, config)
	if err == nil && from > 0 {
		err = l.saveResume(ctx, origin, 0)
	}
	return cons, err
}

// spaceResume has where consumers are to begin that are being made anew.
const spaceResume = "nats/in"

func (l *link) resumeKey(origin string) string { return origin + l.c.o.durable() }

func (l *link) resumeAt(origin string) (seq uint64, err error) {
	t := l.c.o.Store.Begin()
	defer t.Discard()
	value, ok, err := t.Get(spaceResume, l.resumeKey(origin))
	if err != nil || !ok {
		return 0, err
	}
	seq, _ = strconv.ParseUint(string(value), 10, 64)
	return seq, nil
}

func (l *link) saveResume(ctx context.Context, origin string, seq uint64) error {
	return l.c.o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error {
		if seq == 0 {
			return t.Delete(spaceResume, l.resumeKey(origin))
		}
		return t.Put(spaceResume, l.resumeKey(origin), strconv.AppendUint(nil, seq, 10))
	})
}

// streamOf returns the one stream there that holds subjects of the filters.
func (l *link) streamOf(ctx context.Context) (jetstream.Stream, error) {
	var names []string
	for _, filter := range l.c.o.Filters {
		lister := l.js.StreamNames(ctx, jetstream.WithStreamListSubject(filter))
		for name := range lister.Name() {
			if len(names) == 0 || names[0] != name {
				names = append(names, name)
			}
		}
		if err := lister.Err(); err != nil && !errors.Is(err, jetstream.ErrEndOfData) {
			if errors.Is(err, nats.ErrNoResponders) {
				err = jetstream.ErrJetStreamNotEnabled
			}
			return nil, fmt.Errorf("look for the stream of %s: %w", filter, err)
		}
	}
	wanted := strings.Join(l.c.o.Filters, " and ")
	switch len(names) {
	case 0:
		return nil, act("no stream there holds %s: create one, or use qos = 0", wanted)
	case 1:
		stream, err := l.js.Stream(ctx, names[0])
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", names[0], err)
		}
		return stream, nil
	}
	return nil, act("several streams there hold subjects of %s (%s): take a topic of one of them", wanted, strings.Join(names, ", "))
}

// inbound is one message of QoS 1 or 2.
type inbound struct {
	msg  jetstream.Msg
	m    store.Message
	fate chan error // one value
}

// stageAll submits a turn for each message, in order. Once one could not be stored none is.
func (l *link) stageAll(messages jetstream.MessagesContext, origin string, pending chan<- *inbound) {
	var last *store.Turn
	for {
		msg, err := messages.Next()
		if err != nil {
			if !errors.Is(err, jetstream.ErrMsgIteratorClosed) {
				l.fail(fmt.Errorf("consumer %s: %w", l.c.o.durable(), err))
			}
			return
		}
		l.c.stats.received.Add(1)
		in := &inbound{msg: msg, fate: make(chan error, 1)}
		pending <- in // before its fate can be known, so that acknowledgements keep the order; ackAll takes it
		in.m, err = l.message(msg.Subject(), msg.Headers(), msg.Data())
		meta, notMeta := msg.Metadata()
		if err == nil && notMeta != nil {
			err = fmt.Errorf("%w: %w", ErrRefused, notMeta)
		}
		if err != nil {
			in.fate <- err
			continue
		}
		if in.m.ID = event.Identity(in.m.Header, in.m.Data); in.m.ID == "" {
			in.m.ID = origin + strconv.FormatUint(meta.Sequence.Stream, 10)
		}
		if t := l.stage(in, last); t != nil {
			last = t
		}
	}
}

// stage submits the turn of a message behind that of the one before. It returns nil if the message can never be stored, and holds nobody back.
func (l *link) stage(in *inbound, last *store.Turn) *store.Turn {
	var staged *store.Turn
	l.submit(func(t *store.Turn) error {
		staged = t
		if last != nil {
			if err := t.Follow(last); err != nil {
				return err
			}
		}
		err := l.c.o.Stage(t, in.m)
		if _, refused := never(err); refused {
			staged = nil
		}
		return err
	}, func(err error) { in.fate <- err })
	return staged
}

// ackAll acknowledges what is on disk, in order. After the first that can not be stored now, all are given back, and the link ends.
func (l *link) ackAll(ctx context.Context, pending <-chan *inbound) {
	var failed error
	slots := make(chan struct{}, confirming)
	var acks sync.WaitGroup
	defer acks.Wait()
	for in := range pending {
		err := <-in.fate
		if reason, ok := never(err); ok && failed == nil {
			l.c.stats.deadLetters.Add(1)
			err = l.c.o.DeadLetter(ctx, in.m, reason, err)
		}
		if err != nil || failed != nil {
			if failed == nil {
				failed = fmt.Errorf("message on %s: %w", in.msg.Subject(), err)
				l.fail(failed)
			}
			if !l.alone {
				_ = in.msg.Nak() // somebody else of the group may be able to
			}
			continue
		}
		l.c.o.Failpoint(FailpointReceived)
		l.useful.Store(true)
		if l.c.o.QoS == 1 {
			if err := in.msg.Ack(); err != nil {
				l.fail(fmt.Errorf("acknowledge: %w", err))
			}
			continue
		}
		slots <- struct{}{}
		acks.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, linkTimeout)
			defer cancel()
			if err := in.msg.DoubleAck(ctx); err != nil {
				l.fail(fmt.Errorf("acknowledge: %w", err))
			}
		})
	}
}

// Leave removes the durable consumer of a client with these options, which must not run, unless a group shares it. When the server can not be reached the
// error says so, and nothing is removed.
func Leave(ctx context.Context, o Options) error {
	if o.QoS == 0 || len(o.Filters) == 0 || o.Group != "" {
		return nil
	}
	c, err := New(o)
	if err != nil {
		return err
	}
	l := &link{c: c, lost: make(chan error, 1)}
	if err := l.connect(); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	defer l.nc.Close()
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	stream, err := l.streamOf(ctx)
	if err == nil {
		err = stream.DeleteConsumer(ctx, o.durable())
	}
	if err != nil && !isCondition(err) && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}
