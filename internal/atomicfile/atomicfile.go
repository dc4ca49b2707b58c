// Package atomicfile replaces small files whole, so that a reader, or a boot
// after a power cut, finds the old content or the new one and never a mixture.
//
// A write goes to a temporary file in the same directory, is synced, is renamed
// over the target, and the directory is synced last. The package does not lock:
// of two concurrent writers one wins. A power cut can leave a temporary file
// behind; its name begins with a dot and contains ".tmp-" (see IsTemp).
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const tempMark = ".tmp-"

// WriteFile replaces the file at path by data with permission bits perm, which
// are set exactly and not reduced by the umask. When it returns nil, the content
// and the name are on disk. When it returns an error, no temporary file is left;
// the old content is untouched, unless the error is that of syncing the directory:
// then the new content is in place, but a power cut may still bring back the old.
// A symbolic link at path is replaced, not followed.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	// Before the rename a power cut leaves the old file, after it the new one. The
	// file is synced first: otherwise the new name could come back empty.
	dir, err := replace(path, data, perm, (*os.File).Sync)
	if err == nil {
		err = SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Replace is WriteFile for what is written anew at each start: nobody sees half of
// it, but a power cut may leave an empty file. It waits for no disk.
func Replace(path string, data []byte, perm fs.FileMode) error {
	if _, err := replace(path, data, perm, func(*os.File) error { return nil }); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// replace puts the new content in place, after settle, and returns its directory.
func replace(path string, data []byte, perm fs.FileMode, settle func(*os.File) error) (dir string, err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+base+tempMark+"*")
	if err != nil {
		return "", err
	}
	err = fill(f, data, perm, settle)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return dir, nil
}

// fill writes and settles f, and closes it in any case.
func fill(f *os.File, data []byte, perm fs.FileMode, settle func(*os.File) error) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = settle(f)
	}
	return errors.Join(err, f.Close())
}

// SyncDir makes the names in dir durable: what was created, renamed or removed
// there before the call survives a power cut after it.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// IsTemp reports whether name (without its directory) is that of a temporary file
// of WriteFile. One that is found at start was left by a power cut and may be removed.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, ".") && strings.Contains(name, tempMark)
}
