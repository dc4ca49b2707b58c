package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// backlog fills stream a with so many MiB that "sub" has not acknowledged, and
// lets it go again: the file is large, and nearly empty.
func backlog(t *testing.T, db *store.DB, mib int) {
	t.Helper()
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	var last uint64
	for range mib {
		commit(t, db, func(turn *store.Turn) {
			for range 64 {
				if _, err := turn.Publish("a", store.Message{Subject: "s", Data: make([]byte, 16<<10)}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	info, err := db.Stream("a")
	if err != nil {
		t.Fatal(err)
	}
	last = info.Last
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", last) })
	eventually(t, "the stream is empty", func() bool {
		info, err := db.Stream("a")
		return err == nil && info.Msgs == 0
	})
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		wait := time.NewTimer(time.Millisecond)
		<-wait.C
	}
}

func sizeOf(t *testing.T, dir string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func wantNoCopy(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "store.db.new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a copy is left: %v", err)
	}
}

// Room is given back while publishers, readers and watchers go on, and all they
// were told is stored is there.
func TestDB_Compact_givesRoomBack(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	backlog(t, db, 24)
	commit(t, db, func(turn *store.Turn) { turn.Put("space", "key", []byte("value")) })
	before := sizeOf(t, dir)
	ensure(t, db, store.StreamConfig{Name: "b"}, "b-sub")
	wake, stop, err := db.Watch("b")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()

	var done atomic.Bool
	var published atomic.Uint64
	var wg sync.WaitGroup
	for p := range 3 {
		wg.Go(func() {
			for n := 0; !done.Load(); n++ {
				r, err := tryPublish(db, "b", fmt.Sprintf("%d-%d", p, n), fmt.Sprintf("%d-%d", p, n))
				if err != nil {
					t.Errorf("publish: %v", err)
					return
				}
				published.Add(1)
				if err := db.Read("b", r.Seq, 1, 1<<20, func(m store.Message) error {
					if m.Seq != r.Seq {
						return fmt.Errorf("read %d, want %d", m.Seq, r.Seq)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	rounds := 0
	eventually(t, "three compactions", func() bool {
		r, err := db.Compact(t.Context())
		if errors.Is(err, store.ErrBusy) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if rounds++; rounds == 1 && (r.Before != before || r.After > before/2 || r.Took < r.Paused) {
			t.Errorf("%+v of a file of %d bytes that holds next to nothing", r, before)
		}
		return rounds == 3
	})
	woken := published.Load()
	eventually(t, "publishers go on", func() bool { return published.Load() > woken+3 })
	<-wake
	done.Store(true)
	wg.Wait()
	select {
	case <-wake: // of what came after the token before
	default:
	}
	publish(t, db, "b", "last", "")
	<-wake
	for range 2 {
		info, err := db.Stream("b")
		if err != nil || info.Msgs != int64(published.Load()+1) {
			t.Errorf("%+v, %v: want %d messages", info, err, published.Load()+1)
		}
		if got := len(read(t, db, "b")); got != int(published.Load()+1) {
			t.Errorf("%d messages can be read, want %d", got, published.Load()+1)
		}
		if got := value(t, db, "space", "key"); got != "value" {
			t.Errorf("value %q", got)
		}
		if r, err := tryPublish(db, "b", "0-0", "0-0"); err != nil || !r.Duplicate {
			t.Errorf("a repeat is taken for new: %+v, %v", r, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		wantNoCopy(t, dir)
		if after := sizeOf(t, dir); after > before/2 {
			t.Errorf("the file has %d bytes of %d", after, before)
		}
		db = open(t, dir)
	}
}

// A power cut on either side of the swap leaves a whole file with everything.
func TestDB_Compact_crash(t *testing.T) {
	for _, point := range []string{store.FailpointBeforeSwap, store.FailpointAfterSwap} {
		t.Run(point, func(t *testing.T) {
			dir, after := t.TempDir(), t.TempDir()
			db := openWith(t, store.Options{Dir: dir, Failpoint: func(p string) error {
				if p == point {
					// What is on the disk now is what a crash leaves.
					return os.CopyFS(after, os.DirFS(dir))
				}
				return nil
			}})
			backlog(t, db, 2)
			publish(t, db, "a", "kept", "id")
			if _, err := db.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
			copied := open(t, after)
			for _, db := range []*store.DB{copied, db} {
				wantRead(t, db, "a", "129:kept")
				if r := publish(t, db, "a", "kept", "id"); !r.Duplicate {
					t.Errorf("a repeat is taken for new: %+v", r)
				}
				publish(t, db, "a", "more", "")
				wantRead(t, db, "a", "129:kept", "130:more")
			}
			wantNoCopy(t, after)
		})
	}
}

func TestDB_Compact_fails(t *testing.T) {
	broken := errors.New("i/o error")
	at := ""
	o := store.Options{Dir: t.TempDir(), Failpoint: func(p string) error {
		if p == at {
			return broken
		}
		return nil
	}}
	db := openWith(t, o)
	backlog(t, db, 2)
	publish(t, db, "a", "kept", "")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.Compact(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: got %v", err)
	}
	at = store.FailpointBeforeSwap
	if _, err := db.Compact(t.Context()); !errors.Is(err, broken) {
		t.Errorf("before the swap: got %v", err)
	}
	wantNoCopy(t, o.Dir)
	if _, err := db.Compact(t.Context()); !errors.Is(err, broken) { // and again
		t.Errorf("before the swap: got %v", err)
	}
	publish(t, db, "a", "more", "")
	wantRead(t, db, "a", "129:kept", "130:more")

	// It is not known which file a power cut would leave: nothing may be
	// committed to either.
	at = store.FailpointAfterSwap
	if _, err := db.Compact(t.Context()); !errors.Is(err, broken) {
		t.Errorf("after the swap: got %v", err)
	}
	if _, err := tryPublish(db, "a", "late", ""); !errors.Is(err, store.ErrFailed) {
		t.Errorf("publish after it: got %v, want ErrFailed", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Compact(t.Context()); !errors.Is(err, store.ErrClosed) && !errors.Is(err, store.ErrFailed) {
		t.Errorf("closed: got %v", err)
	}
	at = ""
	wantRead(t, openWith(t, o), "a", "129:kept", "130:more")
}

func TestCompact_offline(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	backlog(t, db, 8)
	if _, err := store.Compact(t.Context(), store.Options{Dir: dir}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("of a store in use: got %v, want ErrLocked", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := store.Compact(t.Context(), store.Options{Dir: dir})
	if err != nil || r.After > r.Before/4 || r.After != sizeOf(t, dir) {
		t.Errorf("%+v, %v", r, err)
	}
	// What a crash left is not in the way, and goes.
	for _, name := range []string{"store.db.new", "store.db.salvaged"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("x", 9000)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, open(t, dir), "a", "more", "")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 { // the store and its ballast
		t.Errorf("left in the folder: %v, %v", entries, err)
	}
}
