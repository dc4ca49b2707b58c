package broker

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edged-io/edged/internal/event"
	"github.com/edged-io/edged/internal/topic"
	"github.com/edged-io/edged/store"
)

const (
	// maxOnTheWay bounds the bytes of messages from outside on their way to the
	// disk, counting messageOverhead for each.
	maxOnTheWay     = 16 << 20
	messageOverhead = 512
	// busyWait is how long the reader of APP waits for room before it answers
	// "too many requests". Meanwhile the embedded server buffers; a longer
	// wait would make it cut the connection, and all that is in it be lost.
	busyWait = 250 * time.Millisecond
)

// ErrBusy refuses a message because too much is on its way to the disk. Trying
// later helps.
var ErrBusy = errors.New("too much is on its way to the disk")

// ingest takes what clients publish on the subjects of a stream: one turn for
// each, answered after the fsync if it has a reply subject.
type ingest struct {
	s      *Server
	stream string
	full   noRoom
}

func (in *ingest) message(w *wire, m wireMsg) {
	size := len(m.header) + len(m.data) + messageOverhead
	receipt, t, err := in.stage(m, size)
	if err != nil {
		in.answer(w, m, Ack{}, err)
		return
	}
	t.Submit(func(err error) {
		in.s.room.release(size)
		in.answer(w, m, *receipt, err)
	})
}

// stage checks a message and makes its turn, with room reserved for it.
func (in *ingest) stage(m wireMsg, size int) (*store.Receipt, *store.Turn, error) {
	// The embedded server lets headers through as they come. Half of one would be
	// half of one for each receiver, in front of lines that the box adds.
	if err := event.Header(m.header).Check(); err != nil {
		return nil, nil, refuse(server.JSBadRequestErr, err.Error())
	}
	if err := checkHeader(event.Header(m.header), in.stream); err != nil {
		return nil, nil, err
	}
	// The embedded server lets a client publish to a filter; on the way to MQTT
	// clients, actors and the hub it would be taken for one.
	if !topic.ValidSubject(m.subject) {
		return nil, nil, refuse(server.JSBadRequestErr, "a subject with wildcards can not be published to")
	}
	stored := store.Message{Subject: m.subject, Header: m.header, Data: m.data}
	if err := identify(&stored); err != nil {
		return nil, nil, err
	}
	if !in.s.room.reserveSoon(size) {
		return nil, nil, ErrBusy
	}
	t := in.s.o.Store.Begin()
	receipt, err := t.Publish(in.stream, stored)
	if err != nil {
		t.Discard()
		in.s.room.release(size)
		return nil, nil, err
	}
	return receipt, t, nil
}

// answer tells the publisher, if it asked, and counts.
func (in *ingest) answer(w *wire, m wireMsg, ack Ack, err error) {
	in.s.metrics.published(ack, err)
	in.full.note(err)
	if err == nil {
		in.s.o.Failpoint("ingest-after-sync-before-ack")
		if m.reply != "" {
			w.publish(m.reply, "", nil, ackJSON(ack))
		}
		return
	}
	in.s.log.Debug("message refused", "stream", in.stream, "subject", m.subject, "err", err)
	if m.reply != "" {
		if errors.Is(err, ErrBusy) {
			err = refuse(server.JSStreamTooManyRequests, "")
		}
		w.publish(m.reply, "", nil, refusalOf(err).json())
	}
}

// checkHeader refuses headers that ask JetStream for something which a box does
// not do. To store such a message as if they were not there would break what
// its publisher relies on.
func checkHeader(h event.Header, stream string) error {
	if len(h) == 0 {
		return nil
	}
	var fault error
	h.Each(func(name, value []byte) bool {
		if rest, ok := strings.CutPrefix(string(name), "Nats-"); ok {
			fault = checkNatsHeader(rest, string(name), string(value), stream)
		}
		return fault == nil
	})
	return fault
}

func checkNatsHeader(rest, name, value, stream string) error {
	unsupported := "header " + name + " is not supported by this box"
	switch {
	case rest == "Expected-Stream":
		if value != stream {
			return refuse(server.JSStreamNotMatchErr, "")
		}
	case strings.HasPrefix(rest, "Expected-"), rest == "Rollup":
		return refuse(server.JSBadRequestErr, unsupported)
	case strings.HasPrefix(rest, "Batch-"):
		return refuse(server.JSAtomicPublishDisabledErr, unsupported)
	case strings.HasPrefix(rest, "Schedule"):
		return refuse(server.JSMessageSchedulesDisabledErr, unsupported)
	case rest == "Incr":
		return refuse(server.JSMessageIncrDisabledErr, unsupported)
	}
	return nil
}

// room is a bound on the bytes on their way to the disk.
type room struct {
	max int

	mu        sync.Mutex // guards the fields below
	used      int
	congested bool          // the last who waited did so in vain
	freed     chan struct{} // closed at the next release; nil if nobody waits
}

// tryReserve takes n bytes, or returns a channel that is closed when there is
// more room. A message larger than all the room goes alone.
func (r *room) tryReserve(n int) (wait <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used == 0 || r.used+n <= r.max {
		r.used += n
		r.congested = false
		return nil
	}
	if r.freed == nil {
		r.freed = make(chan struct{})
	}
	return r.freed
}

func (r *room) release(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= n
	if r.freed != nil {
		close(r.freed)
		r.freed = nil
	}
}

// reserve waits until there is room. What is on its way always arrives or
// fails, so this ends.
func (r *room) reserve(n int) {
	for {
		wait := r.tryReserve(n)
		if wait == nil {
			return
		}
		<-wait
	}
}

// reserveSoon waits at most busyWait, and not at all if the last wait was in
// vain and nothing has changed since.
func (r *room) reserveSoon(n int) bool {
	wait := r.tryReserve(n)
	if wait == nil {
		return true
	}
	r.mu.Lock()
	congested := r.congested
	r.mu.Unlock()
	if congested {
		return false
	}
	deadline := time.NewTimer(busyWait)
	defer deadline.Stop()
	for wait != nil {
		select {
		case <-wait:
			wait = r.tryReserve(n)
		case <-deadline.C:
			r.mu.Lock()
			r.congested = true
			r.mu.Unlock()
			return false
		}
	}
	return true
}

// waitEmpty returns when nothing is on its way, or the timeout is over.
func (r *room) waitEmpty(timeout time.Duration) {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		if r.used == 0 {
			r.mu.Unlock()
			return
		}
		if r.freed == nil {
			r.freed = make(chan struct{})
		}
		freed := r.freed
		r.mu.Unlock()
		select {
		case <-freed:
		case <-deadline.C:
			return
		}
	}
}
