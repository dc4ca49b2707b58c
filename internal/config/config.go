// Package config reads the two files that say what a box does: the device file, which belongs to the box, and the app manifests, one folder each, which
// belong to what runs on it.
//
// Both are TOML. A key that is unknown, has the wrong type or is out of range, one that this version does not enforce yet, and a file that is named but
// missing are faults; all of them are found in one go, each with file, line and key. A fault never stops the reading, except where the text is not TOML.
// Each key has a default, which is the meaning of leaving it out; docs/device-file.md and docs/manifest.md list them, and a test compares.
//
// Nothing here opens a socket, writes a file or starts anything. Parts of the daemon do not import this package: internal/node translates.
package config

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
)

// MaxFileBytes is the longest device file or manifest.
const MaxFileBytes = 1 << 20

// Fault is one thing that is wrong in a file.
type Fault struct {
	File   string
	Line   int    // from 1; where the key is or, if it is missing, the table it is missing from
	Key    string // like actor[0].limits.memory; empty when the file as a whole is meant
	Reason string
}

func (f Fault) String() string {
	if f.Key == "" {
		return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Reason)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Key, f.Reason)
}

// Faults is everything that is wrong, by file and line. It is never empty when returned as an error; its text has a line for each.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// err returns the faults in order, each once, or nil if there are none.
func (f Faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return f.sorted()
}

func (f Faults) sorted() Faults {
	f = slices.Clone(f)
	slices.SortFunc(f, func(a, b Fault) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(a.Key, b.Key), strings.Compare(a.Reason, b.Reason))
	})
	return slices.Compact(f)
}

//go:embed sample.toml
var sample []byte

// Sample returns the documented device file with which a box starts. It is valid as it is.
func Sample() []byte { return slices.Clone(sample) }

// Check does what can be done to find faults in a device file and in all apps of its box without touching anything. The error is a Faults.
func Check(devicePath string) error {
	d, faults := loadDevice(devicePath)
	if d != nil && d.Apps.Dir != "" {
		_, more := loadApps(d.Apps.Dir, d.CheckApps)
		faults = append(faults, more...)
	}
	return faults.err()
}

// readFile reads a file of at most MaxFileBytes.
func readFile(path string, open func(path string, flag int, mode os.FileMode) (*os.File, error)) ([]byte, error) {
	f, err := open(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe is refused below, not waited for
	if err != nil {
		return nil, plainCause(err)
	}
	defer f.Close() // only read from
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cmp.Or(err, errors.New("not a regular file"))
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err == nil && len(data) > MaxFileBytes {
		err = fmt.Errorf("longer than %d bytes", MaxFileBytes)
	}
	return data, plainCause(err)
}

// plainCause takes operation and path away from an error: a fault names the file already.
func plainCause(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
