package store_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// repeats says of each identity whether the stream takes it for a repeat. One
// that is none is remembered from then on.
func repeats(t *testing.T, db *store.DB, ids ...string) (again []bool) {
	t.Helper()
	for _, id := range ids {
		again = append(again, publish(t, db, "a", "x", id).Duplicate)
	}
	return again
}

// waitFor waits until ok. What it waits for happens within a second or so.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within 2 minutes", what)
		}
	}
}

func TestStreamConfig_Dedupe(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a", Dedupe: 3})
	for i := range 5 {
		publish(t, db, "a", "x", strconv.Itoa(i))
	}
	want := func(what string, got []bool, want ...bool) {
		t.Helper()
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: got %v, want %v", what, got, want)
				return
			}
		}
	}
	want("three are remembered", repeats(t, db, "2", "3", "4"), true, true, true)
	want("the oldest is not", repeats(t, db, "0"), false) // and takes the place of 2
	db.Close()
	db = open(t, dir)
	want("after a restart", repeats(t, db, "4", "0", "2"), true, true, false)

	// A live stream: none, then more than before.
	ensure(t, db, store.StreamConfig{Name: "a", Dedupe: -1})
	want("none", repeats(t, db, "2", "2"), false, false)
	ensure(t, db, store.StreamConfig{Name: "a", Dedupe: 10})
	for i := range 10 {
		publish(t, db, "a", "x", "n"+strconv.Itoa(i))
	}
	want("ten", repeats(t, db, "n0", "n9"), true, true)
	ensure(t, db, store.StreamConfig{Name: "a", Dedupe: 2})
	waitFor(t, "to remember less", func() bool {
		return !publish(t, db, "a", "x", "n0").Duplicate
	})
	db.Close()
	want("two are on disk", repeats(t, open(t, dir), "n0", "n9", "n8"), true, true, false)
}

func TestDB_EnsureStream_refuses(t *testing.T) {
	db := open(t, t.TempDir())
	for _, c := range []store.StreamConfig{
		{}, {Name: "a", Priority: 10}, {Name: "a", Priority: -1}, {Name: "a", Dedupe: -2}, {Name: "a", Dedupe: 1<<20 + 1},
		{Name: "a", MaxMsgs: -1}, {Name: "a", Durability: 7}, {Name: "a", BatchFor: time.Second},
	} {
		if err := db.EnsureStream(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
