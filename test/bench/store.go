package main

import (
	"context"
	"sync"
	"time"

	"github.com/edged-io/edged/store"
)

// The consumer acknowledges each message, and commits its acks in lots of at most ackLot and at most ackDelay late, as the pump
// to the hub does: nobody waits for them, and what is lost of them in a crash costs a repeat.
const (
	ackLot   = 1024
	ackDelay = 50 * time.Millisecond
)

const (
	queue        = "queue"
	subscription = "consumer"
)

// storeEngine is edged's store: a turn per message.
type storeEngine struct {
	db      *store.DB
	lot     int
	stop    chan struct{}
	flush   chan struct{} // the consumer shall not wait for a full lot any more
	stopped sync.WaitGroup
}

func openStore(dir string, lot int) (engine, error) {
	db, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	e := &storeEngine{db: db, lot: lot, stop: make(chan struct{}), flush: make(chan struct{})}
	if err := db.EnsureStream(store.StreamConfig{Name: queue}); err != nil {
		return nil, err
	}
	return e, db.EnsureSubscription(store.SubscriptionConfig{Name: subscription, Stream: queue})
}

func (e *storeEngine) put(data []byte) error {
	t := e.db.Begin()
	if _, err := t.Publish(queue, store.Message{Subject: queue, Data: data}); err != nil {
		t.Discard()
		return err
	}
	return t.Commit()
}

func (e *storeEngine) consume(got func(n int)) error {
	wake, stopWatch, err := e.db.Watch(queue)
	if err != nil {
		return err
	}
	e.stopped.Go(func() {
		defer stopWatch()
		e.loop(wake, got)
	})
	return nil
}

// loop reads what is committed and acknowledges it.
func (e *storeEngine) loop(wake <-chan struct{}, got func(n int)) {
	next := uint64(1)
	var acks []uint64
	late := time.NewTicker(ackDelay)
	defer late.Stop()
	for flush := e.flush; ; {
		full := false
		select {
		case <-e.stop:
			return
		case <-flush:
			flush, e.lot, full = nil, 1, true
		case <-late.C:
			full = true
		case <-wake:
		}
		for {
			n := 0
			err := e.db.Read(queue, next, ackLot, 4<<20, func(m store.Message) error {
				acks = append(acks, m.Seq)
				next = m.Seq + 1
				n++
				return nil
			})
			if err != nil || n == 0 {
				break // an error here is the store's end, which the publishers see
			}
			got(n)
			if len(acks) >= e.lot {
				acks = e.ack(acks)
			}
		}
		if full && len(acks) > 0 {
			acks = e.ack(acks)
		}
	}
}

// ack hands acks over to be committed with whatever else is, and returns the empty list.
func (e *storeEngine) ack(acks []uint64) []uint64 {
	t := e.db.Begin()
	for _, seq := range acks {
		t.Ack(subscription, seq)
	}
	t.Submit(func(error) {}) // settle looks at the position
	return acks[:0]
}

func (e *storeEngine) settle(ctx context.Context) error {
	close(e.flush)
	return poll(ctx, func() (bool, error) {
		info, err := e.db.Stream(queue)
		if err != nil {
			return false, err
		}
		p, err := e.db.Position(subscription)
		return p.Floor == info.Last, err
	})
}

func (e *storeEngine) close() error {
	close(e.stop)
	e.stopped.Wait()
	return e.db.Close()
}

// poll calls done each millisecond until it says so.
func poll(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
