package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// A file of a newer program is refused, and not taken for a damaged one: not
// even when it is.
func TestOpen_newer(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.bolt.Update(func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucket([]byte("of-the-future")); err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(versionKey, seal(versionKey, []byte{formatVersion + 1}))
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileName)
	for _, change := range []func([]byte) []byte{
		func(b []byte) []byte { return b },
		func(b []byte) []byte { return b[:len(b)-4096] },
	} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b = change(b)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = Open(Options{Dir: dir})
		if !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), "newer") {
			t.Fatalf("got %v, want ErrUnusable, and why", err)
		}
		if files, err := Quarantined(dir); err != nil || len(files) > 0 {
			t.Fatalf("set aside: %v, %v", files, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(b, after) {
			t.Fatalf("the file was changed (%v)", err)
		}
	}
}
