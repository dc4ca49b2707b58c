package store_test

import (
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

func TestStream_Memory(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Memory}, "sub")
	if i := info(t, db, "a"); i.MaxBytes <= 0 {
		t.Error("a stream in memory has no bound")
	}
	publish(t, db, "a", "1", "id") // reserves sequences
	commits := db.Stats().Commits
	for i := range 5 {
		publish(t, db, "a", strconv.Itoa(i+2), "")
	}
	wantRead(t, db, "a", "1:1", "2:2", "3:3", "4:4", "5:5", "6:6")
	i := info(t, db, "a")
	if i.Risk.Msgs != 6 || i.Risk.Bytes != i.Bytes || i.Msgs != 6 || i.First != 1 {
		t.Errorf("got %+v", i)
	}
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", 2); turn.Ack("sub", 4) })
	wantRead(t, db, "a", "3:3", "4:4", "5:5", "6:6")
	if p, _ := db.Position("sub"); p.Floor != 2 || len(p.Above) != 1 {
		t.Errorf("got %+v", p)
	}
	if n := db.Stats().Commits - commits; n != 0 {
		t.Errorf("%d commits for what stays in memory", n)
	}
	crashed := copyStore(t, dir)
	db.Close()

	db = open(t, dir)
	wantRead(t, db, "a")
	if i := info(t, db, "a"); i.Dropped["restart"] != 4 || i.Last != 6 || i.First != 7 {
		t.Errorf("after a restart: %+v", i)
	}
	if p, _ := db.Position("sub"); p.Floor != 6 || len(p.Above) != 0 {
		t.Errorf("after a restart: %+v", p)
	}
	if r := publish(t, db, "a", "7", "id"); r.Seq != 7 {
		t.Errorf("after a restart: %+v", r)
	}
	wantRead(t, db, "a", "7:7")
	db.Close()
	db = open(t, dir)
	if i := info(t, db, "a"); i.Dropped["restart"] != 5 {
		t.Errorf("after two restarts: %+v", i)
	}

	db = open(t, crashed)
	p, _ := db.Position("sub")
	r := publish(t, db, "a", "x", "")
	if r.Seq <= 6 || p.Floor+1 != r.Seq {
		t.Errorf("after a crash: sequence %d, and the subscription is at %d", r.Seq, p.Floor)
	}
}

func TestStream_Memory_limits(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxBytes: 64_000})
	ensure(t, db, store.StreamConfig{Name: "drop", Durability: store.Memory, MaxMsgs: 3, OnFull: store.DropOldest})
	ensure(t, db, store.StreamConfig{Name: "full", Durability: store.Memory, MaxMsgs: 3})
	ensure(t, db, store.StreamConfig{Name: "old", Durability: store.Memory, MaxAge: 20 * time.Millisecond})
	ensure(t, db, store.StreamConfig{Name: "big", Durability: store.Memory, MaxBytes: 1 << 20})
	for i := range 5 {
		publish(t, db, "drop", strconv.Itoa(i), "")
		publish(t, db, "old", strconv.Itoa(i), "")
	}
	wantRead(t, db, "drop", "3:2", "4:3", "5:4")
	if i := info(t, db, "drop"); i.Dropped["full"] != 2 || i.Msgs != 3 {
		t.Errorf("got %+v", i)
	}
	waitFor(t, "old messages to go", func() bool { return info(t, db, "old").Dropped["age"] == 5 })
	for range 3 {
		publish(t, db, "full", "x", "")
	}
	if _, err := tryPublish(db, "full", "x", ""); !errors.Is(err, store.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	// The bound of the store is for them, too.
	fill(t, db, "big", 500, plain)
	if held := db.Stats().Bytes; held > 64_000*7/8 || held < 64_000*6/8 {
		t.Errorf("the store holds %d bytes of 64000", held)
	}
}

// A turn is whole: what it publishes in memory is seen when the rest of it is on
// disk.
func TestStream_Memory_inATurn(t *testing.T) {
	var trouble error
	seen := -1
	var db *store.DB
	db = openWith(t, store.Options{Dir: t.TempDir(), Failpoint: func(point string) error {
		if db != nil && point == store.FailpointAfterSync {
			if i, err := db.Stream("a"); err == nil {
				seen = int(i.Msgs)
			}
		}
		if point == store.FailpointBeforeSync {
			return trouble
		}
		return nil
	}})
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Memory}, "sub")
	turn := db.Begin()
	turn.Put("s", "k", []byte("v"))
	turn.Publish("a", store.Message{Subject: "x", Data: []byte("x")})
	trouble = store.ErrFull
	if err := turn.Commit(); !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	wantRead(t, db, "a")
	trouble = nil
	commit(t, db, func(turn *store.Turn) {
		turn.Put("s", "k", []byte("v"))
		turn.Publish("a", store.Message{Subject: "x", Data: []byte("y")})
	})
	wantRead(t, db, "a", "1:y")
	if seen != 0 {
		t.Errorf("%d messages were seen before the turn was on disk", seen)
	}
	commit(t, db, func(turn *store.Turn) {
		turn.Put("s", "k", nil)
		turn.Ack("sub", 1)
	})
	wantRead(t, db, "a")
}

func TestDB_EnsureStream_changesDurability(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	memory := store.StreamConfig{Name: "a", Durability: store.Memory}
	synced := store.StreamConfig{Name: "a"}
	ensure(t, db, memory, "sub")
	publish(t, db, "a", "1", "id-1")
	publish(t, db, "a", "2", "id-2")
	ensure(t, db, synced)
	wantRead(t, db, "a", "1:1", "2:2")
	publish(t, db, "a", "3", "")
	if r := info(t, db, "a").Risk; r.Msgs != 0 {
		t.Errorf("at risk: %+v", r)
	}
	db.Close()
	db = open(t, dir)
	wantRead(t, db, "a", "1:1", "2:2", "3:3")
	if r := publish(t, db, "a", "2", "id-2"); !r.Duplicate {
		t.Error("a repeat is not known any more")
	}

	// Back: what is on disk stays in front, and outlives a restart.
	ensure(t, db, memory)
	publish(t, db, "a", "4", "")
	wantRead(t, db, "a", "1:1", "2:2", "3:3", "4:4")
	if i := info(t, db, "a"); i.Risk.Msgs != 1 || i.Msgs != 4 || i.First != 1 {
		t.Errorf("got %+v", i)
	}
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", 1) })
	db.Close()
	db = open(t, dir)
	wantRead(t, db, "a", "2:2", "3:3")
	publish(t, db, "a", "5", "")
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", 3) })
	waitFor(t, "what is on disk to be gone", func() bool { return info(t, db, "a").Msgs == 1 })
	wantRead(t, db, "a", "5:5")
	commit(t, db, func(turn *store.Turn) { turn.Ack("sub", 4) })

	// With messages on their way to the disk.
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Batch, BatchFor: never})
	publish(t, db, "a", "6", "")
	publish(t, db, "a", "7", "")
	ensure(t, db, memory)
	publish(t, db, "a", "8", "")
	wantRead(t, db, "a", "5:5", "6:6", "7:7", "8:8")
	flush(t, db)
	wantRead(t, db, "a", "5:5", "6:6", "7:7", "8:8")
	db.Close()
	wantRead(t, open(t, dir), "a", "5:5", "6:6", "7:7")
}

// What a stream in memory remembers is bounded, and what a crash takes of it is
// counted as of the last commit.
func TestStream_Memory_bounds(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Memory, Dedupe: 3, OnFull: store.DropOldest, MaxMsgs: 100}, "sub")
	for i := range 50 {
		publish(t, db, "a", "x", strconv.Itoa(i))
	}
	if r := publish(t, db, "a", "x", "49"); !r.Duplicate {
		t.Error("the last identity is not known")
	}
	if r := publish(t, db, "a", "x", "40"); r.Duplicate {
		t.Error("an identity beyond the bound is known")
	}
	commit(t, db, func(turn *store.Turn) { turn.Put("s", "k", nil) })
	commits := db.Stats().Commits
	crashed := copyStore(t, dir)
	if i := info(t, open(t, crashed), "a"); i.Dropped["restart"] != 51 {
		t.Errorf("after a crash: %+v", i.Dropped)
	}
	if n := db.Stats().Commits - commits; n != 0 {
		t.Errorf("%d commits for nothing", n)
	}
}

// A stream in memory that becomes one on disk takes along how far everybody is.
func TestEnsureStream_memoryToDisk_positions(t *testing.T) {
	for _, to := range []store.StreamConfig{{Name: "a"}, {Name: "a", Durability: store.Batch, BatchFor: never}} {
		t.Run(to.Durability.String(), func(t *testing.T) {
			dir := t.TempDir()
			db := open(t, dir)
			ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Memory}, "slow", "fast")
			for range 3 {
				publish(t, db, "a", "x", "")
			}
			commit(t, db, func(turn *store.Turn) { turn.AckUpTo("fast", 2) })
			if err := db.EnsureStream(to); err != nil {
				t.Fatal(err)
			}
			flush(t, db)
			crashed := open(t, copyStore(t, dir))
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			for what, db := range map[string]*store.DB{"crash": crashed, "restart": open(t, dir)} {
				if n := len(read(t, db, "a")); n != 3 {
					t.Errorf("after a %s %d messages, want 3", what, n)
				}
				if p, err := db.Position("fast"); err != nil || p.Floor != 2 {
					t.Errorf("after a %s: got %+v, %v, want 2", what, p, err)
				}
			}
		})
	}
}

// The watermark of a producer gets to the disk with the message.
func TestEnsureStream_memoryToDisk_watermarks(t *testing.T) {
	dir := t.TempDir()
	var armed atomic.Bool
	copied := make(chan string, 1)
	db := openWith(t, store.Options{Dir: dir, Failpoint: func(name string) error {
		if name == store.FailpointBeforeSync && armed.CompareAndSwap(true, false) {
			copied <- copyStore(t, dir)
		}
		return nil
	}})
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Memory}, "sub")
	numbered := func(db *store.DB) (r *store.Receipt) {
		commit(t, db, func(turn *store.Turn) {
			var err error
			if r, err = turn.Publish("a", store.Message{Subject: "x", Producer: "p", ProducerSeq: 1}); err != nil {
				t.Fatal(err)
			}
		})
		return r
	}
	numbered(db)
	armed.Store(true)
	if err := db.EnsureStream(store.StreamConfig{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	flush(t, db)
	if db := open(t, <-copied); len(read(t, db, "a")) == 0 {
		if r := numbered(db); r.Duplicate {
			t.Errorf("a message that a power cut took is not stored again: %+v", r)
		}
	}
	if db := open(t, copyStore(t, dir)); !numbered(db).Duplicate {
		t.Error("a message that is there is stored again")
	}
}

// Nor does it give a sequence again that somebody has acknowledged.
func TestEnsureStream_memoryToDisk_consumed(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Memory}, "sub")
	for range 3 {
		publish(t, db, "a", "x", "")
	}
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", 3) })
	if err := db.EnsureStream(store.StreamConfig{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", 3) })
	to := copyStore(t, dir)
	if r, err := store.Check(t.Context(), to); err != nil || len(r.Findings) > 0 {
		t.Errorf("check: %+v, %v", r, err)
	}
	db = open(t, to)
	r := publish(t, db, "a", "next", "")
	if p, err := db.Position("sub"); err != nil || p.Floor >= r.Seq {
		t.Errorf("message %d is acknowledged before it is stored: %+v, %v", r.Seq, p, err)
	}
}
