package store_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/edged-io/edged/store"
)

// version1 is the folder of a store that the first format was written to.
func version1(t testing.TB) string {
	t.Helper()
	packed, err := os.ReadFile("testdata/v1.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "store.db"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// wantVersion1 finds everything that was put into testdata/v1.db.
func wantVersion1(t *testing.T, db *store.DB) {
	t.Helper()
	wantRead(t, db, "telemetry", "3:3", "4:4", "5:5")
	wantRead(t, db, "alarms", "2:fire b", "3:fire c", "4:")
	wantRead(t, db, "empty")
	telemetry, err := db.Stream("telemetry")
	if err != nil || telemetry.MaxMsgs != 3 || telemetry.OnFull != store.DropOldest || telemetry.Dropped["full"] != 2 || telemetry.Last != 5 {
		t.Errorf("telemetry: %+v, %v", telemetry, err)
	}
	if alarms, err := db.Stream("alarms"); err != nil || alarms.MaxBytes != 1<<20 || alarms.MaxAge != 1<<50 || alarms.First != 2 {
		t.Errorf("alarms: %+v, %v", alarms, err)
	}
	err = db.Read("alarms", 2, 1, 1000, func(m store.Message) error {
		if m.Subject != "alarms.b" || string(m.Header) != "NATS/1.0\r\nX: b\r\n\r\n" || m.TTL != 0 || m.Trust != store.TimeUnknown {
			t.Errorf("message %+v", m)
		}
		if y := m.Time.Year(); y != 2026 {
			t.Errorf("stored in %v", m.Time)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{
		"audit":   "{telemetry 0 [5] map[4:3]}",
		"forward": "{telemetry 4 [] map[]}",
		"pager":   "{alarms 1 [3] map[2:7]}",
	} {
		if p, err := db.Position(name); err != nil || fmt.Sprint(p) != want {
			t.Errorf("position of %s: %v, %v; want %s", name, p, err, want)
		}
	}
	for key, want := range map[string]string{"counter": "42", "empty": ""} {
		if got := value(t, db, "kv/app", key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := value(t, db, "other", "k"); got != "v" {
		t.Errorf("other k is %q", got)
	}
	d, err := db.DeadLetter(1)
	if err != nil || d.Stream != "alarms" || d.Subscription != "pager" || d.Attempts != 5 || d.Error != "trap: unreachable" || string(d.Data) != "fire a" || d.ReplayTo != "" {
		t.Errorf("dead letter %+v, %v", d, err)
	}
	if d, err := db.DeadLetter(2); err != nil || d.Reason != "rejected" || db.DeadLetterCount() != 2 {
		t.Errorf("dead letter %+v, %v, one of %d", d, err, db.DeadLetterCount())
	}
}

func TestOpen_version1(t *testing.T) {
	dir := version1(t)
	for range 2 { // as it was, and as it was made
		db := open(t, dir)
		wantVersion1(t, db)
		db.Close()
	}
	db := open(t, dir)
	if r := publish(t, db, "telemetry", "4", "t-4"); !r.Duplicate || r.Seq != 4 {
		t.Errorf("a repeat of what the first format remembers: %+v", r)
	}
	if r := publish(t, db, "alarms", "x", ""); r.Seq != 5 {
		t.Errorf("the next message: %+v", r)
	}
	commit(t, db, func(turn *store.Turn) {
		turn.Ack("pager", 2)
		turn.ReplayDeadLetter(1, "")
		turn.DeadLetter(store.DeadLetter{Stream: "alarms"})
	})
	wantRead(t, db, "alarms", "4:", "5:x")
	wantReplays(t, db, "pager", 1)
	if _, err := db.DeadLetter(3); err != nil {
		t.Error(err)
	}
}

// A power cut on the way leaves the old format, and the next start goes on.
func TestOpen_version1_upgradeFails(t *testing.T) {
	dir := version1(t)
	o := store.Options{Dir: dir, Failpoint: func(point string) error {
		if point == store.FailpointUpgrade {
			return errors.New("power cut")
		}
		return nil
	}}
	if _, err := store.Open(o); !errors.Is(err, store.ErrUnusable) {
		t.Fatalf("got %v, want ErrUnusable", err)
	}
	if files, err := store.Quarantined(dir); err != nil || len(files) > 0 {
		t.Fatalf("set aside: %v, %v", files, err)
	}
	wantVersion1(t, open(t, dir))
}

// A damaged file of the first format is salvaged into the one of today.
func TestOpen_version1_damaged(t *testing.T) {
	dir := version1(t)
	path := filepath.Join(dir, "store.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.LastIndex(b, []byte("fire c"))
	b[i] ^= 1
	for j := bytes.Index(b, []byte("fire c")); j >= 0; j = bytes.Index(b, []byte("fire c")) {
		b[j] ^= 1 // wherever an older page has it
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	db := open(t, dir)
	wantRead(t, db, "telemetry", "3:3", "4:4", "5:5")
	wantRead(t, db, "alarms", "2:fire b", "4:")
	publish(t, db, "telemetry", "x", "")
}
