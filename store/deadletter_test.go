package store_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/edged-io/edged/store"
)

// giveUp stores dead letters of the given sequences, and returns their ids.
func giveUp(t *testing.T, db *store.DB, subscription string, seqs ...uint64) []uint64 {
	t.Helper()
	known := map[uint64]bool{}
	each := func(fn func(uint64)) {
		if err := db.DeadLetters(func(d store.DeadLetter) error { fn(d.ID); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	each(func(id uint64) { known[id] = true })
	commit(t, db, func(turn *store.Turn) {
		for _, seq := range seqs {
			turn.DeadLetter(store.DeadLetter{Stream: "a", Seq: seq, Subscription: subscription, Reason: "max-deliver", Data: []byte("x")})
		}
	})
	var ids []uint64
	each(func(id uint64) {
		if !known[id] {
			ids = append(ids, id)
		}
	})
	return ids
}

func wantReplays(t *testing.T, db *store.DB, subscription string, want ...uint64) {
	t.Helper()
	if got := db.Replays(subscription); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("replays of %s: %v, want %v", subscription, got, want)
	}
}

func refused(t *testing.T, db *store.DB, want error, fn func(*store.Turn)) {
	t.Helper()
	turn := db.Begin()
	fn(turn)
	if err := turn.Commit(); !errors.Is(err, want) {
		t.Fatalf("commit: got %v, want %v", err, want)
	}
}

func TestTurn_DropDeadLetter(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ids := giveUp(t, db, "sub", 1, 2, 3)
	before := db.Stats().Bytes
	commit(t, db, func(turn *store.Turn) { turn.DropDeadLetter(ids[1]) })
	if _, err := db.DeadLetter(ids[1]); !errors.Is(err, store.ErrNoDeadLetter) {
		t.Fatalf("dropped, and still there: %v", err)
	}
	if n, held := db.DeadLetterCount(), db.Stats().Bytes; n != 2 || held >= before {
		t.Fatalf("%d dead letters, %d bytes after %d", n, held, before)
	}
	refused(t, db, store.ErrNoDeadLetter, func(turn *store.Turn) { turn.DropDeadLetter(ids[1]) })
	refused(t, db, store.ErrNoDeadLetter, func(turn *store.Turn) { turn.DropDeadLetter(ids[0]); turn.DropDeadLetter(ids[0]) })
	if _, err := db.DeadLetter(ids[0]); err != nil {
		t.Fatalf("a refused turn dropped it: %v", err)
	}
	db.Close()
	db = open(t, dir)
	if n := db.DeadLetterCount(); n != 2 {
		t.Fatalf("%d after a restart, want 2", n)
	}
}

// Of many who drop a dead letter at the same time, one has done it.
func TestTurn_DropDeadLetter_once(t *testing.T) {
	db := open(t, t.TempDir())
	id := giveUp(t, db, "sub", 1)[0]
	results := make(chan error)
	for range 16 {
		turn := db.Begin()
		turn.DropDeadLetter(id)
		go turn.Submit(func(err error) { go func() { results <- err }() })
	}
	done := 0
	for range 16 {
		if err := <-results; err == nil {
			done++
		} else if !errors.Is(err, store.ErrNoDeadLetter) {
			t.Error(err)
		}
	}
	if done != 1 {
		t.Fatalf("%d turns dropped it", done)
	}
}

func TestTurn_ReplayDeadLetter(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	ensure(t, db, store.StreamConfig{Name: "b"}, "other")
	ids := giveUp(t, db, "sub", 30, 10, 20)
	orphan := giveUp(t, db, "gone", 5)[0]
	wake, stop, err := db.Watch("a")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	<-wake
	commit(t, db, func(turn *store.Turn) {
		for _, id := range ids {
			turn.ReplayDeadLetter(id, "")
		}
	})
	<-wake
	wantReplays(t, db, "sub", ids[1], ids[2], ids[0]) // by sequence
	refused(t, db, store.ErrNoSubscription, func(turn *store.Turn) { turn.ReplayDeadLetter(orphan, "") })
	refused(t, db, store.ErrNoSubscription, func(turn *store.Turn) { turn.ReplayDeadLetter(ids[0], "none") })
	refused(t, db, store.ErrNoDeadLetter, func(turn *store.Turn) { turn.ReplayDeadLetter(99, "sub") })

	otherWake, stopOther, _ := db.Watch("b")
	defer stopOther()
	<-otherWake
	commit(t, db, func(turn *store.Turn) { turn.ReplayDeadLetter(ids[2], "other"); turn.ReplayDeadLetter(orphan, "other") })
	<-otherWake
	wantReplays(t, db, "other", orphan, ids[2])
	wantReplays(t, db, "sub", ids[1], ids[0])
	if d, err := db.DeadLetter(orphan); err != nil || d.ReplayTo != "other" {
		t.Fatalf("got %+v, %v", d, err)
	}

	// Handled, the one; failed again, the other: with what the handler did.
	commit(t, db, func(turn *store.Turn) { turn.DropDeadLetter(ids[1]); turn.Put("s", "done", []byte("1")) })
	d, err := db.DeadLetter(ids[0])
	if err != nil {
		t.Fatal(err)
	}
	d.Attempts, d.Error, d.ReplayTo = d.Attempts+1, string(make([]byte, 10_000)), ""
	commit(t, db, func(turn *store.Turn) { turn.UpdateDeadLetter(d) })
	refused(t, db, store.ErrNoDeadLetter, func(turn *store.Turn) { turn.UpdateDeadLetter(store.DeadLetter{ID: 99}) })
	wantReplays(t, db, "sub")
	db.Close()
	db = open(t, dir)
	wantReplays(t, db, "sub")
	wantReplays(t, db, "other", orphan, ids[2])
	if d, err = db.DeadLetter(ids[0]); err != nil || d.Attempts != 1 || len(d.Error) != 8<<10 || string(d.Data) != "x" {
		t.Fatalf("got %d attempts, error of %d bytes, data %q, %v", d.Attempts, len(d.Error), d.Data, err)
	}
}

// What the disk refused has not happened in memory either.
func TestTurn_ReplayDeadLetter_rolledBack(t *testing.T) {
	var trouble error
	db := openWith(t, store.Options{Dir: t.TempDir(), Failpoint: func(point string) error {
		if point == store.FailpointBeforeSync {
			return trouble
		}
		return nil
	}})
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	ids := giveUp(t, db, "sub", 1, 2)
	trouble = store.ErrFull
	refused(t, db, store.ErrFull, func(turn *store.Turn) { turn.ReplayDeadLetter(ids[0], ""); turn.DropDeadLetter(ids[1]) })
	trouble = nil
	wantReplays(t, db, "sub")
	commit(t, db, func(turn *store.Turn) { turn.DropDeadLetter(ids[1]) })
	if n := db.DeadLetterCount(); n != 1 {
		t.Fatalf("%d dead letters, want 1", n)
	}
}

// A store of 40 kB keeps 10 kB of dead letters: the newest, and those that are
// to be replayed.
func TestDeadLetters_room(t *testing.T) {
	dir := t.TempDir()
	db := openWith(t, store.Options{Dir: dir, MaxBytes: 40_000})
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	first := giveUp(t, db, "sub", 1)[0]
	commit(t, db, func(turn *store.Turn) { turn.ReplayDeadLetter(first, "") })
	for seq := range uint64(100) {
		giveUp(t, db, "sub", seq+2)
	}
	wantReplays(t, db, "sub", first)
	n := db.DeadLetterCount()
	if dropped := db.Stats().DeadLettersDropped; n < 20 || n > 50 || dropped != uint64(101-n) {
		t.Fatalf("%d dead letters, %d dropped", n, dropped)
	}
	if held := db.Stats().Bytes; held > 10_000 {
		t.Fatalf("dead letters of %d bytes", held)
	}
	var last uint64
	db.DeadLetters(func(d store.DeadLetter) error { last = d.Seq; return nil })
	if last != 101 {
		t.Fatalf("the newest is %d, want 101", last)
	}

	// When all of them are to be replayed, the oldest of those goes.
	var all []uint64
	db.DeadLetters(func(d store.DeadLetter) error { all = append(all, d.ID); return nil })
	commit(t, db, func(turn *store.Turn) {
		for _, id := range all {
			turn.ReplayDeadLetter(id, "")
		}
		d, err := db.DeadLetter(all[1])
		if err != nil {
			t.Fatal(err)
		}
		d.Data, d.ReplayTo = make([]byte, 2000), "sub"
		turn.UpdateDeadLetter(d)
	})
	wantReplays(t, db, "sub", all[len(all)-db.DeadLetterCount():]...)
	if _, err := db.DeadLetter(first); !errors.Is(err, store.ErrNoDeadLetter) {
		t.Fatalf("the oldest: %v", err)
	}
}
