package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/edged-io/edged/store"
)

func open(t *testing.T, dir string) *store.DB {
	t.Helper()
	return openWith(t, store.Options{Dir: dir})
}

func openWith(t *testing.T, o store.Options) *store.DB {
	t.Helper()
	db, err := store.Open(o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func ensure(t *testing.T, db *store.DB, c store.StreamConfig, subs ...string) {
	t.Helper()
	if err := db.EnsureStream(c); err != nil {
		t.Fatal(err)
	}
	for _, name := range subs {
		if err := db.EnsureSubscription(store.SubscriptionConfig{Name: name, Stream: c.Name}); err != nil {
			t.Fatal(err)
		}
	}
}

func publish(t *testing.T, db *store.DB, stream, data, id string) store.Receipt {
	t.Helper()
	r, err := tryPublish(db, stream, data, id)
	if err != nil {
		t.Fatalf("publish %q: %v", data, err)
	}
	return r
}

func tryPublish(db *store.DB, stream, data, id string) (store.Receipt, error) {
	turn := db.Begin()
	r, err := turn.Publish(stream, store.Message{Subject: "s." + data, Data: []byte(data), ID: id})
	if err != nil {
		turn.Discard()
		return store.Receipt{}, err
	}
	err = turn.Commit()
	return *r, err
}

func read(t *testing.T, db *store.DB, stream string) []string {
	t.Helper()
	var got []string
	err := db.Read(stream, 0, 1<<30, 1<<30, func(m store.Message) error {
		got = append(got, strconv.FormatUint(m.Seq, 10)+":"+string(m.Data))
		return nil
	})
	if err != nil {
		t.Fatalf("read %s: %v", stream, err)
	}
	return got
}

func wantRead(t *testing.T, db *store.DB, stream string, want ...string) {
	t.Helper()
	if got := read(t, db, stream); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("stream %s: got %v, want %v", stream, got, want)
	}
}

func commit(t *testing.T, db *store.DB, fn func(*store.Turn)) {
	t.Helper()
	turn := db.Begin()
	fn(turn)
	if err := turn.Commit(); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

func value(t *testing.T, db *store.DB, space, key string) string {
	t.Helper()
	turn := db.Begin()
	defer turn.Discard()
	v, _, err := turn.Get(space, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(v)
}

func TestStream_Publish_numbersAndSurvivesReopen(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a"})
	ensure(t, db, store.StreamConfig{Name: "b"})
	publish(t, db, "a", "x", "")
	publish(t, db, "b", "y", "")
	if r := publish(t, db, "a", "z", ""); r.Seq != 2 || r.Stream != "a" {
		t.Fatalf("receipt %+v, want a 2", r)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir)
	wantRead(t, db, "a", "1:x", "2:z")
	wantRead(t, db, "b", "1:y")
	if r := publish(t, db, "a", "w", ""); r.Seq != 3 {
		t.Fatalf("after reopening: seq %d, want 3", r.Seq)
	}
}

func TestStream_Publish_recognisesRepeats(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	publish(t, db, "a", "x", "id-1")
	if r := publish(t, db, "a", "x", "id-1"); !r.Duplicate || r.Seq != 1 {
		t.Fatalf("repeat: %+v", r)
	}
	commit(t, db, func(turn *store.Turn) { turn.Ack("sub", 1) })
	db.Close()
	db = open(t, dir)
	if r := publish(t, db, "a", "x", "id-1"); !r.Duplicate || r.Seq != 1 {
		t.Fatalf("repeat after the message was consumed and the store reopened: %+v", r)
	}
	wantRead(t, db, "a")
}

func TestStream_Publish_repeatsInOneGroup(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"})
	var wg sync.WaitGroup
	var mu sync.Mutex
	first := 0
	for range 64 {
		wg.Go(func() {
			r, err := tryPublish(db, "a", "x", "same")
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !r.Duplicate {
				first++
			}
		})
	}
	wg.Wait()
	if first != 1 {
		t.Fatalf("%d of 64 repeats were told to be the first", first)
	}
	wantRead(t, db, "a", "1:x")
}

func TestStream_limits(t *testing.T) {
	t.Run("reject", func(t *testing.T) {
		db := open(t, t.TempDir())
		ensure(t, db, store.StreamConfig{Name: "a", MaxMsgs: 2}, "sub")
		publish(t, db, "a", "1", "")
		publish(t, db, "a", "2", "")
		if _, err := tryPublish(db, "a", "3", ""); !errors.Is(err, store.ErrFull) {
			t.Fatalf("third message: got %v, want ErrFull", err)
		}
		commit(t, db, func(turn *store.Turn) { turn.Ack("sub", 1) })
		publish(t, db, "a", "3", "")
		wantRead(t, db, "a", "2:2", "3:3")
	})
	t.Run("drop oldest", func(t *testing.T) {
		db := open(t, t.TempDir())
		ensure(t, db, store.StreamConfig{Name: "a", MaxMsgs: 2, OnFull: store.DropOldest}, "sub")
		for i := range 5 {
			publish(t, db, "a", strconv.Itoa(i), "")
		}
		wantRead(t, db, "a", "4:3", "5:4")
		if info, _ := db.Stream("a"); info.Dropped["full"] != 3 || info.Msgs != 2 {
			t.Fatalf("info %+v, want 3 dropped", info)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		db := open(t, t.TempDir())
		ensure(t, db, store.StreamConfig{Name: "a", MaxBytes: 1000}, "sub")
		if _, err := tryPublish(db, "a", string(make([]byte, 2000)), ""); !errors.Is(err, store.ErrTooLarge) {
			t.Fatalf("message beyond the stream: got %v, want ErrTooLarge", err)
		}
		var err error
		for n := 0; err == nil; n++ {
			if n > 100 {
				t.Fatal("a stream of 1000 bytes took 100 messages")
			}
			_, err = tryPublish(db, "a", "0123456789", "")
		}
		if info, _ := db.Stream("a"); !errors.Is(err, store.ErrFull) || info.Bytes > 1000 {
			t.Fatalf("got %v with %d bytes held, want ErrFull", err, info.Bytes)
		}
	})
	t.Run("store", func(t *testing.T) {
		db := openWith(t, store.Options{Dir: t.TempDir(), MaxBytes: 10_000})
		ensure(t, db, store.StreamConfig{Name: "a"})
		ensure(t, db, store.StreamConfig{Name: "b", OnFull: store.DropOldest})
		var err error
		for err == nil {
			_, err = tryPublish(db, "a", string(make([]byte, 500)), "")
		}
		if !errors.Is(err, store.ErrFull) {
			t.Fatalf("got %v, want ErrFull", err)
		}
		for range 20 {
			publish(t, db, "b", "x", "")
		}
		if info, _ := db.Stream("b"); info.Dropped["full"] == 0 {
			t.Fatalf("a stream that gives way dropped nothing in a full store: %+v", info)
		}
	})
}

// A full store is drained by turns that consume, and those may have to publish.
func TestStream_limits_consumingHasRoom(t *testing.T) {
	db := openWith(t, store.Options{Dir: t.TempDir(), MaxBytes: 20_000})
	ensure(t, db, store.StreamConfig{Name: "in"}, "sub")
	ensure(t, db, store.StreamConfig{Name: "out"})
	var err error
	last := uint64(0)
	for err == nil {
		var r store.Receipt
		if r, err = tryPublish(db, "in", string(make([]byte, 500)), ""); err == nil {
			last = r.Seq
		}
	}
	if _, err := tryPublish(db, "out", "x", ""); !errors.Is(err, store.ErrFull) {
		// There may be room for a message so small.
		for err == nil {
			_, err = tryPublish(db, "out", "x", "")
		}
	}
	for seq := range last {
		commit(t, db, func(turn *store.Turn) {
			turn.Ack("sub", seq+1)
			turn.Publish("out", store.Message{Subject: "o", Data: []byte("handled")})
		})
	}
}

func TestDB_EnsureStream_fromManyGoroutines(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := db.EnsureStream(store.StreamConfig{Name: "a"}); err != nil {
				t.Error(err)
			}
			if err := db.EnsureSubscription(store.SubscriptionConfig{Name: "sub", Stream: "a"}); err != nil {
				t.Error(err)
			}
			if _, err := tryPublish(db, "a", "x", ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	db.Close()
	if n := len(read(t, open(t, dir), "a")); n != 16 {
		t.Fatalf("%d messages, want 16", n)
	}
}

func TestSubscription_Ack_keepsLater(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a"}, "one", "two")
	for i := range 4 {
		publish(t, db, "a", strconv.Itoa(i+1), "")
	}
	commit(t, db, func(turn *store.Turn) { turn.Ack("one", 1); turn.Ack("one", 3); turn.Attempt("one", 2, 5) })
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("two", 2) })
	wantRead(t, db, "a", "2:2", "3:3", "4:4") // "one" has not done with 2
	db.Close()
	db = open(t, dir)
	p, err := db.Position("one")
	if err != nil || p.Floor != 1 || fmt.Sprint(p.Above) != "[3]" || p.Attempts[2] != 5 {
		t.Fatalf("position %+v, %v", p, err)
	}
	commit(t, db, func(turn *store.Turn) { turn.Ack("one", 2) })
	wantRead(t, db, "a", "3:3", "4:4") // "two" has not done with 3
	if p, _ = db.Position("one"); p.Floor != 3 || len(p.Above) != 0 || len(p.Attempts) != 0 {
		t.Fatalf("position %+v, want floor 3", p)
	}
}

func TestTurn_isWholeOrAbsent(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "in"}, "sub")
	ensure(t, db, store.StreamConfig{Name: "out", MaxMsgs: 1})
	publish(t, db, "in", "x", "")
	publish(t, db, "out", "y", "")
	turn := db.Begin()
	turn.Put("s", "k", []byte("v"))
	turn.Ack("sub", 1)
	turn.Publish("out", store.Message{Subject: "o"})
	if err := turn.Commit(); !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	if v := value(t, db, "s", "k"); v != "" {
		t.Fatalf("a refused turn left state %q", v)
	}
	wantRead(t, db, "in", "1:x")
}

func TestTurn_readsItsOwnWrites(t *testing.T) {
	db := open(t, t.TempDir())
	turn := db.Begin()
	defer turn.Discard()
	turn.Put("s", "k", []byte("v"))
	if v, ok, _ := turn.Get("s", "k"); !ok || string(v) != "v" {
		t.Fatalf("got %q, %v", v, ok)
	}
	turn.Delete("s", "k")
	if _, ok, _ := turn.Get("s", "k"); ok {
		t.Fatal("a deleted key is still there")
	}
	if v := value(t, db, "s", "k"); v != "" {
		t.Fatalf("another turn sees %q before the commit", v)
	}
}

func increment(ctx context.Context, db *store.DB, key string) error {
	return db.Do(ctx, func(_ context.Context, turn *store.Turn) error {
		v, _, err := turn.Get("s", key)
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(string(v))
		return turn.Put("s", key, []byte(strconv.Itoa(n+1)))
	})
}

func TestDB_Do_countsExactlyUnderConflict(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				if err := increment(t.Context(), db, "n"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	db.Close()
	db = open(t, dir)
	if v := value(t, db, "s", "n"); v != "800" {
		t.Fatalf("got %s, want 800", v)
	}
}

func TestDB_Do_sharesCommits(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"})
	before := db.Stats().Commits
	var wg sync.WaitGroup
	for range 256 {
		wg.Go(func() {
			for range 8 {
				if _, err := tryPublish(db, "a", "x", ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := db.Stats().Commits - before; n > 50 {
		t.Fatalf("2048 turns of 256 publishers took %d commits, at most 50 wanted", n)
	}
}

func TestTurn_AfterCommit_runsInOrderAndBeforeDone(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"})
	var got []int
	var wg sync.WaitGroup
	for i := range 200 {
		turn := db.Begin()
		turn.Publish("a", store.Message{Subject: "s"})
		turn.AfterCommit(func() { got = append(got, i) })
		wg.Add(1)
		turn.Submit(func(err error) {
			defer wg.Done()
			if err != nil || got[len(got)-1] != i {
				t.Errorf("turn %d: %v, effects so far end with %d", i, err, got[len(got)-1])
			}
		})
	}
	wg.Wait()
	for i, n := range got {
		if i != n {
			t.Fatalf("effect %d ran at place %d", n, i)
		}
	}
}

func TestTurn_AfterCommit_notForAFailedTurn(t *testing.T) {
	db := open(t, t.TempDir())
	turn := db.Begin()
	turn.Get("s", "k")
	if err := increment(t.Context(), db, "k"); err != nil {
		t.Fatal(err)
	}
	turn.AfterCommit(func() { t.Error("ran") })
	if err := turn.Commit(); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("got %v, want ErrConflict", err)
	}
}

func TestOpen_locked(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := store.Open(store.Options{Dir: dir}); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("second Open: got %v, want ErrLocked", err)
	}
}

func TestOpen_unusable(t *testing.T) {
	if _, err := store.Open(store.Options{Dir: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, store.ErrUnusable) {
		t.Fatalf("no folder: got %v, want ErrUnusable", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "store.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(store.Options{Dir: dir}); !errors.Is(err, store.ErrUnusable) {
		t.Fatalf("a folder in place of the file: got %v, want ErrUnusable", err)
	}
}

func TestDB_Close_refusesLater(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"})
	db.Close()
	if _, err := tryPublish(db, "a", "x", ""); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
	if err := db.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
}

func TestDB_DeleteStream(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	publish(t, db, "a", "x", "id")
	if err := db.DeleteStream("a"); err != nil {
		t.Fatal(err)
	}
	if err := db.Read("a", 1, 1, 1, nil); !errors.Is(err, store.ErrNoStream) {
		t.Fatalf("got %v, want ErrNoStream", err)
	}
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	if r := publish(t, db, "a", "x", "id"); r.Seq != 1 || r.Duplicate {
		t.Fatalf("a new stream of the same name starts with %+v", r)
	}
}

func TestDB_adminRefusesWithoutFailing(t *testing.T) {
	db := open(t, t.TempDir())
	if err := db.DeleteStream("none"); !errors.Is(err, store.ErrNoStream) {
		t.Fatalf("delete a stream that is not there: %v", err)
	}
	if err := db.DeleteSubscription("none"); !errors.Is(err, store.ErrNoSubscription) {
		t.Fatalf("delete a subscription that is not there: %v", err)
	}
	if err := db.EnsureSubscription(store.SubscriptionConfig{Name: "s", Stream: "none"}); !errors.Is(err, store.ErrNoStream) {
		t.Fatalf("subscribe to a stream that is not there: %v", err)
	}
	ensure(t, db, store.StreamConfig{Name: "a"}, "s")
	publish(t, db, "a", "x", "")
}

func TestDeadLetters(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	for i := range 3 {
		commit(t, db, func(turn *store.Turn) {
			turn.DeadLetter(store.DeadLetter{Stream: "a", Seq: uint64(i + 1), Reason: "max-deliver", Data: []byte("x")})
		})
	}
	db.Close()
	db = open(t, dir)
	var ids []uint64
	db.DeadLetters(func(d store.DeadLetter) error { ids = append(ids, d.ID); return nil })
	if fmt.Sprint(ids) != "[1 2 3]" || db.DeadLetterCount() != 3 {
		t.Fatalf("ids %v, count %d", ids, db.DeadLetterCount())
	}
	if d, err := db.DeadLetter(2); err != nil || d.Seq != 2 || d.Time.IsZero() {
		t.Fatalf("got %+v, %v", d, err)
	}
	if _, err := db.DeadLetter(9); !errors.Is(err, store.ErrNoDeadLetter) {
		t.Fatalf("got %v, want ErrNoDeadLetter", err)
	}
}

func TestDB_List(t *testing.T) {
	db := open(t, t.TempDir())
	commit(t, db, func(turn *store.Turn) {
		for i := range 600 {
			turn.Put("space", fmt.Sprintf("k%04d", i), []byte{1})
		}
		turn.Put("space", "other", nil)
		turn.Put("spaces", "k1", nil)
	})
	n := 0
	err := db.List("space", "k", func(key string, v []byte) error {
		if want := fmt.Sprintf("k%04d", n); key != want {
			t.Fatalf("got %s, want %s", key, want)
		}
		n++
		return nil
	})
	if err != nil || n != 600 {
		t.Fatalf("%d keys, %v", n, err)
	}
}

func TestDB_Watch(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a"})
	wake, stop, err := db.Watch("a")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	<-wake // there at once
	publish(t, db, "a", "x", "")
	<-wake
	select {
	case <-wake:
		t.Fatal("woken without a message")
	default:
	}
}
