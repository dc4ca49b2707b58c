package broker

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

// Message is what a stream holds. Its bytes must not be changed once it was
// handed over.
type Message = store.Message

// Port is a way into the account APP for one part of the box. Parts that tell
// others what they hear need one of their own (NewPort): a port's taps do not
// hear what came in through the same port. Methods may be called from any
// goroutine, before, during and after Run.
type Port struct{ s *Server }

// NewPort returns another port.
func (s *Server) NewPort() *Port { return &Port{s: s} }

// Covers returns the stream that keeps messages of a subject, if there is one.
func (p *Port) Covers(subject string) (stream string, ok bool) {
	return p.s.routes.Load().stream(subject)
}

// Publish takes a message from outside the box. If a stream covers its subject
// it becomes a turn of its own: done is called after the fsync, in the order of
// commits, and then local subscribers get the message. Else it goes out on core
// NATS at once, done with an empty Ack. done must not block. Publish waits while too
// much is on its way to the disk. A message without an ID gets the one that
// its header or body implies, and one without a time to live or a delay what its
// headers Nats-TTL and Edged-Not-Before ask for.
//
// Errors are store.ErrFull (later can help), store.ErrTooLarge, store.ErrFailed,
// store.ErrClosed, and those of an invalid subject or header.
func (p *Port) Publish(m Message, done func(Ack, error)) {
	size := len(m.Header) + len(m.Data) + messageOverhead
	p.s.room.reserve(size)
	t := p.s.o.Store.Begin()
	receipt, err := p.stage(t, m)
	if err != nil || receipt == nil {
		t.Discard()
		p.s.room.release(size)
		if err == nil {
			p.fanOut(m)
		} else {
			p.s.metrics.published(Ack{}, err)
		}
		done(Ack{}, err)
		return
	}
	t.Submit(func(err error) {
		p.s.room.release(size)
		p.s.metrics.published(*receipt, err)
		if err != nil {
			done(Ack{}, err)
			return
		}
		done(*receipt, nil)
	})
}

// Stage puts a message into a turn: to its stream, and on core NATS after the
// commit. A repeat is not told to local subscribers again, nor is one that comes
// later (Message.NotBefore, or the header Edged-Not-Before). Errors are
// store.ErrTooLarge and those of an invalid subject or header; that a stream is
// full is found at the commit.
func (p *Port) Stage(t *store.Turn, m Message) error {
	receipt, err := p.stage(t, m)
	if err == nil && receipt == nil {
		if err := t.Keep(keptBytes(m)); err != nil {
			return fmt.Errorf("publish to %s: %w", m.Subject, err)
		}
		t.AfterCommit(func() { p.fanOut(m) })
	}
	return err
}

// keptBytes is about what it takes to keep a message until a commit.
func keptBytes(m Message) int64 { return int64(512 + len(m.Subject) + len(m.Header) + len(m.Data)) }

// stage is Stage, but leaves a message of no stream to the caller: no receipt
// and no error.
func (p *Port) stage(t *store.Turn, m Message) (*store.Receipt, error) {
	if err := p.check(m); err != nil {
		return nil, err
	}
	stream, ok := p.Covers(m.Subject)
	if !ok {
		return nil, nil
	}
	if err := identify(&m); err != nil {
		return nil, fmt.Errorf("publish to %s: %w", m.Subject, err)
	}
	receipt, err := t.Publish(stream, m)
	if err != nil {
		return nil, err
	}
	subject, header, data := m.Subject, m.Header, m.Data // not all of m: a turn may have thousands of them
	t.AfterCommit(func() {
		if !receipt.Duplicate && receipt.Due.IsZero() {
			p.fanOut(Message{Subject: subject, Header: header, Data: data})
		}
	})
	return receipt, nil
}

// check refuses what the embedded server would not take.
func (p *Port) check(m Message) error {
	if !topic.ValidSubject(m.Subject) || len(m.Subject) > MaxSubject {
		return fmt.Errorf("publish to %.200q: not a subject of at most %d bytes", m.Subject, MaxSubject)
	}
	if err := event.Header(m.Header).Check(); err != nil {
		return fmt.Errorf("publish to %s: %w", m.Subject, err)
	}
	if n := len(m.Header) + len(m.Data); n > p.s.o.MaxMessage {
		return fmt.Errorf("publish to %s: message of %d bytes, at most %d: %w", m.Subject, n, p.s.o.MaxMessage, store.ErrTooLarge)
	}
	return nil
}

// fanOut tells local subscribers. The connection does not hear itself, so the
// message is not taken in once more.
func (p *Port) fanOut(m Message) {
	p.s.local.publish(m.Subject, m.Header, m.Data)
	p.s.taps.tell(p, m)
}

// Core publishes a message on core NATS at once, best effort, whether or not a
// stream covers its subject; none keeps it. It does not block. Errors are
// store.ErrTooLarge and those of an invalid subject or header.
func (p *Port) Core(m Message) error {
	if err := p.check(m); err != nil {
		return err
	}
	p.fanOut(m)
	return nil
}

// Tap lets fn have every message published in APP on a filter from when Tap
// returns, be it kept by a stream or not, except those that came in through this
// port. What one publisher sends comes in its order; what clients publish and
// what the box itself does come from two goroutines, so fn may run twice at a
// time. fn must not block. The message has a subject, header and data, whose
// bytes fn may keep but not change.
func (p *Port) Tap(filter string, fn func(Message)) (stop func(), err error) {
	if !topic.ValidFilter(filter) {
		return nil, fmt.Errorf("tap %.200q: not a filter", filter)
	}
	tp := &tap{port: p, filter: filter, fn: fn}
	l := p.s.local.listen(filter, func(_ *wire, m wireMsg) {
		tp.tell(Message{Subject: m.subject, Header: m.header, Data: m.data})
	})
	p.s.taps.add(tp)
	p.s.local.flush()
	tp.open.Store(true)
	return func() {
		tp.open.Store(false)
		p.s.taps.remove(tp)
		p.s.local.forget(l)
	}, nil
}

type tap struct {
	port   *Port
	filter string
	fn     func(Message)
	open   atomic.Bool
}

func (t *tap) tell(m Message) {
	if t.open.Load() {
		t.fn(m)
	}
}

// taps are told directly of what the box itself publishes.
type taps struct {
	mu  sync.Mutex // guards all, which is replaced and not changed
	all []*tap
}

func (ts *taps) add(t *tap) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.all = append(slices.Clip(ts.all), t)
}

func (ts *taps) remove(t *tap) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.all = slices.DeleteFunc(slices.Clone(ts.all), func(o *tap) bool { return o == t })
}

func (ts *taps) tell(from *Port, m Message) {
	ts.mu.Lock()
	all := ts.all
	ts.mu.Unlock()
	for _, t := range all {
		if t.port != from && topic.Match(t.filter, m.Subject) {
			t.tell(m)
		}
	}
}
