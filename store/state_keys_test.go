package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/edged-io/edged/store"
)

func openKeys(t *testing.T, keys ...string) *store.DB {
	t.Helper()
	db, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	err = db.Do(t.Context(), func(_ context.Context, tn *store.Turn) error {
		var errs []error
		for _, k := range keys {
			errs = append(errs, tn.Put("space", k, nil))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// TestTurn_Keys: a turn lists what is on disk and what it wrote itself.
func TestTurn_Keys(t *testing.T) {
	db := openKeys(t, "a/1", "a/2", "a/3", "b/1", "b")
	if err := db.Do(t.Context(), func(_ context.Context, tn *store.Turn) error { return tn.Put("spac", "ea/0", nil) }); err != nil {
		t.Fatal(err)
	}
	tn := db.Begin()
	defer tn.Discard()
	if err := errors.Join(tn.Put("space", "a/25", nil), tn.Delete("space", "a/2"), tn.Put("space", "c", nil), tn.Put("spacf", "a/9", nil)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		prefix, after string
		most          int
		want          string
	}{
		{"", "", 99, "a/1 a/25 a/3 b b/1 c"}, {"a/", "", 99, "a/1 a/25 a/3"}, {"a/", "", 2, "a/1 a/25"}, {"a/", "a/1", 99, "a/25 a/3"},
		{"a/", "a/2", 1, "a/25"}, {"a/", "a/3", 99, ""}, {"", "b", 99, "b/1 c"}, {"x", "", 99, ""}, {"", "", 0, ""},
	} {
		got, err := tn.Keys("space", c.prefix, c.after, c.most)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q after %q, %d: %v, %v, want %s", c.prefix, c.after, c.most, got, err, c.want)
		}
	}
	if got, err := tn.Keys("none", "", "", 9); err != nil || len(got) > 0 {
		t.Errorf("an empty space: %v, %v", got, err)
	}
}

// TestTurn_Keys_queued: a turn lists what others have queued, before it is on disk.
func TestTurn_Keys_queued(t *testing.T) {
	db := openKeys(t, "1", "2")
	hold, held := make(chan struct{}), make(chan struct{})
	first := db.Begin()
	if err := first.Put("other", "k", nil); err != nil {
		t.Fatal(err)
	}
	first.AfterCommit(func() { close(held); <-hold })
	done := make(chan error, 2)
	first.Submit(func(err error) { done <- err })
	<-held
	second := db.Begin()
	if err := errors.Join(second.Put("space", "3", nil), second.Delete("space", "1")); err != nil {
		t.Fatal(err)
	}
	second.Submit(func(err error) { done <- err })
	tn := db.Begin()
	defer tn.Discard()
	if got, err := tn.Keys("space", "", "", 9); err != nil || strings.Join(got, " ") != "2 3" {
		t.Errorf("got %v, %v", got, err)
	}
	close(hold)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestTurn_BeforeCommit: it runs once, before the turn is visible, and may refuse it.
func TestTurn_BeforeCommit(t *testing.T) {
	db := openKeys(t)
	refuse := errors.New("no")
	for _, want := range []error{nil, refuse} {
		ran, ended := 0, false
		err := db.Do(t.Context(), func(_ context.Context, tn *store.Turn) error {
			tn.BeforeCommit(func() error {
				ran++
				other := db.Begin()
				defer other.Discard()
				if _, ok, _ := other.Get("space", "k"); ok {
					t.Error("it is visible already")
				}
				return want
			})
			tn.AfterEnd(func(committed bool) { ended = committed == (want == nil) })
			return tn.Put("space", "k", nil)
		})
		if !errors.Is(err, want) || want == nil && err != nil || ran != 1 || !ended {
			t.Errorf("want %v: %v, ran %d times", want, err, ran)
		}
		if err := db.Do(t.Context(), func(_ context.Context, tn *store.Turn) error { return tn.Delete("space", "k") }); err != nil {
			t.Fatal(err)
		}
	}
	tn := db.Begin()
	tn.BeforeCommit(func() error { t.Error("a turn that is discarded is not about to be committed"); return nil })
	tn.Discard()
}
