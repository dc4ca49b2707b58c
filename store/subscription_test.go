package store_test

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

func subscribe(t *testing.T, db *store.DB, c store.SubscriptionConfig) {
	t.Helper()
	if err := db.EnsureSubscription(c); err != nil {
		t.Fatalf("subscribe %+v: %v", c, err)
	}
}

func floor(t *testing.T, db *store.DB, subscription string) uint64 {
	t.Helper()
	p, err := db.Position(subscription)
	if err != nil {
		t.Fatal(err)
	}
	return p.Floor
}

// at is a time of the tests, some minutes after a beginning.
func at(minutes int) time.Time {
	return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(minutes) * time.Minute)
}

func TestDB_EnsureSubscription_start(t *testing.T) {
	// Messages 1 to 6, a minute apart; 1 and 2 are consumed.
	for _, c := range []struct {
		start store.Start
		next  uint64 // the first message it still wants
	}{
		{store.Start{}, 3},
		{store.Start{At: store.StartNew}, 7},
		{store.Start{At: store.StartLast}, 6},
		{store.Start{At: store.StartSeq}, 3},
		{store.Start{At: store.StartSeq, Seq: 1}, 3},
		{store.Start{At: store.StartSeq, Seq: 4}, 4},
		{store.Start{At: store.StartSeq, Seq: 6}, 6},
		{store.Start{At: store.StartSeq, Seq: 7}, 7},
		{store.Start{At: store.StartSeq, Seq: 1 << 63}, 7},
		{store.Start{At: store.StartTime}, 3},
		{store.Start{At: store.StartTime, Time: at(4)}, 4},
		{store.Start{At: store.StartTime, Time: at(4).Add(time.Second)}, 5},
		{store.Start{At: store.StartTime, Time: at(99)}, 7},
	} {
		for _, ephemeral := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v-%d-%s-%t", c.start.At, c.start.Seq, c.start.Time.Format("1504"), ephemeral), func(t *testing.T) {
				dir := t.TempDir()
				db := open(t, dir)
				ensure(t, db, store.StreamConfig{Name: "a"}, "first")
				for i := range 6 {
					commit(t, db, func(turn *store.Turn) {
						turn.Publish("a", store.Message{Subject: "s", Time: at(i + 1)})
					})
				}
				commit(t, db, func(turn *store.Turn) { turn.AckUpTo("first", 2) })
				subscribe(t, db, store.SubscriptionConfig{Name: "s", Stream: "a", Start: c.start, Ephemeral: ephemeral})
				if got := floor(t, db, "s") + 1; got != c.next {
					t.Fatalf("begins with %d, want %d", got, c.next)
				}
				subscribe(t, db, store.SubscriptionConfig{Name: "s", Stream: "a", Start: store.Start{At: store.StartNew}, Ephemeral: ephemeral})
				if got := floor(t, db, "s") + 1; got != c.next {
					t.Fatalf("asked for again, it moved to %d, want %d", got, c.next)
				}
				db.Close()
				p, err := open(t, dir).Position("s")
				switch {
				case ephemeral && !errors.Is(err, store.ErrNoSubscription):
					t.Fatalf("an ephemeral one is still there after a restart: %+v, %v", p, err)
				case !ephemeral && (err != nil || p.Floor+1 != c.next):
					t.Fatalf("after a restart: %+v, %v", p, err)
				}
			})
		}
	}
}

// In a stream that holds nothing, everything begins with the next message.
func TestDB_EnsureSubscription_startOfAnEmptyStream(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "new"})
	ensure(t, db, store.StreamConfig{Name: "drained"}, "sub")
	publish(t, db, "drained", "x", "")
	commit(t, db, func(turn *store.Turn) { turn.Ack("sub", 1) })
	for stream, want := range map[string]uint64{"new": 1, "drained": 2} {
		for at := store.StartFirst; at <= store.StartTime; at++ {
			name := stream + at.String()
			subscribe(t, db, store.SubscriptionConfig{Name: name, Stream: stream, Start: store.Start{At: at, Seq: 5}})
			if got := floor(t, db, name) + 1; got != want {
				t.Errorf("stream %s, start %v: begins with %d, want %d", stream, at, got, want)
			}
		}
	}
}

func TestDB_EnsureSubscription_ephemeral(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"}, "lasting")
	eph := store.SubscriptionConfig{Name: "eph", Stream: "a", Ephemeral: true}
	subscribe(t, db, eph)
	for i := range 4 {
		publish(t, db, "a", strconv.Itoa(i+1), "")
	}
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("lasting", 4) })
	wantRead(t, db, "a", "1:1", "2:2", "3:3", "4:4") // the ephemeral one holds them back

	before := db.Stats().Commits
	commit(t, db, func(turn *store.Turn) { turn.Ack("eph", 1); turn.Ack("eph", 3); turn.Attempt("eph", 2, 4) })
	if n := db.Stats().Commits - before; n != 0 {
		t.Errorf("an acknowledgement in memory cost %d commits", n)
	}
	p, err := db.Position("eph")
	if err != nil || p.Floor != 1 || fmt.Sprint(p.Above) != "[3]" || p.Attempts[2] != 4 {
		t.Fatalf("position %+v, %v", p, err)
	}
	// What it has done with goes with the next commit to the stream.
	commit(t, db, func(turn *store.Turn) {
		turn.Ack("eph", 2)
		turn.Publish("a", store.Message{Subject: "s", Data: []byte("5")})
	})
	wantRead(t, db, "a", "4:4", "5:5")

	if err := db.DeleteSubscription("eph"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Position("eph"); !errors.Is(err, store.ErrNoSubscription) {
		t.Fatalf("after its end: %v", err)
	}
	eph.Start.At = store.StartLast
	subscribe(t, db, eph)
	if got := floor(t, db, "eph"); got != 4 {
		t.Fatalf("created again, it begins after %d, want 4", got)
	}
	if err := db.DeleteStream("a"); err != nil {
		t.Fatal(err)
	}
	if subs := db.Subscriptions(); len(subs) != 0 {
		t.Fatalf("subscriptions of a stream that is gone: %v", subs)
	}
}

// A turn that does more than acknowledge in memory is as atomic as any other.
func TestDB_EnsureSubscription_ephemeralIsRolledBack(t *testing.T) {
	var trouble error
	db := openWith(t, store.Options{Dir: t.TempDir(), Failpoint: func(point string) error {
		if point == store.FailpointBeforeSync {
			return trouble
		}
		return nil
	}})
	ensure(t, db, store.StreamConfig{Name: "a"})
	subscribe(t, db, store.SubscriptionConfig{Name: "eph", Stream: "a", Ephemeral: true})
	publish(t, db, "a", "x", "")
	trouble = store.ErrFull
	turn := db.Begin()
	turn.Ack("eph", 1)
	turn.Put("s", "k", []byte("v"))
	if err := turn.Commit(); !errors.Is(err, store.ErrFull) {
		t.Fatal(err)
	}
	trouble = nil
	if got := floor(t, db, "eph"); got != 0 {
		t.Fatalf("a turn that was refused acknowledged up to %d", got)
	}
}

func TestDB_EnsureSubscription_changesKind(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a"}, "lasting")
	publish(t, db, "a", "x", "")
	publish(t, db, "a", "y", "")
	if err := db.EnsureSubscription(store.SubscriptionConfig{Name: "lasting", Stream: "a", Ephemeral: true}); err == nil {
		t.Fatal("a position that lasts was made ephemeral: what it has not seen would be lost at the next restart")
	}
	subscribe(t, db, store.SubscriptionConfig{Name: "eph", Stream: "a", Ephemeral: true})
	commit(t, db, func(turn *store.Turn) { turn.Ack("eph", 1) })
	subscribe(t, db, store.SubscriptionConfig{Name: "eph", Stream: "a"})
	commit(t, db, func(turn *store.Turn) { turn.Attempt("eph", 2, 3) })
	db.Close()
	db = open(t, dir)
	if p, err := db.Position("eph"); err != nil || p.Floor != 1 || p.Attempts[2] != 3 {
		t.Fatalf("made to last, after a restart: %+v, %v", p, err)
	}
}

func TestDB_EnsureSubscription_badInput(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	ensure(t, db, store.StreamConfig{Name: "b"})
	for _, c := range []store.SubscriptionConfig{
		{Stream: "a"},
		{Name: string(make([]byte, 513)), Stream: "a"},
		{Name: "s", Stream: "a", Start: store.Start{At: -1}},
		{Name: "s", Stream: "a", Start: store.Start{At: 5}},
		{Name: "sub", Stream: "b"},
		{Name: "s", Stream: "none", Ephemeral: true, Start: store.Start{At: store.StartTime}},
	} {
		if err := db.EnsureSubscription(c); err == nil {
			t.Errorf("accepted: %+v", c)
		}
	}
}
