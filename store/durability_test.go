package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// never is a BatchFor that a test does not wait for.
const never = time.Hour

// copyStore is what a crash would leave of a store now.
func copyStore(t *testing.T, dir string) (to string) {
	t.Helper()
	to = t.TempDir()
	b, err := os.ReadFile(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "store.db"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

func info(t *testing.T, db *store.DB, stream string) store.StreamInfo {
	t.Helper()
	i, err := db.Stream(stream)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// flush waits until all that was told is on disk.
func flush(t *testing.T, db *store.DB) {
	t.Helper()
	commit(t, db, func(*store.Turn) {})
}

func TestStream_Batch_isToldFirst(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Batch, BatchFor: never}, "sub")
	wake, stop, err := db.Watch("a")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	<-wake
	publish(t, db, "a", "first", "") // reserves sequences
	<-wake
	commits := db.Stats().Commits
	for i := range 100 {
		if r := publish(t, db, "a", strconv.Itoa(i), "id-"+strconv.Itoa(i)); r.Seq != uint64(i+2) {
			t.Fatalf("message %d has sequence %d", i, r.Seq)
		}
		<-wake
	}
	if n := db.Stats().Commits - commits; n != 0 {
		t.Errorf("%d commits for messages that may wait", n)
	}
	if r := publish(t, db, "a", "7", "id-7"); !r.Duplicate || r.Seq != 9 {
		t.Errorf("repeat of a message in memory: %+v", r)
	}
	if got := read(t, db, "a"); len(got) != 101 || got[100] != "101:99" {
		t.Errorf("got %d messages, want 101", len(got))
	}
	i := info(t, db, "a")
	if i.Msgs != 101 || i.Last != 101 || i.Risk.Msgs != 100 || i.Risk.Bytes <= 0 || i.Risk.Bytes >= i.Bytes || i.Risk.Age <= 0 {
		t.Errorf("got %+v", i)
	}

	crashed := copyStore(t, dir)
	commit(t, db, func(turn *store.Turn) { turn.Put("s", "k", nil) }) // takes all before it along
	if r := info(t, db, "a").Risk; r != (store.Risk{}) {
		t.Errorf("after something synced: got %+v", r)
	}
	if n := db.Stats().Commits - commits; n != 1 {
		t.Errorf("got %d commits, want 1", n)
	}
	db.Close()
	db = open(t, dir)
	if got := read(t, db, "a"); len(got) != 101 {
		t.Errorf("after a restart: %d messages, want 101", len(got))
	}
	if r := publish(t, db, "a", "next", ""); r.Seq != 102 {
		t.Errorf("after a restart: sequence %d, want 102", r.Seq)
	}

	db = open(t, crashed)
	wantRead(t, db, "a", "1:first")
	if r := publish(t, db, "a", "7", "id-7"); r.Seq <= 101 || r.Duplicate {
		t.Errorf("what the crash took, published again: %+v", r)
	}
}

func TestStream_Batch_isWrittenInTime(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Batch, BatchFor: 50 * time.Millisecond}, "sub")
	publish(t, db, "a", "1", "")
	commits := db.Stats().Commits
	publish(t, db, "a", "2", "")
	waitFor(t, "the message to be on disk", func() bool { return info(t, db, "a").Risk.Msgs == 0 })
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", 2) })
	if n := db.Stats().Commits; n != commits+1 {
		t.Errorf("got %d commits, want 1: an acknowledgement may wait, too", n-commits)
	}
	if p, err := db.Position("sub"); err != nil || p.Floor != 2 {
		t.Errorf("the acknowledgement is not seen: %+v, %v", p, err)
	}
	waitFor(t, "the messages to be gone", func() bool { return info(t, db, "a").Msgs == 0 })
}

// Turns end in order, whatever waits for the disk.
func TestStream_Batch_keepsTheOrder(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "batch", Durability: store.Batch, BatchFor: never}, "sub")
	ensure(t, db, store.StreamConfig{Name: "synced"})
	ensure(t, db, store.StreamConfig{Name: "memory", Durability: store.Memory})
	var got []int
	var wg sync.WaitGroup
	for i := range 600 {
		turn := db.Begin()
		turn.Publish([]string{"batch", "memory", "batch", "synced"}[i%4], store.Message{Subject: "s"})
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

// What is read of something in memory is on disk before anything is done at
// once for it.
func TestTurn_Irrevocable_waitsForWhatIsHeld(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Batch, BatchFor: never})
	publish(t, db, "a", "1", "")
	first := db.Begin()
	first.Publish("a", store.Message{Subject: "x"})
	if err := first.Commit(); err != nil {
		t.Fatal(err)
	}
	second := db.Begin()
	if err := second.Follow(first); err != nil {
		t.Fatal(err)
	}
	if err := second.Irrevocable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := info(t, db, "a").Risk; r.Msgs != 0 {
		t.Errorf("it acts at once, and %d messages before it are in memory alone", r.Msgs)
	}
	second.Discard()
}

// A crash at any time takes no more than Risk says, nothing of what was synced,
// and gives no sequence twice.
func TestStream_Batch_crash(t *testing.T) {
	dir := t.TempDir()
	type state struct {
		told  []string // of the batch stream
		risk  int64
		state string
	}
	var mu sync.Mutex
	var known state
	var told []string
	var crashes []string
	var seen []state
	crash := func() {
		mu.Lock()
		defer mu.Unlock()
		crashes, seen = append(crashes, copyStore(t, dir)), append(seen, known)
	}
	syncs := 0
	db := openWith(t, store.Options{Dir: dir, Failpoint: func(point string) error {
		if syncs++; syncs%5 == 0 {
			crash()
		}
		return nil
	}})
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Batch, BatchFor: never}, "sub")
	ensure(t, db, store.StreamConfig{Name: "synced"})
	for i := range 200 {
		r := publish(t, db, "a", strconv.Itoa(i), "")
		told = append(told, fmt.Sprintf("%d:%d", r.Seq, i))
		mu.Lock()
		known.told, known.risk = told, info(t, db, "a").Risk.Msgs
		mu.Unlock()
		if i%7 == 0 {
			publish(t, db, "synced", strconv.Itoa(i), "")
			mu.Lock()
			known.state = strconv.Itoa(i)
			known.risk = info(t, db, "a").Risk.Msgs
			mu.Unlock()
		}
		if i%31 == 0 {
			crash()
		}
	}
	if len(crashes) < 10 {
		t.Fatalf("only %d crashes", len(crashes))
	}
	for i, dir := range crashes {
		db := open(t, dir)
		got := read(t, db, "a")
		if lost := len(seen[i].told) - len(got); int64(lost) > seen[i].risk {
			t.Errorf("crash %d took %d messages, and only %d were at risk", i, lost, seen[i].risk)
		}
		for j, m := range got {
			if j < len(seen[i].told) && m != seen[i].told[j] {
				t.Fatalf("crash %d: message %d is %q, want %q", i, j, m, seen[i].told[j])
			}
		}
		if s := read(t, db, "synced"); seen[i].state != "" && (len(s) == 0 || s[len(s)-1] < fmt.Sprint(len(s))) {
			t.Errorf("crash %d: synced messages %v, told up to %s", i, s, seen[i].state)
		}
		r := publish(t, db, "a", "after", "")
		if n := len(seen[i].told); r.Seq <= uint64(n) {
			t.Errorf("crash %d: sequence %d was given twice, %d were told", i, r.Seq, n)
		}
		commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", r.Seq) })
		db.Close()
	}
}

// What was told is kept while the disk is full, and gets there when it is not.
func TestStream_Batch_fullDisk(t *testing.T) {
	var mu sync.Mutex
	full := false
	dir := t.TempDir()
	db := openWith(t, store.Options{Dir: dir, Failpoint: func(point string) error {
		mu.Lock()
		defer mu.Unlock()
		if full && point == store.FailpointBeforeSync {
			return store.ErrFull
		}
		return nil
	}})
	fill := func(is bool) {
		mu.Lock()
		full = is
		mu.Unlock()
	}
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Batch, BatchFor: never}, "sub")
	ensure(t, db, store.StreamConfig{Name: "synced"}, "other")
	publish(t, db, "a", "1", "")
	publish(t, db, "synced", "1", "")
	publish(t, db, "a", "2", "id-2")
	publish(t, db, "a", "3", "")
	fill(true)
	if _, err := tryPublish(db, "synced", "2", "id"); !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	wantRead(t, db, "a", "1:1", "2:2", "3:3")
	if r := info(t, db, "a").Risk; r.Msgs != 2 {
		t.Errorf("at risk: %+v, want 2 messages", r)
	}
	if r := publish(t, db, "a", "2", "id-2"); !r.Duplicate || r.Seq != 2 {
		t.Errorf("repeat: %+v", r)
	}
	fill(false)
	if r := publish(t, db, "synced", "2", "id"); r.Seq != 2 || r.Duplicate {
		t.Errorf("again with room: %+v", r)
	}
	if r := info(t, db, "a").Risk; r.Msgs != 0 {
		t.Errorf("at risk: %+v, want nothing", r)
	}
	publish(t, db, "a", "4", "")
	db.Close()
	wantRead(t, open(t, dir), "a", "1:1", "2:2", "3:3", "4:4")
}

// A batch stream that drops keeps its limits at every moment.
func TestStream_Batch_limits(t *testing.T) {
	db := open(t, t.TempDir())
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Batch, BatchFor: never, MaxMsgs: 10, OnFull: store.DropOldest})
	ensure(t, db, store.StreamConfig{Name: "b", Durability: store.Batch, BatchFor: never, MaxMsgs: 10})
	publish(t, db, "a", "0", "")
	publish(t, db, "b", "0", "")
	commits := db.Stats().Commits
	for i := range 99 {
		publish(t, db, "a", strconv.Itoa(i+1), "")
		if i := info(t, db, "a"); i.Msgs > 10 {
			t.Fatalf("the stream holds %d messages", i.Msgs)
		}
	}
	if i := info(t, db, "a"); i.Dropped["full"] != 90 || i.Last != 100 || i.First != 91 || i.Risk.Msgs != 10 {
		t.Errorf("got %+v", i)
	}
	if n := db.Stats().Commits; n != commits {
		t.Errorf("%d commits to keep a limit", n-commits)
	}
	flush(t, db)
	for i := range 95 { // from now on what is on disk has to go first
		publish(t, db, "a", strconv.Itoa(100+i), "")
	}
	if n := db.Stats().Commits; n != commits+1 {
		t.Errorf("%d commits to keep a limit", n-commits)
	}
	if got := read(t, db, "a"); len(got) != 10 || got[0] != "186:185" {
		t.Errorf("got %v", got)
	}
	flush(t, db)
	if i := info(t, db, "a"); i.Dropped["full"] != 185 || i.Msgs != 10 || i.First != 186 {
		t.Errorf("got %+v", i)
	}
	for i := range 9 {
		publish(t, db, "b", strconv.Itoa(i+1), "")
	}
	if _, err := tryPublish(db, "b", "one more", ""); !errors.Is(err, store.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
}

// More than is reserved, and more than is held, goes to the disk in between.
func TestStream_Batch_many(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Batch, BatchFor: never})
	var wg sync.WaitGroup
	const publishers, each = 64, 700
	for range publishers {
		wg.Go(func() {
			for range each {
				if _, err := tryPublish(db, "a", "x", ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := db.Stats().Commits; n < 5 || n > 200 {
		t.Errorf("%d messages took %d commits", publishers*each, n)
	}
	crashed := copyStore(t, dir)
	risk := info(t, db, "a").Risk.Msgs
	db.Close()
	db = open(t, dir)
	if i := info(t, db, "a"); i.Msgs != publishers*each || i.Last != publishers*each {
		t.Errorf("got %d messages up to %d", i.Msgs, i.Last)
	}
	db = open(t, crashed)
	if i := info(t, db, "a"); i.Msgs < publishers*each-risk || i.Last < publishers*each {
		t.Errorf("after a crash: %d messages up to %d, and %d were at risk", i.Msgs, i.Last, risk)
	}
}

// A note that goes with a message does not make it wait for the disk.
func TestTurn_Loose(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a", Durability: store.Batch, BatchFor: never})
	ensure(t, db, store.StreamConfig{Name: "memory", Durability: store.Memory})
	publish(t, db, "a", "1", "")
	publish(t, db, "memory", "1", "")
	commits := db.Stats().Commits
	put := func(stream, v string) {
		t.Helper()
		commit(t, db, func(turn *store.Turn) {
			turn.Get("s", "k")
			turn.Put("s", "k", []byte(v))
			turn.Publish(stream, store.Message{Subject: "x", Data: []byte(v)})
			turn.Loose()
		})
		if got := value(t, db, "s", "k"); got != v {
			t.Fatalf("got %q, want %q", got, v)
		}
	}
	put("a", "2")
	put("a", "3")
	if n := db.Stats().Commits - commits; n != 0 {
		t.Errorf("%d commits", n)
	}
	crashed := copyStore(t, dir)
	flush(t, db)
	now := copyStore(t, dir)
	put("memory", "2")
	waitFor(t, "state beside a stream in memory to be written", func() bool { return db.Stats().Commits == commits+2 })
	db.Close()
	for _, c := range []struct{ dir, state, messages string }{{crashed, "", "[1:1]"}, {now, "3", "[1:1 2:2 3:3]"}, {dir, "2", "[1:1 2:2 3:3]"}} {
		db := open(t, c.dir)
		if got := value(t, db, "s", "k"); got != c.state {
			t.Errorf("state %q, want %q", got, c.state)
		}
		if got := fmt.Sprint(read(t, db, "a")); got != c.messages {
			t.Errorf("messages %s, want %s", got, c.messages)
		}
		db.Close()
	}
}

// What a batch stream holds on to does not keep another one from being trimmed,
// and limits that are lowered hold soon.
func TestStream_Batch_housekeeping(t *testing.T) {
	db := open(t, t.TempDir())
	batch := func(name string) store.StreamConfig {
		return store.StreamConfig{Name: name, Durability: store.Batch, BatchFor: never, OnFull: store.DropOldest}
	}
	ensure(t, db, batch("busy"), "a")
	old := batch("old")
	old.MaxAge = 50 * time.Millisecond
	ensure(t, db, old)
	ensure(t, db, batch("done"), "sub")
	for _, s := range []string{"busy", "old", "done"} {
		publish(t, db, s, "1", "")
		publish(t, db, s, "2", "")
	}
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", 2) })
	flush(t, db)
	for range 20 {
		publish(t, db, "busy", "x", "")
	}
	waitFor(t, "old messages to go", func() bool { return info(t, db, "old").Dropped["age"] == 2 })
	if i := info(t, db, "busy"); i.Risk.Msgs != 20 {
		t.Errorf("at risk: %+v", i.Risk)
	}
	less := batch("busy")
	less.MaxMsgs = 5
	ensure(t, db, less)
	waitFor(t, "the lower limit", func() bool { return info(t, db, "busy").Msgs == 5 })
}

// What somebody has acknowledged beyond what is on disk is no damage.
func TestCheck_toldFirst(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	for _, c := range []store.StreamConfig{{Name: "memory", Durability: store.Memory}, {Name: "batch", Durability: store.Batch, BatchFor: never}} {
		ensure(t, db, c)
		for range 5 {
			publish(t, db, c.Name, "x", "")
		}
		if err := db.EnsureSubscription(store.SubscriptionConfig{Name: c.Name, Stream: c.Name, Start: store.Start{At: store.StartNew}}); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := store.Check(t.Context(), copyStore(t, dir)); err != nil || r.Damaged {
		t.Errorf("got %+v, %v", r, err)
	}
}
