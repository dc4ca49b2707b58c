package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// Check reads the whole store in dir and reports what it holds and what is
// damaged; it changes nothing. It fails with ErrLocked while a process has the
// store open, which can be asked then (DB.Check), and with ErrUnusable where
// there is no store. Damage is no error of Check. It takes some hundred KiB of
// memory and 32 KiB for each GiB of the file.
func Check(ctx context.Context, dir string) (Report, error) {
	path := filepath.Join(dir, fileName)
	r, err := checkLocked(ctx, path)
	if err != nil {
		return Report{}, fmt.Errorf("check store %s: %w", path, err)
	}
	return *r, nil
}

func checkLocked(ctx context.Context, path string) (_ *Report, err error) {
	lock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a := newAudit(ctx, f, false)
	if err := a.file(path); err != nil {
		return nil, err
	}
	a.conclude()
	return a.r, quarantineOf(a.r, path)
}

// Check is the function Check for a store that is open: it reads the file as
// the last commit left it. Meanwhile no page that is freed is used again. Damage
// that it finds is reported; the store goes on until it comes across it.
func (db *DB) Check(ctx context.Context) (Report, error) {
	db.compacting.Lock() // or the swap would wait for this, and the writer with it
	defer db.compacting.Unlock()
	path := filepath.Join(db.o.Dir, fileName)
	var r *Report
	check := func() error {
		return db.view(func(tx *bolt.Tx) error {
			f, err := openPlain(path)
			if err != nil {
				return err
			}
			defer f.Close()
			a := newAudit(ctx, f, false)
			if err := a.snapshot(path, uint64(tx.ID())); err != nil {
				return err
			}
			a.conclude()
			r = a.r
			return quarantineOf(a.r, path)
		})
	}
	err := check()
	for tries := 0; errors.Is(err, ErrBusy) && tries < snapshotTries; tries++ {
		err = check()
	}
	if err != nil {
		return Report{}, fmt.Errorf("check store %s: %w", path, err)
	}
	return *r, nil
}

// snapshotTries is how often two commits may be faster than reading 80 bytes.
const snapshotTries = 100

// openPlain opens a store file for plain reads.
func openPlain(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnusable, err), f.Close())
	}
	return f, nil
}

// checkFile finds what bbolt must not be given, and what no reader must get.
// bbolt trusts the file it maps: it walks the whole tree at open, partly in a
// goroutine of its own, and a page that makes no sense, or lies beyond the end
// of the file, ends the process. So everything is read here first, once, with
// plain reads: the trees, every value with its checksum, and whether the parts
// agree. The first that is wrong is an error.
//
// What values take, by space, is counted on the way.
func checkFile(path string) (notes []string, used spaces, err error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, used, err
	}
	defer f.Close()
	a := newAudit(context.Background(), f, true)
	if err := a.file(path); err != nil {
		return nil, used, err
	}
	return a.r.Notes, a.spaces, nil
}

// Bounds of what is remembered of damage.
const (
	maxGaps = 4096
	maxGone = 4096
)

func quarantineOf(r *Report, path string) error {
	files, err := Quarantined(filepath.Dir(path))
	r.Quarantine = append(r.Quarantine, files...)
	return err
}
