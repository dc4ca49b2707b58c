package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A store that has lost its clock goes on from its newest message: what is parked
// does not wait for as long as the store has ever been open.
func TestOpen_rootsGone_clockGoesOn(t *testing.T) {
	const age = 10_000 * time.Hour
	for _, parked := range []bool{false, true} {
		dir := t.TempDir()
		db, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.EnsureStream(StreamConfig{Name: "a"}); err != nil {
			t.Fatal(err)
		}
		db.Close()
		path := filepath.Join(dir, fileName)
		file, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(clockKey, sealClock(age)) }); err != nil {
			t.Fatal(err)
		}
		file.Close()
		if db, err = Open(Options{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		m := Message{Subject: "x", Data: make([]byte, 8000)}
		if parked {
			m.Delay = time.Hour
		}
		turn := db.Begin()
		if _, err := turn.Publish("a", m); err != nil {
			t.Fatal(err)
		}
		if err := turn.Commit(); err != nil {
			t.Fatal(err)
		}
		db.Close()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[20], b[4096+20] = ^b[20], ^b[4096+20]
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if db, err = Open(Options{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if now := db.Elapsed(); now < age {
			t.Errorf("parked %t: the clock is at %s, want %s", parked, now, age)
		}
		if wait := db.untilRelease(); parked && (wait > time.Hour || wait < 59*time.Minute) {
			t.Errorf("what is parked for an hour waits for %s", wait)
		}
	}
}
