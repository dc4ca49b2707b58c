package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

var errLocked = fmt.Errorf("%w; is another edged running on this state directory?", ErrLocked)

// lockDir takes the folder of a store for this process, until the file it
// returns is closed or the process ends. bbolt's own lock is not enough: it is
// on the store file, which Open looks at before bbolt does, and replaces when it
// is damaged, and a file that another process is writing looks damaged. The
// lock is on the folder itself, which is there when the disk is full, too.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = errLocked
	default:
		err = fmt.Errorf("%w: lock %s: %w", ErrUnusable, dir, err)
	}
	return nil, errors.Join(err, f.Close())
}
