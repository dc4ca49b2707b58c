package store_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// A subscription that skipped more than it may be ahead acknowledges what it
// skipped together with the message behind.
func TestTurn_Ack_behindWhatItSkips(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"}, "s")
	for range 70 {
		commit(t, db, func(turn *store.Turn) {
			for range 1000 {
				if _, err := turn.Publish("a", store.Message{Subject: "x"}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	far := db.Begin()
	far.Ack("s", 69_001)
	if err := far.Commit(); err == nil {
		t.Error("an acknowledgement too far ahead was taken")
	}
	commit(t, db, func(turn *store.Turn) {
		turn.AckUpTo("s", 69_000)
		turn.Ack("s", 69_001)
	})
	pos, err := db.Position("s")
	if err != nil || pos.Floor != 69_001 {
		t.Errorf("floor: got %d (%v), want 69001", pos.Floor, err)
	}
}

// What a turn publishes is counted once for each message: nobody else can queue
// a turn meanwhile.
func TestTurn_Commit_manyMessages(t *testing.T) {
	const n = 5000
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a", MaxMsgs: n})
	began := time.Now()
	commit(t, db, func(turn *store.Turn) {
		for i := range n {
			for range 2 { // each again: a repeat takes no room
				if _, err := turn.Publish("a", store.Message{Subject: "x", ID: strconv.Itoa(i)}); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
	t.Logf("%d messages in one turn took %s", 2*n, time.Since(began))
	if info, err := db.Stream("a"); err != nil || info.Msgs != n {
		t.Errorf("got %d messages (%v), want %d", info.Msgs, err, n)
	}
	if _, err := tryPublish(db, "a", "one more", ""); !errors.Is(err, store.ErrFull) {
		t.Errorf("one more: got %v, want ErrFull", err)
	}
}

// The bound of the store holds for what a turn adds to all streams together.
func TestTurn_Commit_fullByTwoStreams(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxBytes: 10_000})
	ensure(t, db, store.StreamConfig{Name: "a"})
	ensure(t, db, store.StreamConfig{Name: "b"})
	turn := db.Begin()
	for _, stream := range []string{"a", "b"} {
		if _, err := turn.Publish(stream, store.Message{Subject: "x", Data: make([]byte, 6000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := turn.Commit(); !errors.Is(err, store.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
}
