package store_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// A turn that acknowledges and publishes, and was told before it was on disk, is
// not torn by one that is written without it, since the disk is full.
func TestDB_fullDisk_heldTurnsStayWhole(t *testing.T) {
	dir := t.TempDir()
	db := openWith(t, store.Options{Dir: dir, MaxBytes: 8 << 20})
	ensure(t, db, store.StreamConfig{Name: "from", Durability: store.Batch, BatchFor: never}, "from-sub")
	ensure(t, db, store.StreamConfig{Name: "to", Durability: store.Batch, BatchFor: never}, "to-sub")
	ensure(t, db, store.StreamConfig{Name: "other"}, "other-sub")
	for range 3 {
		publish(t, db, "from", "x", "")
		publish(t, db, "to", "x", "")
		publish(t, db, "other", "x", "")
	}
	flush(t, db)
	fillFile(t, db, 256<<10)
	fillFile(t, db, 4<<10)
	commit(t, db, func(turn *store.Turn) {
		turn.Ack("from-sub", 1)
		if _, err := turn.Publish("to", store.Message{Subject: "made", Data: make([]byte, 700_000)}); err != nil {
			t.Fatal(err)
		}
	})
	if r := info(t, db, "to").Risk; r.Msgs != 1 {
		t.Fatalf("at risk: %+v, want one message", r)
	}
	turn := db.Begin()
	turn.Ack("from-sub", 2)
	turn.Ack("other-sub", 1)
	err := turn.Commit()
	t.Logf("acknowledging while the disk is full: %v", err)

	db = open(t, copyStore(t, dir))
	p, err := db.Position("from-sub")
	if err != nil {
		t.Fatal(err)
	}
	if made := info(t, db, "to").Msgs == 4; !made && (p.Floor > 0 || info(t, db, "from").Msgs < 3) {
		t.Errorf("what the turn published is not there, and what it acknowledged is: %+v, %+v", p, info(t, db, "from"))
	}
}

// fillFile puts values of n bytes until there is no more room.
func fillFile(t *testing.T, db *store.DB, n int) {
	t.Helper()
	for i := range 100_000 {
		turn := db.Begin()
		if err := turn.Put("fill", itoa(int64(n))+"-"+itoa(int64(i)), make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if turn.Commit() != nil {
			return
		}
	}
	t.Fatal("the file takes everything")
}

// So it is when messages grow too old.
func TestStream_Batch_maxAgeLeavesHeldTurnsWhole(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "from", Durability: store.Batch, BatchFor: never, MaxAge: time.Millisecond}, "from-sub")
	ensure(t, db, store.StreamConfig{Name: "to", Durability: store.Batch, BatchFor: never}, "to-sub")
	publish(t, db, "from", "x", "")
	publish(t, db, "to", "x", "")
	flush(t, db)
	commit(t, db, func(turn *store.Turn) {
		turn.Ack("from-sub", 1)
		if _, err := turn.Publish("to", store.Message{Subject: "made"}); err != nil {
			t.Fatal(err)
		}
	})
	waitFor(t, "the message to go", func() bool { return info(t, db, "from").Msgs == 0 })
	db = open(t, copyStore(t, dir))
	if info(t, db, "from").Msgs == 0 && info(t, db, "to").Msgs != 2 {
		t.Errorf("the message is gone, and what was made of it is not there: %+v", info(t, db, "to"))
	}
}

// A store that is closed while the disk is full says what that costs.
func TestDB_Close_fullDiskTakesWhatIsHeld(t *testing.T) {
	var log bytes.Buffer
	full := false
	db := openWith(t, store.Options{
		Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Failpoint: func(point string) error {
			if full && point == store.FailpointBeforeSync {
				return store.ErrFull
			}
			return nil
		},
	})
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Batch, BatchFor: never}, "sub")
	publish(t, db, "a", "reserves", "")
	publish(t, db, "a", "held", "")
	full = true // the writer sleeps, and Close wakes it
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "is lost") {
		t.Errorf("nothing says so:\n%s", &log)
	}
}

// A turn that has acted at once does not lose to a disk that has no room for
// somebody else: it would act again.
func TestTurn_Irrevocable_fullDisk(t *testing.T) {
	var full atomic.Bool
	db := openWith(t, store.Options{Dir: t.TempDir(), Failpoint: func(point string) error {
		if point == store.FailpointBeforeSync && full.Load() {
			return store.ErrFull
		}
		return nil
	}})
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	publish(t, db, "a", "x", "")
	turn := db.Begin()
	defer turn.Discard()
	if _, _, err := turn.Get("s", "mine"); err != nil {
		t.Fatal(err)
	}
	if err := turn.Irrevocable(t.Context()); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	other := db.Begin()
	if err := other.Put("s", "other", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := other.Commit(); !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	full.Store(false)
	turn.Ack("sub", 1)
	if err := turn.Commit(); err != nil {
		t.Errorf("the turn that has acted: %v", err)
	}
}
