package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edged-io/edged/store"
)

// filled makes a store with 2,000 messages, state and a position, and returns
// the bytes of its file.
func filled(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	for part := range 20 {
		commit(t, db, func(turn *store.Turn) {
			for i := range 100 {
				n := part*100 + i
				turn.Publish("a", store.Message{Subject: "s", Data: fmt.Appendf(nil, "message %d", n+1), ID: fmt.Sprint(n)})
				turn.Put("state", fmt.Sprint(n), fmt.Appendf(nil, "value %d", n))
			}
		})
	}
	commit(t, db, func(turn *store.Turn) { turn.AckUpTo("sub", 10) })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	// bbolt grows a file in big steps; what no page uses is only in the way.
	used := (len(bytes.TrimRight(b, "\x00")) + 4095) / 4096 * 4096
	return b[:used]
}

// openDamaged opens a store whose file holds b, and returns what can be read
// of stream a. Whatever is read has to be what was written.
func openDamaged(t *testing.T, b []byte) (kept int, log string, dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "store.db"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	db, err := store.Open(store.Options{Dir: dir, Logger: slog.New(slog.NewTextHandler(&buf, nil))})
	if err != nil {
		t.Fatalf("a damaged store has to open: %v", err)
	}
	defer db.Close()
	for _, info := range db.Streams() {
		err := db.Read(info.Name, 0, 1<<20, 1<<30, func(m store.Message) error {
			if want := fmt.Sprintf("message %d", m.Seq); string(m.Data) != want {
				t.Fatalf("message %d reads %q", m.Seq, m.Data)
			}
			kept++
			return nil
		})
		if err != nil {
			t.Fatalf("read %s: %v", info.Name, err)
		}
	}
	// It takes more: numbers go on behind what was there.
	ensure(t, db, store.StreamConfig{Name: "a"})
	if _, err := tryPublish(db, "a", "new", ""); err != nil {
		t.Fatalf("publish after salvage: %v", err)
	}
	return kept, buf.String(), dir
}

func TestOpen_truncated(t *testing.T) {
	whole := filled(t)
	for _, keep := range []int{0, 1, 4095, 4096, 8192, 16384, len(whole) / 2, len(whole) - 4096} {
		kept, log, dir := openDamaged(t, whole[:keep])
		if !strings.Contains(log, "damaged") {
			t.Errorf("%d of %d bytes: the log says nothing of it:\n%s", keep, len(whole), log)
		}
		aside, err := os.ReadFile(filepath.Join(dir, store.QuarantineDir, "store-1.db"))
		if err != nil || !bytes.Equal(aside, whole[:keep]) {
			t.Errorf("%d of %d bytes: the damaged file is not in quarantine as it was: %v", keep, len(whole), err)
		}
		t.Logf("%d of %d bytes: %d of 1990 messages", keep, len(whole), kept)
	}
}

func TestOpen_flippedBits(t *testing.T) {
	whole := filled(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	least := 1990
	for range 150 {
		b := bytes.Clone(whole)
		b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		kept, _, _ := openDamaged(t, b)
		least = min(least, kept)
	}
	t.Logf("at least %d of 1990 messages kept", least)
}

func TestOpen_zeroedPages(t *testing.T) {
	whole := filled(t)
	for page := 0; page*4096 < len(whole); page += 7 {
		b := bytes.Clone(whole)
		clear(b[page*4096 : min((page+1)*4096, len(b))])
		openDamaged(t, b)
	}
}

func TestOpen_damagedMessageLeavesTheOthers(t *testing.T) {
	b := filled(t)
	b[bytes.LastIndex(b, []byte("message 1234"))] ^= 1
	kept, log, _ := openDamaged(t, b)
	if kept < 1989 {
		t.Fatalf("one flipped bit cost %d messages", 1990-kept)
	}
	if kept == 1989 && !strings.Contains(log, "1234-1234") {
		t.Fatalf("the log does not name the lost message:\n%s", log)
	}
}

func TestDB_syncFails(t *testing.T) {
	broken := errors.New("i/o error")
	fail := false
	db := openWith(t, store.Options{Dir: t.TempDir(), Failpoint: func(point string) error {
		if fail && point == store.FailpointBeforeSync {
			return broken
		}
		return nil
	}})
	ensure(t, db, store.StreamConfig{Name: "a"})
	publish(t, db, "a", "x", "")
	fail = true
	if _, err := tryPublish(db, "a", "y", ""); !errors.Is(err, store.ErrFailed) || !errors.Is(err, broken) {
		t.Fatalf("got %v, want ErrFailed with its cause", err)
	}
	<-db.Failed()
	fail = false
	if _, err := tryPublish(db, "a", "z", ""); !errors.Is(err, store.ErrFailed) {
		t.Fatalf("after a failed sync: got %v, want ErrFailed", err)
	}
	if !errors.Is(db.Err(), broken) {
		t.Fatalf("Err is %v", db.Err())
	}
}

// A disk without room is not a failure: the group is refused, and what comes
// later can be stored.
func TestDB_diskIsFull(t *testing.T) {
	full := false
	db := openWith(t, store.Options{Dir: t.TempDir(), Failpoint: func(point string) error {
		if full && point == store.FailpointBeforeSync {
			return store.ErrFull
		}
		return nil
	}})
	ensure(t, db, store.StreamConfig{Name: "a"})
	publish(t, db, "a", "x", "")
	reader := db.Begin()
	full = true
	if _, err := tryPublish(db, "a", "y", "id"); !errors.Is(err, store.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	full = false
	if r := publish(t, db, "a", "y", "id"); r.Seq != 2 || r.Duplicate {
		t.Fatalf("again with room: %+v, want 2 and no repeat", r)
	}
	reader.Discard()
	wantRead(t, db, "a", "1:x", "2:y")
}

// A file that loses its end while it is open, or whose pages can not be read any
// more, ends the store and not the process.
func TestDB_cutWhileOpen(t *testing.T) {
	for name, use := range map[string]func(*store.DB) error{
		"read": func(db *store.DB) error {
			return db.Read("a", 0, 1<<20, 1<<30, func(store.Message) error { return nil })
		},
		"write": func(db *store.DB) error {
			turn := db.Begin()
			turn.AckUpTo("sub", 1500) // removes what is not there
			return turn.Commit()
		},
		"check": func(db *store.DB) error {
			r, err := db.Check(t.Context())
			if err == nil && !r.Damaged {
				return errors.New("Check found nothing")
			}
			return nil
		},
		"compact": func(db *store.DB) error {
			_, err := db.Compact(t.Context())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "store.db")
			if err := os.WriteFile(path, filled(t), 0o600); err != nil {
				t.Fatal(err)
			}
			db := open(t, dir)
			if err := os.Truncate(path, 3*4096); err != nil {
				t.Fatal(err)
			}
			if err := use(db); name == "check" {
				if err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, store.ErrDamaged) {
				t.Errorf("got %v, want ErrDamaged", err)
			} else {
				<-db.Failed()
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			db = open(t, dir)
			ensure(t, db, store.StreamConfig{Name: "a"})
			publish(t, db, "a", "more", "")
		})
	}
}
