package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// fill publishes to a stream until it is refused, and returns the last sequence.
func fill(t *testing.T, db *store.DB, stream string, size int, stage func(*store.Turn)) (last uint64) {
	t.Helper()
	for range 10_000 {
		turn := db.Begin()
		stage(turn)
		r, err := turn.Publish(stream, store.Message{Subject: "x", Data: make([]byte, size)})
		if err != nil {
			t.Fatal(err)
		}
		switch err := turn.Commit(); {
		case errors.Is(err, store.ErrFull):
			return last
		case err != nil:
			t.Fatal(err)
		}
		last = r.Seq
	}
	t.Fatalf("stream %s took everything", stream)
	return 0
}

func plain(*store.Turn) {}

// Ordinary publishes end first, then those of turns that acknowledge, then
// alarms; and draining it makes the store take all of them again.
func TestDB_room_isLeftForWhoNeedsIt(t *testing.T) {
	const most = 64_000
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxBytes: most})
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	ensure(t, db, store.StreamConfig{Name: "out"})
	ensure(t, db, store.StreamConfig{Name: "alarms", Priority: store.MaxPriority}, "alarms")
	check := func(who string, least, limit int64) {
		t.Helper()
		if held := db.Stats().Bytes; held > limit || held < least {
			t.Errorf("%s filled the store up to %d, want %d to %d", who, held, least, limit)
		}
	}
	last := fill(t, db, "a", 200, plain)
	check("publishers", most*6/8, most*7/8)
	fill(t, db, "out", 200, func(turn *store.Turn) { turn.Attempt("sub", 1, 1) })
	check("turns that acknowledge", most*7/8, most*15/16)
	fill(t, db, "alarms", 200, plain)
	check("alarms", most*15/16, most*63/64)
	for range 9 {
		commit(t, db, func(turn *store.Turn) { // in the end it pushes out nothing but its like
			turn.DeadLetter(store.DeadLetter{Stream: "a", Reason: "rejected"})
		})
	}
	check("dead letters", most*15/16, most)
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", last) })
	publish(t, db, "out", "x", "")
}

// A stream that drops gives way for its own messages, and is refused what would
// not fit without the others.
// What a stream could not hold if it were empty is too large, not full: who
// hears that it is full tries again for ever.
func TestDB_room_moreThanTheStream(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir()})
	ensure(t, db, store.StreamConfig{Name: "few", MaxMsgs: 3})
	ensure(t, db, store.StreamConfig{Name: "small", MaxBytes: 4000})
	publish := func(stream string, n, size int) error {
		turn := db.Begin()
		for range n {
			if _, err := turn.Publish(stream, store.Message{Subject: "x", Data: make([]byte, size)}); err != nil {
				t.Fatal(err)
			}
		}
		return turn.Commit()
	}
	for _, c := range []struct {
		stream      string
		n, size     int
		first, then error // in an empty stream, and after one message
	}{
		{"few", 4, 1, store.ErrTooLarge, store.ErrTooLarge},
		{"few", 3, 1, nil, store.ErrFull},
		{"small", 3, 1500, store.ErrTooLarge, store.ErrTooLarge},
		{"small", 2, 1500, nil, store.ErrFull},
	} {
		for i, want := range []error{c.first, c.then} {
			if err := publish(c.stream, c.n, c.size); !errors.Is(err, want) {
				t.Errorf("%d messages of %d bytes for %s, time %d: got %v, want %v", c.n, c.size, c.stream, i+1, err, want)
			}
		}
	}
}

func TestDB_room_dropOldest(t *testing.T) {
	const most = 64_000
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxBytes: most})
	ensure(t, db, store.StreamConfig{Name: "a"})
	ensure(t, db, store.StreamConfig{Name: "drop", OnFull: store.DropOldest})
	for range 125 {
		commit(t, db, func(turn *store.Turn) {
			for range 8 {
				turn.Publish("drop", store.Message{Subject: "s.x", Data: []byte("0123456789")})
			}
		})
		if held := db.Stats().Bytes; held > most*7/8 {
			t.Fatalf("the store holds %d bytes of %d", held, most)
		}
	}
	info, _ := db.Stream("drop")
	if info.Dropped["full"]+uint64(info.Msgs) != 1000 || info.Msgs < 100 {
		t.Errorf("of 1000 messages %d are held and %d counted as dropped", info.Msgs, info.Dropped["full"])
	}
	if _, err := tryPublish(db, "a", "refuses", ""); !errors.Is(err, store.ErrFull) {
		t.Errorf("a stream that refuses, when the other has all the room: got %v, want ErrFull", err)
	}
	// One turn with more than the stream may hold leaves its last messages.
	ensure(t, db, store.StreamConfig{Name: "drop", OnFull: store.DropOldest, MaxMsgs: 10})
	commit(t, db, func(turn *store.Turn) {
		for range 20_000 {
			turn.Publish("drop", store.Message{Subject: "x"})
		}
	})
	if info, _ := db.Stream("drop"); info.Msgs != 10 || info.Last != 21_000 {
		t.Errorf("got %d messages up to %d, want 10 up to 21000", info.Msgs, info.Last)
	}
	// Only what fits beside the others is taken.
	fill(t, db, "a", 200, plain)
	turn := db.Begin()
	turn.Publish("drop", store.Message{Subject: "x", Data: make([]byte, 10_000)})
	if err := turn.Commit(); !errors.Is(err, store.ErrFull) {
		t.Errorf("more than the others leave: got %v, want ErrFull", err)
	}
}

// Whatever many goroutines do at once, no bound is ever passed.
func TestDB_room_holdsAtAllTimes(t *testing.T) {
	const most = 100_000
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxBytes: most})
	streams := []store.StreamConfig{
		{Name: "reject", MaxBytes: 40_000},
		{Name: "drop", OnFull: store.DropOldest, MaxMsgs: 50},
		{Name: "drop2", OnFull: store.DropOldest},
		{Name: "alarms", Priority: store.MaxPriority, OnFull: store.DropOldest},
		{Name: "batch", Durability: store.Batch, BatchFor: 20 * time.Millisecond, OnFull: store.DropOldest, MaxBytes: 20_000},
		{Name: "batch2", Durability: store.Batch, BatchFor: time.Hour, OnFull: store.DropOldest},
		{Name: "memory", Durability: store.Memory, OnFull: store.DropOldest},
	}
	for _, c := range streams {
		ensure(t, db, c, "sub-"+c.Name)
	}
	look := func() error {
		sum := int64(0)
		for _, info := range db.Streams() {
			if info.MaxBytes > 0 && info.Bytes > info.MaxBytes || info.MaxMsgs > 0 && info.Msgs > info.MaxMsgs {
				return fmt.Errorf("stream %s holds %d messages, %d bytes", info.Name, info.Msgs, info.Bytes)
			}
			sum += info.Bytes
		}
		if held := db.Stats().Bytes; sum > most || held > most {
			return fmt.Errorf("the store holds %d bytes (%d in streams) of %d", held, sum, most)
		}
		return nil
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for worker := range 8 {
		rnd := rand.New(rand.NewPCG(seed, uint64(worker)))
		wg.Go(func() {
			for range 300 {
				turn := db.Begin()
				one, mixed := streams[rnd.IntN(len(streams))].Name, rnd.IntN(2) == 0
				for range rnd.IntN(8) {
					to := one
					if mixed {
						to = streams[rnd.IntN(len(streams))].Name
					}
					turn.Publish(to, store.Message{Subject: "x", Data: make([]byte, rnd.IntN(3000))})
				}
				if c := streams[rnd.IntN(len(streams))].Name; rnd.IntN(3) == 0 {
					if info, err := db.Stream(c); err == nil && info.Msgs > 0 {
						turn.AckUpTo("sub-"+c, info.First+uint64(rnd.IntN(10)))
					}
				}
				if rnd.IntN(4) == 0 {
					turn.DeadLetter(store.DeadLetter{Data: make([]byte, rnd.IntN(4000))})
				}
				turn.Commit() // most of it is refused
				if err := look(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
