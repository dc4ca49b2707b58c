package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// The ballast is a file whose only worth is the room it takes. When the disk is
// full it is given up, so that acknowledging can free pages of the store: even
// that takes some pages first.

const (
	ballastName  = "store.ballast"
	ballastBytes = 1 << 20 // enough for dozens of commits that only acknowledge
	// ballastSlack is the room that has to be left beside a new ballast. Made in
	// the last free bytes it would be given up at once, again and again.
	ballastSlack = 4 << 20
)

// makeBallast takes room for the ballast, unless it is there. It fails where the
// disk has little.
func (db *DB) makeBallast() error {
	path := filepath.Join(db.o.Dir, ballastName)
	if size, err := fileSize(path); err == nil && size == ballastBytes {
		return nil
	}
	if free, err := db.freeRoom(db.o.Dir); err != nil || free < ballastBytes+ballastSlack {
		return errors.Join(fmt.Errorf("%w: the disk has %d bytes left", ErrFull, free), err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	no := syscall.Fallocate(int(f.Fd()), 0, 0, ballastBytes)
	for errors.Is(no, syscall.EINTR) { // Go's own signals interrupt it on some file systems
		no = syscall.Fallocate(int(f.Fd()), 0, 0, ballastBytes)
	}
	if errors.Is(no, syscall.EOPNOTSUPP) || errors.Is(no, syscall.ENOSYS) {
		_, err = f.Write(make([]byte, ballastBytes))
	} else if no != nil {
		err = &fs.PathError{Op: "write", Path: path, Err: no}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return full(errors.Join(err, os.Remove(path)))
	}
	return nil
}

// giveUpBallast gives its room back to the disk.
func (db *DB) giveUpBallast() {
	if err := ignoreMissing(os.Remove(filepath.Join(db.o.Dir, ballastName))); err != nil {
		db.log.Warn("store cannot give up the room it kept for a full disk", "err", err)
	}
}
