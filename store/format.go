package store

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// formatVersion is raised when an older program could misread the file.
//
//	1  the first
//	2  frames of messages with flags; timeline; delayed messages; producers
const formatVersion = 2

var versionKey = []byte("version")

// addedBuckets are those that a file has only from a version on.
var addedBuckets = map[string]int{string(bucketDelayed): 2, string(bucketProducers): 2}

// readVersion returns the version of the file.
func readVersion(tx *bolt.Tx) (int, error) {
	var v []byte
	if b := tx.Bucket(bucketMeta); b != nil {
		v = b.Get(versionKey)
	}
	return decodeVersion(v)
}

func decodeVersion(v []byte) (int, error) {
	b, err := unseal(versionKey, v)
	if err != nil || len(b) != 1 || b[0] == 0 {
		return 0, fmt.Errorf("format version: %w", ErrDamaged)
	}
	if b[0] > formatVersion {
		return 0, fmt.Errorf("%w: it was written by a newer edged, in format %d, and this one knows %d: install the newer one again", ErrUnusable, b[0], formatVersion)
	}
	return int(b[0]), nil
}

func putVersion(tx *bolt.Tx) error {
	return tx.Bucket(bucketMeta).Put(versionKey, seal(versionKey, []byte{formatVersion}))
}

// checkBuckets finds whether all buckets of that version are there.
func checkBuckets(tx *bolt.Tx, version int) error {
	for _, name := range allBuckets {
		if tx.Bucket(name) == nil && addedBuckets[string(name)] <= version {
			return fmt.Errorf("bucket %s is missing: %w", name, ErrDamaged)
		}
	}
	return nil
}

// upgrade brings a file of an earlier version to this one, in one transaction:
// a power cut leaves the one or the other. What is stored stays as it is.
func (db *DB) upgrade(from int) error {
	if from == formatVersion {
		return nil
	}
	err := db.update(func(tx *bolt.Tx) error {
		for _, name := range allBuckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if err := putVersion(tx); err != nil {
			return err
		}
		return db.o.Failpoint(FailpointUpgrade)
	})
	if err != nil {
		return fmt.Errorf("%w: upgrade from format %d to %d: %w", ErrUnusable, from, formatVersion, err)
	}
	db.log.Info("store upgraded", "from", from, "to", formatVersion)
	return nil
}
