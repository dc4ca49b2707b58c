//go:build unix

package runtime

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes a folder for this process until unlock is called, or the process ends;
// ok is false while another has it. File systems that have no locks let everybody in.
func tryLock(dir string) (unlock func(), ok bool, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, false, f.Close()
	}
	return func() { _ = f.Close() }, true, nil // only read from
}
