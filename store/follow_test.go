package store_test

import (
	"context"
	"errors"
	"testing"

	"github.com/edged-io/edged/store"
)

func TestTurn_Follow(t *testing.T) {
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.EnsureStream(store.StreamConfig{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	publish := func(turn *store.Turn, subject string) *store.Receipt {
		t.Helper()
		r, err := turn.Publish("s", store.Message{Subject: subject})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}

	first := db.Begin()
	if err := db.Begin().Follow(first); !errors.Is(err, store.ErrBehind) {
		t.Errorf("behind a turn that is not queued: got %v, want %v", err, store.ErrBehind)
	}
	one := publish(first, "one")
	var two *store.Receipt
	told := make(chan error, 2)
	first.OnQueued(func() {
		second := db.Begin()
		if err := second.Follow(first); err != nil {
			t.Error(err)
		}
		two = publish(second, "two")
		second.Submit(func(err error) { told <- err })
	})
	first.Submit(func(err error) { told <- err })
	for range 2 {
		if err := <-told; err != nil {
			t.Error(err)
		}
	}
	if one.Seq != 1 || two.Seq != 2 {
		t.Errorf("got %d and %d, want 1 and 2", one.Seq, two.Seq)
	}

	// OnQueued of a turn that is done by Do, and one that is discarded.
	queued := 0
	err = db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
		turn.OnQueued(func() { queued++ })
		return turn.Put("space", "key", nil)
	})
	if err != nil || queued != 1 {
		t.Errorf("got %d calls, %v, want one", queued, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	late := db.Begin()
	late.Submit(func(err error) { told <- err })
	if err := <-told; err == nil {
		t.Error("queued after Close")
	}
	if err := db.Begin().Follow(late); !errors.Is(err, store.ErrBehind) {
		t.Errorf("behind a turn that was refused: got %v, want %v", err, store.ErrBehind)
	}
}
