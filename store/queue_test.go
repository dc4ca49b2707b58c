package store_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

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
