package store_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// send publishes message n of a producer.
func send(db *store.DB, producer string, n uint64, m store.Message) (store.Receipt, error) {
	m.Producer, m.ProducerSeq = producer, n
	turn := db.Begin()
	r, err := turn.Publish("a", m)
	if err != nil {
		turn.Discard()
		return store.Receipt{}, err
	}
	err = turn.Commit()
	return *r, err
}

func wantSent(t *testing.T, db *store.DB, producer string, n, seq uint64, duplicate bool) {
	t.Helper()
	r, err := send(db, producer, n, store.Message{})
	if err != nil || r.Seq != seq || r.Duplicate != duplicate {
		t.Fatalf("message %d of %s: %+v, %v; want %d, duplicate %t", n, producer, r, err, seq, duplicate)
	}
}

func TestMessage_ProducerSeq(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	wantSent(t, db, "p", 1, 1, false)
	wantSent(t, db, "p", 2, 2, false)
	wantSent(t, db, "p", 2, 2, true)
	wantSent(t, db, "p", 1, 1, true)
	wantSent(t, db, "other", 1, 3, false)
	wantSent(t, db, "p", 100, 4, false) // gaps are fine
	wantSent(t, db, "p", 50, 4, true)   // this one never came; it is too late
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", 4) })
	wantSent(t, db, "p", 2, 2, true)
	db.Close()
	db = open(t, dir)
	wantSent(t, db, "p", 2, 2, true)
	wantSent(t, db, "p", 100, 4, true)
	wantSent(t, db, "p", 101, 5, false)
	wantSent(t, db, "other", 1, 3, true)
	// A message with both is a repeat by either.
	if r, err := send(db, "p", 102, store.Message{ID: "id"}); err != nil || r.Seq != 6 || r.Duplicate {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := send(db, "p", 103, store.Message{ID: "id"}); err != nil || r.Seq != 6 || !r.Duplicate {
		t.Fatalf("repeat by id: %+v, %v", r, err)
	}
	if r, err := send(db, "p", 102, store.Message{ID: "other"}); err != nil || r.Seq != 6 || !r.Duplicate {
		t.Fatalf("repeat by number: %+v, %v", r, err)
	}
	ensure(t, db, store.StreamConfig{Name: "b"})
	commit(t, db, func(turn *store.Turn) {
		r, err := turn.Publish("b", store.Message{Producer: "p", ProducerSeq: 1})
		if err != nil {
			t.Fatal(err)
		}
		turn.AfterCommit(func() {
			if r.Seq != 1 || r.Duplicate {
				t.Errorf("a producer of one stream is known in another: %+v", r)
			}
		})
	})
	if err := db.DeleteStream("a"); err != nil {
		t.Fatal(err)
	}
	ensure(t, db, store.StreamConfig{Name: "a"})
	wantSent(t, db, "p", 1, 1, false)
}

// The watermark does not forget what identities are forgotten of.
func TestMessage_ProducerSeq_neverForgets(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a", Dedupe: 10}, "sub")
	for n := range uint64(30) {
		wantSent(t, db, "p", n+1, n+1, false)
	}
	for range 2 {
		wantSent(t, db, "p", 30, 30, true) // remembered
		wantSent(t, db, "p", 3, 30, true)  // not; it is the producer's last
		db.Close()
		db = open(t, dir)
	}
	ensure(t, db, store.StreamConfig{Name: "a", Dedupe: -1})
	wantSent(t, db, "p", 29, 30, true)
	wantSent(t, db, "p", 31, 31, false)
	wantSent(t, db, "p", 31, 31, true)
}

func TestMessage_ProducerSeq_inOneTurn(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a", MaxMsgs: 3})
	var receipts []*store.Receipt
	commit(t, db, func(turn *store.Turn) {
		for _, n := range []uint64{5, 5, 4, 6, 0, 6} {
			r, err := turn.Publish("a", store.Message{Producer: "p", ProducerSeq: n})
			if err != nil {
				t.Fatal(err)
			}
			receipts = append(receipts, r)
		}
	})
	got := ""
	for _, r := range receipts {
		got += fmt.Sprintf("%d%t ", r.Seq, r.Duplicate)
	}
	if want := "1false 1true 1true 2false 3false 2true "; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestMessage_ProducerSeq_rolledBack(t *testing.T) {
	var trouble error
	db := openWith(t, store.Options{Dir: t.TempDir(), Failpoint: func(p string) error {
		if p == store.FailpointBeforeSync {
			return trouble
		}
		return nil
	}})
	ensure(t, db, store.StreamConfig{Name: "a"})
	wantSent(t, db, "p", 1, 1, false)
	trouble = store.ErrFull
	if _, err := send(db, "p", 2, store.Message{}); !errors.Is(err, store.ErrFull) {
		t.Fatal(err)
	}
	trouble = nil
	wantSent(t, db, "p", 2, 2, false)
}

// Of many who send the same numbers at once, each number is stored once.
func TestMessage_ProducerSeq_fromManyGoroutines(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := range uint64(50) {
				if r, err := send(db, "p", n+1, store.Message{}); err != nil || r.Seq != n+1 {
					t.Errorf("message %d: %+v, %v", n+1, r, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if info, _ := db.Stream("a"); info.Msgs != 50 {
		t.Fatalf("%d messages, want 50", info.Msgs)
	}
}

func TestMessage_ProducerSeq_parked(t *testing.T) {
	inBox(t, func(t *testing.T, b *box) {
		ensure(t, b.db, store.StreamConfig{Name: "a"}, "sub")
		parked, err := send(b.db, "p", 1, after(time.Minute, "x"))
		if err != nil || parked.Due.IsZero() {
			t.Fatalf("%+v, %v", parked, err)
		}
		for range 2 {
			if r, err := send(b.db, "p", 1, after(time.Minute, "x")); err != nil || !r.Duplicate || r.Seq != 0 || r.Due.Sub(parked.Due).Abs() > time.Second {
				t.Fatalf("repeat of what is parked: %+v, %v", r, err)
			}
			b.off(0, true, false)
		}
		b.pass(2 * time.Minute)
		b.wantData(0, "x")
		wantSent(t, b.db, "p", 1, 1, true)
		wantSent(t, b.db, "p", 2, 2, false)
		b.off(0, true, false)
		wantSent(t, b.db, "p", 1, 1, true)
		wantSent(t, b.db, "p", 2, 2, true)

		ensure(t, b.db, store.StreamConfig{Name: "a", Dedupe: -1})
		if _, err := send(b.db, "p", 3, after(time.Minute, "y")); err != nil {
			t.Fatal(err)
		}
		wantSent(t, b.db, "p", 3, 0, true)
		b.pass(2 * time.Minute)
		wantSent(t, b.db, "p", 3, 3, true) // its sequence is known now
	})
}

func TestMessage_ProducerSeq_boundedProducers(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a", Dedupe: -1})
	sendAll := func(from, to int) error {
		turn := db.Begin()
		for i := from; i < to; i++ {
			turn.Publish("a", store.Message{Producer: fmt.Sprint("p", i), ProducerSeq: 1})
		}
		return turn.Commit()
	}
	for i := 0; i < 1<<16; i += 1 << 12 {
		if err := sendAll(i, i+1<<12); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := sendAll(1<<16, 1<<16+1); !errors.Is(err, store.ErrProducers) || !errors.Is(err, store.ErrFull) {
			t.Fatalf("one too many: got %v, want ErrProducers", err)
		}
		db.Close()
		db = open(t, dir)
	}
	wantSent(t, db, "p7", 2, 1<<16+1, false)
	wantSent(t, db, "p8", 1, 9, true)
	publish(t, db, "a", "x", "")
}

func TestTurn_Publish_badProducer(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"})
	if _, err := send(db, "", 1, store.Message{}); err == nil {
		t.Error("a number of nobody was accepted")
	}
	if _, err := send(db, string(make([]byte, 4097)), 1, store.Message{}); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	wantSent(t, db, "p", 0, 1, false) // without a number it is any message
	wantSent(t, db, "p", 0, 2, false)
	wantSent(t, db, "p", 1<<64-1, 3, false)
	wantSent(t, db, "p", 1<<64-1, 3, true)
}

// Where a message is told before it is on disk, so is its number: a repeat is
// one at once, and after a crash the number is where the messages are.
func TestMessage_ProducerSeq_durability(t *testing.T) {
	for _, c := range []store.StreamConfig{
		{Name: "a", Durability: store.Batch, BatchFor: time.Hour},
		{Name: "a", Durability: store.Memory},
	} {
		t.Run(c.Durability.String(), func(t *testing.T) {
			inBox(t, func(t *testing.T, b *box) {
				b.db.Close()
				var trouble atomic.Bool
				b.o.Failpoint = func(p string) error {
					if p == store.FailpointBeforeSync && trouble.Load() {
						return store.ErrFull
					}
					return nil
				}
				b.open()
				ensure(t, b.db, c)
				ensure(t, b.db, store.StreamConfig{Name: "synced"})
				b.publish("a", store.Message{}) // so that sequences are reserved
				wantSent(t, b.db, "p", 1, 2, false)
				wantSent(t, b.db, "p", 2, 3, false)
				wantSent(t, b.db, "p", 1, 2, true)
				wantSent(t, b.db, "p", 2, 3, true)
				trouble.Store(true)
				if _, err := tryPublish(b.db, "synced", "x", ""); !errors.Is(err, store.ErrFull) {
					t.Fatal(err)
				}
				trouble.Store(false)
				wantSent(t, b.db, "p", 2, 3, true) // what was told stays told
				b.pass(2 * time.Second)
				c.Durability, c.BatchFor = store.Synced, 0
				ensure(t, b.db, c)
				b.off(0, true, false)
				wantSent(t, b.db, "p", 2, 3, true)
				wantSent(t, b.db, "p", 3, 4, false)
			})
		})
	}
}
