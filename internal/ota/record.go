package ota

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/edged-io/edged/internal/atomicfile"
)

// recordFormat is the version of the files state.json, current and rollback.
const recordFormat = 1

// maxRecord is the largest such file that is read, in bytes.
const maxRecord = 2 * maxDesired

// record is the state of the box's update, in state.json.
type record struct {
	Format  int      `json:"format"`
	State   State    `json:"state"`
	Desired *Desired `json:"desired,omitempty"`
	Trials  int      `json:"trials,omitempty"` // begun and not ended
	// Admitted says that the dates of its signature were checked; they count once.
	Admitted bool   `json:"admitted,omitempty"`
	Error    string `json:"error,omitempty"`
	Refused  bool   `json:"refused,omitempty"` // because of its signature
}

// release is what the files current and rollback of an app hold.
type release struct {
	Format  int     `json:"format"`
	Desired Desired `json:"desired"`
}

// errDamaged is wrapped where a file of ours does not read.
var errDamaged = errors.New("damaged")

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return atomicfile.WriteFile(path, append(b, '\n'), 0o600)
}

// readJSON leaves v alone and returns fs.ErrNotExist if there is no such file.
func readJSON(path string, v any) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxRecord {
		return fmt.Errorf("read %s: not a file of at most %d bytes: %w", path, maxRecord, errDamaged)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w: %w", path, errDamaged, err)
	}
	return nil
}

func (d disk) loadRecord() (record, error) {
	r := record{}
	err := readJSON(d.stateFile(), &r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return record{Format: recordFormat, State: Idle}, nil
	case err != nil:
		return record{}, err
	case r.Format != recordFormat:
		return record{}, fmt.Errorf("read %s: format %d, want %d: %w", d.stateFile(), r.Format, recordFormat, errDamaged)
	}
	if r.Desired == nil {
		return record{Format: recordFormat, State: Idle}, nil
	}
	if err := r.Desired.check(); err != nil {
		return record{}, fmt.Errorf("read %s: %w: %w", d.stateFile(), errDamaged, err)
	}
	return r, nil
}

// quarantineDir is where a damaged file goes, beside damaged stores. Whatever is in
// it is named by the health of the box until somebody removes it.
const quarantineDir = "quarantine"

// setAside moves a damaged file into the quarantine, so that the box comes up without
// it and a person can look at it. It returns where it is.
func (d disk) setAside(path string) (aside string, err error) {
	dir := filepath.Join(d.root, quarantineDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		aside = filepath.Join(dir, fmt.Sprintf("%s-%d", filepath.Base(path), n))
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		if err := os.Rename(path, aside); err != nil {
			return "", err
		}
		return aside, errors.Join(atomicfile.SyncDir(dir), atomicfile.SyncDir(filepath.Dir(path)))
	}
}

// loadRelease reads the file current or rollback of an app.
func (d disk) loadRelease(app, which string) (Desired, error) {
	var r release
	path := filepath.Join(d.appDir(app), which)
	if err := readJSON(path, &r); err != nil {
		return Desired{}, err
	}
	if err := r.Desired.check(); err != nil || r.Format != recordFormat || r.Desired.App != app {
		return Desired{}, fmt.Errorf("read %s: not a release of %s in format %d: %w", path, app, recordFormat, errors.Join(errDamaged, err))
	}
	return r.Desired, nil
}

func (d disk) saveRelease(which string, desired Desired) error {
	path := filepath.Join(d.appDir(desired.App), which)
	return writeJSON(path, release{Format: recordFormat, Desired: desired})
}
