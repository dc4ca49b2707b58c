package mqtt

import (
	"errors"
	"testing"

	"github.com/edged-io/edged/store"
)

// A message that found no room keeps the next one out, even when there is room
// again: the sender sends both again, in order.
func TestTrail_holdsBackWhatComesAfterARefusal(t *testing.T) {
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.EnsureStream(store.StreamConfig{Name: "s", MaxMsgs: 1}); err != nil {
		t.Fatal(err)
	}
	if err := db.EnsureSubscription(store.SubscriptionConfig{Name: "sub", Stream: "s"}); err != nil {
		t.Fatal(err)
	}
	var tr trail
	send := func() (fate error) {
		submit(t.Context(), db, func(turn *store.Turn) error {
			if err := tr.follow(turn); err != nil {
				return err
			}
			_, err := turn.Publish("s", store.Message{Subject: "x"})
			return err
		}, func(err error) { fate = err })
		tr.step()
		return fate
	}
	done := make(chan error, 1)
	submit(t.Context(), db, func(turn *store.Turn) error {
		_, err := turn.Publish("s", store.Message{Subject: "x"})
		return err
	}, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := send(); !errors.Is(err, store.ErrFull) {
		t.Fatalf("in a full stream: got %v, want ErrFull", err)
	}
	ack := db.Begin()
	ack.Ack("sub", 1)
	if err := ack.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := send(); !errors.Is(err, store.ErrBehind) {
		t.Fatalf("behind one that was refused: got %v, want ErrBehind", err)
	}
}
