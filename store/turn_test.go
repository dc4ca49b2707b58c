package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/edged-io/edged/store"
)

// Whatever becomes of a turn, who asked is told once.
func TestTurn_AfterEnd(t *testing.T) {
	var trouble error
	db := openWith(t, store.Options{Dir: t.TempDir(), Failpoint: func(point string) error {
		if point == store.FailpointBeforeSync {
			return trouble
		}
		return nil
	}})
	ensure(t, db, store.StreamConfig{Name: "a"})
	var told []string
	begin := func() *store.Turn {
		turn := db.Begin()
		told = nil
		turn.AfterCommit(func() { told = append(told, "commit") })
		turn.AfterEnd(func(committed bool) { told = append(told, fmt.Sprint(committed)) })
		return turn
	}
	want := func(what string, want ...string) {
		t.Helper()
		if fmt.Sprint(told) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", what, told, want)
		}
	}

	turn := begin()
	if err := turn.Commit(); err != nil {
		t.Fatal(err)
	}
	turn.Discard()
	want("committed", "commit", "true")

	turn = begin()
	turn.Discard()
	turn.Discard()
	want("discarded", "false")

	turn = begin()
	turn.Get("s", "k")
	if err := increment(t.Context(), db, "k"); err != nil {
		t.Fatal(err)
	}
	if err := turn.Commit(); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("got %v, want ErrConflict", err)
	}
	if err := turn.Err(); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Err: got %v, want ErrConflict", err)
	}
	want("lost", "false")

	turn = begin()
	turn.Publish("a", store.Message{Subject: "x"})
	trouble = store.ErrFull
	if err := turn.Commit(); !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	if err := turn.Err(); !errors.Is(err, store.ErrFull) {
		t.Errorf("Err: got %v, want ErrFull", err)
	}
	trouble = nil
	want("no room", "false")

	told = nil
	err := db.Do(t.Context(), func(ctx context.Context, outer *store.Turn) error {
		return db.Do(ctx, func(_ context.Context, inner *store.Turn) error {
			inner.AfterEnd(func(committed bool) { told = append(told, fmt.Sprint(committed)) })
			return errors.New("no")
		})
	})
	if err == nil {
		t.Error("no error")
	}
	want("failed", "false")

	db.Close()
	if err := begin().Commit(); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
	want("closed", "false")
}

// A turn that only read waits for what it has seen to be on disk, and for no
// write of its own.
func TestTurn_changesNothing(t *testing.T) {
	writing, goOn := make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	db := openWith(t, store.Options{Dir: t.TempDir(), Failpoint: func(point string) error {
		if point == store.FailpointBeforeSync && armed.CompareAndSwap(true, false) {
			close(writing)
			<-goOn
		}
		return nil
	}})
	if err := increment(t.Context(), db, "k"); err != nil {
		t.Fatal(err)
	}
	before := db.Stats()
	read := func() *store.Turn {
		turn := db.Begin()
		if _, _, err := turn.Get("s", "k"); err != nil {
			t.Fatal(err)
		}
		return turn
	}
	for range 3 {
		if err := read().Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if s := db.Stats(); s.Commits != before.Commits || s.Turns != before.Turns+3 {
		t.Errorf("%d groups of %d turns were written", s.Commits-before.Commits, s.Turns-before.Turns)
	}

	armed.Store(true)
	written := make(chan error, 1)
	go func() { written <- increment(t.Context(), db, "k") }()
	<-writing
	saw := make(chan error, 1)
	read().Submit(func(err error) { saw <- err })
	select {
	case err := <-saw:
		t.Errorf("told before what it has seen is on disk: %v", err)
	default:
	}
	close(goOn)
	if err := errors.Join(<-written, <-saw); err != nil {
		t.Error(err)
	}
}
