package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/edged-io/edged/internal/atomicfile"
)

// asNobody runs fn on a thread whose file system identity is that of nobody, since
// permission bits do not bind root. The thread is not used again.
func asNobody(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if os.Geteuid() == 0 {
			runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
			_, _ = unix.SetfsuidRetUid(65534)
		}
		fn()
	}()
	<-done
}

func TestWriteFile_readOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The parent is made passable, so that the refusal is that of dir itself.
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o555)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	var writeErr, readErr error
	asNobody(func() {
		_, readErr = os.ReadFile(path)
		writeErr = atomicfile.WriteFile(path, []byte("new"), 0o644)
	})
	if readErr != nil {
		t.Fatalf("directory is not passable: %v", readErr)
	}
	if !errors.Is(writeErr, fs.ErrPermission) {
		t.Errorf("got %v, want fs.ErrPermission", writeErr)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("got %q, %v, want old", got, err)
	}
	wantOnly(t, dir, "f")
}
