package store_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/edged-io/edged/store"
)

// A small bucket is inside the page of its parent. Where no root leads there any
// more, the names of streams are found all the same, so that messages do not come
// back under a name that nobody reads.
func TestOpen_rootsGone_keepsNames(t *testing.T) {
	b := slices.Clone(filled(t))
	b[20], b[4096+20] = ^b[20], ^b[4096+20]
	kept, log, dir := openDamaged(t, b)
	if kept < 1990 {
		t.Errorf("%d messages survived, want all of 1990\n%s", kept, log)
	}
	db := open(t, dir)
	defer db.Close()
	if all := db.Streams(); len(all) != 1 || all[0].Name != "a" || all[0].Last < 2001 {
		t.Errorf("streams %+v, want a, numbered on", all)
	}
	files, err := store.Quarantined(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("set aside: %v, %v", files, err)
	}
}

// What is parked is found without a root, too, and comes when it is due.
func TestOpen_rootsGone_keepsWhatIsParked(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	ensure(t, db, store.StreamConfig{Name: "a"}, "sub")
	for range 100 {
		commit(t, db, func(turn *store.Turn) {
			turn.Publish("a", store.Message{Delay: time.Hour, Data: make([]byte, 1000)})
		})
	}
	publish(t, db, "a", "x", "")
	db.Close()
	path := filepath.Join(dir, "store.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[20], b[4096+20] = ^b[20], ^b[4096+20]
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir)
	if info, err := db.Stream("a"); err != nil || info.Delayed != 100 || info.Msgs < 1 {
		t.Errorf("%+v, %v: want 100 that are parked", info, err)
	}
}

// Where no root leads anywhere, a page that is left over must not hide those
// that count: it may claim pages that were its own once.
func TestOpen_rootsGone_strayPages(t *testing.T) {
	whole := filled(t)
	clear(whole[:2*4096])
	for page := 4; page < len(whole)/4096-4; page += 5 {
		b := slices.Clone(whole)
		stray := b[page*4096 : (page+1)*4096]
		clear(stray)
		without, _, _ := openDamaged(t, b)
		binary.LittleEndian.PutUint64(stray, uint64(page))
		binary.LittleEndian.PutUint16(stray[8:], 2)  // a leaf
		binary.LittleEndian.PutUint32(stray[12:], 3) // that goes on for three pages
		if with, log, _ := openDamaged(t, b); with != without {
			t.Errorf("page %d: %d messages, and %d where it claims those behind it\n%s", page, without, with, log)
		}
	}
}
