package store_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/edged-io/edged/store"
)

// A turn that acts at once holds its keys: the other one, which wanted to write
// them too, is the one that runs again.
func TestTurn_Irrevocable_neverLoses(t *testing.T) {
	db := open(t, t.TempDir())
	turn := db.Begin()
	turn.Get("s", "n")
	turn.Put("s", "n", []byte("10"))
	if err := turn.Irrevocable(t.Context()); err != nil {
		t.Fatal(err)
	}
	tries := 0
	tried := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := db.Do(t.Context(), func(_ context.Context, other *store.Turn) error {
			v, _, err := other.Get("s", "n")
			if tries++; tries == 1 {
				close(tried)
			}
			other.Put("s", "n", append(v, '!'))
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-tried
	if err := turn.Commit(); err != nil {
		t.Fatalf("the turn that acts at once lost: %v", err)
	}
	wg.Wait()
	if v := value(t, db, "s", "n"); v != "10!" {
		t.Fatalf("got %q, want the other turn to run on what the first left", v)
	}
}

func TestTurn_Irrevocable_findsThatItLost(t *testing.T) {
	db := open(t, t.TempDir())
	turn := db.Begin()
	defer turn.Discard()
	turn.Get("s", "n")
	if err := increment(t.Context(), db, "n"); err != nil {
		t.Fatal(err)
	}
	if err := turn.Irrevocable(t.Context()); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("got %v, want ErrConflict", err)
	}
	if err := turn.Commit(); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("commit: got %v, want ErrConflict", err)
	}
}

// A call that came back from another process, into a key its caller holds,
// would wait for ever.
func TestTurn_Irrevocable_callBack(t *testing.T) {
	db := open(t, t.TempDir())
	turn := db.Begin()
	defer turn.Discard()
	turn.Put("s", "n", []byte("1"))
	if err := turn.Irrevocable(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx := store.WithCause(t.Context(), turn.ID())
	err := db.Do(ctx, func(_ context.Context, callee *store.Turn) error {
		return callee.Put("s", "n", []byte("2"))
	})
	if !errors.Is(err, store.ErrDeadlock) {
		t.Fatalf("got %v, want ErrDeadlock", err)
	}
}

func TestTurn_Irrevocable_twoInACircle(t *testing.T) {
	db := open(t, t.TempDir())
	a, b := db.Begin(), db.Begin()
	defer a.Discard()
	defer b.Discard()
	for turn, key := range map[*store.Turn]string{a: "a", b: "b"} {
		turn.Put("s", key, nil)
		if err := turn.Irrevocable(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := a.Get("s", "b"); !errors.Is(err, store.ErrDeadlock) {
		t.Fatalf("got %v, want ErrDeadlock", err)
	}
}

// Losing again and again ends: the ninth run holds the keys that it has met.
func TestDB_Do_holdsItsKeysInTheEnd(t *testing.T) {
	db := open(t, t.TempDir())
	runs := 0
	var wg sync.WaitGroup
	err := db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
		runs++
		if _, _, err := turn.Get("s", "n"); err != nil {
			return err
		}
		if runs <= 8 {
			if err := increment(t.Context(), db, "n"); err != nil {
				return err
			}
		} else {
			wg.Go(func() {
				if err := increment(t.Context(), db, "n"); err != nil {
					t.Error(err)
				}
			})
		}
		return turn.Put("s", "mine", []byte("done"))
	})
	if err != nil || runs != 9 {
		t.Fatalf("%d runs, %v; want 9", runs, err)
	}
	wg.Wait()
	if v := value(t, db, "s", "n"); v != "9" {
		t.Fatalf("got %s, want 9: who was held back has to go on", v)
	}
}

// Who shares no key with a turn that lost too often does not wait for it.
func TestDB_Do_holdsNobodyElse(t *testing.T) {
	db := open(t, t.TempDir())
	runs := 0
	err := db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
		runs++
		if _, _, err := turn.Get("s", "n"); err != nil {
			return err
		}
		if runs <= 8 {
			return errors.Join(increment(t.Context(), db, "n"), turn.Put("s", "mine", nil))
		}
		// Both would wait for ever.
		act := db.Begin()
		defer act.Discard()
		return errors.Join(increment(t.Context(), db, "other"), act.Put("s", "act", nil), act.Irrevocable(t.Context()), turn.Put("s", "mine", nil))
	})
	if err != nil || runs != 9 {
		t.Fatalf("%d runs, %v; want 9", runs, err)
	}
}

// A turn that lost too often, and meets a key that another one holds, does its
// work again.
func TestDB_Do_meetsAHeldKey(t *testing.T) {
	db := open(t, t.TempDir())
	holder := db.Begin()
	defer holder.Discard()
	holder.Put("s", "held", []byte("1"))
	if err := holder.Irrevocable(t.Context()); err != nil {
		t.Fatal(err)
	}
	runs := 0
	err := db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
		runs++
		if _, _, err := turn.Get("s", "n"); err != nil {
			return err
		}
		if runs <= 8 {
			return errors.Join(increment(t.Context(), db, "n"), turn.Put("s", "mine", nil))
		}
		v, _, err := turn.Get("s", "held")
		if err == nil && runs == 9 {
			err = holder.Commit()
		}
		return errors.Join(err, turn.Put("s", "held", append(v, '2')))
	})
	if err != nil || runs != 10 {
		t.Fatalf("%d runs, %v; want 10", runs, err)
	}
	if v := value(t, db, "s", "held"); v != "12" {
		t.Errorf("got %s, want 12", v)
	}
}

// An error of a handler that read what is no longer so says nothing.
func TestDB_Do_ignoresErrorsOfStaleReads(t *testing.T) {
	db := open(t, t.TempDir())
	runs := 0
	err := db.Do(t.Context(), func(_ context.Context, turn *store.Turn) error {
		runs++
		v, _, err := turn.Get("s", "n")
		if err != nil {
			return err
		}
		if string(v) == "" {
			if err := increment(t.Context(), db, "n"); err != nil {
				return err
			}
			return errors.New("n is missing")
		}
		return nil
	})
	if err != nil || runs != 2 {
		t.Fatalf("%d runs, %v; want 2 and no error", runs, err)
	}
}

func TestDB_Do_joinsTheTurnOfItsCaller(t *testing.T) {
	db := open(t, t.TempDir())
	boom := errors.New("boom")
	err := db.Do(t.Context(), func(ctx context.Context, outer *store.Turn) error {
		err := db.Do(ctx, func(_ context.Context, inner *store.Turn) error {
			if inner != outer {
				t.Error("the call has a turn of its own")
			}
			return inner.Put("s", "k", []byte("v"))
		})
		if err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) || value(t, db, "s", "k") != "" {
		t.Fatalf("got %v, state %q: what the callee staged must go with its caller", err, value(t, db, "s", "k"))
	}
}

func TestDB_Do_endsWithItsContext(t *testing.T) {
	db := open(t, t.TempDir())
	holder := db.Begin()
	defer holder.Discard()
	holder.Put("s", "n", nil)
	if err := holder.Irrevocable(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := db.Do(ctx, func(_ context.Context, turn *store.Turn) error {
		if _, _, err := turn.Get("s", "n"); err != nil {
			return err
		}
		cancel()
		return turn.Put("s", "n", nil)
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
}
