package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Aside is a damaged file in quarantine.
type Aside struct {
	File  string    `json:"file"`
	Bytes int64     `json:"bytes"`
	Store bool      `json:"store"`         // it is a store; others put what they set aside there too
	Lost  []string  `json:"lost"`          // what of it was not carried over, a line each
	Msgs  int64     `json:"messages_lost"` // of all streams
	Since time.Time `json:"time,omitzero"` // when it was set aside; zero if that is not known
}

// Quarantined returns the damaged files that were set aside in the folder of a
// store, by name, with what was lost of each. They are there until somebody
// removes them.
func Quarantined(dir string) ([]Aside, error) {
	dir = filepath.Join(dir, QuarantineDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var files []Aside
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), reportSuffix) {
			continue
		}
		a := Aside{File: filepath.Join(dir, e.Name()), Store: strings.HasPrefix(e.Name(), asidePrefix), Lost: []string{}}
		if info, err := e.Info(); err == nil {
			a.Bytes = info.Size()
		}
		if r, err := readReport(a.File + reportSuffix); err == nil {
			a.Lost, a.Since = append(r.LostLines(), r.Notes...), r.Time
			for _, s := range r.Streams {
				a.Msgs += s.Lost
			}
		}
		files = append(files, a)
	}
	return files, nil
}

// forgetReports removes the reports of files that somebody has removed.
func forgetReports(path string) error {
	dir := filepath.Join(filepath.Dir(path), QuarantineDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreMissing(err)
	}
	for _, e := range entries {
		of, is := strings.CutSuffix(e.Name(), reportSuffix)
		if !is {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, of)); errors.Is(err, os.ErrNotExist) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func readReport(path string) (*Report, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxReport {
		return nil, errors.New("no report")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	return r, json.Unmarshal(b, r)
}
