package store

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// Without room for a copy nothing is tried, and the error says how much is
// missing.
func TestDB_Compact_noRoom(t *testing.T) {
	db, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.freeRoom = func(string) (int64, error) { return 4711, nil }
	_, err = db.Compact(t.Context())
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "the disk has 4711") {
		t.Errorf("got %v", err)
	}
	if db.Err() != nil {
		t.Errorf("the store failed: %v", db.Err())
	}
	entries, err := os.ReadDir(db.o.Dir)
	if err != nil || len(entries) != 2 { // the store and its ballast
		t.Errorf("left in the folder: %v, %v", entries, err)
	}
	if err := db.EnsureStream(StreamConfig{Name: "a"}); err != nil {
		t.Error(err)
	}
}

// A store that is written to all the time is not compacted by itself, nor is
// one that has just been opened.
func TestQuiet_lasts(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	q := quiet{opened: start}
	busy := time.Duration(0)
	for s := range 60 {
		if q.lasts(at(s), busy) {
			t.Fatalf("quiet after %d s", s)
		}
	}
	if !q.lasts(at(60), busy) {
		t.Error("not quiet after a minute of nothing")
	}
	for s := 61; s < 200; s++ {
		busy += 400 * time.Millisecond
		if q.lasts(at(s), busy) {
			t.Fatalf("quiet at %d s, with the disk in use for 0.4 s of each", s)
		}
	}
	for s := 200; s < 209; s++ {
		busy += 100 * time.Millisecond
		if q.lasts(at(s), busy) {
			t.Fatalf("quiet at %d s", s)
		}
	}
	if !q.lasts(at(209), busy) {
		t.Error("not quiet after ten seconds of little")
	}
	q.not = at(1000)
	if q.lasts(at(999), busy) || !q.lasts(at(1000), busy) {
		t.Error("it is not left alone for so long")
	}
}

func TestWorthCompacting(t *testing.T) {
	for _, c := range []struct {
		used, live int64
		want       bool
	}{
		{16 << 20, 0, false}, {17 << 20, 4 << 10, true}, {100 << 20, 25 << 20, false}, {101 << 20, 25 << 20, true},
	} {
		if got := worthCompacting(c.used, c.live); got != c.want {
			t.Errorf("%d bytes, %d live: %t", c.used, c.live, got)
		}
	}
}

// The writer starts one by itself when it is time, and only then.
func TestDB_compactWhenQuiet(t *testing.T) {
	db, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := errors.Join(db.EnsureStream(StreamConfig{Name: "a"}), db.EnsureSubscription(SubscriptionConfig{Name: "s", Stream: "a"})); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		turn := db.Begin()
		if _, err := turn.Publish("a", Message{Data: make([]byte, 4<<20)}); err != nil {
			t.Fatal(err)
		}
		if err := turn.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	before, _, err := db.fileUse()
	if err != nil || before < worthBytes {
		t.Fatalf("%d bytes, %v", before, err)
	}
	turn := db.Begin()
	turn.AckUpTo("s", 6)
	if err := turn.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.inWriter(func() error { // what it looks at is the writer's own
		ago := time.Now().Add(-time.Hour)
		db.quiet = quiet{opened: ago, since: ago, asked: ago}
		db.compactWhenQuiet()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		used, _, err := db.fileUse()
		if err != nil {
			t.Fatal(err)
		}
		if used < before/4 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %d bytes of %d", used, before)
		}
		<-time.After(time.Millisecond)
	}
}
